"""The blocks: the free queue against a plain list, the pool against a model of plain lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from stand_ins import MACHINE, PROPERTY

from mini_vllm.core.block_pool import BlockPool, FreeBlockQueue, KVCacheBlock
from mini_vllm.errors import InvalidInputError


@PROPERTY
@given(st.data(), st.integers(0, 8))
def test_the_free_queue_is_a_list_with_cheap_ends_and_middle(data: st.DataObject, n: int) -> None:
    blocks = [KVCacheBlock(i) for i in range(n)]
    queue, free, taken = FreeBlockQueue(blocks), list(blocks), list[KVCacheBlock]()
    for _ in range(data.draw(st.integers(0, 20))):
        action = data.draw(st.sampled_from(["popleft_n", "remove", "append_n"]))
        if action == "popleft_n":
            count = data.draw(st.integers(0, len(free)))
            out, free = free[:count], free[count:]
            assert queue.popleft_n(count) == out
            taken += out
        elif action == "remove" and free:
            block = free.pop(data.draw(st.integers(0, len(free) - 1)))
            queue.remove(block)
            taken.append(block)
        elif action == "append_n":
            back = data.draw(st.permutations(taken))
            back = back[: data.draw(st.integers(0, len(back)))]
            taken = [block for block in taken if block not in back]
            queue.append_n(back)
            free += back
        assert list(queue) == free
        assert queue.num_free_blocks == len(free)
        assert all(b.prev_free is None and b.next_free is None for b in taken)


class BlockPoolMachine(RuleBasedStateMachine):
    """A pool beside three plain structures: an eviction order, holders, contents."""

    @initialize(num_blocks=st.integers(2, 9))
    def build(self, num_blocks: int) -> None:
        self.pool = BlockPool(num_blocks)
        self.free = list(range(1, num_blocks))
        self.holders = dict.fromkeys(range(1, num_blocks), 0)
        self.contents: dict[bytes, list[int]] = {}

    def _ids_held(self) -> list[int]:
        return [block_id for block_id, count in self.holders.items() if count]

    @rule(data=st.data())
    def hand_out(self, data: st.DataObject) -> None:
        n = data.draw(st.integers(0, len(self.free)))
        expected, self.free = self.free[:n], self.free[n:]
        assert [block.block_id for block in self.pool.get_new_blocks(n)] == expected
        for block_id in expected:
            self.holders[block_id] = 1
            for ids in self.contents.values():
                if block_id in ids:
                    ids.remove(block_id)

    @rule(excess=st.integers(1, 3))
    def refuse_to_hand_out_too_many(self, excess: int) -> None:
        with pytest.raises(ValueError, match="are free"):
            self.pool.get_new_blocks(len(self.free) + excess)

    @precondition(lambda self: self._ids_held())
    @rule(data=st.data())
    def drop_holders(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(self._ids_held()), unique=True))
        self.pool.free_blocks(self.pool.blocks[block_id] for block_id in ids)
        for block_id in ids:
            self.holders[block_id] -= 1
            if self.holders[block_id] == 0:
                self.free.append(block_id)

    @rule(data=st.data(), block_hash=st.sampled_from([b"a", b"b", b"c"]))
    def remember(self, data: st.DataObject, block_hash: bytes) -> None:
        known = {block_id for ids in self.contents.values() for block_id in ids}
        unknown = [block_id for block_id in self._ids_held() if block_id not in known]
        if unknown:
            block_id = data.draw(st.sampled_from(unknown))
            self.pool.cache_blocks([self.pool.blocks[block_id]], [block_hash])
            self.contents.setdefault(block_hash, []).append(block_id)

    @rule(block_hash=st.sampled_from([b"a", b"b", b"c"]))
    def find_and_share(self, block_hash: bytes) -> None:
        ids = self.contents.get(block_hash)
        block = self.pool.get_cached_block(block_hash)
        if not ids:
            assert block is None
            return
        assert block is not None
        assert block.block_id == ids[0], "the first of equal blocks is the one that is found"
        self.pool.touch([block])
        self.holders[block.block_id] += 1
        if block.block_id in self.free:
            self.free.remove(block.block_id)

    @rule()
    def forget_all(self) -> None:
        forgotten = self.pool.reset_prefix_cache()
        assert forgotten == (not self._ids_held())
        if forgotten:
            self.contents.clear()

    @invariant()
    def the_pool_agrees_with_the_model(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.pool.check_invariants()
        assert [block.block_id for block in self.pool.free_queue] == self.free
        assert self.pool.num_free_blocks == len(self.free)
        assert self.pool.usage == pytest.approx(1 - len(self.free) / len(self.holders))
        assert {b.block_id: b.ref_cnt for b in self.pool.blocks[1:]} == self.holders


TestBlockPool = BlockPoolMachine.TestCase
TestBlockPool.settings = MACHINE


def test_blocks_are_handed_out_in_order_and_the_null_block_never() -> None:
    pool = BlockPool(10)
    assert [block.block_id for block in pool.get_new_blocks(9)] == list(range(1, 10))
    assert pool.usage == 1.0
    with pytest.raises(ValueError, match="1 blocks asked for, 0 are free"):
        pool.get_new_blocks(1)


def test_the_first_block_given_back_is_the_first_to_be_handed_out() -> None:
    pool = BlockPool(4)
    one, two, three = pool.get_new_blocks(3)
    pool.free_blocks([two, three, one])
    assert pool.get_new_blocks(3) == [two, three, one]


def test_freeing_forgets_nothing_and_handing_out_does() -> None:
    pool = BlockPool(3)
    (block,) = pool.get_new_blocks(1)
    pool.cache_blocks([block], [b"content"])
    pool.free_blocks([block])
    assert pool.get_cached_block(b"content") is block
    pool.get_new_blocks(2)
    assert pool.get_cached_block(b"content") is None


def test_a_block_that_is_found_again_is_spared_from_eviction() -> None:
    pool = BlockPool(4)
    old, middle, new = pool.get_new_blocks(3)
    pool.cache_blocks([middle], [b"content"])
    pool.free_blocks([old, middle, new])
    pool.touch([middle])
    assert pool.get_new_blocks(2) == [old, new]
    assert pool.get_cached_block(b"content") is middle


def test_a_shared_block_is_free_only_when_its_last_holder_leaves() -> None:
    pool = BlockPool(3)
    (block,) = pool.get_new_blocks(1)
    pool.cache_blocks([block], [b"content"])
    pool.touch([block])
    pool.free_blocks([block])
    assert pool.num_free_blocks == 1
    pool.free_blocks([block])
    assert pool.num_free_blocks == 2


@pytest.mark.parametrize("evicted_first", [0, 1], ids=["the first", "the second"])
def test_of_two_equal_blocks_the_one_that_is_left_is_found(evicted_first: int) -> None:
    pool = BlockPool(3)
    twins = pool.get_new_blocks(2)
    pool.cache_blocks(twins, [b"same", b"same"])
    assert pool.get_cached_block(b"same") is twins[0]
    gone, left = twins[evicted_first], twins[1 - evicted_first]
    pool.free_blocks([gone, left])
    assert pool.get_new_blocks(1) == [gone]
    assert pool.get_cached_block(b"same") is left
    pool.check_invariants()
    pool.get_new_blocks(1)
    assert pool.get_cached_block(b"same") is None


def test_the_cache_is_not_forgotten_while_a_block_is_held() -> None:
    pool = BlockPool(3)
    blocks = pool.get_new_blocks(1)
    pool.cache_blocks(blocks, [b"content"])
    assert not pool.reset_prefix_cache()
    assert pool.get_cached_block(b"content") is blocks[0]
    pool.free_blocks(blocks)
    assert pool.reset_prefix_cache()
    assert pool.get_cached_block(b"content") is None


@pytest.mark.parametrize("num_blocks", [-1, 0, 1])
def test_a_pool_without_a_block_to_hand_out_is_refused(num_blocks: int) -> None:
    with pytest.raises(InvalidInputError, match=f"at least 2 .* got {num_blocks}") as caught:
        BlockPool(num_blocks)
    assert caught.value.param == "num_blocks"
