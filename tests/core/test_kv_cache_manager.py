"""Block tables and the prefix cache, with pools of ten blocks."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from stand_ins import MACHINE, make_request

from mini_vllm.core.kv_cache_manager import ROOT_HASH, KVCacheManager, hash_block
from mini_vllm.core.request import Request

Prefix = tuple[str | None, tuple[int, ...]]
"""Salt, and all tokens up to the end of a block."""


def allocate(manager: KVCacheManager, request: Request, num_tokens: int | None = None) -> list[int]:
    """Takes the cached prefix and slots for `num_tokens` more (all, when None); new block ids."""
    found = manager.get_computed_blocks(request) if not request.num_computed_tokens else []
    start = request.num_computed_tokens + len(found) * manager.block_size
    new = request.num_tokens - start if num_tokens is None else num_tokens
    blocks = manager.allocate_slots(request, new, found)
    assert blocks is not None
    request.num_computed_tokens = start + new
    manager.block_pool.check_invariants()
    return [block.block_id for block in blocks]


def num_hits(manager: KVCacheManager, request: Request) -> int:
    """Tokens of `request` that would come from the cache."""
    return len(manager.get_computed_blocks(request)) * manager.block_size


class ManagerMachine(RuleBasedStateMachine):
    """A manager beside a record of which block holds which prefix.

    The record follows from what is handed out and what becomes full, without any hash.
    """

    @initialize(num_blocks=st.integers(3, 10), block_size=st.integers(1, 3))
    def build(self, num_blocks: int, block_size: int) -> None:
        self.manager = KVCacheManager(num_blocks, block_size)
        self.requests: dict[str, Request] = {}
        self.count = 0
        self.contents: dict[int, Prefix] = {}

    def _record(self, request: Request, new_ids: list[int]) -> None:
        for block_id in new_ids:
            self.contents.pop(block_id, None)
        size = self.manager.block_size
        table = self.manager.get_block_ids(request.request_id)
        for index in range(request.num_computed_tokens // size):
            prefix = (request.cache_salt, tuple(request.token_ids[: (index + 1) * size]))
            assert self.contents.setdefault(table[index], prefix) == prefix

    def _longest_known(self, request: Request) -> int:
        """Blocks from the start whose content some block holds, the last token left out."""
        known, size = set(self.contents.values()), self.manager.block_size
        length = 0
        while (length + 1) * size < request.num_tokens:
            end = (length + 1) * size
            if (request.cache_salt, tuple(request.token_ids[:end])) not in known:
                break
            length += 1
        return length

    @rule(
        data=st.data(),
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=12),
        salt=st.sampled_from([None, None, "a", "b"]),
        whole=st.booleans(),
    )
    def admit(self, data: st.DataObject, prompt: list[int], salt: str | None, whole: bool) -> None:
        manager, pool = self.manager, self.manager.block_pool
        self.count += 1
        request = make_request(f"r{self.count}", prompt, cache_salt=salt)
        found = manager.get_computed_blocks(request)
        assert len(found) == self._longest_known(request)
        assert not manager.get_block_ids(request.request_id), "looking up takes nothing"
        start = len(found) * manager.block_size
        num_new = data.draw(st.integers(1, request.num_tokens - start))

        slots_for = request.num_tokens if whole else start + num_new
        needed = -(-slots_for // manager.block_size) - len(found)
        needed += sum(block.ref_cnt == 0 for block in found)
        free_before = [block.block_id for block in pool.free_queue]
        new = manager.allocate_slots(request, num_new, found, full_sequence_must_fit=whole)
        if needed > len(free_before):
            assert new is None
            assert [block.block_id for block in pool.free_queue] == free_before
            assert not manager.get_block_ids(request.request_id)
            return
        assert new is not None
        request.num_computed_tokens = start + num_new
        self.requests[request.request_id] = request
        ids = manager.get_block_ids(request.request_id)
        assert ids == [block.block_id for block in [*found, *new]]
        self._record(request, [block.block_id for block in new])

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def grow(self, data: st.DataObject) -> None:
        request = self.requests[data.draw(st.sampled_from(sorted(self.requests)))]
        if request.num_computed_tokens == request.num_tokens:
            request.token_ids.append(data.draw(st.integers(0, 1)))
        num_new = data.draw(st.integers(1, request.num_tokens - request.num_computed_tokens))
        held = self.manager.get_block_ids(request.request_id)
        end = request.num_computed_tokens + num_new
        needed = -(-end // self.manager.block_size) - len(held)
        free = self.manager.block_pool.num_free_blocks
        new = self.manager.allocate_slots(request, num_new)
        if needed > free:
            assert new is None
            assert self.manager.get_block_ids(request.request_id) == held
            return
        assert new is not None
        request.num_computed_tokens = end
        new_ids = [block.block_id for block in new]
        assert self.manager.get_block_ids(request.request_id) == held + new_ids
        self._record(request, new_ids)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        request = self.requests.pop(data.draw(st.sampled_from(sorted(self.requests))))
        self.manager.free(request)
        assert not self.manager.get_block_ids(request.request_id)

    @invariant()
    def what_the_module_promises_holds(self) -> None:
        if hasattr(self, "manager"):
            self.manager.check_invariants(self.requests)

    def teardown(self) -> None:
        if hasattr(self, "manager"):
            for request in self.requests.values():
                self.manager.free(request)
            assert self.manager.usage == 0
            assert self.manager.reset_prefix_cache()


TestKVCacheManager = ManagerMachine.TestCase
TestKVCacheManager.settings = MACHINE


def test_the_tail_of_a_request_is_evicted_first() -> None:
    manager = KVCacheManager(num_blocks=6, block_size=4)
    first = make_request("first", range(20))
    assert allocate(manager, first) == [1, 2, 3, 4, 5]
    manager.free(first)
    assert allocate(manager, make_request("other", 8)) == [5, 4]
    assert num_hits(manager, make_request("again", range(20))) == 12


def test_a_prefix_hit_never_covers_the_last_token() -> None:
    manager = KVCacheManager(num_blocks=10, block_size=4)
    allocate(manager, make_request("first", range(8)))
    assert num_hits(manager, make_request("same", range(8))) == 4
    assert num_hits(manager, make_request("longer", range(9))) == 8


def test_a_hit_ends_at_the_first_block_that_is_unknown() -> None:
    manager = KVCacheManager(num_blocks=10, block_size=2)
    allocate(manager, make_request("first", [1, 2, 3, 4, 5, 6]))
    assert num_hits(manager, make_request("differs", [1, 2, 9, 9, 5, 6, 7])) == 2


def test_the_same_block_after_another_prefix_is_another_block() -> None:
    manager = KVCacheManager(num_blocks=10, block_size=2)
    allocate(manager, make_request("first", [1, 2, 7, 8]))
    allocate(manager, make_request("second", [3, 4, 5, 6]))
    assert num_hits(manager, make_request("mixed", [3, 4, 7, 8, 0])) == 2


def test_a_salt_separates() -> None:
    manager = KVCacheManager(num_blocks=10, block_size=4)
    allocate(manager, make_request("first", range(8), cache_salt="one"))
    assert num_hits(manager, make_request("same salt", range(9), cache_salt="one")) == 8
    assert num_hits(manager, make_request("other salt", range(9), cache_salt="two")) == 0
    assert num_hits(manager, make_request("no salt", range(9))) == 0


def test_prompt_logprobs_skip_the_cache_but_fill_it() -> None:
    manager = KVCacheManager(num_blocks=10, block_size=4)
    allocate(manager, make_request("first", range(8), prompt_logprobs=0))
    assert num_hits(manager, make_request("asks for all", range(9), prompt_logprobs=0)) == 0
    assert num_hits(manager, make_request("asks for none", range(9))) == 8


def test_without_caching_nothing_is_found() -> None:
    manager = KVCacheManager(num_blocks=10, block_size=4, enable_caching=False)
    allocate(manager, make_request("first", range(8)))
    assert num_hits(manager, make_request("same", range(9))) == 0


def test_tokens_that_were_generated_are_found_by_the_next_turn() -> None:
    manager = KVCacheManager(num_blocks=10, block_size=2)
    first = make_request("first", [1, 2, 3])
    allocate(manager, first)
    first.token_ids.append(4)
    allocate(manager, first)
    assert num_hits(manager, make_request("next turn", [1, 2, 3, 4, 5])) == 4


def test_a_block_is_found_only_once_it_is_full() -> None:
    manager = KVCacheManager(num_blocks=10, block_size=4)
    first = make_request("first", range(8))
    allocate(manager, first, 3)
    assert num_hits(manager, make_request("same", range(9))) == 0
    allocate(manager, first, 1)
    assert num_hits(manager, make_request("same", range(9))) == 4
    allocate(manager, first, 4)
    assert num_hits(manager, make_request("same", range(9))) == 8


def test_blocks_in_use_are_shared() -> None:
    manager = KVCacheManager(num_blocks=10, block_size=4)
    first, second = make_request("first", range(10)), make_request("second", range(10))
    allocate(manager, first)
    assert allocate(manager, second) == [4]
    assert manager.get_block_ids("first") == [1, 2, 3]
    assert manager.get_block_ids("second") == [1, 2, 4]
    assert manager.block_pool.num_free_blocks == 5
    manager.free(first)
    assert manager.block_pool.num_free_blocks == 6
    manager.free(second)
    assert manager.block_pool.num_free_blocks == 9


def test_a_found_block_that_nobody_holds_counts_as_one_that_is_taken() -> None:
    """Three free blocks, two of them the prefix: only one is left for what is new."""
    manager = KVCacheManager(num_blocks=4, block_size=4)
    first = make_request("first", range(8))
    allocate(manager, first)
    manager.free(first)
    longer = make_request("longer", range(16))
    found = manager.get_computed_blocks(longer)
    assert len(found) == 2
    assert manager.allocate_slots(longer, 8, found) is None
    manager.block_pool.check_invariants()
    assert manager.block_pool.num_free_blocks == 3
    assert manager.allocate_slots(longer, 4, found) is not None


def test_the_whole_sequence_can_be_made_a_condition() -> None:
    manager = KVCacheManager(num_blocks=4, block_size=4)
    long = make_request("long", 13)
    assert manager.allocate_slots(long, 4, full_sequence_must_fit=True) is None
    assert manager.allocate_slots(long, 4) is not None
    assert manager.block_pool.num_free_blocks == 2


def test_a_token_in_a_block_that_is_already_held_needs_no_new_block() -> None:
    manager = KVCacheManager(num_blocks=3, block_size=4)
    request = make_request("r", 5)
    assert allocate(manager, request) == [1, 2]
    request.token_ids.append(0)
    assert allocate(manager, request) == []


def test_hits_are_counted_in_tokens_when_a_request_is_admitted() -> None:
    manager = KVCacheManager(num_blocks=10, block_size=4)
    allocate(manager, make_request("first", range(10)))
    assert (manager.prefix_cache_queries, manager.prefix_cache_hits) == (10, 0)
    second = make_request("second", range(10))
    manager.get_computed_blocks(second)
    assert manager.prefix_cache_queries == 10
    allocate(manager, second)
    assert (manager.prefix_cache_queries, manager.prefix_cache_hits) == (20, 8)
    allocate(manager, make_request("all computed", range(10), prompt_logprobs=1))
    assert (manager.prefix_cache_queries, manager.prefix_cache_hits) == (20, 8)


def test_the_cache_can_be_forgotten_when_nothing_is_held() -> None:
    manager = KVCacheManager(num_blocks=10, block_size=4)
    first = make_request("first", range(10))
    allocate(manager, first)
    assert not manager.reset_prefix_cache()
    manager.free(first)
    assert manager.reset_prefix_cache()
    assert num_hits(manager, make_request("again", range(10))) == 0


def test_what_was_given_a_hash_but_not_computed_is_not_found() -> None:
    """A request freed between its allocation and the step that would have computed it."""
    manager = KVCacheManager(num_blocks=10, block_size=4)
    first = make_request("first", range(16))
    allocate(manager, first, 8)
    manager.allocate_slots(first, 8)  # but `num_computed_tokens` is not advanced
    manager.free(first)
    assert num_hits(manager, make_request("same", range(17))) == 8


def test_freeing_a_request_that_holds_nothing_changes_nothing() -> None:
    manager = KVCacheManager(num_blocks=10, block_size=4)
    manager.free(make_request("stranger", 4))
    assert manager.usage == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((ROOT_HASH, [1, 2], None), (ROOT_HASH, [1, 3], None)),
        ((ROOT_HASH, [1, 2], None), (hash_block(ROOT_HASH, [0]), [1, 2], None)),
        ((ROOT_HASH, [1, 2], None), (ROOT_HASH, [1, 2], "salt")),
        ((ROOT_HASH, [1, 2], "salt"), (ROOT_HASH, [1, 2], "pepper")),
        ((ROOT_HASH, [258], None), (ROOT_HASH, [1, 2], None)),
    ],
    ids=["tokens", "parent", "a salt", "another salt", "bytes"],
)
def test_the_hash_tells_apart(
    one: tuple[bytes, list[int], str | None], other: tuple[bytes, list[int], str | None]
) -> None:
    assert hash_block(*one) == hash_block(*one)
    assert hash_block(*one) != hash_block(*other)


def test_a_salt_may_be_any_text() -> None:
    assert hash_block(ROOT_HASH, [1], "\ud800") != hash_block(ROOT_HASH, [1], "é")
