"""The journal of evidence: the runs, measurements and statements behind a pull request.

Invariant: an entry that `Journal` returns is one that this program wrote (`entry_shape`), in a
journal that is what was written (`trackrecord.journal`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trackrecord.errors import WorkspaceError
from trackrecord.journal import Entry, JournalFile, Verdict, Writer, locked
from trackrecord.pr.entry_shape import checked
from trackrecord.workspace import Workspace

__all__ = ["Entry", "Journal", "Kind", "Verdict"]

Kind = Literal["run", "bench", "statement"]
FOLDER = "evidence"
FILE = "journal.jsonl"


@dataclass(frozen=True)
class Journal:
    """The journal of a workspace."""

    workspace: Workspace

    @property
    def path(self) -> Path:
        return self.workspace.root / FOLDER / FILE

    def entries(self) -> list[Entry]:
        """Every entry, oldest first; none if there is no journal.

        Raises:
            WorkspaceError: a line is no entry, does not follow the one before, or holds what no
                command writes.
        """
        content = JournalFile(self.path).read()
        if content.damaged_line:
            raise WorkspaceError(
                f"{self.path}, line {content.damaged_line}: not what was written there: run "
                f"`trackrecord evidence verify`"
            )
        return list(checked(content.entries))

    def append(self, kind: Kind, data: dict[str, Any]) -> Entry:
        """Adds an entry, stamped with the time.

        Raises:
            WorkspaceError: the workspace cannot be written, or the journal is damaged.
        """
        with self._writer() as writer:
            return writer.append(kind, data)

    def check_writable(self) -> None:
        """Says at once what would keep `append` from recording, before anything is done for it.

        Raises:
            WorkspaceError: as `append`.
        """
        with self._writer():
            pass

    def verify(self) -> Verdict:
        """Checks every entry, and that none is missing at the end."""
        return JournalFile(self.path).read().verdict

    @contextmanager
    def _writer(self) -> Iterator[Writer]:
        self.workspace.create()
        with locked(self.path.with_name("lock")), JournalFile(self.path).writer() as writer:
            checked(writer.entries)
            yield writer
