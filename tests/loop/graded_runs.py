"""Graded runs made by hand: real marks, with quotations of real answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from trackrecord.loop.areas import loop_areas
from trackrecord.loop.graded import GradedAnswer, GradedRun
from trackrecord.loop.items import Answer, Item
from trackrecord.loop.marks import LAYERS, Finding, LayerMark, Mark
from trackrecord.upstream.areas import Anchor

FIRST_DAY = datetime(2026, 7, 1, 18, 0, tzinfo=UTC)
SENTENCES = (
    "Each layer keeps a key and a value per KV head, and a block table maps positions to blocks.",
    "2 x 80 layers x 8 heads x 128 x 2 B = 320 KiB per token, 80 KiB on each of four GPUs.",
    "When the pool is empty the newest request is preempted, so p99 TTFT rises before throughput.",
)
"""A sentence for each layer."""


def graded(
    name: str,
    scores: Sequence[int],
    *,
    areas: Sequence[int] = (2,),
    competencies: Sequence[str] = ("memory",),
    level: str = "senior",
    title: str = "",
    text: str = "\n".join(SENTENCES),
    quotes: Sequence[str] = SENTENCES,
    own: Sequence[int] = (),
    followups: Sequence[str] = (),
    peeked: bool = False,
    skipped: bool = False,
    overtime: bool = False,
    seconds: float = 300.0,
) -> GradedAnswer:
    """One answer; a layer with a score has its quote found, one without has a point missing."""
    layers = []
    for layer, score, quote in zip(LAYERS, scores, quotes, strict=True):
        missing = Finding(f"what {layer} lacks", "missing")
        found = Finding(f"a point of {layer}", "found", quote, text.find(quote))
        findings = ((found,) if score else ()) + ((missing,) if score < 4 else ())
        caps = ("the model answer was looked at",) if peeked else ()
        layers.append(LayerMark(layer, score, findings, caps))
    item = Item(
        name=f"question:{name}",
        title=title or name.replace("-", " "),
        prompt="What does one token of KV cache take, and who decides how many fit?",
        model="\n\n".join(SENTENCES),
        followups=("And with FP8?",),
    )
    answer = Answer(
        item=item.name,
        text=text,
        followups=tuple(followups),
        seconds=seconds,
        peeked=peeked,
        skipped=skipped,
        overtime=overtime,
        own=dict(zip(LAYERS, own, strict=False)),
    )
    anchor = Anchor(
        area="kv-cache",
        path="vllm/v1/core/block_pool.py",
        line=130,
        symbol="BlockPool",
        look_for="who raises a reference count",
        invariant="a block is free or referenced",
    )
    return GradedAnswer(
        run="",
        at=FIRST_DAY,
        session=1,
        item=item,
        answer=answer,
        mark=Mark(item.name, tuple(layers)),
        level=level,
        areas=tuple(loop_areas()[n] for n in areas),
        competencies=tuple(competencies),
        read=(anchor,),
        redo=f"trackrecord loop start --only {areas[0]}",
    )


def sat(
    run: str,
    *answers: GradedAnswer,
    day: int = 0,
    practice: bool = False,
    problems: Sequence[str] = (),
) -> GradedRun:
    """A run of `answers`, `day` days after the first day, ten minutes between them."""
    started = FIRST_DAY + timedelta(days=day)
    placed = [
        GradedAnswer(**{**vars(a), "run": run, "at": started + timedelta(minutes=10 * n)})
        for n, a in enumerate(answers, 1)
    ]
    ended = started + timedelta(hours=3)
    return GradedRun(run, 7, practice, started, ended, tuple(placed), tuple(problems))


def whole_loop() -> tuple[GradedAnswer, ...]:
    """Fifteen answers as a full loop leaves them: mostly senior and good, some weak."""
    return (
        graded("00/decode-bound", (4, 3, 3), areas=(0,), competencies=("sizing", "kernels"),
               title="Why decode waits for memory", own=(4, 4, 3)),
        graded("00/prefill-time", (3, 4, 2), areas=(0,), competencies=("sizing", "numerics"),
               title="The time of a prefill", own=(4, 4, 3)),
        graded("01/abort", (4, 2, 3), areas=(1,), competencies=("memory", "correctness"),
               title="What an abort gives back", own=(3, 3, 3)),
        graded("01/streaming", (2, 1, 2), areas=(1,), competencies=("interfaces",),
               title="Stop strings that straddle tokens", own=(3, 3, 3)),
        graded("02/block-size", (4, 4, 3), areas=(2,), competencies=("memory", "sizing"),
               title="Block size and waste", own=(4, 4, 4)),
        graded("02/reference-counts", (3, 3, 2), areas=(2,), competencies=("correctness",),
               level="staff", title="Reference counts under preemption", own=(3, 2, 2)),
        graded("03/token-budget", (4, 3, 4), areas=(3,), competencies=("scheduling", "tradeoffs"),
               level="staff", title="What the token budget decides", own=(4, 3, 4)),
        graded("03/starvation", (1, 0, 2), areas=(3,), competencies=("scheduling",),
               level="staff", title="Starvation by long prefills", own=(3, 2, 3), overtime=True),
        graded("04/paged-kernel", (3, 2, 2), areas=(4,), competencies=("kernels",),
               title="What paging costs an attention kernel", own=(2, 2, 2)),
        graded("05/cuda-graphs", (2, 2, 2), areas=(5,), competencies=("kernels", "operations"),
               title="Padding to a captured batch size", own=(4, 3, 3), peeked=True),
        graded("06/grammar", (3, 2, 3), areas=(6,), competencies=("interfaces", "correctness"),
               title="A grammar's mask and speculative tokens", level="principal"),
        graded("07/fp8-kv", (4, 4, 4), areas=(7,), competencies=("numerics", "sizing"),
               title="FP8 for the KV cache", level="staff", own=(4, 4, 4)),
        graded("08/salted-hash", (0, 0, 0), areas=(8,), competencies=("correctness",),
               title="What a block's hash must contain", skipped=True, text="", seconds=20),
        graded("design-70b-chat", (3, 4, 3), areas=(10, 14, 18), level="staff", own=(3, 4, 4),
               competencies=("sizing", "distribution", "tradeoffs", "operations"),
               title="Llama 3 70B for chat, p99 TTFT under 1 s", seconds=3300),
        graded("incident-block-leak", (4, 2, 3), areas=(1, 2), own=(4, 3, 3), seconds=900,
               competencies=("observability", "operations", "memory"),
               title="Free blocks fall after every client that leaves"),
    )  # fmt: skip
