"""The portfolio's front page: whose track record it is, and the pages there are."""

from __future__ import annotations

from collections.abc import Sequence

from trackrecord.portfolio.page import Page
from trackrecord.portfolio.render import render


def index_files(pages: Sequence[Page], author: str | None = None) -> dict[str, bytes]:
    """`index.html` and `index.md`, listing `pages` in the order given."""
    values = {"title": f"Track record of {author}" if author else "Track record", "pages": pages}
    return {
        "index.html": render("index.html", **values),
        "index.md": render("index.md", **values),
    }
