"""Whether a question keeps the promises of the bank, tried by grading answers that are known.

A model answer must have full marks; what is no answer (the question itself, its key terms in a row,
fluent generalities, the answer to another question) must have next to none; a model answer with one
number changed, or one mechanism denied, must lose what it no longer says.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trackrecord.loop.bank.grade import grade_question
from trackrecord.loop.bank.question import Question
from trackrecord.loop.grading.points import (
    Phrase,
    Point,
    find_point,
    parse_pattern,
    phrase_span,
    read_text,
)
from trackrecord.loop.grading.prose import AUXILIARIES, Sentence
from trackrecord.loop.items import Answer
from trackrecord.loop.marks import FULL, WRONG_CAP, Mark
from trackrecord.loop.quantities.reading import read_equations, read_quantities
from trackrecord.upstream.anchors import check_anchors

NEXT_TO_NOTHING = 1
"""The most that a layer may have of what is no answer."""
_DIGITS = re.compile(r"\d[\d,]*(?:\.\d+)?(?<!,)")
_MOST_DENIALS = 8


@dataclass(frozen=True)
class Problem:
    """A promise that a question breaks: which (`rule`), and how."""

    question: str
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.question}: {self.rule}: {self.text}"


def model_answer(question: Question, text: str | None = None) -> Answer:
    """The model answer, follow-ups included, as if a candidate had given it."""
    followups = tuple(entry.answer for entry in question.followups)
    return Answer(question.name, question.model if text is None else text, followups)


def check_question(question: Question) -> list[Problem]:
    """Everything that can be said of a question alone."""
    found = [*_full_marks(question), *_no_answers(question), *_mistakes(question)]
    if not found:
        found += [*_changed_numbers(question), *_denied_mechanisms(question)]
    return found


def check_places(questions: Sequence[Question], root: Path) -> list[Problem]:
    """Every anchor must be where it says in the tree at `root`."""
    listed = [(question, anchor) for question in questions for anchor in question.anchors]
    checks = check_anchors([anchor for _, anchor in listed], root)
    return [
        Problem(question.name, "anchor", check.words)
        for (question, _), check in zip(listed, checks, strict=True)
        if check.state != "in place"
    ]


def confusions(questions: Sequence[Question]) -> list[tuple[Question, Question, Mark]]:
    """(question, other, mark) where the answer to another one has more than next to nothing."""
    found = []
    for question in questions:
        for other in questions:
            if other is question:
                continue
            mark = grade_question(question, Answer(question.name, other.model))
            if max(mark.scores.values()) > NEXT_TO_NOTHING:
                found.append((question, other, mark))
    return found


def key_terms(question: Question) -> list[str]:
    """The words that the points look for, one alternative of each pattern."""
    found = []
    for layer in question.layers.values():
        for point in layer.points:
            patterns = (*point.relation, *point.terms)
            found += [pattern.split("|")[0].strip(" !*").replace("*", "") for pattern in patterns]
    return [*found, *(entry.unit for entry in question.quantities if entry.unit)]


def with_changed_numbers(text: str) -> Iterator[str]:
    """`text` with one of its numbers changed, for each of them."""
    spans = [(s.start, s.end) for s in read_quantities(text)]
    spans += [(e.start, e.end) for e in read_equations(text)]
    for match in _DIGITS.finditer(text):
        inside = any(a <= match.start() and match.end() <= b for a, b in spans)
        word_before = text[match.start() - 1 : match.start()].isalpha()
        if inside and not word_before:
            yield text[: match.start()] + _other(match[0]) + text[match.end() :]


def denied(text: str, point: Point) -> str:
    """`text` with every sentence that makes the point turned into its denial."""
    for _ in range(_MOST_DENIALS):
        read = read_text(text)
        finding = find_point(read, point)
        if finding.verdict != "found":
            break
        sentence = next(s for s in read.sentences if s.start == finding.start)
        text = text[: sentence.start] + _not_so(sentence) + text[sentence.end :]
    return text


def survives_a_not(text: str, point: Point) -> str:
    """The claim that is still taken for said with "not" or "never" put before it; empty if none."""
    for sentence in read_text(text).sentences:
        for pattern in point.relation:
            for phrase in parse_pattern(pattern):
                span = phrase_span(sentence, phrase)
                if span is None or phrase.denied:
                    continue
                changed = _with_not(sentence, *span)
                if all(_holds(phrase, text) for text in changed):
                    return changed[0]
    return ""


def _holds(phrase: Phrase, text: str) -> bool:
    return any(phrase_span(sentence, phrase) for sentence in read_text(text).sentences)


def generalities(words: int, seed: int = 0) -> str:
    """Fluent prose that says nothing, as long as asked for."""
    chooser = random.Random(seed)
    parts: list[str] = []
    while sum(len(part.split()) for part in parts) < words:
        parts.append(
            f"{chooser.choice(_OPENINGS)} {chooser.choice(_SUBJECTS)} {chooser.choice(_CLAIMS)}, "
            f"{chooser.choice(_REASONS)}."
        )
    return " ".join(parts)


_OPENINGS = (
    *("In a modern serving stack,", "At scale,", "From a systems perspective,", "In production,"),
    *("Fundamentally,", "As with every engine,", "For a staff engineer,", "In practice,"),
)
_SUBJECTS = (
    *("the scheduler", "the KV cache", "GPU memory", "the attention kernel", "the batch"),
    *("throughput", "latency", "the block pool", "each request", "quantization", "the worker"),
    *("prefix caching", "the model runner", "tensor parallelism", "the router", "sampling"),
)
_CLAIMS = (
    *("is an important consideration", "must be balanced carefully", "has to be measured first"),
    *("drives the overall performance", "interacts with many other components"),
    *("is where most of the complexity lives", "should be tuned for the workload at hand"),
    *("scales with the size of the model", "is central to an efficient design"),
)
_REASONS = (
    *("because every deployment has different requirements", "so trade-offs are unavoidable"),
    *("and a good engineer monitors the relevant metrics", "which affects the user experience"),
    *("as both memory and compute are limited resources", "and robust systems plan for failure"),
    *("since the hardware and the software evolve quickly", "so it depends on the use case"),
)


def _full_marks(question: Question) -> Iterator[Problem]:
    mark = grade_question(question, model_answer(question))
    for layer in mark.layers:
        if layer.score == FULL:
            continue
        lacking = [f"{f.verdict}: {f.says}" for f in layer.findings if f.verdict != "found"]
        words = "; ".join([*layer.caps, *lacking])
        yield Problem(question.name, "model answer", f"{layer.layer} is {layer.score}: {words}")


def _no_answers(question: Question) -> Iterator[Problem]:
    terms = key_terms(question)
    texts = {
        "the question repeated": question.ask,
        "the question twice": f"{question.ask}\n{question.ask}",
        "nothing": "",
        "generalities": generalities(2_000),
        "a list of terms": ", ".join(terms),
        "terms in a row": " ".join(terms),
        "terms joined by and": " and ".join(terms),
        "terms on lines": "\n".join(f"- {term}" for term in terms),
        "terms as sentences": " ".join(f"{term.capitalize()}." for term in terms),
    }
    for what, text in texts.items():
        mark = grade_question(question, Answer(question.name, text))
        for layer in mark.layers:
            if layer.score > NEXT_TO_NOTHING:
                quotes = "; ".join(f.quote for f in layer.findings if f.verdict == "found")
                words = f"{what} has {layer.score} in {layer.layer}: {quotes[:300]}"
                yield Problem(question.name, "no answer", words)


def _mistakes(question: Question) -> Iterator[Problem]:
    model = read_text(question.model)
    for mistake in question.wrong:
        if find_point(read_text(mistake.text), mistake.point).verdict != "found":
            words = f"does not recognise its own text: {mistake.text.strip()[:120]}"
            yield Problem(question.name, "wrong answer", words)
        finding = find_point(model, mistake.point)
        if finding.verdict == "found":
            words = f"{mistake.point.says!r} is found in the model answer: {finding.quote}"
            yield Problem(question.name, "wrong answer", words)


def _changed_numbers(question: Question) -> Iterator[Problem]:
    for text in with_changed_numbers(question.model):
        mark = grade_question(question, model_answer(question, text))
        if mark.scores["arithmetic"] > WRONG_CAP:
            changed = next(
                (b for a, b in zip(question.model.split(), text.split(), strict=False) if a != b),
                "",
            )
            words = f"arithmetic is {mark.scores['arithmetic']} with a number changed to {changed}"
            yield Problem(question.name, "changed number", words)


def _denied_mechanisms(question: Question) -> Iterator[Problem]:
    for point in question.layers["mechanism"].points:
        finding = find_point(read_text(denied(question.model, point), question.ask), point)
        if finding.verdict == "found":
            words = f"{point.says!r} is still found: {finding.quote}"
            yield Problem(question.name, "denied mechanism", words)
        if changed := survives_a_not(question.layers["mechanism"].answer, point):
            words = f"{point.says!r} is still found: {changed}"
            yield Problem(question.name, "denied mechanism", words)


def _other(digits: str) -> str:
    """Another number with as many digits."""
    first = "8" if digits[0] == "9" else str(int(digits[0]) + 1)
    return first + digits[1:]


def _not_so(sentence: Sentence) -> str:
    first = sentence.words[0].start - sentence.start
    text = sentence.text
    return f"{text[:first]}It is not true that {text[first].lower()}{text[first + 1 :]}"


def _with_not(sentence: Sentence, first: int, last: int) -> list[str]:
    """The sentence with what words `first` to `last` say denied: before them ("never shared"), and
    behind an auxiliary among them ("is not shared"). Which of the two is English depends on it."""
    before = sentence.words[first - 1] if first else None
    negation = "not" if before is not None and before.plain in AUXILIARIES else "never"
    places = [(sentence.words[first].start, f"{negation} ")]
    inside = sentence.words[first + 1 : last + 1]
    places += [(word.end, " not") for word in inside if word.plain in AUXILIARIES][:1]
    text, start = sentence.text, sentence.start
    return [f"{text[: at - start]}{put}{text[at - start :]}" for at, put in places]
