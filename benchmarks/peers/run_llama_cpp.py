"""Runs llama.cpp for `compare.py`, through its C interface, on the same token ids as the others.

Each workload gets the context that suits it best, made before the clock starts: as many sequences
as requests, as long as they need, each in a KV stream of its own so that attention reads nothing
of the others. A shared prefix is computed once and copied to the others. Sampling is an argmax
over the logits of a step in numpy, which is faster than the library's own sampler chain.

`--set` takes `n_batch`, `n_ubatch`, `flash_attn` (auto, on, off), `kv_unified`, `use_mmap`.
"""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as c
from runner import Options, Outcome, RunnerError, Tokens, serve

LEAST_SHARED = 32
"""A shorter common beginning is not worth a copy."""
FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
ERROR_LEVEL = 4
DEFAULTS = {
    "n_batch": 2048,
    "n_ubatch": 512,
    "flash_attn": "auto",
    "kv_unified": False,
    "use_mmap": True,
}


@c.llama_log_callback
def _log(level: int, text: bytes, _: Any) -> None:
    if level == ERROR_LEVEL:
        print(text.decode(errors="replace"), end="", file=sys.stderr)


class Batch:
    """Tokens for one `llama_decode`, as arrays of `capacity`, of which the first are filled."""

    def __init__(self, capacity: int) -> None:
        self.token, self.pos, self.seq = (np.zeros(capacity, np.int32) for _ in range(3))
        self.logits = np.zeros(capacity, np.int8)
        self._one = np.ones(capacity, np.int32)
        self._seq_pointers = (
            self.seq.ctypes.data + self.seq.itemsize * np.arange(capacity, dtype=np.uintp)
        ).astype(np.uintp)
        self._struct = c.llama_batch(n_tokens=0, embd=None)
        int32s, pointer = ctypes.POINTER(ctypes.c_int32), ctypes.cast
        self._struct.token = pointer(self.token.ctypes.data, int32s)
        self._struct.pos = pointer(self.pos.ctypes.data, int32s)
        self._struct.n_seq_id = pointer(self._one.ctypes.data, int32s)
        self._struct.seq_id = pointer(self._seq_pointers.ctypes.data, ctypes.POINTER(int32s))
        self._struct.logits = pointer(self.logits.ctypes.data, ctypes.POINTER(ctypes.c_int8))

    def of(self, tokens: int) -> c.llama_batch:
        self._struct.n_tokens = tokens
        return self._struct


class LlamaCpp:
    engine = "llama.cpp"
    version = f"llama-cpp-python {llama_cpp.__version__}"

    def __init__(self, options: Options) -> None:
        if unknown := options.settings.keys() - DEFAULTS:
            raise RunnerError(f"no setting is named {', '.join(sorted(unknown))}")
        self._options = DEFAULTS | options.settings
        self._threads = options.threads
        c.llama_log_set(_log, ctypes.c_void_p(0))
        c.llama_backend_init()
        parameters = c.llama_model_default_params()
        parameters.n_gpu_layers = 0
        parameters.use_mmap = self._options["use_mmap"]
        self._model = c.llama_model_load_from_file(options.model.encode(), parameters)
        if not self._model:
            raise RunnerError(f"llama.cpp cannot load {options.model!r}")
        self.vocab_size = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self._model))
        features = [
            name.strip().partition(" = ")[0]
            for name in c.llama_print_system_info().decode().split("|")
            if name.strip().endswith("= 1")
        ]
        self.settings = {
            **self._options,
            "n_threads": self._threads,
            "weights": self._description(),
            "built_with": features,
        }
        self._batch = Batch(self._options["n_batch"])
        self._context: Any = None
        self._shape: tuple[int, int] | None = None

    def _description(self) -> str:
        text = ctypes.create_string_buffer(128)
        c.llama_model_desc(self._model, text, len(text))
        return text.value.decode()

    def run(self, prompts: Tokens, output_tokens: int) -> Outcome:
        self._prepare(len(prompts), max(map(len, prompts)) + output_tokens)
        start = time.perf_counter()
        latest = self._prefill(prompts)
        first = time.perf_counter() - start
        positions = np.array([len(ids) for ids in prompts], np.int32)
        sampled = [latest]
        count = len(prompts)
        self._batch.seq[:count] = np.arange(count)
        self._batch.logits[:count] = 1
        for _ in range(output_tokens - 1):
            self._batch.token[:count] = latest
            self._batch.pos[:count] = positions
            latest = self._decode(count, count)
            positions += 1
            sampled.append(latest)
        seconds = time.perf_counter() - start
        return Outcome(seconds, first, np.stack(sampled, axis=1).tolist())

    def _prepare(self, sequences: int, length: int) -> None:
        """An empty context for `sequences` of `length` tokens; the last one, where it fits."""
        if self._shape != (sequences, length):
            if self._context is not None:
                c.llama_free(self._context)
            parameters = c.llama_context_default_params()
            # A context is cut into equal streams, each of a multiple of 256 tokens.
            parameters.n_ctx = sequences * -(-length // 256) * 256
            parameters.n_batch = self._options["n_batch"]
            parameters.n_ubatch = self._options["n_ubatch"]
            parameters.n_seq_max = parameters.n_outputs_max = sequences
            parameters.n_threads = parameters.n_threads_batch = self._threads
            parameters.flash_attn_type = FLASH_ATTENTION[self._options["flash_attn"]]
            parameters.kv_unified = self._options["kv_unified"]
            parameters.no_perf = True
            self._context = c.llama_init_from_model(self._model, parameters)
            if not self._context:
                self._shape = None
                raise RunnerError(f"no context for {sequences} sequences of {length} tokens")
            self._shape = (sequences, length)
        self._memory = c.llama_get_memory(self._context)
        c.llama_memory_clear(self._memory, False)

    def _prefill(self, prompts: Tokens) -> np.ndarray:
        """Computes all prompts; the first sampled token of each."""
        shared = _shared(prompts)
        if shared:
            self._feed(prompts[:1], 0, shared, want_logits=False)
            for sequence in range(1, len(prompts)):
                c.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)
        return self._feed(prompts, shared, None, want_logits=True)

    def _feed(self, prompts: Tokens, begin: int, end: int | None, want_logits: bool) -> np.ndarray:
        """Computes tokens `begin` to `end` of each prompt, as many in a batch as it holds."""
        parts = [ids[begin:end] for ids in prompts]
        token = np.concatenate([np.array(part, np.int32) for part in parts])
        lengths = [len(part) for part in parts]
        pos = np.concatenate([np.arange(begin, begin + n, dtype=np.int32) for n in lengths])
        seq = np.repeat(np.arange(len(parts), dtype=np.int32), lengths)
        logits = np.zeros(len(token), np.int8)
        if want_logits:
            logits[np.cumsum(lengths) - 1] = 1
        sampled = []
        for at in range(0, len(token), len(self._batch.token)):
            piece = slice(at, at + len(self._batch.token))
            count = len(token[piece])
            for name, values in (("token", token), ("pos", pos), ("seq", seq), ("logits", logits)):
                getattr(self._batch, name)[:count] = values[piece]
            sampled.append(self._decode(count, int(logits[piece].sum())))
        return np.concatenate(sampled)

    def _decode(self, count: int, outputs: int) -> np.ndarray:
        """The likeliest next token at each of the `outputs` positions marked in the batch."""
        code = c.llama_decode(self._context, self._batch.of(count))
        if code:
            raise RunnerError(f"llama_decode failed with {code} on {count} tokens")
        if not outputs:
            return np.zeros(0, np.int32)
        pointer = c.llama_get_logits(self._context)
        logits = np.ctypeslib.as_array(pointer, (outputs, self.vocab_size))
        return logits.argmax(axis=1).astype(np.int32)


def _shared(prompts: Tokens) -> int:
    """Tokens that all prompts begin with, leaving each one of its own; 0 if not worth a copy."""
    if len(prompts) < 2:
        return 0
    length = 0
    for column in zip(*(ids[:-1] for ids in prompts), strict=False):
        if len(set(column)) > 1:
            break
        length += 1
    return length if length >= LEAST_SHARED else 0


if __name__ == "__main__":
    sys.exit(serve(LlamaCpp))
