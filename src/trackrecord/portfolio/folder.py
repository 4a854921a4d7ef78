"""Putting a portfolio in place: all of it or nothing, and never over someone's other files.

Invariant: at every moment `out` is the old portfolio, the new one, or (for an instant, between two
renames) absent; a failure leaves the old one where it was. Only a folder that carries the marker is
ever replaced.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mini_vllm.errors import InvalidInputError

MARKER = ".trackrecord-portfolio"
_MARKER_TEXT = (
    b"This folder was written by `trackrecord portfolio build`, which may replace it whole.\n"
)


@contextmanager
def portfolio_folder(out: Path) -> Iterator[Path]:
    """A new, empty folder beside `out` that takes its place when the block ends well.

    Raises:
        InvalidInputError: at once, if `out` is something else than a portfolio or cannot be
            written, so that nobody measures for minutes in vain.
    """
    out = out.resolve()
    _refuse_foreign(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.new-", dir=out.parent))
    except OSError as error:
        raise InvalidInputError(f"cannot write {str(out)!r}: {error.strerror}") from None
    try:
        yield draft
        (draft / MARKER).write_bytes(_MARKER_TEXT)
        draft.chmod(0o755)  # mkdtemp's folders are private; this one is to be published
        _refuse_foreign(out)
        _replace(out, draft)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes `files`, by path relative to `folder`, making folders as needed."""
    for name, content in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"file {name!r} is outside the portfolio")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _refuse_foreign(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise InvalidInputError(f"{str(out)!r} is a file: give a folder to write the portfolio to")
    if any(out.iterdir()) and not (out / MARKER).is_file():
        raise InvalidInputError(
            f"{str(out)!r} exists and is not a portfolio (it has no {MARKER}): "
            f"choose another folder, or empty this one"
        )


def _replace(out: Path, draft: Path) -> None:
    """Puts `draft` where `out` is."""
    if not out.exists():
        os.rename(draft, out)
        return
    old = draft.with_name(draft.name.replace(".new-", ".old-"))
    os.rename(out, old)
    try:
        os.rename(draft, out)
    except OSError:
        os.rename(old, out)
        raise
    shutil.rmtree(old, ignore_errors=True)
