"""The blocks of the KV cache: who holds them, which are free, which are remembered by content.

A block is in exactly one of three states:

- held: `ref_cnt > 0`, in the block table of that many requests, not in the free queue;
- free and cached: `ref_cnt == 0`, in the free queue, still found by its hash: a request with the
  same prefix takes it back (`touch`), or a newcomer overwrites it (`get_new_blocks`);
- free and forgotten: the same without a hash.

Eviction is lazy: freeing a block forgets nothing, handing it out does. The free queue is therefore
the eviction order, least recently used first.

Invariants: the null block (id 0) is never free and never handed out; the free queue holds exactly
the blocks with `ref_cnt == 0`; a block has a hash if and only if the cache finds it under that
hash.

Source: vLLM v0.22.1 `vllm/v1/core/block_pool.py`, `BlockPool`, and
`vllm/v1/core/kv_cache_utils.py`, `FreeKVCacheBlockQueue`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mini_vllm.errors import InvalidInputError


class KVCacheBlock:
    """One block: its id, its holders, its content hash once full, its place in the free queue."""

    __slots__ = ("block_hash", "block_id", "next_free", "prev_free", "ref_cnt")

    def __init__(self, block_id: int) -> None:
        self.block_id = block_id
        self.ref_cnt = 0
        self.block_hash: bytes | None = None
        self.prev_free: KVCacheBlock | None = None
        self.next_free: KVCacheBlock | None = None

    def __repr__(self) -> str:
        return f"KVCacheBlock({self.block_id}, ref_cnt={self.ref_cnt})"


class FreeBlockQueue:
    """The free blocks as a doubly linked list threaded through the blocks themselves.

    A cached block that is hit leaves from the middle in O(1), which a deque cannot do; and no
    node objects are made. Two sentinels spare every operation its special cases at the ends.
    """

    __slots__ = ("_head", "_tail", "num_free_blocks")

    def __init__(self, blocks: Iterable[KVCacheBlock]) -> None:
        self._head, self._tail = KVCacheBlock(-1), KVCacheBlock(-1)
        self._head.next_free, self._tail.prev_free = self._tail, self._head
        self.num_free_blocks = 0
        self.append_n(blocks)

    def popleft_n(self, n: int) -> list[KVCacheBlock]:
        """Takes the `n` blocks that were freed longest ago; the caller knows there are as many."""
        taken = []
        block = self._head.next_free
        for _ in range(n):
            assert block is not None
            taken.append(block)
            following = block.next_free
            block.prev_free = block.next_free = None
            block = following
        assert block is not None
        self._head.next_free, block.prev_free = block, self._head
        self.num_free_blocks -= n
        return taken

    def remove(self, block: KVCacheBlock) -> None:
        """Takes `block` out, wherever it stands."""
        before, after = block.prev_free, block.next_free
        assert before is not None
        assert after is not None
        before.next_free, after.prev_free = after, before
        block.prev_free = block.next_free = None
        self.num_free_blocks -= 1

    def append_n(self, blocks: Iterable[KVCacheBlock]) -> None:
        """Puts `blocks` at the end, the first of them to be taken first."""
        last = self._tail.prev_free
        assert last is not None
        for block in blocks:
            block.prev_free, last.next_free = last, block
            last = block
            self.num_free_blocks += 1
        last.next_free, self._tail.prev_free = self._tail, last

    def __iter__(self) -> Iterator[KVCacheBlock]:
        block = self._head.next_free
        while block is not None and block is not self._tail:
            yield block
            block = block.next_free


class BlockPool:
    """All blocks of the KV cache.

    Args:
        num_blocks: blocks in the pool, the null block included; at least 2.
        enable_caching: whether full blocks are remembered by content.
    """

    def __init__(self, num_blocks: int, enable_caching: bool = True) -> None:
        if num_blocks < 2:
            raise InvalidInputError(
                f"num_blocks must be at least 2 (block 0 is never handed out), got {num_blocks}",
                "num_blocks",
            )
        self.num_blocks = num_blocks
        self.enable_caching = enable_caching
        self.blocks = [KVCacheBlock(i) for i in range(num_blocks)]
        self.free_queue = FreeBlockQueue(self.blocks)
        self.null_block = self.free_queue.popleft_n(1)[0]
        # Blocks are not deduplicated: two requests that fill the same content at the same time
        # keep their own block, since a block table never changes. The first one is what a lookup
        # finds; `_twins` are the others, in order, and step up when it is evicted.
        self._cached: dict[bytes, KVCacheBlock] = {}
        self._twins: dict[bytes, dict[int, KVCacheBlock]] = {}

    @property
    def num_free_blocks(self) -> int:
        return self.free_queue.num_free_blocks

    @property
    def usage(self) -> float:
        """Share of the blocks that requests hold, 0 to 1."""
        return 1.0 - self.free_queue.num_free_blocks / (self.num_blocks - 1)

    def get_cached_block(self, block_hash: bytes) -> KVCacheBlock | None:
        return self._cached.get(block_hash)

    def get_new_blocks(self, n: int) -> list[KVCacheBlock]:
        """Hands out `n` free blocks, forgetting what they held.

        Raises:
            ValueError: there are fewer free blocks; the caller must have asked first.
        """
        if n > self.free_queue.num_free_blocks:
            raise ValueError(f"{n} blocks asked for, {self.free_queue.num_free_blocks} are free")
        blocks = self.free_queue.popleft_n(n)
        for block in blocks:
            block.ref_cnt = 1
            if block.block_hash is not None:
                self.forget(block)
        return blocks

    def touch(self, blocks: Iterable[KVCacheBlock]) -> None:
        """Adds a holder to cached blocks, taking them out of the free queue if they were there."""
        for block in blocks:
            if block.ref_cnt == 0:
                self.free_queue.remove(block)
            block.ref_cnt += 1

    def free_blocks(self, ordered_blocks: Iterable[KVCacheBlock]) -> None:
        """Drops a holder of each block. The first one given is evicted first."""
        released = []
        for block in ordered_blocks:
            block.ref_cnt -= 1
            if block.ref_cnt == 0:
                released.append(block)
        self.free_queue.append_n(released)

    def cache_blocks(self, blocks: Sequence[KVCacheBlock], hashes: Sequence[bytes]) -> None:
        """Remembers blocks that have become full under the hashes of their content."""
        cached = self._cached
        for block, block_hash in zip(blocks, hashes, strict=True):
            block.block_hash = block_hash
            if cached.setdefault(block_hash, block) is not block:
                self._twins.setdefault(block_hash, {})[block.block_id] = block

    def reset_prefix_cache(self) -> bool:
        """Forgets all content; refused (False) while any block is held."""
        if self.free_queue.num_free_blocks != self.num_blocks - 1:
            return False
        for block in self.blocks:
            block.block_hash = None
        self._cached.clear()
        self._twins.clear()
        return True

    def forget(self, block: KVCacheBlock) -> None:
        """Drops what is remembered of a cached block; its twin, if any, is found instead."""
        block_hash = block.block_hash
        assert block_hash is not None
        block.block_hash = None
        twins = self._twins.get(block_hash)
        if twins is None:
            del self._cached[block_hash]
            return
        if self._cached[block_hash] is block:
            heir_id = next(iter(twins))
            self._cached[block_hash] = twins.pop(heir_id)
        else:
            del twins[block.block_id]
        if not twins:
            del self._twins[block_hash]

    def check_invariants(self) -> None:
        """Verifies what the module promises, by looking at every block. For tests."""
        free = list(self.free_queue)
        assert len(free) == self.free_queue.num_free_blocks
        assert len({b.block_id for b in free}) == len(free), "a block is free twice"
        assert self.null_block.block_id == 0
        assert self.null_block not in free
        assert self.null_block.ref_cnt == 0
        assert self.null_block.block_hash is None
        free_ids = {b.block_id for b in free}
        for block in self.blocks[1:]:
            assert block.ref_cnt >= 0
            assert (block.ref_cnt == 0) == (block.block_id in free_ids), f"{block} is misplaced"
            linked = block.prev_free is not None and block.next_free is not None
            assert linked == (block.ref_cnt == 0)
        remembered = [(h, b) for h, b in self._cached.items()]
        remembered += [(h, b) for h, twins in self._twins.items() for b in twins.values()]
        assert all(b.block_hash == h for h, b in remembered)
        hashed = {b.block_id for b in self.blocks if b.block_hash is not None}
        assert {b.block_id for _, b in remembered} == hashed
        assert len(remembered) == len(hashed), "a block is remembered twice"
        assert all(twins for twins in self._twins.values()), "an empty set of twins was kept"
