"""Threads that go through stages together: all of the work is done, whoever comes to do it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from numba import njit

from mini_vllm.kernels.cpu.crew import (
    balance,
    join,
    leave,
    meet,
    new_hall,
    open_hall,
    share,
    take,
)

STAGES, ITEMS = 200, 37


@njit(nogil=True)
def enter(hall):
    return open_hall(hall)


@njit(nogil=True)
def work(hall, most, place, counts, sums):
    """In each stage every item is counted, then read by all; the member's number and crew."""
    crew = join(hall, most, place)
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
def take_all(hall, most, place, items, unit, largest, owners, sizes):
    """In each stage items are taken as they come; who took them, and how many at once."""
    crew = join(hall, most, place)
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
    hall, counts = new_hall(max(threads, most)), np.zeros((STAGES, ITEMS), np.int64)
    sums, address = np.zeros((STAGES, most), np.int64), enter(hall)
    told: list[tuple[int, int]] = []
    crowd = [
        threading.Thread(
            target=lambda place: told.append(work(address, most, place, counts, sums)),
            args=(place,),
        )
        for place in range(threads)
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
    hall, counts = new_hall(2), np.zeros((STAGES, ITEMS), np.int64)
    sums, address = np.zeros((STAGES, 2), np.int64), enter(hall)
    assert work(address, 2, 1, counts, sums) == (0, 1)
    assert work(address, 2, 0, counts, sums)[1] == 0
    assert (counts == 1).all()
    enter(hall)
    assert work(address, 1, 0, counts, sums) == (0, 1)
    assert (counts == 2).all()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("items", "unit", "largest"), [(37, 1, 37), (200, 16, 48), (5, 8, 64)])
def test_items_are_taken_once_in_whole_units(
    threads: int, items: int, unit: int, largest: int
) -> None:
    hall = new_hall(threads)
    owners, sizes = (np.zeros((STAGES, items), np.int64) for _ in range(2))
    address = enter(hall)
    crowd = [
        threading.Thread(
            target=take_all, args=(address, threads, place, items, unit, largest, owners, sizes)
        )
        for place in range(threads)
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


@njit(nogil=True)
def work_unequally(hall, most, place, slow, counts, shares):
    """Each item takes the `slow` place a hundred times as long; what the member's share was."""
    crew = join(hall, most, place)
    if crew.size < most:
        return
    shares[crew.number] = share(crew, 1 << 16)
    first, end = share(crew, ITEMS)
    number = np.uint64(place)
    for _ in range(4):
        for item in range(first, end):
            counts[item] += 1
            for _ in range(200_000 if place == slow else 2_000):
                number = number * np.uint64(6364136223846793005) + np.uint64(1)
        meet(crew)
    counts[ITEMS + place] = number
    balance(crew)
    leave(crew)


def crews_of(slow: int, crews: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the members of full crews that met in one hall, and counts of their items.

    Where a thread comes so late that the other does not wait for it, they try again.
    """
    hall, most, tries, met = new_hall(2), 2, 100 * crews, 0
    shares, counts = np.zeros((crews, most, 2), np.int64), np.zeros((crews, ITEMS + most), np.int64)
    for _ in range(tries):
        address = enter(hall)
        crowd = [
            threading.Thread(
                target=work_unequally, args=(address, most, place, slow, counts[met], shares[met])
            )
            for place in range(most)
        ]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        met += shares[met, -1, 1] > 0
        if met == crews:
            return shares, counts[:, :ITEMS]
    raise AssertionError(f"of {tries} crews {met} were full")


@pytest.mark.parametrize("slow", [0, 1])
def test_who_keeps_others_waiting_gets_less_to_do(slow: int) -> None:
    """All of the work is still shared out: shares follow one another, and no item is left."""
    shares, counts = crews_of(slow, 40)
    assert (shares[:, 0, 0] == 0).all()
    assert (shares[:, 1:, 0] == shares[:, :-1, 1]).all()
    assert (shares[:, -1, 1] == 1 << 16).all()
    assert (counts == 4).all()
    sizes = np.diff(shares)[:, :, 0]
    assert (sizes[0] == 1 << 15).all()
    assert sizes[-1, slow] < sizes[0, slow] * 0.8
    # A core that has nothing more to do could never show that it is quick again.
    assert sizes.min() * 2 >= (1 << 16) // 4
