"""The page of the loop: what was chosen, all of it, and nothing else."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from loop.graded_runs import graded, sat, whole_loop
from trackrecord.loop.graded import GradedRun
from trackrecord.loop.outcome.published import (
    Published,
    PublishedError,
    everything,
    publish,
    read_published,
)
from trackrecord.loop.outcome.report import build_report
from trackrecord.portfolio.loop_page import loop_page
from trackrecord.workspace import Workspace

TODAY = date(2026, 8, 1)
CANARY = "canary-7d1f"


def files_of(published: Published, *runs: GradedRun) -> dict[str, str]:
    page = loop_page(build_report(runs, TODAY), published)
    assert page is not None
    texts = {name: data for name, data in page.files.items() if not name.endswith(".png")}
    return {name: data.decode() for name, data in texts.items()}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


def test_nothing_is_published_until_it_is_chosen(workspace: Workspace) -> None:
    published = read_published(workspace)
    assert published == Published()
    assert loop_page(build_report([sat("a", *whole_loop())], TODAY), published) is None
    assert not workspace.root.exists()


def test_a_choice_is_read_back_and_can_be_taken_back(workspace: Workspace) -> None:
    runs = [sat("a", *whole_loop()), sat("b", day=1)]
    chosen = Published(("a",), "quotes", ("04-attention",))
    publish(workspace, chosen, runs)
    assert read_published(workspace) == chosen
    publish(workspace, Published(), runs)
    assert read_published(workspace) == Published()


@pytest.mark.parametrize(
    "chosen", [Published(("z\x1b[0m",)), Published(("a",), without=("4",))], ids=["run", "area"]
)
def test_what_is_not_there_cannot_be_chosen(workspace: Workspace, chosen: Published) -> None:
    with pytest.raises(PublishedError, match=r"^no (run|area) '[^\x1b]*$"):
        publish(workspace, chosen, [sat("a")])
    assert read_published(workspace) == Published()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "[" * 90_000,
        '{"runs": [], "texts": "all", "without": []}',
        '{"runs": [1], "texts": "none", "without": []}',
        '{"runs": "a", "texts": "none", "without": []}',
        '{"runs": [], "texts": [], "without": []}',
        '{"runs": [], "texts": "none", "without": ["x"]}',
        '{"runs": [], "texts": "none", "without": [], "more": 1}',
        '{"runs": ["' + "a" * 200_000 + '"], "texts": "none", "without": []}',
    ],
)
def test_a_damaged_choice_is_an_error_not_a_guess(workspace: Workspace, text: str) -> None:
    path = workspace.root / "loop" / "published.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(PublishedError):
        read_published(workspace)


def test_a_chosen_run_that_is_gone_is_said() -> None:
    with pytest.raises(PublishedError, match="no run 'gone' to publish: there are a"):
        loop_page(build_report([sat("a", *whole_loop())], TODAY), Published(("gone",)))


def test_no_word_or_score_of_what_was_not_chosen_is_on_the_page() -> None:
    """Marked answers: in another run, in practice, in an area that is left out, and in one that
    such an area is part of. The page is what it is without them."""

    def marked(name: str, *areas: int) -> object:
        return graded(name, (1, 0, 1), areas=areas, title=CANARY, text=CANARY,
                      quotes=(CANARY,) * 3, own=(4, 4, 4))  # fmt: skip

    shown = [a for a in whole_loop() if not {3, 4} & {area.number for area in a.areas}]
    chosen = Published(("a",), "whole", ("03-batching-and-scheduling", "04-attention"))
    hidden = [marked("04/x", 4), marked("04/y", 2, 4)]
    files = files_of(
        chosen,
        sat("a", *shown, *hidden),  # type: ignore[arg-type]
        sat("other", marked("02/other", 2), day=1),  # type: ignore[arg-type]
        sat("practice", marked("02/p", 2), day=2, practice=True),  # type: ignore[arg-type]
    )
    assert not any(CANARY in text for text in files.values())
    assert not any("Attention kernels" in files[name] for name in ("loop.html", "loop.md"))
    without = files_of(chosen, sat("a", *shown), sat("other", day=1), sat("p", day=2))
    assert files == without


def test_without_texts_no_word_of_an_answer_is_on_the_page() -> None:
    word = "quetzal"
    run = sat("a", *whole_loop(), graded("02/x", (4, 4, 4), text=word, quotes=(word,) * 3))
    assert not any(word in text for text in files_of(Published(("a",), "none"), run).values())
    quoted = files_of(Published(("a",), "quotes"), run)
    assert all(word in quoted[name] for name in ("loop.html", "loop.md", "loop.json"))


def test_only_whole_texts_show_what_was_not_quoted() -> None:
    text = "quoted words\nand the rest of it"
    run = sat("a", graded("02/x", (4, 4, 4), text=text, quotes=("quoted words",) * 3))
    assert "the rest" not in "".join(files_of(Published(("a",), "quotes"), run).values())
    assert "and the rest of it" in files_of(Published(("a",), "whole"), run)["loop.html"]


def test_a_candidate_cannot_add_markup() -> None:
    text = "</pre><script>alert(1)</script> ![x](http://e.example/x) \x1b[2J\n# not a heading\n~~~"
    quote = "<img src=x onerror=alert(1)> [a](http://e.example) |"
    made = graded("02/x", (4, 4, 4), text=f"{text}\n{quote}", quotes=(quote,) * 3, title=quote)
    files = files_of(everything([sat("a", made)]), sat("a", made))
    html, markdown = files["loop.html"], files["loop.md"]
    assert "<script" not in html
    assert "<img" not in html
    assert "\x1b" not in html + markdown
    outside = [line for line in markdown.splitlines() if not line.startswith("    ")]
    assert not any("<img" in line.replace("\\<", "") for line in outside)
    assert not any(line.startswith(("# not", "~~~")) for line in markdown.splitlines())


def test_the_page_says_how_it_was_earned_and_how_much_was_chosen() -> None:
    runs = [sat("a", *whole_loop(), problems=["entry 9 was altered"]), sat("b", day=1)]
    text = files_of(Published(("a",), "quotes"), *runs)["loop.md"]
    assert "15 answers in 1 timed run" in text
    assert "1 with a look at the model answer" in text
    assert "Shown by choice: 1 of 2 runs" in text
    assert "- run a: entry 9 was altered" in text


def test_leaving_out_the_run_in_which_an_item_was_met_does_not_make_it_new() -> None:
    first, again = sat("a", *whole_loop()), sat("b", *whole_loop(), day=3)
    files = files_of(Published(("b",)), first, again)
    assert json.loads(files["loop.json"])["staff"]["answers"] == 0
    assert "15 to an item met before" in files["loop.md"]


@pytest.mark.parametrize(
    "run",
    [
        sat("a"),
        sat("a", graded("02/x", (0, 0, 0), text="", skipped=True)),
        sat("a", graded("02/x", (3, 3, 3)), practice=True),
        sat("a", graded("02/x", (3, 3, 3), text="y" * 40_000, quotes=("y" * 40_000,) * 3)),
    ],
    ids=["no-answers", "skipped", "practice", "long"],
)
def test_a_little_makes_a_page_too(run: GradedRun) -> None:
    files = files_of(everything([run]), run)
    assert "Too little to say" in files["loop.md"]
    assert len(files["loop.html"]) < 200_000


def test_an_empty_cell_is_hatched_and_has_no_number() -> None:
    files = files_of(Published(("a",)), sat("a", graded("02/x", (1, 2, 3))))
    picture = files["plots/loop-areas.svg"]
    assert picture.count("url(#") == 19 * 3 + picture.count("clip-path")
    numbers = [n for n in ("1.0", "2.0", "3.0", "0.0", "4.0") if f">{n}<" in picture]
    assert numbers == ["1.0", "2.0", "3.0"]
