"""Every place in the pinned tree that the loop points to is where it says."""

from __future__ import annotations

import pytest

from trackrecord.loop.bank.checks import check_places
from trackrecord.loop.bank.load import load_bank
from trackrecord.upstream.pin import Tree, find_pin
from trackrecord.workspace import Workspace


@pytest.mark.upstream
def test_the_banks_anchors_are_in_place() -> None:
    tree = Tree.open(find_pin(Workspace.open(), "vllm-0.22.1"))
    assert [str(problem) for problem in check_places(load_bank(), tree.root)] == []
