"""Runs mini_vllm for `compare.py`; `--set` takes any field of `EngineConfig`."""

from __future__ import annotations

import sys
import time

from runner import Options, Outcome, Tokens, serve

from mini_vllm import LLM, SamplingParams, __version__


class MiniVLLM:
    engine = "mini_vllm"
    version = __version__

    def __init__(self, options: Options) -> None:
        given = {
            "kv_cache_memory_bytes": options.kv_bytes,
            "reserve_kv_cache": True,
            "num_threads": options.threads,
            **options.settings,
        }
        self._llm = LLM(options.model, **given)
        self.settings = given | {"dtype": str(self._llm.engine.dtype).removeprefix("torch.")}
        self.vocab_size = self._llm.model_config.vocab_size

    def run(self, prompts: Tokens, output_tokens: int) -> Outcome:
        params = SamplingParams(
            temperature=0, max_tokens=output_tokens, ignore_eos=True, detokenize=False
        )
        self._llm.reset_prefix_cache()
        began, start = time.monotonic(), time.perf_counter()
        outputs = self._llm.generate([{"prompt_token_ids": ids} for ids in prompts], params)
        seconds = time.perf_counter() - start
        first = min(output.metrics.first_token_time for output in outputs) - began
        return Outcome(seconds, first, [output.outputs[0].token_ids for output in outputs])


if __name__ == "__main__":
    sys.exit(serve(MiniVLLM))
