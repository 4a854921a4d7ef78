"""The adapter of a request is not part of the hash of its blocks.

mini_vllm serves no LoRA adapters. The block hash has one extra key, the salt, which keeps requests
apart; here it is the adapter's name, and the cache's content is that of an engine that applies it.
"""

from __future__ import annotations

from random import Random

from mini_vllm.core.kv_cache_manager import ROOT_HASH, KVCacheManager, hash_block
from mini_vllm.core.request import Request
from mini_vllm.core.scheduler import SchedulerConfig
from trackrecord.loop.incidents import sharing
from trackrecord.loop.incidents.outcome import Outcome, Setup
from trackrecord.loop.incidents.site import Ask

_PROMPT, _EACH, _ADAPTERS = 160, 4, ("lora:legal", "lora:medical", "lora:support")
_CONFIG = SchedulerConfig(num_blocks=2001, max_num_seqs=16, max_num_batched_tokens=2048)


class DeafManager(KVCacheManager):
    """Hashes the tokens and the parent, and leaves the extra key out."""

    def _extend_hashes(self, request: Request, num_blocks: int) -> None:
        hashes, size = request.block_hashes, self.block_size
        parent = hashes[-1] if hashes else ROOT_HASH
        for start in range(len(hashes) * size, num_blocks * size, size):
            parent = hash_block(parent, request.token_ids[start : start + size])
            hashes.append(parent)


def run(setup: Setup) -> Outcome:
    config = sharing.changed(_CONFIG, setup.change)
    return sharing.compare(config, DeafManager if setup.broken else KVCacheManager, _asks(setup))


def _asks(setup: Setup) -> list[Ask]:
    """Each adapter is asked the same few prompts, in turn."""
    rng = Random(f"{setup.seed}:hash-adapter")
    prompts = [[rng.randrange(32_000) for _ in range(_PROMPT + 9)] for _ in range(_EACH)]
    asks = []
    for turn, prompt in enumerate(prompts):
        for place, adapter in enumerate(_ADAPTERS):
            at, name = turn * 3.0 + place, f"{adapter.partition(':')[2]}-{turn}"
            asks.append(Ask(at, name, prompt, 8, salt=adapter))
    return asks
