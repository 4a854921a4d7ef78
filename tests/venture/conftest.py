from __future__ import annotations

import pytest

from trackrecord.portfolio import plots
from trackrecord.portfolio.plots import Plot
from trackrecord.venture.economics import Economics
from trackrecord.venture.serving import Served
from trackrecord.venture.sheet import sheet_from
from venture.small import SCENARIO, shipped_document


@pytest.fixture
def document():
    """The shipped sheet, as a document to change."""
    return shipped_document()


@pytest.fixture
def folder(tmp_path):
    """A folder with a scenario that takes a moment."""
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    return tmp_path


@pytest.fixture
def sheet(document, folder):
    return sheet_from(document, folder)


@pytest.fixture
def served():
    """A deployment of 8 GPUs in round numbers: 1,000 output and 2,000 input tokens/s."""
    return Served(
        title="round",
        cost_model="none",
        devices=8,
        requests=100,
        load=1.0,
        rate=5.0,
        output_rate=1000.0,
        input_rate=2000.0,
        input_share=0.25,
        input_share_lines=("a quarter, by assumption",),
        attained=1.0,
        has_slo=True,
        meets_slo=True,
        ttft_p99=0.5,
        tpot_p99=0.02,
        bottleneck="none",
    )


@pytest.fixture
def round_values(sheet):
    """Assumptions whose arithmetic can be done by hand."""
    zero = dict.fromkeys(sheet.values, 0.0)
    return zero | {
        "hardware.reserved_gpu_hour_usd": 2.0,
        "hardware.on_demand_gpu_hour_usd": 4.0,
        "hardware.spot_gpu_hour_usd": 1.0,
        "hardware.reserved_share": 0.5,
        "hardware.spot_share": 0.25,
        "hardware.spot_interruptions_per_day": 6.0,
        "hardware.spot_recovery_minutes": 48.0,
        "demand.million_output_tokens_per_month": 2628.0,
        "demand.utilisation_factor": 1.0,
        "demand.goodput_reached_share": 1.0,
        "price.price_per_million_input_usd": 4.0,
        "price.price_per_million_output_usd": 12.0,
        "overhead.engineers_count": 2.0,
        "overhead.engineer_year_usd": 120_000.0,
        "overhead.storage_month_usd": 1000.0,
        "overhead.egress_gb_usd": 0.1,
        "overhead.egress_bytes_per_output_token": 1000.0,
        "overhead.safety_margin_share": 0.5,
        "options.horizon_months": 12.0,
        "options.decision_month": 6.0,
    }


@pytest.fixture
def round_economics(served, round_values):
    return Economics(served, round_values, (1.0,) * 24)


@pytest.fixture
def no_plots(monkeypatch):
    """Pages at once: for tests that do not look at the pictures."""
    from markupsafe import Markup

    def instead(name, title, alt, draw, height=0.0):
        return Plot(name, title, alt, Markup('<svg role="img"></svg>'), b"", b"")

    monkeypatch.setattr(plots, "make_plot", instead)
