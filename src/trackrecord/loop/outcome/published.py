"""What of the loop a person chose to publish.

Invariants: nothing is published until it is chosen, run by run; of a run only what `select` lets
through can reach a page. An answer that touches an area which is left out is left out whole, so
that no score or word of it shows through another area.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from mini_vllm.console import printable
from trackrecord.errors import TrackRecordError
from trackrecord.loop.areas import loop_areas
from trackrecord.loop.graded import GradedAnswer, GradedRun
from trackrecord.workspace import Workspace, write_whole

FOLDER = "loop"
FILE = "published.json"
_MOST_BYTES = 100_000

Texts = Literal["none", "quotes", "whole"]
"""How much of the candidate's own words: none, the quotations that are evidence, or the answers."""


class PublishedError(TrackRecordError):
    """What was chosen cannot be read, or does not fit the runs that there are."""


@dataclass(frozen=True)
class Published:
    """The choice.

    Args:
        runs: names of runs; none means that nothing is published.
        texts: how much of the candidate's words.
        without: folders of areas that are left out, as `02-paged-kv-cache`.
    """

    runs: tuple[str, ...] = ()
    texts: Texts = "none"
    without: tuple[str, ...] = ()

    def select(self, runs: Sequence[GradedRun]) -> list[GradedRun]:
        """The chosen runs, with the answers that may be shown.

        Raises:
            PublishedError: a chosen run is not among `runs`.
        """
        _check_runs(self.runs, {run.run for run in runs})
        return [
            replace(run, answers=tuple(filter(self._shows, run.answers)))
            for run in runs
            if run.run in self.runs
        ]

    def _shows(self, graded: GradedAnswer) -> bool:
        return not any(area.folder in self.without for area in graded.areas)


def everything(runs: Iterable[GradedRun]) -> Published:
    """All of it: for the person's own eyes."""
    return Published(tuple(run.run for run in runs), "whole")


def publish(workspace: Workspace, published: Published, runs: Sequence[GradedRun]) -> None:
    """Stores the choice in place of the one before; `Published()` takes everything back.

    Raises:
        PublishedError: a run is not among `runs`, or an area is not known.
        WorkspaceError: the workspace cannot be written.
    """
    _check_runs(published.runs, {run.run for run in runs})
    _check_areas(published.without)
    workspace.create()
    document = {
        "runs": list(published.runs),
        "texts": published.texts,
        "without": list(published.without),
    }
    write_whole(workspace.root / FOLDER / FILE, json.dumps(document, indent=1) + "\n")


def read_published(workspace: Workspace) -> Published:
    """The choice; nothing where there is none.

    Raises:
        PublishedError: the file is not one that `publish` wrote.
    """
    path = workspace.root / FOLDER / FILE
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MOST_BYTES + 1)[:_MOST_BYTES])
    except FileNotFoundError:
        return Published()
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise PublishedError(f"cannot read {str(path)!r}: {reason}: publish again") from None
    if not isinstance(document, dict) or document.keys() != {"runs", "texts", "without"}:
        raise PublishedError(f"{str(path)!r}: wants runs, texts and without: publish again")
    runs, texts, without = document["runs"], document["texts"], document["without"]
    if not (_are_names(runs) and _are_names(without) and texts in get_args(Texts)):
        raise PublishedError(
            f"{str(path)!r}: runs and without are lists of names, texts is one of "
            f"{', '.join(get_args(Texts))}: publish again"
        )
    _check_areas(without)
    return Published(tuple(runs), texts, tuple(without))


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _check_runs(names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            there = ", ".join(sorted(known)[-5:]) or "none"
            raise PublishedError(
                f"no run {printable(name[:80])!r} to publish: there are {printable(there)}"
            )


def _check_areas(names: Iterable[str]) -> None:
    known = [area.folder for area in loop_areas()]
    for name in names:
        if name not in known:
            raise PublishedError(
                f"no area {printable(name[:80])!r} to leave out: choose from {', '.join(known)}"
            )
