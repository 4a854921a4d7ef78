"""How to start the runner without an engine."""

from __future__ import annotations

import sys
from pathlib import Path

from engines import HERE, Command

FAKE = Path(__file__).with_name("fake_runner.py")


def fake(behaviour: str = "well") -> Command:
    words = [sys.executable, str(FAKE), "--model", behaviour, "--set", "speed=7"]
    return Command(words, {"PYTHONPATH": str(HERE)})
