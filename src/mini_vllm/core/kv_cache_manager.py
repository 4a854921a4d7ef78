"""Which blocks each request holds, and which of them it found already filled.

A request's tokens lie in its blocks in order: token `i` is in the `i // block_size`-th block of
its table. A table only grows while the request holds it, and is given back whole.

Prefix caching: a full block is known by a hash of its tokens *and of its parent's hash*, so equal
hashes mean equal prefixes, not merely equal blocks. A new request takes the longest run of known
blocks from its start. At least its last token is always computed, since that is what yields
logits.

Draft tokens take slots like any others, but a block is remembered only once all its tokens are
settled: what is rejected must never be found.

Invariants: a request's first `num_cached` blocks carry its first hashes; no request holds blocks
for more than one block beyond its tokens, drafts and lookahead; a request without a table holds
nothing.

Source: vLLM v0.22.1 `vllm/v1/core/kv_cache_manager.py`, `KVCacheManager`, and
`vllm/v1/core/single_type_kv_cache_manager.py`, `FullAttentionManager`.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import sha256

from mini_vllm.core.block_pool import BlockPool, KVCacheBlock
from mini_vllm.core.request import Request

ROOT_HASH = sha256(b"mini_vllm: no parent").digest()
"""Parent of every first block."""


def hash_block(parent: bytes, token_ids: Sequence[int], salt: str | None = None) -> bytes:
    """Hash of a full block: what precedes it, what is in it, and who may share it.

    SHA-256, since a collision would show one user another's text.
    Source: vLLM `vllm/v1/core/kv_cache_utils.py`, `hash_block_tokens`.
    """
    content = sha256(parent)
    content.update(array("q", token_ids).tobytes())
    if salt is not None:
        content.update(salt.encode("utf-8", "surrogatepass"))
    return content.digest()


class _BlockTable:
    """The blocks of one request, the first `num_cached` of them remembered by content."""

    __slots__ = ("blocks", "num_cached")

    def __init__(self) -> None:
        self.blocks: list[KVCacheBlock] = []
        self.num_cached = 0


class KVCacheManager:
    """Gives blocks to requests and takes them back.

    Args:
        num_blocks: blocks in the pool, the null block included.
        block_size: tokens in a block.
        enable_caching: whether full blocks are shared between requests with equal prefixes.
    """

    def __init__(self, num_blocks: int, block_size: int, enable_caching: bool = True) -> None:
        self.block_size = block_size
        self.enable_caching = enable_caching
        self.block_pool = BlockPool(num_blocks, enable_caching)
        self._tables: dict[str, _BlockTable] = {}
        self.prefix_cache_queries = 0
        """Tokens of admitted requests looked up in the prefix cache, since the start."""
        self.prefix_cache_hits = 0
        """Tokens of these that were found."""

    @property
    def usage(self) -> float:
        return self.block_pool.usage

    def get_block_ids(self, request_id: str) -> list[int]:
        """The request's block table, as the executor needs it."""
        table = self._tables.get(request_id)
        return [] if table is None else [block.block_id for block in table.blocks]

    def get_computed_blocks(self, request: Request) -> list[KVCacheBlock]:
        """The longest run of cached blocks that `request`, holding none, could start from.

        Nothing is taken yet: `allocate_slots` does that, or the blocks stay evictable.
        """
        if not self.enable_caching or request.skip_reading_prefix_cache:
            return []
        # All but the last token may come from the cache: one must be computed to have logits.
        num_blocks = (request.num_tokens - 1) // self.block_size
        self._extend_hashes(request, num_blocks)
        found = []
        for block_hash in request.block_hashes[:num_blocks]:
            block = self.block_pool.get_cached_block(block_hash)
            if block is None:
                break
            found.append(block)
        return found

    def allocate_slots(
        self,
        request: Request,
        num_new_tokens: int,
        computed_blocks: Sequence[KVCacheBlock] = (),
        full_sequence_must_fit: bool = False,
        num_lookahead_tokens: int = 0,
    ) -> list[KVCacheBlock] | None:
        """Gives `request` the slots for its next `num_new_tokens` tokens.

        Blocks that become full are remembered at once, before anything is computed: whoever finds
        them is scheduled in this step or later, and within a step all keys and values are written
        before any are read.

        Args:
            request: its `num_computed_tokens` do not count `computed_blocks` yet.
            num_new_tokens: tokens to be computed, drafts included: at least 1, at most what the
                request lacks.
            computed_blocks: what `get_computed_blocks` found, for a request that holds nothing.
            full_sequence_must_fit: refuse unless all tokens of the request would fit now, so that
                a long prompt is not let in for a first chunk only to be preempted later.
            num_lookahead_tokens: slots beyond those, for what a draft model computes ahead.

        Returns:
            The newly allocated blocks, or None if there are too few free ones; then nothing has
            changed.
        """
        block_size = self.block_size
        table = self._tables.get(request.request_id)
        if table is None:
            held = len(computed_blocks)
            num_tokens = held * block_size + num_new_tokens
        else:
            held = len(table.blocks)
            num_tokens = request.num_computed_tokens + num_new_tokens
        # Rejected drafts and lookahead may have left more blocks than are needed now.
        num_new_blocks = -(-(num_tokens + num_lookahead_tokens) // block_size) - held

        if num_new_blocks > 0:
            needed = num_new_blocks
            if full_sequence_must_fit:
                needed = -(-len(request.token_ids) // block_size) - held
            if computed_blocks:
                # A cached block that nobody holds is itself in the free queue, and leaves it.
                needed += sum(block.ref_cnt == 0 for block in computed_blocks)
            if needed > self.block_pool.free_queue.num_free_blocks:
                return None

        if table is None:
            table = self._tables[request.request_id] = _BlockTable()
            if self.enable_caching and not request.skip_reading_prefix_cache:
                self.prefix_cache_queries += request.num_tokens
                self.prefix_cache_hits += len(computed_blocks) * block_size
            if computed_blocks:
                self.block_pool.touch(computed_blocks)
                table.blocks.extend(computed_blocks)
                table.num_cached = len(computed_blocks)

        new_blocks: list[KVCacheBlock] = []
        if num_new_blocks > 0:
            new_blocks = self.block_pool.get_new_blocks(num_new_blocks)
            table.blocks.extend(new_blocks)
        if self.enable_caching:
            if num_tokens > len(request.token_ids):  # drafts may yet be rejected
                num_tokens = len(request.token_ids)
            num_full = num_tokens // block_size
            if num_full > table.num_cached:
                self._cache_full_blocks(request, table, num_full)
        return new_blocks

    def free(self, request: Request) -> None:
        """Takes all blocks of `request` back.

        The last block goes to the front of the eviction order of these: a prefix is worth more
        the shorter it is, because more requests share it.
        """
        table = self._tables.pop(request.request_id, None)
        if table is None:
            return
        # A request preempted after its turn in this step gave its blocks hashes and will not
        # compute them: nobody may find these.
        num_computed = request.num_computed_tokens // self.block_size
        for block in table.blocks[num_computed : table.num_cached]:
            self.block_pool.forget(block)
        self.block_pool.free_blocks(reversed(table.blocks))

    def reset_prefix_cache(self) -> bool:
        """Forgets all cached content; refused (False) while any request holds blocks."""
        return self.block_pool.reset_prefix_cache()

    def _cache_full_blocks(self, request: Request, table: _BlockTable, num_full: int) -> None:
        self._extend_hashes(request, num_full)
        start = table.num_cached
        self.block_pool.cache_blocks(
            table.blocks[start:num_full], request.block_hashes[start:num_full]
        )
        table.num_cached = num_full

    def _extend_hashes(self, request: Request, num_blocks: int) -> None:
        hashes, block_size = request.block_hashes, self.block_size
        parent = hashes[-1] if hashes else ROOT_HASH
        for start in range(len(hashes) * block_size, num_blocks * block_size, block_size):
            parent = hash_block(
                parent, request.token_ids[start : start + block_size], request.cache_salt
            )
            hashes.append(parent)

    def check_invariants(self, requests: dict[str, Request], most_ahead: int = 0) -> None:
        """Verifies what the module promises, against all unfinished `requests`. For tests.

        `most_ahead` is how many draft and lookahead tokens a request may have had slots for.
        """
        self.block_pool.check_invariants()
        holders = [0] * self.block_pool.num_blocks
        for request_id, table in self._tables.items():
            request = requests[request_id]
            for block in table.blocks:
                holders[block.block_id] += 1
            slots = len(table.blocks) * self.block_size
            assert request.num_computed_tokens <= slots
            assert slots < request.num_tokens + most_ahead + self.block_size
            assert table.num_cached * self.block_size <= request.num_tokens
            assert table.num_cached <= len(request.block_hashes)
            for block, block_hash in zip(
                table.blocks[: table.num_cached], request.block_hashes, strict=False
            ):
                assert block.block_hash == block_hash
            assert all(b.block_hash is None for b in table.blocks[table.num_cached :])
        assert holders[0] == 0, "the null block was handed out"
        for block in self.block_pool.blocks[1:]:
            assert block.ref_cnt == holders[block.block_id], f"{block} is held by others"
