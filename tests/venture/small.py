"""A scenario that takes a moment, and the shipped sheet over it."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any

SCENARIO = """
title = "8B on one H100"
model = "llama-3-8b"
requests = 60
cost = { model = "roofline" }
deployment = { gpu = "h100" }
engine = { max_num_seqs = 8 }
slo = { ttft_ms = 1000, tpot_ms = 30, attainment = 0.9 }
traffic = [{ rate = 4, prompt = 400, output = 50 }]
"""


def shipped_document() -> dict[str, Any]:
    text = resources.files("trackrecord.venture").joinpath("example.toml").read_text()
    return {**tomllib.loads(text), "serving": {"scenario": "scenario.toml"}}
