"""Runs transformers' `generate` for `compare.py`, in the project's own environment.

Prompts of a workload are of one length, so they form one batch without padding. It has no prefix
cache of its own: a shared prefix is computed once and its cache repeated, as its guide does.
`--set` takes arguments of `from_pretrained`.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
import transformers
from runner import Options, Outcome, RunnerError, Tokens, serve

LEAST_SHARED = 32


class FirstToken(transformers.StoppingCriteria):
    """Stops nothing; notes when the first token was there."""

    def __init__(self) -> None:
        self.time: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self.time = self.time or time.perf_counter()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class Transformers:
    engine = "transformers"
    version = transformers.__version__

    def __init__(self, options: Options) -> None:
        torch.set_num_threads(options.threads)
        self.settings = {"dtype": "bfloat16", "attn_implementation": "sdpa", **options.settings}
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            options.model, **self.settings
        ).eval()
        self.settings = {**self.settings, "torch_threads": options.threads}
        self.vocab_size = self._model.config.vocab_size
        self._model.generation_config.eos_token_id = None

    @torch.inference_mode()
    def run(self, prompts: Tokens, output_tokens: int) -> Outcome:
        if len({len(ids) for ids in prompts}) > 1:
            raise RunnerError("prompts of different lengths would be padded")
        first = FirstToken()
        start = time.perf_counter()
        ids = torch.tensor(prompts, device=self._model.device)
        out = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=output_tokens,
            do_sample=False,
            past_key_values=self._prefix_cache(ids),
            stopping_criteria=transformers.StoppingCriteriaList([first]),
        )
        seconds = time.perf_counter() - start
        assert first.time is not None
        return Outcome(seconds, first.time - start, out[:, ids.shape[1] :].tolist())

    def _prefix_cache(self, ids: torch.Tensor) -> transformers.DynamicCache | None:
        """The cache of what all prompts begin with, once for each; None if there is nothing."""
        same = (ids[:, :-1] == ids[0, :-1]).all(dim=0)
        shared = int(same.cumprod(dim=0).sum()) if len(ids) > 1 else 0
        if shared < LEAST_SHARED:
            return None
        cache = transformers.DynamicCache(config=self._model.config)
        self._model(ids[:1, :shared], past_key_values=cache, logits_to_keep=1)
        cache.batch_repeat_interleave(len(ids))
        return cache


if __name__ == "__main__":
    sys.exit(serve(Transformers))
