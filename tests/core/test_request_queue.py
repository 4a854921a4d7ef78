"""The queues against lists: the order of admission, and removal from anywhere."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)
from stand_ins import MACHINE, make_request

from mini_vllm.core.request import Request
from mini_vllm.core.request_queue import FCFSQueue, PriorityQueue, RequestQueue


def rank(request: Request) -> tuple[int, float, str]:
    return (request.priority, request.arrival_time, request.request_id)


class QueueMachine(RuleBasedStateMachine):
    """A queue beside a list; requests come, are taken, leave from the middle, and come back."""

    queue: RequestQueue
    by_priority: bool

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[Request] = []
        self.outside: list[Request] = []
        self.count = 0

    def _sort(self) -> None:
        if self.by_priority:
            self.inside.sort(key=rank)

    @rule(priority=st.integers(-2, 2), arrival_time=st.integers(0, 3))
    def add_a_new_one(self, priority: int, arrival_time: int) -> None:
        self.count += 1
        request = make_request(f"r{self.count}", 1, arrival_time=arrival_time, priority=priority)
        self.queue.add(request)
        self.inside.append(request)
        self._sort()

    @precondition(lambda self: self.outside)
    @rule(data=st.data(), front=st.booleans())
    def bring_one_back(self, data: st.DataObject, front: bool) -> None:
        request = data.draw(st.sampled_from(self.outside))
        self.outside.remove(request)
        if front:
            self.queue.prepend(request)
            self.inside.insert(0, request)
        else:
            self.queue.add(request)
            self.inside.append(request)
        self._sort()

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def bring_another_one_under_a_used_id(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(self.inside))
        new = make_request(old.request_id, 1, priority=data.draw(st.integers(-2, 2)))
        self.queue.remove(old)
        self.queue.add(new)
        self.inside.remove(old)
        self.inside.append(new)
        self._sort()

    @precondition(lambda self: self.inside)
    @rule()
    def take_the_next(self) -> None:
        request = self.inside.pop(0)
        assert self.queue.peek() is request
        assert self.queue.pop() is request
        self.outside.append(request)

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def remove_any(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.inside))
        self.queue.remove(request)
        self.inside.remove(request)
        self.outside.append(request)

    @invariant()
    def it_holds_what_the_list_holds(self) -> None:
        assert len(self.queue) == len(self.inside)
        assert sorted(map(id, self.queue)) == sorted(map(id, self.inside))
        if self.inside:
            assert self.queue.peek() is self.inside[0]

    def teardown(self) -> None:
        assert [self.queue.pop() for _ in range(len(self.queue))] == self.inside
        assert not self.queue


class FCFSMachine(QueueMachine):
    by_priority = False

    def __init__(self) -> None:
        super().__init__()
        self.queue = FCFSQueue()


class PriorityMachine(QueueMachine):
    by_priority = True

    def __init__(self) -> None:
        super().__init__()
        self.queue = PriorityQueue()


TestFCFSQueue = FCFSMachine.TestCase
TestFCFSQueue.settings = MACHINE
TestPriorityQueue = PriorityMachine.TestCase
TestPriorityQueue.settings = MACHINE


@pytest.mark.parametrize("queue", [FCFSQueue(), PriorityQueue()], ids=lambda q: type(q).__name__)
def test_removing_a_request_that_is_not_there_is_a_mistake_of_the_caller(
    queue: RequestQueue,
) -> None:
    with pytest.raises(KeyError):
        queue.remove(make_request("stranger", 1))


def test_a_priority_queue_does_not_keep_what_was_removed() -> None:
    queue = PriorityQueue()
    requests = [make_request(f"r{i}", 1, arrival_time=i) for i in range(1000)]
    for request in requests:
        queue.add(request)
    for request in requests[1:]:
        queue.remove(request)
    assert len(queue) == 1
    assert len(queue._heap) < 50
