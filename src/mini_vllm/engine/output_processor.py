"""From the tokens of sequences to the `RequestOutput`s of requests.

A request with n > 1 is n sequences that the scheduler knows nothing common of but their prompt;
here they become one again. Text appears as tokens complete characters; a stop string ends a
sequence wherever it falls between tokens, and what could still become one is held back.

Invariants: text already given out is never revised; a request's last output has `finished` set,
and nothing follows it.

Source: vLLM v0.22.1 `vllm/v1/engine/output_processor.py`, `OutputProcessor`;
`vllm/v1/engine/detokenizer.py`; `vllm/v1/engine/parallel_sampling.py`, `ParentRequest`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mini_vllm.core.request import Request
from mini_vllm.core.sampling_params import RequestOutputKind, SamplingParams
from mini_vllm.core.scheduler import EngineCoreOutput
from mini_vllm.engine.outputs import (
    CompletionOutput,
    Logprob,
    LogprobsOnePosition,
    RequestMetrics,
    RequestOutput,
)
from mini_vllm.engine.sampler import TokenLogprobs
from mini_vllm.model.detokenizer import IncrementalDetokenizer
from mini_vllm.model.tokenizer import Tokenizer


@dataclass(slots=True)
class Processed:
    """What a step gave to callers, and the sequences whose stop string was found only here."""

    outputs: list[RequestOutput]
    stopped_ids: list[str]


class OutputProcessor:
    """Turns `EngineCoreOutput`s into `RequestOutput`s."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._sequences: dict[str, _Sequence] = {}

    def add_request(
        self,
        request_id: str,
        prompt: str | None,
        requests: list[Request],
        params: SamplingParams,
        metrics: RequestMetrics,
    ) -> None:
        """Announces a request and its n sequences, in order of their index."""
        group = _Group(request_id, prompt, requests, params, metrics)
        for index, request in enumerate(requests):
            self._sequences[request.request_id] = _Sequence(group, index, request, self._tokenizer)

    def abort(self, requests: Iterable[Request]) -> list[RequestOutput]:
        """Ends sequences that were aborted; returns the last outputs of their requests."""
        outputs = []
        for request in requests:
            sequence = self._sequences.pop(request.request_id, None)
            if sequence is not None:
                sequence.end("abort", None)
                output = sequence.group.advance(sequence)
                if output is not None:
                    outputs.append(output)
        return outputs

    def process(self, core_outputs: list[EngineCoreOutput]) -> Processed:
        processed = Processed([], [])
        for core_output in core_outputs:
            sequence = self._sequences.get(core_output.request.request_id)
            if sequence is None:
                continue
            sequence.append(core_output)
            if sequence.finish_reason is not None:
                del self._sequences[core_output.request.request_id]
                if core_output.finish_reason is None:
                    processed.stopped_ids.append(core_output.request.request_id)
            output = sequence.group.advance(sequence)
            if output is not None:
                processed.outputs.append(output)
        return processed


class _Sequence:
    """One of the n sequences of a request: its text and log-probabilities so far."""

    def __init__(
        self, group: _Group, index: int, request: Request, tokenizer: Tokenizer | None
    ) -> None:
        params = group.params
        self.group = group
        self.index = index
        self.request = request
        self.text = ""
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.logprobs: list[LogprobsOnePosition] | None = (
            [] if params.logprobs is not None else None
        )
        self.cumulative_logprob: float | None = 0.0 if params.logprobs is not None else None
        self._tokenizer = tokenizer if params.detokenize else None
        self._detokenizer = (
            IncrementalDetokenizer(tokenizer, request.token_ids, params.skip_special_tokens)
            if tokenizer is not None and params.detokenize
            else None
        )
        # The end of the text may be the beginning of a stop string that must not be shown.
        self._held_back = (
            max(map(len, params.stop_strings)) - 1
            if params.stop_strings and not params.include_stop_str_in_output
            else 0
        )
        self._told_text = 0
        self._told_tokens = 0

    def append(self, core_output: EngineCoreOutput) -> None:
        """Takes in new tokens, and perhaps the end."""
        params = self.group.params
        if core_output.prompt_logprobs is not None and self.group.prompt_logprobs is None:
            self.group.prompt_logprobs = [
                None,
                *(_position(p, self._tokenizer) for p in core_output.prompt_logprobs),
            ]
        reason = core_output.finish_reason
        stop: str | None = None
        if self._detokenizer is not None:
            if len(core_output.new_token_ids) > 1 and params.stop_strings:
                stop = self._append_one_by_one(core_output)
            else:
                stop = self._append_text(core_output.new_token_ids, reason, 0)
        if core_output.logprobs is not None:
            self._append_logprobs(core_output.logprobs[: len(core_output.new_token_ids)])
        if stop is not None:
            self.end("stop", stop)
        elif reason is not None:
            self.end(reason, self.request.stop_reason)

    def _append_text(self, token_ids: list[int], reason: str | None, to_come: int) -> str | None:
        """Adds the text of tokens, behind which the step has `to_come` more, and `reason` for an
        end; returns the stop string that has come about, if any, with the text cut there."""
        assert self._detokenizer is not None
        params, known = self.group.params, len(self.text)
        # The token that ended the sequence is not part of its text.
        ended_by_token = reason == "stop" and not params.include_stop_str_in_output
        self.text += self._detokenizer.append(token_ids[:-1] if ended_by_token else token_ids)
        if reason is not None:
            self.text += self._detokenizer.flush()
        num_output = self.request.num_output_tokens - to_come
        if not params.stop_strings or num_output <= params.min_tokens:
            return None
        found = find_stop_string(self.text, known, params.stop_strings)
        if found is None:
            return None
        stop, start = found
        self.text = self.text[: start + len(stop) if params.include_stop_str_in_output else start]
        return stop

    def _append_one_by_one(self, core_output: EngineCoreOutput) -> str | None:
        """The same for several tokens, of which those behind a stop string are taken back.

        So drafts change nothing: without them the sequence would have ended there.
        """
        token_ids = core_output.new_token_ids
        for place, token_id in enumerate(token_ids):
            to_come = len(token_ids) - 1 - place
            reason = None if to_come else core_output.finish_reason
            stop = self._append_text([token_id], reason, to_come)
            if stop is not None:
                del self.request.token_ids[self.request.num_tokens - to_come :]
                del token_ids[place + 1 :]
                return stop
        return None

    def end(self, finish_reason: str, stop_reason: int | str | None) -> None:
        self.finish_reason, self.stop_reason = finish_reason, stop_reason
        self._held_back = 0

    def tell(self, delta: bool) -> CompletionOutput:
        """The sequence so far, or what is new since it was last told."""
        request, prompt_len = self.request, self.request.num_prompt_tokens
        text_end = max(len(self.text) - self._held_back, self._told_text)
        text_start = self._told_text if delta else 0
        tokens_start = self._told_tokens if delta else 0
        self._told_text, self._told_tokens = text_end, request.num_output_tokens
        return CompletionOutput(
            index=self.index,
            text=self.text[text_start:text_end],
            token_ids=request.token_ids[prompt_len + tokens_start :],
            cumulative_logprob=self.cumulative_logprob,
            logprobs=None if self.logprobs is None else self.logprobs[tokens_start:],
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
        )

    def _append_logprobs(self, tokens: list[TokenLogprobs]) -> None:
        assert self.logprobs is not None
        assert self.cumulative_logprob is not None
        for token in tokens:
            self.logprobs.append(_position(token, self._tokenizer))
            self.cumulative_logprob += float(token.logprobs[0])


class _Group:
    """A request as its caller knows it: n sequences of one prompt."""

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        requests: list[Request],
        params: SamplingParams,
        metrics: RequestMetrics,
    ) -> None:
        self.request_id = request_id
        self.prompt = prompt
        self.requests = requests
        self.prompt_token_ids = requests[0].token_ids[: requests[0].num_prompt_tokens]
        self.params = params
        self.metrics = metrics
        self.prompt_logprobs: list[LogprobsOnePosition | None] | None = None
        self._unfinished = len(requests)
        self._final: list[CompletionOutput] = []

    def advance(self, sequence: _Sequence) -> RequestOutput | None:
        """The output that follows from `sequence` having advanced, if one is due."""
        ended = sequence.finish_reason is not None
        self._unfinished -= ended
        kind = self.params.output_kind
        if kind is RequestOutputKind.FINAL_ONLY:
            if ended:
                self._final.append(sequence.tell(delta=False))
            if self._unfinished:
                return None
            outputs = sorted(self._final, key=lambda output: output.index)
        else:
            outputs = [sequence.tell(delta=kind is RequestOutputKind.DELTA)]
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.prompt,
            prompt_token_ids=self.prompt_token_ids,
            outputs=outputs,
            finished=not self._unfinished,
            prompt_logprobs=self.prompt_logprobs,
            num_cached_tokens=self.requests[0].num_cached_tokens,
            metrics=self.metrics,
        )


def find_stop_string(text: str, known: int, stops: list[str]) -> tuple[str, int] | None:
    """The stop string that begins first in `text`, and where.

    Args:
        text: all of it.
        known: characters of it that were searched before; one that ends among them is not looked
            for again.
    """
    best: tuple[str, int] | None = None
    for stop in stops:
        start = text.find(stop, max(0, known - len(stop) + 1))
        if start >= 0 and (best is None or start < best[1]):
            best = (stop, start)
    return best


def _position(token: TokenLogprobs, tokenizer: Tokenizer | None) -> LogprobsOnePosition:
    position: LogprobsOnePosition = {}
    for place, (token_id, logprob) in enumerate(
        zip(token.token_ids.tolist(), token.logprobs.tolist(), strict=True)
    ):
        if token_id not in position:
            text = tokenizer.token_text(token_id) if tokenizer is not None else None
            position[token_id] = Logprob(logprob, place or token.rank, text)
    return position
