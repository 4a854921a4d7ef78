"""From a journal to marks: every answer of a run, graded by what it is an answer to.

Invariant: the same run gives the same marks. An item that the bank no longer has is not graded, and
its run says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from mini_vllm.console import printable
from trackrecord.errors import TrackRecordError
from trackrecord.loop import design, incidents
from trackrecord.loop.areas import LoopArea, loop_areas
from trackrecord.loop.bank.grade import grade_question
from trackrecord.loop.bank.load import load_question
from trackrecord.loop.catalogue import make_item
from trackrecord.loop.graded import GradedAnswer, GradedRun
from trackrecord.loop.grading.judge import addresses_the_grader
from trackrecord.loop.items import Answer, Item
from trackrecord.loop.marks import LAYERS, Layer, LayerMark, Mark
from trackrecord.loop.session import SessionError
from trackrecord.loop.session.record import Run, SessionRecord, load_run, runs
from trackrecord.upstream.areas import Anchor
from trackrecord.workspace import Workspace


@dataclass(frozen=True)
class _About:
    """What an answer to an item is evidence of; once it is given, the title may tell the topic."""

    title: str
    level: str
    areas: tuple[int, ...]
    competencies: tuple[str, ...]
    read: tuple[Anchor, ...]


def grade_answer(
    answer: Answer, *, simulate: bool = True, say: Callable[[str], None] | None = None
) -> Mark:
    """The mark of an answer, whatever it answers.

    Args:
        simulate: whether a design is run, which takes some seconds.

    Raises:
        TrackRecordError: there is no such item.
    """
    kind = answer.item.partition(":")[0]
    if kind == "question":
        mark = grade_question(load_question(answer.item), answer)
    elif kind == "incident":
        mark = incidents.grade_incident(answer)
    else:
        mark = design.grade_design(answer, simulate=simulate, say=say).mark
    plea = addresses_the_grader(answer.text)
    if plea:
        mark = replace(mark, notes=(*mark.notes, f"speaks to the grader: {plea!r}; ignored"))
    return mark


def grade_run(
    run: Run, *, simulate: bool = True, say: Callable[[str], None] | None = None
) -> GradedRun:
    """The answers of a run's ended sessions with their marks: findings tell what a model answer
    says, and those of a session that goes on are shut.

    Args:
        simulate: whether designs are run; without, they are marked by what they say.
    """
    answers: list[GradedAnswer] = []
    problems = [*run.problems, *run.notes]
    for session in run.sessions:
        if session.began and not session.ended and say:
            say(printable(f"run {run.id} goes on, so its open session is not graded: resume it"))
        for answer in session.answers if session.ended else ():
            try:
                answers.append(_graded(run, session, answer, simulate, say))
            except TrackRecordError as error:
                problems.append(f"{answer.item} is not graded: {error}")
    return GradedRun(
        run=run.id,
        seed=run.seed,
        practice=run.practice,
        started=datetime.fromisoformat(run.started),
        ended=datetime.fromisoformat(run.ended) if run.ended else None,
        answers=tuple(answers),
        problems=tuple(problems),
    )


def grade_runs(
    workspace: Workspace,
    names: Sequence[str] = (),
    *,
    simulate: bool = True,
    say: Callable[[str], None] | None = None,
) -> list[GradedRun]:
    """The runs of a workspace with their marks, oldest first.

    Args:
        names: only these; without them all, where one of which nothing can be read is said and
            left out.

    Raises:
        SessionError: a run that was named cannot be read.
    """
    found = []
    for name in names or runs(workspace):
        try:
            run = load_run(workspace, name)
        except SessionError as error:
            if names:
                raise
            if say:
                say(printable(str(error)))
            continue
        found.append(grade_run(run, simulate=simulate, say=say))
    return found


def rubric_of(item: str) -> dict[Layer, Sequence[str]]:
    """What a question's layers look for, in words; empty layers for what is no question."""
    if not item.startswith("question:"):
        return dict.fromkeys(LAYERS, ())
    question = load_question(item)
    asked = [f"{entry.says}: {entry.shown}" for entry in question.quantities if entry.asked]
    return {
        layer: [
            *(point.says for point in question.layers[layer].points),
            *(asked if layer == "arithmetic" else ()),
        ]
        for layer in LAYERS
    }


def _graded(
    run: Run,
    session: SessionRecord,
    answer: Answer,
    simulate: bool,
    say: Callable[[str], None] | None,
) -> GradedAnswer:
    about = _about(answer.item)
    nothing = answer.skipped and not answer.text.strip()
    mark = (
        Mark(answer.item, tuple(LayerMark(layer, 0) for layer in LAYERS), ("skipped",))
        if nothing
        else grade_answer(answer, simulate=simulate, say=say)
    )
    areas: tuple[LoopArea, ...] = tuple(loop_areas()[number] for number in about.areas)
    return GradedAnswer(
        run=run.id,
        at=datetime.fromisoformat(session.began),
        session=session.number,
        item=_as_asked(answer.item, about.title, session.followups),
        answer=answer,
        mark=mark,
        level=about.level,
        areas=areas,
        competencies=about.competencies,
        read=about.read,
        redo=f"trackrecord loop start --item {answer.item}",
    )


def _as_asked(name: str, title: str, followups: bool) -> Item:
    """The item with the title it has afterwards, and the follow-ups that were asked."""
    item = load_question(name).item(followups) if name.startswith("question:") else make_item(name)
    return replace(item, title=title)


def _about(item: str) -> _About:
    kind, _, name = item.partition(":")
    if kind == "question":
        question = load_question(item)
        title = f"{question.area.title}: {question.slug.replace('-', ' ')} ({question.level})"
        area = (question.area.number,)
        return _About(title, question.level, area, question.competencies, question.anchors)
    if kind == "incident":
        case = incidents.load_case(name)
        title = f"Incident: {case.title}"
        return _About(title, "staff", case.areas, case.competencies, (case.anchor,))
    task = design.load_task(name)
    return _About(f"Design: {task.title}", task.level, task.areas, task.competencies, ())
