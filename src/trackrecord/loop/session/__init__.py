"""Sitting the loop: what is asked, how long it may take, and a journal of all that was answered.

`plan` draws the items, `clock` measures, `sit` conducts, `terminal` and `lines` face the person,
`state` is what a journal's entries come to, `record` reads a run back from its journal alone.
"""

from __future__ import annotations

from trackrecord.errors import TrackRecordError


class SessionError(TrackRecordError):
    """A run cannot be begun, gone on with, or read."""
