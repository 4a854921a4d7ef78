"""Every token is turned into text by itself, also where a character spans several."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from contextlib import ExitStack

import mini_vllm.engine.output_processor as output_processor
from mini_vllm.core.sampling_params import SamplingParams
from mini_vllm.model.detokenizer import IncrementalDetokenizer
from trackrecord.loop.incidents.exchange import exchanged
from trackrecord.loop.incidents.outcome import Outcome, Setup
from trackrecord.loop.incidents.scripted import (
    Delivered,
    Vocabulary,
    deliver,
    params_view,
    tokens_view,
)

_PIECES = ("The ", "order ", "is ", "ready", "ü", "für", " ist ", "日本", "です")
_TEXTS = {
    "en-0": "The order is ready",
    "en-1": "The order is ready, thank you",
    "de-0": "für ist fertig",
    "de-1": "Größe für Grüße",
    "ja-0": "日本です",
    "ja-1": "注文です",
    "emoji-0": "ready 🎉",
    "emoji-1": "👍🏽 ready",
}
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class HastyDetokenizer(IncrementalDetokenizer):
    """Keeps no unfinished bytes from one step to the next."""

    def append(self, token_ids: Sequence[int]) -> str:
        return "".join(self._pieces[token].decode("utf-8", "replace") for token in token_ids)

    def flush(self) -> str:
        return ""


def run(setup: Setup) -> Outcome:
    vocabulary = Vocabulary(_PIECES)
    scripts = {name: vocabulary.cut(text) for name, text in _TEXTS.items()}
    params = SamplingParams(temperature=0.0)
    if setup.change == "keep-special":
        params = params.clone(skip_special_tokens=False)
    served: dict[str, Delivered] = {}
    with ExitStack() as stack:
        if setup.broken:
            hasty = exchanged(output_processor, "IncrementalDetokenizer", HastyDetokenizer)
            stack.enter_context(hasty)
        for name, script in scripts.items():
            own = params.clone(max_tokens=len(script))
            streamed = setup.change != "no-stream"
            served |= deliver(vocabulary, {name: script}, own, streamed)
    texts = {name: _received(vocabulary, got, setup.change) for name, got in served.items()}
    damaged = [name for name, text in texts.items() if REPLACEMENT in text]
    count = sum(text.count(REPLACEMENT) for text in texts.values())
    split = sum(_split(vocabulary, text) for text in _TEXTS.values())
    sick = (damaged or ["emoji-0"])[-1]
    partial = sum(
        _unfinished(vocabulary.bytes_of[t]) for script in scripts.values() for t in script
    )
    return Outcome(
        symptom=count > 0,
        says=f"{count} replacement characters in {len(damaged)} of {len(texts)} answers",
        figures={
            "damaged": len(damaged),
            "replacements": count,
            "split": split,
            "partial_tokens": partial,
        },
        views={
            "metrics": "\n".join(
                [
                    f'vllm:request_success_total{{finished_reason="length"}} {len(texts)}',
                    f"vllm:generation_tokens_total {sum(map(len, scripts.values()))}",
                ]
            ),
            "answers": "\n".join(f"{name:<8} {text!r}" for name, text in texts.items()),
            "wire": _wire(served[sick]),
            "sampling-params": params_view(params),
            "tokens": f"{sick}\n{tokens_view(vocabulary, served[sick])}",
            "tokens-sound": f"en-0\n{tokens_view(vocabulary, served['en-0'])}",
            "offline-decode": _offline(vocabulary, scripts),
            "vocabulary": _census(vocabulary, scripts),
            "transport": _transport(served),
        },
    )


def _received(vocabulary: Vocabulary, got: Delivered, change: str) -> str:
    """What the client makes of what it got."""
    if change == "normalise":
        return unicodedata.normalize("NFC", got.text)
    if change == "charset":
        return got.text.encode("utf-8").decode("utf-8")
    if change == "client-decodes":
        data = b"".join(vocabulary.bytes_of[token] for token in got.token_ids)
        return data.decode("utf-8", "replace")
    return got.text


def _unfinished(piece: bytes) -> bool:
    """Whether these bytes are not whole characters."""
    return REPLACEMENT in piece.decode("utf-8", "replace")


def _split(vocabulary: Vocabulary, text: str) -> int:
    """Characters of `text` that more than one token make."""
    edges, place = set(), 0
    for token in vocabulary.cut(text):
        place += len(vocabulary.bytes_of[token])
        edges.add(place)
    count = place = 0
    for character in text:
        size = len(character.encode())
        count += any(place < edge < place + size for edge in edges)
        place += size
    return count


def _wire(got: Delivered) -> str:
    rows = ["server-sent events as received: the text of each, and its UTF-8"]
    rows += [f"  {chunk!r:<14} {chunk.encode().hex(' ')}" for chunk in got.chunks]
    return "\n".join(rows)


def _transport(served: dict[str, Delivered]) -> str:
    rows = ["bytes received; whether they are valid UTF-8; whether any event was lost"]
    for name, got in served.items():
        data = b"".join(chunk.encode() for chunk in got.chunks)
        whole = data.decode("utf-8") == got.text
        rows.append(f"{name:<8} {len(data):>3}  valid: {whole}  events: {len(got.chunks)}")
    return "\n".join(rows)


def _offline(vocabulary: Vocabulary, scripts: dict[str, list[int]]) -> str:
    rows = ["the same token ids, decoded all at once"]
    for name, script in scripts.items():
        data = b"".join(vocabulary.bytes_of[token] for token in script)
        rows.append(f"{name:<8} {data.decode('utf-8', 'replace')!r}")
    return "\n".join(rows)


def _census(vocabulary: Vocabulary, scripts: dict[str, list[int]]) -> str:
    rows = [
        "tokens of each answer; of these, tokens that are no whole characters; split characters"
    ]
    for name, script in scripts.items():
        partial = sum(_unfinished(vocabulary.bytes_of[token]) for token in script)
        rows.append(
            f"{name:<8} {len(script):>3} {partial:>3} {_split(vocabulary, _TEXTS[name]):>3}"
        )
    return "\n".join(rows)
