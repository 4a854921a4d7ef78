"""One page of a portfolio: what every kind of evidence has to be turned into to appear in it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    """A page and the files it consists of.

    Args:
        slug: its name in the folder: `SLUG.html` and `SLUG.md` are among `files`.
        title: of the page, plain text.
        summary: one or two sentences for the index, plain text.
        files: content by path, relative to the folder and written with slashes.
    """

    slug: str
    title: str
    summary: str
    files: dict[str, bytes]

    def __post_init__(self) -> None:
        for name in (f"{self.slug}.html", f"{self.slug}.md"):
            if name not in self.files:
                raise ValueError(f"page {self.slug!r} has no file {name!r}")

    @property
    def extras(self) -> list[str]:
        """Files that the index offers beside the page itself: its data, but no pictures."""
        pages = (f"{self.slug}.html", f"{self.slug}.md")
        return sorted(name for name in self.files if "/" not in name and name not in pages)
