from __future__ import annotations

import pytest
from markupsafe import Markup

from trackrecord.portfolio import plots


@pytest.fixture
def no_plots(monkeypatch):
    """Pages at once: for tests that do not look at the pictures."""

    def instead(name, title, alt, draw, height=0.0):
        return plots.Plot(name, title, alt, Markup('<svg role="img"></svg>'), b"", b"")

    monkeypatch.setattr(plots, "make_plot", instead)
