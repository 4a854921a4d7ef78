"""What the tests of the sessions share: a workspace, and a clock that is set by hand."""

from __future__ import annotations

import pytest
from small_loop import SetClock

from trackrecord.workspace import Workspace


@pytest.fixture
def place(tmp_path):
    return Workspace.open(tmp_path / "work")


@pytest.fixture
def clock():
    return SetClock()
