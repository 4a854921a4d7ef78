"""Threads that go through stages together: all of the work is done, whoever comes to do it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from numba import njit

from mini_vllm.kernels.cpu.crew import join, leave, meet, new_hall, open_hall, share, take

STAGES, ITEMS = 200, 37


@njit(nogil=True)
def enter(hall):
    return open_hall(hall)


@njit(nogil=True)
def work(hall, most, counts, sums):
    """In each stage every item is counted, then read by all; the member's number and crew."""
    crew = join(hall, most)
    if not crew.size:
        return crew.number, crew.size
    first, end = share(crew, ITEMS)
    for stage in range(STAGES):
        for item in range(first, end):
            counts[stage, item] += 1
        meet(crew)
        sums[stage, crew.number] = counts[stage].sum()
    return crew.number, crew.size


@njit(nogil=True)
def take_all(hall, most, items, unit, largest, owners, sizes):
    """In each stage items are taken as they come; who took them, and how many at once."""
    crew = join(hall, most)
    if not crew.size:
        return
    for stage in range(STAGES):
        first, end = take(crew, items, unit, largest)
        while first < end:
            for item in range(first, end):
                owners[stage, item] += 1
                sizes[stage, item] = end - first
            first, end = take(crew, items, unit, largest)
        meet(crew)
    leave(crew)


def at_once(threads: int, most: int) -> tuple[list[tuple[int, int]], np.ndarray, np.ndarray]:
    hall, counts = new_hall(), np.zeros((STAGES, ITEMS), np.int64)
    sums, address = np.zeros((STAGES, most), np.int64), enter(hall)
    told: list[tuple[int, int]] = []
    crowd = [
        threading.Thread(target=lambda: told.append(work(address, most, counts, sums)))
        for _ in range(threads)
    ]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    return told, counts, sums


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_every_item_is_one_members_and_seen_by_all(threads: int, most: int) -> None:
    """Fewer may come than are asked for, and more; some may find the crew complete."""
    told, counts, sums = at_once(threads, most)
    members = sorted(number for number, size in told if size)
    (size,) = {size for _, size in told if size}
    assert len(told) == threads
    assert members == list(range(size))
    assert 1 <= size <= min(threads, most)
    assert (counts == 1).all()
    assert (sums[:, :size] == ITEMS).all()


def test_who_comes_late_does_nothing() -> None:
    """Threads that come one after the other, as where there is but one: the first does it all."""
    hall, counts = new_hall(), np.zeros((STAGES, ITEMS), np.int64)
    sums, address = np.zeros((STAGES, 2), np.int64), enter(hall)
    assert work(address, 2, counts, sums) == (0, 1)
    assert work(address, 2, counts, sums)[1] == 0
    assert (counts == 1).all()
    enter(hall)
    assert work(address, 1, counts, sums) == (0, 1)
    assert (counts == 2).all()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("items", "unit", "largest"), [(37, 1, 37), (200, 16, 48), (5, 8, 64)])
def test_items_are_taken_once_in_whole_units(
    threads: int, items: int, unit: int, largest: int
) -> None:
    hall = new_hall()
    owners, sizes = (np.zeros((STAGES, items), np.int64) for _ in range(2))
    address = enter(hall)
    crowd = [
        threading.Thread(
            target=take_all, args=(address, threads, items, unit, largest, owners, sizes)
        )
        for _ in range(threads)
    ]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert (owners == 1).all()
    assert sizes.max() <= max(largest, unit)
    # All but what is left at the end are whole units.
    assert (sizes[:, : items // unit * unit] % unit == 0).all()
    if items > largest:
        # Fewer towards the end, so that all finish together.
        assert (sizes[:, -1] < sizes[:, 0]).all()
