"""The blast radius of a change: what depends on it, what to run, who and what it will set off.

Dependents of a definition are found by searching backwards from it, use by use, and only over uses
that are tied to a definition at least by a good guess (see `naming`). The search is bounded; where
it stopped early, the answer says so.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from trackrecord.upstream.ci import CIStep
from trackrecord.upstream.diffs import FileChange, place_hunk
from trackrecord.upstream.features import FeatureFinder, FeatureReach, Hop
from trackrecord.upstream.index.query import Index
from trackrecord.upstream.index.reader import read_source
from trackrecord.upstream.index.records import Certainty, Symbol, TestRef
from trackrecord.upstream.labels import LabelHit
from trackrecord.upstream.nearby_tests import nearby_tests
from trackrecord.upstream.owners import deciding_rule

MAX_DISTANCE = 5
_MOST_SEARCHED = 100
_MOST_TOUCHED = 40
_MOST_CLOSE = 3
_BLOCKS = ("class", "function", "method")


@dataclass(frozen=True)
class Target:
    """What is to change: a file, one line of it, or one definition in it."""

    path: str
    line: int | None = None
    qualname: str = ""


@dataclass(frozen=True)
class Dependent:
    """A definition, or a module where `qualname` is empty, that depends on the change.

    `uses` is the definition through which it does, `distance` over how many uses.
    """

    qualname: str
    path: str
    line: int
    distance: int
    uses: str
    certainty: Certainty


@dataclass(frozen=True)
class Owned:
    """Who owns a changed file, and the line of CODEOWNERS that says so; 0 if nobody does."""

    path: str
    owners: tuple[str, ...]
    pattern: str
    line: int


@dataclass(frozen=True)
class Impact:
    """The answer; every list is in order of relevance."""

    paths: tuple[str, ...]
    new_paths: tuple[str, ...]
    """Those of `paths` that the tree does not have."""
    symbols: tuple[Symbol, ...]
    """The touched definitions."""
    dependents: tuple[Dependent, ...]
    importers: tuple[int, ...]
    """How many files import a touched file directly, through one other, and so on."""
    tests: tuple[TestRef, ...]
    steps: tuple[CIStep, ...]
    owned: tuple[Owned, ...]
    labels: tuple[LabelHit, ...]
    features: tuple[FeatureReach, ...]
    remarks: tuple[str, ...]
    """What limits the answer, in words."""

    @property
    def owners(self) -> list[str]:
        """Everybody who will be asked for a review, each once."""
        return list(dict.fromkeys(owner for owned in self.owned for owner in owned.owners))


def impact_of(
    index: Index, targets: Sequence[Target], title: str = "", remarks: Sequence[str] = ()
) -> Impact:
    """The blast radius of changing `targets`.

    Args:
        title: the pull request's, which labels may depend on.
        remarks: what already limits the answer.
    """
    paths = list(dict.fromkeys(target.path for target in targets))
    known = [path for path in paths if index.has_path(path)]
    symbols, more = _touched(index, targets)
    said = [*remarks, *more]
    precise = {target.path for target in targets if target.line or target.qualname}
    search = _Search(index, set(paths) - precise)
    search.run(symbols)
    tests: dict[tuple[str, str], TestRef] = {}
    for path in known:
        # A whole file's tests are those that import it; single definitions are only asked for
        # where the change names some.
        named = [symbol for symbol in symbols if symbol.path == path and path in precise]
        for test in nearby_tests(index, path, named):
            key = (test.path, test.name)
            if key not in tests or test.distance < tests[key].distance:
                tests[key] = test
    if search.stopped:
        said.append(f"dependents: stopped after {_MOST_SEARCHED} definitions")
    ordered = sorted(tests.values(), key=lambda t: (t.distance, not t.name, t.path, t.line))
    return Impact(
        paths=tuple(paths),
        new_paths=tuple(path for path in paths if path not in known),
        symbols=tuple(symbols),
        dependents=tuple(search.dependents),
        importers=tuple(map(len, index.importers_by_distance(known))),
        tests=tuple(ordered),
        steps=tuple(index.ci_steps_for(paths, ordered)),
        owned=tuple(ownership(index, path) for path in paths),
        labels=tuple(index.label_hits(paths, title)),
        features=tuple(search.features.found),
        remarks=tuple(said),
    )


def targets_of_diff(index: Index, changes: Sequence[FileChange]) -> tuple[list[Target], list[str]]:
    """What a diff that was made for the indexed tree, or a near one, changes.

    Returns:
        The targets, and in words what of the diff could not be placed in the tree.

    Raises:
        UpstreamError: a path leads out of the tree.
    """
    targets, remarks = [], []
    check_paths(index, changes)
    for change in changes:
        if change.old_path and change.old_path != change.path:
            targets.append(Target(change.old_path))
        path = change.old_path or change.path
        if not index.has_path(path) or not path.endswith(".py"):
            targets.append(Target(change.path))
            continue
        lines = index.tree.read_lines(path)
        for hunk in change.hunks:
            shift = place_hunk(hunk, lines)
            if shift is None:
                remarks.append(f"{path}: the change at line {hunk.old_start} is not in this tree")
                targets.append(Target(path))
                continue
            targets += [Target(path, line + shift) for line in hunk.old_lines]
        if not change.hunks:
            targets.append(Target(change.path))
    return targets, remarks


def targets_of_sources(
    index: Index, changes: Sequence[FileChange], sources: dict[str, bytes]
) -> list[Target]:
    """What a change to another version of the tree touches, by qualified name.

    Args:
        sources: the changed files as they are now, by path.

    Raises:
        UpstreamError: a path leads out of the tree.
    """
    targets = []
    check_paths(index, changes)
    for change in changes:
        targets.append(Target(change.path))
        if change.old_path and change.old_path != change.path:
            targets.append(Target(change.old_path))
        source = sources.get(change.path)
        if source is None or not change.path.endswith(".py"):
            continue
        facts = read_source(source, "changed", False, frozenset())
        blocks = [d for d in facts.definitions if d.kind in _BLOCKS]
        for line in {line for hunk in change.hunks for line in hunk.new_lines}:
            holding = [d for d in blocks if d.line <= line <= d.end_line]
            if holding:
                inner = max(holding, key=lambda d: d.line)
                targets.append(Target(change.old_path or change.path, None, inner.qualname))
    return list(dict.fromkeys(targets))


def check_paths(index: Index, changes: Sequence[FileChange]) -> None:
    """Refuses a change to anything but files in the tree, there already or new.

    Raises:
        UpstreamError: a path is empty, or leads out of the tree.
    """
    for change in changes:
        for path in {change.path, change.old_path or change.path}:
            index.tree.path(path)


def close_paths(index: Index, path: str) -> list[str]:
    """Files of the tree that `path` may be a misspelling of: below the nearest folder that there
    is, or anywhere where it is a name alone."""
    parents = map(str, PurePosixPath(path).parents)
    folder = next((parent for parent in parents if index.has_folder(parent)), "")
    if folder:
        return difflib.get_close_matches(path, index.paths_below(folder), _MOST_CLOSE, 0.8)
    tops = sorted(each.name for each in index.tree.root.iterdir() if each.is_dir())
    named: dict[str, list[str]] = {}
    for found in (found for top in tops for found in index.paths_below(top)):
        named.setdefault(PurePosixPath(found).name, []).append(found)
    names = difflib.get_close_matches(PurePosixPath(path).name, named, _MOST_CLOSE, 0.8)
    return [found for name in names for found in named[name]][:_MOST_CLOSE]


def _touched(index: Index, targets: Sequence[Target]) -> tuple[list[Symbol], list[str]]:
    """The definitions that targets name; a file's own, at its top level, where they name none."""
    found: dict[Symbol, None] = {}
    remarks = []
    precise = {target.path for target in targets if target.line or target.qualname}
    for target in targets:
        if target.qualname:
            symbol = index.symbol(target.path, target.qualname)
        elif target.line:
            symbol = index.symbol_at(target.path, target.line)
        else:
            symbol = None
        if symbol:
            found[symbol] = None
        elif target.qualname:
            remarks.append(f"{target.path}: {target.qualname} is not in this tree")
    for path in dict.fromkeys(t.path for t in targets if t.path not in precise):
        top = [s for s in index.symbols_in(path) if not s.parent and s.kind in _BLOCKS]
        if len(top) > _MOST_TOUCHED:
            remarks.append(f"{path}: only the first {_MOST_TOUCHED} of {len(top)} definitions")
        found |= dict.fromkeys(top[:_MOST_TOUCHED])
    return list(found), remarks


def ownership(index: Index, path: str) -> Owned:
    """Who owns a path, and by which rule."""
    rule = deciding_rule(index.owner_rules, path)
    return Owned(path, rule.owners, rule.pattern, rule.line) if rule else Owned(path, (), "", 0)


class _Search:
    """Backwards from the touched definitions, nearest first, looking for features on the way.

    Args:
        whole: paths touched as a whole; uses inside of them lead on, but are no dependents.
    """

    def __init__(self, index: Index, whole: set[str]) -> None:
        self.index = index
        self.whole = whole
        self.features = FeatureFinder(index)
        self.dependents: list[Dependent] = []
        self.stopped = False
        self._hops: dict[Symbol, tuple[Hop, ...]] = {}
        self._modules: set[str] = set()

    def run(self, symbols: Sequence[Symbol]) -> None:
        self._hops = {s: (Hop(s.qualname, s.path, s.line, ""),) for s in symbols}
        for symbol, hops in self._hops.items():
            self.features.look(symbol, hops)
        border, searched = list(symbols), 0
        for distance in range(1, MAX_DISTANCE + 1):
            following: list[Symbol] = []
            for symbol in border:
                searched += 1
                if searched > _MOST_SEARCHED:
                    self.stopped = True
                    return
                following += self._users(symbol, distance)
            border = following

    def _users(self, symbol: Symbol, distance: int) -> list[Symbol]:
        """Notes who uses `symbol`; the definitions among them that were not met before."""
        found = []
        for use in self.index.callers(symbol):
            if (
                use.is_test
                or use.user in self._hops
                or (not use.user and use.path in self._modules)
            ):
                continue
            name = use.user.qualname if use.user else ""
            if use.path not in self.whole:
                self.dependents.append(
                    Dependent(name, use.path, use.line, distance, symbol.qualname, use.certainty)
                )
            if use.user is None:
                self._modules.add(use.path)
                continue
            hop = Hop(name, use.path, use.line, "used by")
            self._hops[use.user] = (*self._hops[symbol], hop)
            self.features.look(use.user, self._hops[use.user])
            found.append(use.user)
        return found
