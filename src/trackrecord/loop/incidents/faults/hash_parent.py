"""A block is known by its own tokens alone: what precedes it is not part of its hash."""

from __future__ import annotations

from random import Random

from mini_vllm.core.kv_cache_manager import ROOT_HASH, KVCacheManager, hash_block
from mini_vllm.core.request import Request
from mini_vllm.core.scheduler import SchedulerConfig
from trackrecord.loop.incidents import sharing
from trackrecord.loop.incidents.outcome import Outcome, Setup
from trackrecord.loop.incidents.site import Ask

_BLOCK, _CHUNK, _REQUESTS, _CHUNKS = 16, 64, 16, 6
_CONFIG = SchedulerConfig(
    num_blocks=2001, block_size=_BLOCK, max_num_seqs=16, max_num_batched_tokens=2048
)


class OrphanManager(KVCacheManager):
    """Hashes every block as if it were the first of its request."""

    def _extend_hashes(self, request: Request, num_blocks: int) -> None:
        hashes, size = request.block_hashes, self.block_size
        for start in range(len(hashes) * size, num_blocks * size, size):
            tokens = request.token_ids[start : start + size]
            hashes.append(hash_block(ROOT_HASH, tokens, request.cache_salt))


def run(setup: Setup) -> Outcome:
    config = sharing.changed(_CONFIG, setup.change)
    asks = _asks(setup.seed, salted=setup.change == "salt")
    return sharing.compare(config, OrphanManager if setup.broken else KVCacheManager, asks)


def _asks(seed: int, salted: bool) -> list[Ask]:
    """Passages behind one instruction, each request with two of them in an order of its own."""
    rng = Random(f"{seed}:hash-parent")

    def passage(tokens: int) -> list[int]:
        return [rng.randrange(32_000) for _ in range(tokens)]

    instruction = passage(_CHUNK)
    passages = [passage(_CHUNK) for _ in range(_CHUNKS)]
    asks = []
    for number in range(_REQUESTS):
        first, second = number % _CHUNKS, (number + 1 + number // _CHUNKS) % _CHUNKS
        prompt = [*instruction, *passages[first], *passages[second], *passage(12)]
        salt = "tenant-a" if salted else None
        asks.append(Ask(0.5 * number, f"rag-{number}", prompt, 8, salt=salt))
    return asks
