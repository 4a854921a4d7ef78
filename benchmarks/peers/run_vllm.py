"""Runs vLLM's CPU build for `compare.py`; `--set` takes any argument of `vllm.LLM`.

Its best settings come from outside the process: cores to bind to, the allocator and the OpenMP
library that vLLM's own CPU guide preloads. Where they are missing the runner starts itself again
with them. Three settings are the runner's own: `multiprocessing=false` runs the engine core in this
process, `preload=false` leaves the libraries out, `zentorch=FOLDER` adds AMD's extension.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from runner import Options, Outcome, RunnerError, Tokens, parse_options, serve

PREPARED = "TRACKRECORD_VLLM_PREPARED"
"""Set in an environment that is as it should be."""
OWN_SETTINGS = ("multiprocessing", "preload", "zentorch")


class VLLM:
    engine = "vLLM"

    def __init__(self, options: Options) -> None:
        import vllm

        self.version = vllm.__version__
        settings = {
            "dtype": "bfloat16",
            "max_model_len": 2048,
            "max_num_seqs": 64,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "kv_cache_memory_bytes": options.kv_bytes,
            **options.settings,
        }
        own = {name: settings.pop(name) for name in OWN_SETTINGS if name in settings}
        libraries = os.environ.get("LD_PRELOAD", "").split(":")
        self.settings = settings | {
            "multiprocessing": own.get("multiprocessing", True),
            "preloaded": [Path(path).name for path in libraries if path],
            "zentorch": bool(own.get("zentorch")),
            "threads_bind": os.environ["VLLM_CPU_OMP_THREADS_BIND"],
        }
        self._llm = vllm.LLM(options.model, **settings)
        self.vocab_size = self._llm.model_config.get_vocab_size()
        self._params = vllm.SamplingParams

    def run(self, prompts: Tokens, output_tokens: int) -> Outcome:
        params = self._params(
            temperature=0, max_tokens=output_tokens, ignore_eos=True, detokenize=False
        )
        if not self._llm.reset_prefix_cache():
            raise RunnerError("the prefix cache cannot be reset")
        requests = [{"prompt_token_ids": ids} for ids in prompts]
        start = time.perf_counter()
        outputs = self._llm.generate(requests, params, use_tqdm=False)
        seconds = time.perf_counter() - start
        firsts = [getattr(output.metrics, "first_token_latency", None) for output in outputs]
        first = min((value for value in firsts if value), default=None)
        return Outcome(seconds, first, [list(output.outputs[0].token_ids) for output in outputs])


def environment_for(options: Options) -> dict[str, str]:
    """The environment variables vLLM needs for its best; what is set already is kept."""
    wanted = {
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{options.threads - 1}",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if options.settings.get("multiprocessing") is False:
        wanted["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if options.settings.get("preload", True):
        wanted["LD_PRELOAD"] = ":".join(preloads())
    if folder := options.settings.get("zentorch"):
        wanted["PYTHONPATH"] = str(folder)
    return wanted | {key: os.environ[key] for key in wanted if os.environ.get(key)}


def preloads() -> list[str]:
    """tcmalloc from the system and Intel's OpenMP from vLLM's own environment, where they are."""
    found = [path for path in Path(sys.prefix).glob("lib/libiomp5.so") if path.is_file()]
    names = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4")
    folders = [Path(folder) for folder in ("/usr/lib", "/usr/lib64", "/usr/local/lib")]
    folders += list(Path("/usr/lib").glob("*-linux-gnu"))
    allocators = [folder / name for name in names for folder in folders]
    found += [path for path in allocators if path.is_file()][:1]
    if len(found) < 2:
        print("run_vllm: tcmalloc or libiomp5 is missing: vLLM is not at its best", file=sys.stderr)
    return [str(path) for path in found]


def main() -> int:
    if PREPARED not in os.environ:
        environment = os.environ | environment_for(parse_options()) | {PREPARED: "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)  # noqa: S606
    return serve(VLLM)


if __name__ == "__main__":
    sys.exit(main())
