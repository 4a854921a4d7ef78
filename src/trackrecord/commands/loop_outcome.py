"""The part of `trackrecord loop` that looks back: report, review, what is due, what is public."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mini_vllm import console
from mini_vllm.console import printable
from trackrecord.commands.flags import add_common_flags
from trackrecord.errors import TrackRecordError
from trackrecord.workspace import Workspace

if TYPE_CHECKING:
    from trackrecord.loop.graded import GradedAnswer, GradedRun
    from trackrecord.loop.grading.judge import Opinion


def configure(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    summary = "list the runs that were sat"
    listed = actions.add_parser("runs", help=summary, description=summary)
    add_common_flags(listed)

    summary = "grade what was sat: the matrix, the staff map, the revision list, the change"
    report = actions.add_parser("report", help=summary, description=summary)
    report.add_argument("runs", nargs="*", metavar="RUN", help="only these; default: all")
    report.add_argument(
        "--out", type=Path, metavar="DIR", help="also write the page, its picture and the designs"
    )
    _add_judge(report)
    add_common_flags(report)

    summary = "show an answer beside the model answer, with what was found in it"
    review = actions.add_parser("review", help=summary, description=summary)
    review.add_argument("id", metavar="ID", help="RUN for all its answers, RUN/N for the n-th")
    _add_judge(review)
    add_common_flags(review)

    summary = "list what to repeat, and when"
    due = actions.add_parser("due", help=summary, description=summary)
    add_common_flags(due)

    summary = "choose what of the loop `trackrecord portfolio build` shows: nothing until then"
    publish = actions.add_parser("publish", help=summary, description=summary)
    publish.add_argument("runs", nargs="*", metavar="RUN", help="the runs to show")
    publish.add_argument(
        "--texts",
        choices=("none", "quotes", "whole"),
        default="quotes",
        help="how much of your own words",
    )
    publish.add_argument(
        "--without", action="append", default=[], metavar="AREA", help="leave an area out"
    )
    publish.add_argument("--withdraw", action="store_true", help="show nothing any more")
    add_common_flags(publish)


def _add_judge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--judge", metavar="URL", help="a third opinion from this OpenAI-compatible endpoint"
    )
    parser.add_argument(
        "--judge-model", metavar="NAME", default="default", help="the model to ask there"
    )


def last_run(workspace: Workspace) -> str:
    """The run that was begun last.

    Raises:
        TrackRecordError: nothing has been sat.
    """
    from trackrecord.loop.session.record import runs

    names = runs(workspace)
    if not names:
        raise TrackRecordError("nothing has been sat yet: trackrecord loop start")
    return names[-1]


def due_items(workspace: Workspace) -> tuple[str, ...]:
    """The items to repeat today."""
    from trackrecord.loop.marking import grade_runs
    from trackrecord.loop.outcome.cards import due

    return tuple(card.item for card in due(grade_runs(workspace, simulate=False), _today()))


def _runs(args: argparse.Namespace) -> int:
    from trackrecord.loop.marking import grade_runs

    found = grade_runs(Workspace.open(args.workspace), simulate=False, say=console.say)
    if args.json:
        console.emit_json({"runs": [_summary(run) for run in found]})
    for run in () if args.json else found:
        kind = "practice" if run.practice else "loop"
        state = "finished" if run.ended else "not finished"
        answers = f"{len(run.answers)} answers"
        print(printable(f"{run.run:<14}{kind:<10}{answers:<12}{state:<14}seed {run.seed}"))
    if not found:
        console.say("nothing has been sat yet: trackrecord loop start")
    return console.EXIT_OK if found else console.EXIT_NEGATIVE


def _summary(run: GradedRun) -> dict[str, Any]:
    return {
        "run": run.run,
        "practice": run.practice,
        "seed": run.seed,
        "started": run.started.isoformat(),
        "ended": run.ended.isoformat() if run.ended else None,
        "items": [graded.item.name for graded in run.answers],
        "problems": list(run.problems),
    }


def _report(args: argparse.Namespace) -> int:
    from trackrecord.loop.marking import grade_runs
    from trackrecord.loop.outcome.lines import lines_of
    from trackrecord.loop.outcome.report import build_report

    workspace = Workspace.open(args.workspace)
    runs = grade_runs(workspace, args.runs, say=console.say)
    known = grade_runs(workspace, simulate=False) if args.runs else runs
    report = build_report(runs, _today(), known)
    answers = [graded for run in runs for graded in run.answers]
    opinions = _opinions(args, answers)
    if args.out is not None:
        _write(args.out, report, answers)
    if args.json:
        document = report.to_json()
        document["answers"] = [_described(graded) for graded in answers]
        console.emit_json(document | ({"opinions": opinions} if args.judge else {}))
    else:
        for line in lines_of(report):
            print(printable(line))
        for line in _opinion_lines(opinions):
            print(printable(line))
    if args.out is not None:
        console.say(printable(f"wrote {args.out / 'loop.html'}"))
    return console.EXIT_OK if answers else console.EXIT_NEGATIVE


def _write(out: Path, report: Any, answers: Sequence[GradedAnswer]) -> None:
    from trackrecord.loop.design import design_document, grade_design
    from trackrecord.loop.outcome.published import everything
    from trackrecord.portfolio.folder import write_files
    from trackrecord.portfolio.loop_page import loop_page

    page = loop_page(report, everything(report.runs))
    files = dict(page.files) if page else {}
    for graded in answers:
        if graded.item.kind == "design" and graded.answer.text.strip():
            made = grade_design(graded.answer)
            name = f"{graded.item.name.replace(':', '-')}-{graded.run}.md"
            files[name] = design_document(made).encode()
    try:
        write_files(out, files)
    except OSError as error:
        raise TrackRecordError(f"cannot write {str(out)!r}: {error.strerror}") from None


def _review(args: argparse.Namespace) -> int:
    from trackrecord.loop.marking import grade_runs
    from trackrecord.loop.outcome.review import review_lines

    run_id, slash, number = args.id.partition("/")
    [run] = grade_runs(Workspace.open(args.workspace), [run_id], say=console.say)
    answers = list(run.answers)
    if slash:
        if not (number.isascii() and number.isdigit() and 1 <= int(number[:9]) <= len(answers)):
            raise TrackRecordError(
                f"run {run_id} has {len(answers)} answers: write {run_id}/1 to "
                f"{run_id}/{len(answers)}, not {args.id!r}"
            )
        answers = [answers[int(number) - 1]]
    _refuse_open(run)
    opinions = _opinions(args, answers)
    if args.json:
        document = {"run": run_id, "answers": [_described(graded) for graded in answers]}
        console.emit_json(document | ({"opinions": opinions} if args.judge else {}))
        return console.EXIT_OK
    width = shutil.get_terminal_size((100, 24)).columns
    for graded in answers:
        for line in (*review_lines(graded, width), ""):
            print(printable(line))
    for line in _opinion_lines(opinions):
        print(printable(line))
    return console.EXIT_OK


def _refuse_open(run: GradedRun) -> None:
    """Model answers open when a session has ended, not before."""
    if run.ended is None:
        raise TrackRecordError(
            f"run {run.run} is not finished, so its model answers stay shut: "
            f"trackrecord loop resume {run.run}"
        )


def _described(graded: GradedAnswer) -> dict[str, Any]:
    return {
        "run": graded.run,
        "session": graded.session,
        "item": graded.item.name,
        "level": graded.level,
        "mark": graded.mark.to_json(),
        "own": dict(graded.answer.own),
        "gap": dict(graded.gap),
        "text": graded.answer.text,
        "followups": list(graded.answer.followups),
        "seconds": graded.answer.seconds,
    }


def _due(args: argparse.Namespace) -> int:
    from trackrecord.loop.marking import grade_runs
    from trackrecord.loop.outcome.cards import cards

    workspace = Workspace.open(args.workspace)
    found = sorted(
        cards(grade_runs(workspace, simulate=False)), key=lambda card: (card.due, card.item)
    )
    if args.json:
        listed = [{"item": c.item, "due": c.due.isoformat()} for c in found]
        console.emit_json({"today": _today().isoformat(), "cards": listed})
        return console.EXIT_OK
    for card in found:
        when = "now" if card.due <= _today() else card.due.isoformat()
        print(printable(f"{when:<12}{card.item:<44}trackrecord loop start --item {card.item}"))
    if not found:
        console.say("nothing was weak enough to be repeated")
    return console.EXIT_OK


def _publish(args: argparse.Namespace) -> int:
    from trackrecord.loop.catalogue import find_area
    from trackrecord.loop.marking import grade_runs
    from trackrecord.loop.outcome.published import Published, publish

    if bool(args.runs) == args.withdraw:
        raise TrackRecordError("give the runs to publish, or --withdraw")
    workspace = Workspace.open(args.workspace)
    without = tuple(find_area(text).folder for text in args.without)
    chosen = Published() if args.withdraw else Published(tuple(args.runs), args.texts, without)
    publish(workspace, chosen, grade_runs(workspace, simulate=False))
    if args.json:
        console.emit_json({"runs": list(chosen.runs), "texts": chosen.texts, "without": without})
    elif args.withdraw:
        print("nothing of the loop is published")
    else:
        print(printable(f"published: {', '.join(chosen.runs)}, with {chosen.texts} of your words"))
    return console.EXIT_OK


def _opinions(args: argparse.Namespace, answers: Sequence[GradedAnswer]) -> list[dict[str, Any]]:
    """What the judge says of each answer, or why it is no opinion."""
    if not args.judge:
        return []
    from trackrecord.loop.grading.judge import JudgeError, ask_judge, check_url
    from trackrecord.loop.marking import rubric_of

    check_url(args.judge)
    found: list[dict[str, Any]] = []
    for n, graded in enumerate(answers, 1):
        console.say(printable(f"asking the judge about {graded.item.name} ({n}/{len(answers)})"))
        entry: dict[str, Any] = {"run": graded.run, "item": graded.item.name}
        try:
            opinion = ask_judge(
                args.judge,
                args.judge_model,
                graded.item.prompt,
                rubric_of(graded.item.name),
                graded.item.model,
                graded.answer.text,
            )
            entry["layers"] = {o.layer: _opinion(o, graded) for o in opinion}
        except JudgeError as error:
            entry["problem"] = str(error)
        found.append(entry)
    return found


def _opinion(opinion: Opinion, graded: GradedAnswer) -> dict[str, Any]:
    machine = graded.mark.scores[opinion.layer]
    return {
        "score": opinion.score,
        "machine": machine,
        "quote": opinion.quote,
        "why": opinion.why,
    }


def _opinion_lines(opinions: Sequence[dict[str, Any]]) -> list[str]:
    if not opinions:
        return []
    lines = ["", "Third opinion (changes no mark)"]
    for entry in opinions:
        if "problem" in entry:
            lines.append(f"  {entry['item']}: none: {entry['problem']}")
            continue
        said = ", ".join(
            f"{layer} {found['score']} (machine {found['machine']})"
            for layer, found in entry["layers"].items()
        )
        lines.append(f"  {entry['item']}: {said}")
    return lines


def _today() -> date:
    return datetime.now(tz=UTC).date()


ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "runs": _runs,
    "report": _report,
    "review": _review,
    "due": _due,
    "publish": _publish,
}
