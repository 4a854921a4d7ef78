"""Text from outside, made fit for a terminal."""

from __future__ import annotations

import re

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """`text` with lines and tabs as they are and every other control character made visible.

    A model can write escape sequences: they could move the cursor, rename the window or hide what
    was said. Controls of writing direction can make text read as something else.
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
