"""The part of `trackrecord loop` that is about what is asked: the bank, and one design alone."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mini_vllm import console
from mini_vllm.console import printable
from trackrecord.commands.flags import add_common_flags
from trackrecord.errors import TrackRecordError
from trackrecord.workspace import Workspace

if TYPE_CHECKING:
    from trackrecord.loop.bank.question import Question

_MOST_BYTES = 1_000_000
_PIN = "vllm-0.22.1"
"""The tree that the bank's anchors are of."""


def configure(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    summary = "list what can be asked, or check that the bank keeps its promises"
    bank = actions.add_parser("bank", help=summary, description=summary)
    bank.add_argument("what", choices=("list", "check"), metavar="list|check", help="what to do")
    bank.add_argument("area", nargs="?", metavar="AREA", help="one area, by number or name")
    bank.add_argument(
        "--judged",
        type=Path,
        metavar="FILE.toml",
        help="check: against answers judged by hand",
    )
    add_common_flags(bank)

    summary = "print a design session's brief and design file, or grade a file that was filled in"
    design = actions.add_parser("design", help=summary, description=summary)
    design.add_argument("scenario", metavar="SCENARIO", help="as 70b-chat; see `loop bank list`")
    design.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the design file")
    design.add_argument("--document", type=Path, metavar="FILE.md", help="write the document here")
    design.add_argument("--json", action="store_true", help="print one JSON document")


def _bank(args: argparse.Namespace) -> int:
    if args.what == "list":
        return _list(args)
    return _agreement(args) if args.judged else _check(args)


def _list(args: argparse.Namespace) -> int:
    from trackrecord.loop.catalogue import catalogue, make_item

    found = catalogue()
    if args.json:
        console.emit_json(
            {
                "questions": [q.name for q in _questions(args)],
                "designs": list(found.designs),
                "incidents": list(found.incidents),
            }
        )
        return console.EXIT_OK
    for question in _questions(args):
        first = " ".join(question.ask.split())
        print(printable(f"{question.name:<48}{question.level:<11}{first[:80]}"))
    for name in () if args.area else (*found.designs, *found.incidents):
        print(printable(f"{name:<59}{make_item(name).title}"))
    return console.EXIT_OK


def _check(args: argparse.Namespace) -> int:
    from trackrecord.loop.bank.checks import check_places, check_question, confusions

    questions = _questions(args)
    problems = []
    for n, question in enumerate(questions, 1):
        problems += check_question(question)
        if n % 20 == 0:
            console.say(f"checked {n} of {len(questions)} questions")
    root = _tree(Workspace.open(args.workspace))
    problems += check_places(questions, root) if root else []
    by_area: dict[int, list[Question]] = {}
    for question in questions:
        by_area.setdefault(question.area.number, []).append(question)
    confused = [pair for area in by_area.values() for pair in confusions(area)]
    pairs = sum(len(area) * (len(area) - 1) for area in by_area.values())
    if args.json:
        console.emit_json(
            {
                "questions": len(questions),
                "problems": [vars(problem) for problem in problems],
                "pairs": pairs,
                "confused": [[a.name, b.name] for a, b, _ in confused],
                "anchors_checked": root is not None,
            }
        )
        return console.EXIT_NEGATIVE if problems else console.EXIT_OK
    for problem in problems:
        print(printable(str(problem)))
    for question, other, mark in confused:
        scores = ", ".join(f"{layer} {score}" for layer, score in mark.scores.items())
        print(printable(f"{question.name} takes the answer to {other.name} for one: {scores}"))
    places = "anchors in place" if root else "anchors not checked: trackrecord upstream pin"
    print(
        f"{len(questions)} questions, {len(problems)} problems, {places}; "
        f"{len(confused)} of {pairs} pairs of an area confused"
    )
    return console.EXIT_NEGATIVE if problems else console.EXIT_OK


def _agreement(args: argparse.Namespace) -> int:
    from trackrecord.loop.bank.agreement import agreement, read_judged

    rows = agreement(read_judged(args.judged))
    if args.json:
        listed = [vars(r) | {"recall": r.recall, "precision": r.precision} for r in rows]
        console.emit_json({"agreement": listed})
        return console.EXIT_OK
    print(f"{'':<9}{'layer':<13}answers  within 1   judged  machine   recall  precision")
    for row in rows:
        print(
            f"{row.kind:<9}{row.layer:<13}{row.answers:>7}{row.near / row.answers:>10.0%}"
            f"{row.judged:>9.2f}{row.machine:>9.2f}{row.recall:>9.0%}{row.precision:>11.0%}"
        )
    return console.EXIT_OK


def _tree(workspace: Workspace) -> Path | None:
    """The pinned tree that the anchors are of, if it is here."""
    from trackrecord.errors import UpstreamError
    from trackrecord.upstream.pin import Tree, find_pin

    try:
        return Tree.open(find_pin(workspace, _PIN)).root
    except UpstreamError:
        return None


def _questions(args: argparse.Namespace) -> tuple[Question, ...]:
    from trackrecord.loop.bank.load import load_area, load_bank
    from trackrecord.loop.catalogue import find_area

    return load_area(find_area(args.area)) if args.area else load_bank()


def _design(args: argparse.Namespace) -> int:
    from trackrecord.loop.design import design_document, design_item, grade_design
    from trackrecord.loop.items import Answer

    item = design_item(args.scenario)
    if args.file is None:
        if args.json:
            console.emit_json({"item": item.name, "brief": item.prompt, "template": item.template})
        else:
            print(f"{item.prompt.strip()}\n\n{item.template}")
        return console.EXIT_OK
    try:
        with args.file.open("rb") as file:
            text = file.read(_MOST_BYTES + 1).decode("utf-8", errors="replace")
    except OSError as error:
        raise TrackRecordError(f"cannot read {str(args.file)!r}: {error.strerror}") from None
    report = grade_design(Answer(item.name, text), say=console.say)
    document = design_document(report)
    if args.document is not None:
        from trackrecord.workspace import write_whole

        write_whole(args.document, document)
    if args.json:
        console.emit_json(report.to_json())
    else:
        for line in document.splitlines():
            print(printable(line))
    return console.EXIT_OK


ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {"bank": _bank, "design": _design}
