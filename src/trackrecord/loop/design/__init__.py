"""The design session: serve this, under that objective, on such hardware.

A candidate fills a design file (`sheet`; its keys in `keys`). It is read against the brief's
scenario (`task`), its arithmetic is evaluated (`figures`), it is simulated (`run`) and marked
(`grade`), and a one-page document comes out (`report`).
"""

from __future__ import annotations

from trackrecord.loop.design.facts import prompt_of
from trackrecord.loop.design.grade import grade_design
from trackrecord.loop.design.keys import template
from trackrecord.loop.design.report import DesignReport, design_document
from trackrecord.loop.design.task import DesignError, DesignTask, load_task, names
from trackrecord.loop.items import Item

__all__ = [
    "DesignError",
    "DesignReport",
    "DesignTask",
    "design_document",
    "design_item",
    "grade_design",
    "load_task",
    "names",
]


def design_item(name: str) -> Item:
    """The item of a scenario, `design:NAME`.

    Raises:
        DesignError: there is none of that name, or its file is bad.
    """
    task = load_task(name.removeprefix("design:"))
    start = template(task.title)
    return Item(f"design:{task.name}", task.title, prompt_of(task), task.model, (), start)
