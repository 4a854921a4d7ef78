"""Answers about upstream as text for a terminal: aligned rows in sections, most relevant first.

Everything here returns lines, as wide as asked for; paths are never cut, so that they can be
copied. What comes from the tree is made printable by whoever prints it.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from trackrecord.upstream.anchors import AnchorCheck
from trackrecord.upstream.areas import Area
from trackrecord.upstream.ci import CIStep, Verdict
from trackrecord.upstream.features import FeatureReach
from trackrecord.upstream.impact import MAX_DISTANCE, Dependent, Impact, Owned
from trackrecord.upstream.index.records import Certainty, Importer, Reference, Symbol, TestRef
from trackrecord.upstream.labels import LabelHit
from trackrecord.upstream.where import Where

Row = tuple[str, ...]

_LEAST_LAST = 28
"""The last column of a table goes below the others if less than this would be left for it."""
_DEVICES_SHOWN = 8
_GUESS = "~"
_LINE = re.compile(r" \(line \d+\)")
_VERDICT: dict[Verdict, str] = {"runs": "runs", "unsure": "may run", "manual": "by hand"}
_VERDICTS: dict[Verdict, str] = {
    "runs": "run",
    "unsure": "may run",
    "manual": "have to be started by hand",
}
_GPU = {True: "GPU", False: "no GPU", None: "?"}


@dataclass
class Page:
    """Lines in the making. `limit` is how many rows of a section are shown, 0 for all."""

    width: int = 100
    limit: int = 12
    lines: list[str] = field(default_factory=list)

    def text(self, text: str, indent: int = 0, hang: int = 0) -> None:
        """A paragraph, wrapped; `hang` indents all lines but the first further."""
        first = " " * indent
        self.lines += textwrap.wrap(
            text,
            max(self.width, indent + hang + _LEAST_LAST),
            initial_indent=first,
            subsequent_indent=first + " " * hang,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def some(self, words: Sequence[str]) -> str:
        """The first of `words`, and how many more there are."""
        shown = words[: self.limit] if self.limit else words
        more = f" and {len(words) - len(shown)} more" if len(shown) < len(words) else ""
        return ", ".join(shown) + more

    def section(self, title: str, rows: Sequence[Row], note: str = "") -> None:
        """A title with its rows below, or with the note alone if there are none."""
        if not rows:
            if note:
                self.lines.append("")
                self.text(f"{title}: {note}", hang=2)
            return
        self.lines.append("")
        self.text(f"{title}: {note}" if note else title, hang=2)
        shown = rows[: self.limit] if self.limit else rows
        self.table(shown)
        if len(shown) < len(rows):
            self.lines.append(f"  ... {len(rows) - len(shown):,} more (--limit 0 shows all)")

    def table(self, rows: Sequence[Row], indent: int = 2) -> None:
        """Rows in aligned columns; the last column is wrapped, below the others if need be."""
        if not rows:
            return
        columns = max(map(len, rows))
        rows = [(*row, *[""] * (columns - len(row))) for row in rows]
        widths = [max(len(row[i]) for row in rows) for i in range(columns - 1)]
        start = indent + sum(width + 2 for width in widths)
        longest = max(len(row[-1]) for row in rows)
        below = columns > 1 and self.width - start < min(_LEAST_LAST, longest)
        for *cells, last in rows:
            line = " " * indent + "".join(
                cell.ljust(width + 2) for cell, width in zip(cells, widths, strict=True)
            )
            if below:
                self.lines.append(line.rstrip())
                if last:
                    self.text(last, indent + 4)
            else:
                wrapped = textwrap.wrap(
                    last, self.width - start, break_long_words=False, break_on_hyphens=False
                )
                self.lines.append((line + (wrapped[0] if wrapped else "")).rstrip())
                self.lines += [" " * start + more for more in wrapped[1:]]


def where_page(answer: Where, page: Page, source: str = "") -> list[str]:
    """`upstream where`. `source`: the line of the file, where no definition holds it."""
    symbol = answer.symbol
    if symbol:
        page.lines.append(f"{symbol.qualname}  ({symbol.kind})")
        page.lines.append(f"  {symbol.where}-{symbol.end_line}")
        page.text(symbol.signature, 2, 4)
        page.text(symbol.doc, 2)
    else:
        page.lines.append(f"{answer.path}:{answer.line}" if answer.line else answer.path)
        page.text(source.strip(), 2)
    if answer.areas:
        page.lines.append(f"  area: {', '.join(answer.areas)}")
    page.section(f"defines {len(answer.contents)}", [_defined(s) for s in answer.contents])
    if symbol:
        _callers(page, answer)
    elif answer.path.endswith(".py"):
        _importers(page, answer.importers)
    _tests(page, answer.tests)
    _steps(page, answer.steps, [answer.path])
    _owners(page, [answer.owned])
    others = [(s.qualname, s.where) for s in answer.others]
    page.section(f"{len(others)} others of that name", others)
    return page.lines


def impact_page(impact: Impact, page: Page) -> list[str]:
    """`upstream impact`."""
    page.text(f"impact of changing {', '.join(impact.paths)}", hang=2)
    touched = [(s.qualname, s.kind, s.where) for s in impact.symbols]
    page.section(f"touches {len(touched)} definitions" if len(touched) > 1 else "touches", touched)
    if impact.new_paths:
        page.section("new files", [(path,) for path in impact.new_paths])
    for remark in impact.remarks:
        page.text(f"note: {remark}", 2, 2)
    _dependents(page, impact.dependents)
    if impact.importers:
        hops = ("directly", "through one other", "through two others")
        counts = [
            f"{count:,} {hop}" for count, hop in zip(impact.importers, hops, strict=False) if count
        ]
        page.section("files that import it", [], ", ".join(counts) or "none")
    _tests(page, impact.tests)
    _steps(page, impact.steps, impact.paths)
    _owners(page, impact.owned)
    _labels(page, impact.labels)
    _features(page, impact.features)
    return page.lines


def area_page(area: Area, page: Page, code: Sequence[Sequence[str]] = ()) -> list[str]:
    """`upstream read AREA`. `code`: lines of source to show with each anchor."""
    page.lines.append(f"{area.title}  ({area.name}, {len(area.anchors)} places to read)")
    page.text(area.summary, 2)
    for number, anchor in enumerate(area.anchors, 1):
        page.lines.append("")
        page.lines.append(f"{number:2}  {anchor.path}:{anchor.line}  {anchor.symbol}")
        page.table([("look for", anchor.look_for), ("keeps", anchor.invariant)], 4)
        if code:
            page.lines += ["", *(f"      {line}".rstrip() for line in code[number - 1])]
    return page.lines


def areas_page(
    areas: Sequence[Area], read: Sequence[str], declared: Sequence[str], page: Page
) -> list[str]:
    """`upstream read` alone: which areas there are, and which the person knows."""
    known = {**dict.fromkeys(declared, "declared"), **dict.fromkeys(read, "read")}
    rows = [(a.name, f"{len(a.anchors):2}", known.get(a.name, "-"), a.summary) for a in areas]
    page.table([("area", "places", "you", "what it is about"), *rows], 0)
    return page.lines


def anchors_page(checks: Sequence[AnchorCheck], where: str, page: Page) -> list[str]:
    """`upstream anchors check`."""
    states = Counter(check.state for check in checks)
    counts = ", ".join(f"{states[s]} {s}" for s in ("in place", "moved", "gone") if states[s])
    page.text(f"{len(checks)} anchors against {where}: {counts}")
    for state in ("moved", "gone"):
        rows = [(c.anchor.area, c.words) for c in checks if c.state == state]
        page.section(state, rows)
    return page.lines


def _defined(symbol: Symbol) -> Row:
    return (f"{symbol.line}", symbol.qualname, symbol.doc)


def _callers(page: Page, answer: Where) -> None:
    code = [use for use in answer.callers if not use.is_test]
    note = f"in {len(code)} places outside of tests" if code else "by nothing outside of tests"
    if answer.uncertain:
        note += f" ({answer.uncertain:,} more uses of the name not tied to it)"
    page.section("used", [_use(use) for use in code], note + _legend(u.certainty for u in code))


def _use(use: Reference) -> Row:
    return (_mark(use.certainty), use.user_name, f"{use.path}:{use.line}")


def _dependents(page: Page, dependents: Sequence[Dependent]) -> None:
    """The nearest ones, as a tree: what stands below another depends on it."""
    shown = dependents[: page.limit] if page.limit else dependents
    below: dict[str, list[Dependent]] = {}
    names = {d.qualname for d in shown}
    for d in shown:
        below.setdefault(d.uses if d.distance > 1 and d.uses in names else "", []).append(d)
    rows = [
        (_mark(d.certainty), f"{'  ' * depth}{d.qualname or '(module)'}", f"{d.path}:{d.line}")
        for depth, d in _as_tree(below)
    ]
    note = f"{len(dependents)}, up to {MAX_DISTANCE} uses away" if rows else "none"
    page.section("dependents", [], note + _legend(d.certainty for d in shown))
    page.table(rows)
    if len(shown) < len(dependents):
        more = len(dependents) - len(shown)
        page.lines.append(f"  ... {more:,} more, further away (--limit 0 shows all)")


def _as_tree(
    below: dict[str, list[Dependent]], name: str = "", depth: int = 0
) -> Iterator[tuple[int, Dependent]]:
    for d in below.pop(name, ()):
        yield depth, d
        if d.qualname:
            yield from _as_tree(below, d.qualname, depth + 1)
    while below and not depth:  # two of one name may have taken each other's place
        yield from _as_tree(below, next(iter(below)))


def _importers(page: Page, importers: Sequence[Importer]) -> None:
    code = [i for i in importers if not i.is_test]
    tests = len(importers) - len(code)
    rows = [(f"{i.path}:{i.line}", _IMPORT_WORDS.get(i.kind, "")) for i in code]
    page.section("imported by", rows, f"{len(code)} files, and {tests} of the tests")


_IMPORT_WORDS = {
    "function": "inside a function",
    "typing": "for types only",
    "string": "by a name in a string",
}


def _tests(page: Page, tests: Sequence[TestRef]) -> None:
    if not tests:
        page.section("tests", [], "none use or import it")
        return
    without = [test for test in tests if test.needs_gpu is False]
    unknown = sum(test.needs_gpu is None for test in tests)
    files = len({test.path for test in tests})
    note = f"{len(tests)} in {files} files, {len(without)} of them without a GPU"
    note += f", {unknown} that do not tell" if unknown else ""
    page.section("tests", [], note)
    by_file: dict[tuple[str, bool | None], list[TestRef]] = {}
    for test in tests:
        by_file.setdefault((test.path, test.needs_gpu), []).append(test)
    groups = list(by_file.items())
    shown = groups[: page.limit] if page.limit else groups
    for (path, needs_gpu), group in shown:
        page.table([(_GPU[needs_gpu].ljust(6), f"{path}  ({group[0].reason})")])
        ties: dict[str, list[str]] = {}
        for test in group:
            ties.setdefault(_LINE.sub("", test.relation), []).append(test.name)
        for relation, names in ties.items():
            named = page.some([name for name in names if name])
            page.text(f"{relation}: {named}" if named else relation, 10, 2)
    if len(shown) < len(groups):
        page.lines.append(f"  ... {len(groups) - len(shown):,} more files (--limit 0 shows all)")
    if without:
        page.lines.append("  without a GPU:")
        page.text(pytest_command(without, page.limit), 4, 4)


def pytest_id(test: TestRef) -> str:
    """A test as pytest takes it."""
    return f"{test.path}::{test.name.replace('.', '::')}" if test.name else test.path


def pytest_command(tests: Sequence[TestRef], limit: int = 0) -> str:
    """The command that runs `tests`, or the nearest `limit` of them."""
    whole = {test.path for test in tests if not test.name}
    named = [pytest_id(t) for t in tests if not t.name or t.path not in whole]
    chosen = dict.fromkeys(named[:limit] if limit else named)
    return "pytest " + " ".join(map(shlex.quote, chosen))


def _steps(page: Page, steps: Sequence[CIStep], paths: Sequence[str]) -> None:
    if not steps:
        page.section("CI", [], "no step")
        return
    kinds = Counter(step.runs for step in steps)
    note = ", ".join(f"{kinds[k]} {word}" for k, word in _VERDICTS.items() if kinds[k])
    rows = [
        (
            _VERDICT[s.runs],
            s.label,
            s.devices,
            f"{s.tests} of the files above" if s.tests else "",
            s.matched_by.removesuffix(f" ({paths[0]})") if len(paths) == 1 else s.matched_by,
        )
        for s in steps
    ]
    page.section("CI steps", rows, note)
    devices = Counter(s.devices for s in steps if s.runs == "runs").most_common()
    if len(devices) > 1:
        more = len(devices) - _DEVICES_SHOWN
        text = ", ".join(f"{name} ({count})" for name, count in devices[:_DEVICES_SHOWN])
        page.text(f"on {text}" + (f" and {more} kinds more" if more > 0 else ""), 2, 3)


def _owners(page: Page, owned: Sequence[Owned]) -> None:
    by_rule: dict[tuple[str, int, tuple[str, ...]], list[str]] = {}
    for item in owned:
        by_rule.setdefault((item.pattern, item.line, item.owners), []).append(item.path)
    rows = []
    for (pattern, line, names), paths in by_rule.items():
        files = f"{len(paths)} files" if len(paths) > 1 else paths[0]
        where = f"{pattern} (CODEOWNERS:{line})" if line else "no rule"
        rows.append((files, where, " ".join(names) or "nobody"))
    page.section("owners", rows)


def _labels(page: Page, hits: Sequence[LabelHit]) -> None:
    rows = []
    for hit in hits:
        people = f"assigns {', '.join(hit.assignees)}" if hit.assignees else ""
        what = ", ".join(filter(None, (*hit.labels, people)))
        rows.append((what, f"{hit.rule} (mergify.yml:{hit.line}): {hit.because}"))
    page.section("labels", rows, "" if rows else "none")


def _features(page: Page, features: Sequence[FeatureReach]) -> None:
    page.section("features that reach it", [], "" if features else "none found")
    if features:
        page.lines += ["", "features that reach it"]
    for reach in features:
        page.lines.append(f"  {reach.feature}: {reach.path}:{reach.line} has {reach.evidence}")
        first, *hops = reach.hops
        words, how = [first.qualname], ""
        for hop in hops:
            words.append(hop.qualname if hop.how == how else f"{hop.how} {hop.qualname}")
            how = hop.how
        page.text(", ".join(words), 6, 2)


def _mark(certainty: Certainty) -> str:
    return _GUESS if certainty == "likely" else ""


def _legend(certainties: Iterable[Certainty]) -> str:
    return f"; {_GUESS} marks a good guess" if "likely" in set(certainties) else ""
