"""The requests that wait, in the order in which they are admitted.

Both queues take and give in O(1) or O(log n), removal of any request (an abort) included.

Source: vLLM v0.22.1 `vllm/v1/core/sched/request_queue.py`.
"""

from __future__ import annotations

import heapq
import itertools
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator

from mini_vllm.core.request import Request


class RequestQueue(ABC):
    """Requests by their ids, each at most once."""

    @abstractmethod
    def add(self, request: Request) -> None:
        """Puts a new request where the policy wants it."""

    @abstractmethod
    def prepend(self, request: Request) -> None:
        """Puts a preempted request back, before all others as far as the policy lets it."""

    @abstractmethod
    def peek(self) -> Request:
        """The next one to admit. Only when the queue is not empty."""

    @abstractmethod
    def pop(self) -> Request:
        """Takes the next one. Only when the queue is not empty."""

    @abstractmethod
    def remove(self, request: Request) -> None:
        """Takes `request`, wherever it stands."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[Request]:
        """In no promised order."""


class FCFSQueue(RequestQueue):
    """First come, first served; a preempted request goes to the front."""

    def __init__(self) -> None:
        self._requests: OrderedDict[str, Request] = OrderedDict()

    def add(self, request: Request) -> None:
        self._requests[request.request_id] = request

    def prepend(self, request: Request) -> None:
        self._requests[request.request_id] = request
        self._requests.move_to_end(request.request_id, last=False)

    def peek(self) -> Request:
        return next(iter(self._requests.values()))

    def pop(self) -> Request:
        return self._requests.popitem(last=False)[1]

    def remove(self, request: Request) -> None:
        del self._requests[request.request_id]

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests.values())


class PriorityQueue(RequestQueue):
    """Smallest `(priority, arrival_time, request_id)` first, preempted or not.

    A removed request leaves its entry in the heap; an entry whose request is not among the live
    ones is dropped when it surfaces, or when such entries are the majority.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, float, str, int, Request]] = []
        self._live: dict[str, Request] = {}
        self._serial = itertools.count()  # so that requests themselves are never compared

    def add(self, request: Request) -> None:
        self._live[request.request_id] = request
        heapq.heappush(self._heap, self._entry(request))

    def prepend(self, request: Request) -> None:
        self.add(request)

    def peek(self) -> Request:
        while self._live.get(self._heap[0][2]) is not self._heap[0][-1]:
            heapq.heappop(self._heap)
        return self._heap[0][-1]

    def pop(self) -> Request:
        request = self.peek()
        heapq.heappop(self._heap)
        del self._live[request.request_id]
        return request

    def remove(self, request: Request) -> None:
        del self._live[request.request_id]
        if len(self._heap) > 2 * len(self._live) + 16:
            # Also drops the stale twin of a request that was removed and added again.
            self._heap = [self._entry(r) for r in self]
            heapq.heapify(self._heap)

    def _entry(self, r: Request) -> tuple[int, float, str, int, Request]:
        return (r.priority, r.arrival_time, r.request_id, next(self._serial), r)

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._live.values())
