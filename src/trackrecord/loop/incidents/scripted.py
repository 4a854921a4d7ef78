"""A real engine whose tokens are given: for incidents in what becomes of tokens on their way out.

The scheduler, the KV cache manager and the output processor are the engine's; only the model is
replaced, by a script of token ids for each request. The vocabulary is a byte-level one: 256 bytes
and a few longer pieces, so that a text can be cut into tokens in more than one way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import tokenizers
from tokenizers import decoders, models

from mini_vllm.core.request import Request, RequestStatus
from mini_vllm.core.sampling_params import RequestOutputKind, SamplingParams
from mini_vllm.core.scheduler import ModelRunnerOutput, SchedulerConfig, SchedulerOutput
from mini_vllm.engine.engine_core import EngineCore
from mini_vllm.engine.output_processor import OutputProcessor
from mini_vllm.engine.outputs import RequestMetrics
from mini_vllm.model.pieces import BYTE_OF_CHARACTER
from mini_vllm.model.tokenizer import Tokenizer

_CHARACTER_OF_BYTE = {byte: character for character, byte in BYTE_OF_CHARACTER.items()}


class Vocabulary:
    """Bytes and `pieces`, and the tokenizer that spells them."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self.ids = {bytes([byte]): byte for byte in range(256)}
        for piece in pieces:
            self.ids.setdefault(piece.encode(), len(self.ids))
        self.bytes_of = {token_id: piece for piece, token_id in self.ids.items()}
        spelled = {
            "".join(_CHARACTER_OF_BYTE[byte] for byte in piece): token_id
            for piece, token_id in self.ids.items()
        }
        backend = tokenizers.Tokenizer(models.BPE(vocab=spelled, merges=[]))
        backend.decoder = decoders.ByteLevel()
        self.tokenizer = Tokenizer(backend)

    def cut(self, text: str, at: Sequence[str] = ()) -> list[int]:
        """Token ids of `text`, cut between the texts in `at` where given, else longest first."""
        if at:
            return [token for part in at for token in self.cut(part)]
        data, tokens = text.encode(), []
        while data:
            size = next(n for n in range(len(data), 0, -1) if data[:n] in self.ids)
            tokens.append(self.ids[data[:size]])
            data = data[size:]
        return tokens


@dataclass
class Delivered:
    """What a client got of one request, and which tokens it was made from."""

    token_ids: list[int] = field(default_factory=list)
    chunks: list[str] = field(default_factory=list)
    """The text of each step, as it was streamed."""
    finish_reason: str = ""
    stop_reason: object = None

    @property
    def text(self) -> str:
        return "".join(self.chunks)


class _Script:
    """An executor that reads the next token from a script; the last token repeats."""

    def __init__(self, tokens: Mapping[str, Sequence[int]]) -> None:
        self.tokens = tokens

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        return ModelRunnerOutput([[self._next(r)] for r in scheduler_output.num_scheduled_tokens])

    def _next(self, request: Request) -> int:
        script = self.tokens[request.request_id]
        return script[min(request.num_output_tokens, len(script) - 1)]


def deliver(
    vocabulary: Vocabulary,
    scripts: Mapping[str, Sequence[int]],
    params: SamplingParams,
    streamed: bool = True,
) -> dict[str, Delivered]:
    """Serves a request for each script, and returns what their clients got."""
    core = EngineCore(SchedulerConfig(num_blocks=2001), _Script(scripts))
    processor = OutputProcessor(vocabulary.tokenizer)
    found = {name: Delivered() for name in scripts}
    for name in scripts:
        kind = RequestOutputKind.DELTA if streamed else RequestOutputKind.FINAL_ONLY
        own = params.clone(output_kind=kind)
        request = Request(name, vocabulary.cut(f"[{name}]"), own)
        core.add_request(request)
        processor.add_request(name, None, [request], own, RequestMetrics())
    while core.has_work:
        processed = processor.process(core.step().outputs)
        if processed.stopped_ids:
            core.finish_requests(processed.stopped_ids, RequestStatus.FINISHED_STOPPED)
        for output in processed.outputs:
            [part] = output.outputs
            client = found[output.request_id]
            client.token_ids += part.token_ids
            client.chunks.append(part.text)
            client.finish_reason = part.finish_reason or ""
            client.stop_reason = part.stop_reason
    return found


def tokens_view(vocabulary: Vocabulary, delivered: Delivered, most: int = 40) -> str:
    """Tokens beside the text that each of them let out."""
    rows = ["   n  token  bytes                 text let out"]
    for place, (token, chunk) in enumerate(
        zip(delivered.token_ids[:most], delivered.chunks, strict=False)
    ):
        rows.append(f"{place:>4} {token:>6}  {vocabulary.bytes_of[token]!r:<21} {chunk!r}")
    if len(delivered.token_ids) > most:
        rows.append(f"  ... {len(delivered.token_ids) - most} more")
    return "\n".join(rows)


def params_view(params: SamplingParams) -> str:
    """The sampling parameters that bear on the text."""
    names = (
        "max_tokens min_tokens stop stop_token_ids include_stop_str_in_output skip_special_tokens "
        "detokenize temperature"
    )
    return "\n".join(f"{name} = {getattr(params, name)!r}" for name in names.split())
