"""What a start makes is not looked through for cycles, and what a program drops still is."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from mini_vllm.heap import making_what_stays


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    sys.modules.pop("made_for_this_test", None)
    gc.unfreeze()
    gc.enable()


def test_what_was_imported_is_never_looked_through() -> None:
    before = gc.get_freeze_count()
    with making_what_stays():
        assert not gc.isenabled()
        sys.modules["made_for_this_test"] = ModuleType("made_for_this_test")
    assert gc.isenabled()
    assert gc.get_freeze_count() > before


def test_where_nothing_is_imported_what_was_dropped_is_collected() -> None:
    before = gc.get_freeze_count()
    with making_what_stays():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == before


def test_an_error_leaves_the_collector_on() -> None:
    with pytest.raises(ZeroDivisionError), making_what_stays():
        1 / 0  # noqa: B018
    assert gc.isenabled()


def test_within_another_the_outer_one_decides() -> None:
    with making_what_stays():
        with making_what_stays():
            sys.modules["made_for_this_test"] = ModuleType("made_for_this_test")
        assert not gc.isenabled()


def test_who_turned_the_collector_off_keeps_it_off() -> None:
    gc.disable()
    before = gc.get_freeze_count()
    with making_what_stays():
        sys.modules["made_for_this_test"] = ModuleType("made_for_this_test")
    assert not gc.isenabled()
    assert gc.get_freeze_count() == before
