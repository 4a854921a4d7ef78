"""A stop string is looked for in the text of the newest token alone."""

from __future__ import annotations

import mini_vllm.engine.output_processor as output_processor
from mini_vllm.core.sampling_params import SamplingParams
from trackrecord.loop.incidents.exchange import exchanged
from trackrecord.loop.incidents.outcome import Outcome, Setup
from trackrecord.loop.incidents.scripted import (
    Delivered,
    Vocabulary,
    deliver,
    params_view,
    tokens_view,
)

STOP = "\nObservation:"
_PIECES = ("\nObservation:", "\nObs", "ervation", "\nObservation", "Thought", ": ", " the", " look")
_BEFORE = "Thought: look the price up\nAction: search"
_AFTER = " the price is 12 EUR (nobody looked it up)\nThought: done"
_CUTS: tuple[tuple[str, ...], ...] = (
    ("\nObservation:",),
    ("\nObs", "ervation", ":"),
    ("\nObservation", ":"),
    ("\n", "Obs", "ervation", ":"),
)
"""Ways in which the model writes the stop string: in one token, and in several."""
_EACH = 4
_MOST_TOKENS = 120


class Calls:
    """What was searched, as a debugger at `find_stop_string` would show it."""

    def __init__(self, broken: bool) -> None:
        self.broken = broken
        self.rows: list[str] = []
        self.count = 0
        self.characters = 0

    def __call__(self, text: str, known: int, stops: list[str]) -> tuple[str, int] | None:
        first = known if self.broken else max(0, known - max(map(len, stops)) + 1)
        self.count += 1
        self.characters += len(text) - first
        if len(self.rows) < 120 and "Obs" in text[-16:]:
            self.rows.append(f"  searched {text[first:]!r} (new: {text[known:]!r})")
        if not self.broken:
            return _SEARCH(text, known, stops)
        found = _SEARCH(text[known:], 0, stops)
        return None if found is None else (found[0], found[1] + known)


_SEARCH = output_processor.find_stop_string


def run(setup: Setup) -> Outcome:
    vocabulary = Vocabulary(_PIECES)
    params = SamplingParams(temperature=0.0, max_tokens=_MOST_TOKENS, stop=STOP)
    if setup.change == "stop-token-id":
        params = params.clone(stop_token_ids=[vocabulary.ids[STOP.encode()]])
    if setup.change == "include-stop":
        params = params.clone(include_stop_str_in_output=True)
    if setup.change == "more-tokens":
        params = params.clone(max_tokens=2 * _MOST_TOKENS)
    if setup.change == "sampling":
        params = params.clone(temperature=0.7, top_p=0.9)
    scripts = {
        f"agent-{turn}-{number}": vocabulary.cut("", (_BEFORE, *cut, _AFTER, " " * 240))
        for turn in range(_EACH)
        for number, cut in enumerate(_CUTS)
    }
    calls = Calls(setup.broken)
    with exchanged(output_processor, "find_stop_string", calls):
        served = deliver(vocabulary, scripts, params)
    passed = [name for name, got in served.items() if got.finish_reason != "stop"]
    sick, sound = (passed or ["agent-0-1"])[0], "agent-0-0"
    tokens = sum(len(got.token_ids) for got in served.values())
    wasted = sum(
        len(served[name].token_ids) - len(vocabulary.cut("", (_BEFORE, *_cut_of(name))))
        for name in passed
    )
    return Outcome(
        symptom=bool(passed),
        says=f"{len(passed)} of {len(served)} generations ran past the stop string, "
        f"{wasted} tokens for nothing",
        figures={
            "passed": len(passed),
            "requests": len(served),
            "wasted_tokens": wasted,
            "pieces": len(_cut_of(sick)),
        },
        views={
            "metrics": _metrics(served, tokens),
            "access-log": _access(served),
            "sampling-params": params_view(params),
            "output-text": f"{sick}:\n{served[sick].text.rstrip()!r}",
            "tokens": f"{sick}\n{_around(vocabulary, served[sick])}",
            "tokens-sound": f"{sound}\n{_around(vocabulary, served[sound])}",
            "tokenizer": _ways(vocabulary),
            "debugger": "\n".join(["calls of find_stop_string near the stop:", *calls.rows[:14]]),
            "profile": f"counted: {tokens} tokens, {calls.count} calls of find_stop_string over "
            f"{calls.characters} characters",
        },
    )


def _cut_of(name: str) -> tuple[str, ...]:
    return _CUTS[int(name.rpartition("-")[2])]


def _metrics(served: dict[str, Delivered], tokens: int) -> str:
    reasons = [got.finish_reason for got in served.values()]
    rows = [
        (f'vllm:request_success_total{{finished_reason="{reason}"}}', reasons.count(reason))
        for reason in sorted(set(reasons))
    ]
    rows.append(("vllm:generation_tokens_total", tokens))
    return "\n".join(f"{name} {value}" for name, value in rows)


def _access(served: dict[str, Delivered]) -> str:
    rows = ["request      tokens  finish_reason  stop_reason      stop string in text"]
    for name, got in served.items():
        rows.append(
            f"{name:<12} {len(got.token_ids):>6}  {got.finish_reason:<13}  "
            f"{got.stop_reason!r:<16} {STOP in got.text}"
        )
    return "\n".join(rows)


def _around(vocabulary: Vocabulary, got: Delivered) -> str:
    lead = len(vocabulary.cut(_BEFORE)) - 3
    part = Delivered(got.token_ids[lead : lead + 14], got.chunks[lead : lead + 14])
    return tokens_view(vocabulary, part)


def _ways(vocabulary: Vocabulary) -> str:
    rows = [f"the stop string {STOP!r}, and how this model's outputs wrote it:"]
    rows += [
        f"  {len(cut)} token(s): {[vocabulary.cut(part)[0] for part in cut]} {cut}" for cut in _CUTS
    ]
    return "\n".join(rows)
