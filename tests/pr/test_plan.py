"""A plan: one page whose every line was looked up, the lint of it, and the test's skeleton."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gauntlet_threads import REPO, issue, pull, put, says
from hypothesis import given, settings
from hypothesis import strategies as st
from upstream_shaped import Run, runner

from trackrecord.issues.harvest import harvest
from trackrecord.issues.store import Store
from trackrecord.pr import regression
from trackrecord.pr.plan import MAX_CHARACTERS, MAX_LINES, SECTIONS, Plan, page_size
from trackrecord.pr.plan_lint import Problem, lint_plan
from trackrecord.upstream.index.build import build_index
from trackrecord.upstream.index.query import Index
from trackrecord.upstream.index.records import Note
from trackrecord.upstream.pin import Tree
from trackrecord.workspace import Workspace
from upstream.made_upstream import FILES, PIN, pinned_workspace, write_tree

POOL = "vllm/v1/core/block_pool.py"
POOL_TEST = "tests/v1/core/test_block_pool.py"
LICENCE = (
    "# SPDX-License-Identifier: Apache-2.0\n"
    "# SPDX-FileCopyrightText: Copyright contributors to the vLLM project\n"
)
NEIGHBOUR = f"""{LICENCE}import json
import math

import pytest

from vllm.v1.core.block_pool import BlockPool

pytestmark = pytest.mark.cpu_test


def test_takes_blocks():
    count = math.isqrt(4)
    assert BlockPool(2).get_new_blocks(count)
"""
IN_POOL = "`BlockPool.get_new_blocks` takes more blocks than there are."
MANY = "`BlockPool.get_new_blocks`, `free_blocks`, `Scheduler.schedule` and `allocate_draft`."
HOSTILE = {
    "backticks": "`evil` ``evil`` ```evil``` [x](http://evil) `",
    "only backticks": "`" * 300,
    "a mention": "@ada and @org/team, see #12",
    "a heading": "x\n\n# Injected\n\n- [ ] done",
    "html": "<img src=http://evil> <!-- <script> &lt;",
    "an image": "![x](http://evil)",
    "escapes": "\x1b]0;owned\x07\x1b[2J\x9b31m \u202egnp.exe \u2028 \r $",
}
THREADS = [
    issue(1, f"{IN_POOL}\n\nvllm 1.0\nValueError: no block", title="[Bug]: more than there are"),
    issue(2, "It breaks.", title="[Bug]: it breaks"),
    issue(3, f"{'`' * 300}\n{MANY}\nValueError: {'`' * 300}", title="`" * 300),
    says("ada", "02-20", f"I'll take this, {'`' * 300}", number=3),
    pull(7),
]
FIRST_HOSTILE = 20
for _number, _text in enumerate(HOSTILE.values(), start=FIRST_HOSTILE):
    _body = f"{IN_POOL} {_text}\n\nValueError: {_text}"
    THREADS.append(issue(_number, _body, title=f"[Bug]: {_text}"))
    THREADS.append(says("ada", "02-20", f"I'll take this, {_text}", number=_number))


@pytest.fixture(scope="module", name="place")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace with a pinned tree, its index, the threads, and one TODO note."""
    folder = tmp_path_factory.mktemp("plan")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKRECORD_CACHE", str(folder / "cache"))
        tree = write_tree(folder / "tree", FILES | {POOL_TEST: NEIGHBOUR})
        workspace = pinned_workspace(folder / "work", tree)
        build_index(Tree.open(PIN).root, workspace.index_path(PIN.name), PIN.name, processes=1)
        with Store.open(workspace.issues_db(REPO), REPO, create=True) as store:
            put(store, folder, *THREADS)
            harvest(store, [Note(POOL, 19, "TODO: remove once the queue is merged", None)])
        yield workspace.root


@pytest.fixture(scope="module", name="index")
def _index(place: Path) -> Iterator[Index]:
    with Index.open(Workspace.open(place)) as index:
        yield index


@pytest.fixture(name="run")
def _run(place: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner("plan", place, capsys)


@pytest.fixture(name="planned")
def _planned(run: Run, tmp_path: Path) -> Callable[[object], str]:
    """The page that the command writes for a candidate."""

    def planned(name: object) -> str:
        code, _, err = run(name, "--out", tmp_path / "plan.md", "--force")
        assert code == 0, err
        return (tmp_path / "plan.md").read_text(encoding="utf-8")

    return planned


@pytest.fixture(name="good")
def _good(planned: Callable[[object], str], index: Index) -> str:
    """A page without a problem."""
    text = planned(1)
    assert lint_plan(text, index).passes
    return text


def section(text: str, name: str) -> str:
    return text.partition(f"## {name}\n")[2].partition("\n## ")[0].strip()


def with_section(text: str, name: str, content: str) -> str:
    """The page with `content` as the text of a section."""
    return text.replace(section(text, name), content, 1)


def problems(text: str, index: Index) -> list[tuple[str, str]]:
    return [(problem.rule, problem.text) for problem in lint_plan(text, index).problems]


# The page.


@pytest.mark.parametrize("name", [1, 2, "T1", FIRST_HOSTILE])
def test_every_section_is_there_in_order_and_says_something(
    name: object, planned: Callable[[object], str]
) -> None:
    text = planned(name)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == list(SECTIONS)
    assert all(section(text, heading) for heading in SECTIONS)


@pytest.mark.parametrize(
    "name", [1, 2, 3, "T1", *range(FIRST_HOSTILE, FIRST_HOSTILE + len(HOSTILE))]
)
def test_it_fits_a_page(name: object, planned: Callable[[object], str]) -> None:
    lines, characters = page_size(planned(name))
    assert lines <= MAX_LINES
    assert characters <= MAX_CHARACTERS


@pytest.mark.parametrize("long", [["- x"] * 200, ["- " + "x" * 300] * 20], ids=["lines", "width"])
def test_what_is_too_long_loses_its_last_lines_and_no_section_all_of_them(long: list[str]) -> None:
    plan = Plan("Plan", "Opening.", {name: ["- kept"] for name in SECTIONS})
    plan.sections["Problem"] = ["- first", *long]
    plan.trim()
    assert plan.fits
    assert plan.sections["Problem"][:2] == ["- first", long[0]]
    assert all(plan.sections.values())


def test_every_line_it_points_at_is_in_the_tree(good: str, index: Index) -> None:
    anchors = re.findall(r"`([\w./-]+\.(?:py|yaml)):(\d+)`", good)
    assert (POOL, "10") in anchors
    for path, line in anchors:
        assert index.tree.read_lines(path)[int(line) - 1].strip()


def test_the_load_bearing_line_is_that_of_the_definition(good: str, index: Index) -> None:
    found = section(good, "Load-bearing lines")
    url = f"https://github.com/{REPO}/blob/v1.0/{POOL}#L10"
    assert found.startswith(f"- [`{POOL}:10`]({url}) `BlockPool.get_new_blocks`: named")
    assert "def get_new_blocks" in index.tree.read_lines(POOL)[9]


def test_invariants_of_the_catalogue_are_named_and_asked_about(good: str) -> None:
    assert "**free-is-unreferenced**: " in section(good, "Invariants at stake")
    assert "How is **free-is-unreferenced** kept?" in section(good, "Approach")


def test_the_regression_test_has_a_place_a_command_and_a_step(good: str) -> None:
    found = section(good, "Regression test")
    assert f"beside `{POOL_TEST}::test_takes_blocks`" in found
    assert f"`pytest {POOL_TEST}::test_more_than_there`" in found
    assert "“Core (CPU)” on cpu-small" in found


def test_the_search_for_duplicates_is_left_to_be_run(good: str) -> None:
    search = f'`gh pr list --repo {REPO} --state open --search "1 in:body"`'
    assert search in section(good, "Duplicate work")


def test_what_the_gauntlet_left_open_is_a_question(good: str) -> None:
    assert "Open in within-map: run trackrecord upstream read kv-cache" in section(good, "Approach")


def test_a_note_is_asked_whether_what_it_waits_for_has_happened(
    planned: Callable[[object], str],
) -> None:
    text = planned("T1")
    assert "Has what the note waits for happened" in section(text, "Approach")
    assert f"`{POOL}:19`" in section(text, "Load-bearing lines")


# What strangers wrote.

CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.*?)(?<!`)\1(?!`)")
"""CommonMark's: from a run of backticks to the next run of the same length."""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_report_stays_inside_of_code_spans(
    name: str, planned: Callable[[object], str]
) -> None:
    text = planned(FIRST_HOSTILE + list(HOSTILE).index(name))
    outside = CODE_SPAN.sub("", text)
    assert "`" not in outside
    assert not re.search(r"@\w|[<>]|(?<!\\)#12|evil|!\[|owned", outside)
    assert [line for line in text.splitlines() if line.startswith("# ")] == [text.split("\n")[0]]
    assert all(c.isprintable() or c == "\u2060" for c in text.replace("\n", ""))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_title_is_one_code_span(name: str, planned: Callable[[object], str]) -> None:
    title = planned(FIRST_HOSTILE + list(HOSTILE).index(name)).split("\n")[0]
    before, _, span = title.partition(": ")
    assert before.startswith("# Plan for #")
    found = CODE_SPAN.match(span)
    assert found
    assert found[0] == span


def test_the_terminal_is_shown_no_escape(run: Run, tmp_path: Path) -> None:
    number = FIRST_HOSTILE + list(HOSTILE).index("escapes")
    _, out, err = run(number, "--out", tmp_path / "plan.md")
    assert "\\x1b]0;owned\\x07" in out
    assert all(c.isprintable() for c in (out + err).replace("\n", ""))


# The lint.


def test_a_new_plan_passes_and_counts_what_is_still_asked(good: str, index: Index) -> None:
    found = lint_plan(good, index)
    assert found.passes
    assert found.open_questions == section(good, "Approach").count("?")


def test_a_new_plan_without_a_known_place_fails_only_for_that(
    planned: Callable[[object], str], index: Index
) -> None:
    (problem,) = lint_plan(planned(2), index).problems
    assert problem.rule == "anchor"
    assert "no load-bearing line is anchored" in problem.text


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_must_be_there(name: str, good: str, index: Index) -> None:
    rule = "scope" if name == "Out of scope" else "section"
    assert (rule, f"no section “{name}”") in problems(good.replace(f"## {name}\n", ""), index)


@pytest.mark.parametrize("content", ["", "- TBD", "1. ...", "<!-- later -->", "### More"])
def test_a_section_with_nothing_but_placeholders_is_empty(
    content: str, good: str, index: Index
) -> None:
    text = with_section(good, "Interactions", content)
    assert ("section", "section “Interactions” is empty") in problems(text, index)


def test_limits_that_are_not_stated_fail(good: str, index: Index) -> None:
    text = with_section(good, "Out of scope", "- none")
    assert problems(text, index) == [("scope", "section “Out of scope” is empty")]


@pytest.mark.parametrize(
    ("more", "words"),
    [("- x\n" * 60, "lines; a page has 60"), ("x" * 4000, "characters; a page has 4,000")],
    ids=["lines", "characters"],
)
def test_more_than_a_page_fails(more: str, words: str, good: str, index: Index) -> None:
    ((rule, text),) = problems(f"{good}\n{more}\n", index)
    assert rule == "page"
    assert words in text


def test_addresses_do_not_count(good: str, index: Index) -> None:
    assert problems(f"{good}\n- [x](https://github.com/{'x' * 5000})\n", index) == []


@pytest.mark.parametrize(
    ("anchor", "words"),
    [
        (f"`{POOL}:900`", f"{POOL} has 24 lines, not 900"),
        (f"`{POOL}:0`", f"{POOL} has 24 lines, not 0"),
        ("`vllm/gone.py:3`", "vllm/gone.py is not in the tree"),
        (f"`{POOL}:24` `BlockPool.get_new_blocks`", "it begins at line 10"),
        (f"[`{POOL}:24`](https://x) `get_new_blocks()`", "it begins at line 10"),
        (f"`{POOL}:10` `Pool.take`", "the file does not define it"),
        ("`tests/nowhere/test_x.py`", "tests/nowhere/test_x.py is not in the tree"),
    ],
)
def test_an_anchor_that_is_not_true_fails_with_its_line(
    anchor: str, words: str, good: str, index: Index
) -> None:
    text = with_section(good, "Approach", f"It is at {anchor}.")
    (problem,) = lint_plan(text, index).problems
    assert problem.rule == "anchor"
    assert words in problem.text
    assert text.splitlines()[problem.line - 1] == f"It is at {anchor}."


@pytest.mark.parametrize(
    "anchor",
    [
        f"`{POOL}:20` `BlockPool.get_new_blocks`",
        f"`{POOL}:20`, `get_new_blocks()`",
        f"`{POOL}:20` and not `free_blocks`",
        f"`{POOL}`",
        "`tests/v1/core/test_new.py`",
        "`x/y`",
    ],
)
def test_an_anchor_that_is_true_passes(anchor: str, good: str, index: Index) -> None:
    assert problems(with_section(good, "Approach", f"It is at {anchor}."), index) == []


@settings(deadline=None)
@given(text=st.text(alphabet="`#:./ \n-[]()<!ab1\x1b", max_size=200))
def test_the_lint_judges_any_text(text: str, index: Index) -> None:
    found = lint_plan(text, index)
    assert not found.passes
    assert all(isinstance(problem, Problem) for problem in found.problems)


def test_lint_exits_0_for_a_plan_and_1_for_what_is_none(
    good: str, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "mine.md"
    file.write_text(good)
    code, out, _ = run("lint", file)
    assert (code, out.count("\n")) == (0, 1)
    bad = good.replace(f"`{POOL}:10`", f"`{POOL}:900`")
    file.write_text(bad)
    code, out, _ = run("lint", file)
    assert code == 1
    line = bad.partition(":900`")[0].count("\n") + 1
    assert f"{file}:{line}: anchor: {POOL} has 24 lines, not 900\n" in out


def test_lint_as_a_document(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.md"
    file.write_text("# Nothing\n")
    code, out, _ = run("lint", file, "--json")
    document = json.loads(out)
    assert (code, document["passes"], document["anchors"]) == (1, False, 0)
    assert {problem["rule"] for problem in document["problems"]} == {"section", "scope"}


# The skeleton.


@pytest.fixture(name="skeleton")
def _skeleton(run: Run, tmp_path: Path) -> Path:
    """The file of the regression test for issue 1, written into a clone."""
    code, _, err = run(1, "--out", tmp_path / "plan.md", "--skeleton", tmp_path / "clone")
    assert code == 0, err
    return tmp_path / "clone" / "tests/v1/core/test_more_than_there.py"


def passes(file: Path) -> tuple[bool, str]:
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", file.parent]
    done = subprocess.run([*words, file], capture_output=True, text=True, cwd=file.parent)
    return done.returncode == 0, done.stdout


def test_a_skeleton_is_python_and_looks_like_its_neighbour(skeleton: Path) -> None:
    text = skeleton.read_text()
    ast.parse(text)
    assert text.startswith(f"{LICENCE}import math\nimport pytest\n")
    assert "pytestmark = pytest.mark.cpu_test\n" in text
    assert "    count = math.isqrt(4)\n" in text
    assert "json" not in text


def test_a_skeleton_fails_until_it_is_written(skeleton: Path) -> None:
    passed, said = passes(skeleton)
    assert not passed
    assert "write down what must hold" in said
    skeleton.write_text(re.sub(r"pytest\.fail\(.*\)", "assert count == 2", skeleton.read_text()))
    assert passes(skeleton)[0]


def test_a_skeleton_stands_beside_the_plan_unless_a_folder_is_named(
    run: Run, tmp_path: Path
) -> None:
    run(1, "--out", tmp_path / "mine.md", "--skeleton")
    assert (tmp_path / "mine" / "tests/v1/core/test_more_than_there.py").is_file()


def test_a_skeleton_that_is_there_is_kept_and_no_plan_is_written(
    skeleton: Path, run: Run, tmp_path: Path
) -> None:
    skeleton.write_text("mine\n")
    other = tmp_path / "other.md"
    code, _, err = run(1, "--out", other, "--skeleton", tmp_path / "clone")
    assert (code, err.count("\n")) == (2, 1)
    assert skeleton.read_text() == "mine\n"
    assert not other.exists()


def test_without_a_test_near_there_is_no_skeleton_and_no_plan(run: Run, tmp_path: Path) -> None:
    code, _, err = run(2, "--out", tmp_path / "plan.md", "--skeleton")
    assert code == 2
    assert "no test comes near" in err
    assert not (tmp_path / "plan.md").exists()


@settings(deadline=None)
@given(title=st.text(max_size=200))
def test_a_tests_name_is_an_ascii_identifier_whatever_the_title(title: str) -> None:
    name = regression.test_name(title)
    assert name.isidentifier()
    assert name.isascii()
    assert name.startswith("test_")
    assert len(name) <= 70


# The command.


def test_a_plan_goes_into_the_workspace(run: Run, place: Path) -> None:
    code, out, err = run(1, "--force")
    file = place / "plans" / "1.md"
    assert code == 0
    assert file.read_text() + "\n" == out
    assert str(file) in err


def test_a_plan_that_is_there_is_kept(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "plan.md"
    file.write_text("mine\n")
    code, out, err = run(1, "--out", file)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--force" in err
    assert file.read_text() == "mine\n"


def test_force_replaces_a_plan(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "plan.md"
    file.write_text("mine\n")
    assert run(1, "--out", file, "--force")[0] == 0
    assert file.read_text().startswith("# Plan for #1")
    assert list(tmp_path.iterdir()) == [file]


def test_a_plan_for_what_is_disqualified_says_so(run: Run, tmp_path: Path) -> None:
    _, _, err = run(FIRST_HOSTILE, "--out", tmp_path / "plan.md")
    assert f"#{FIRST_HOSTILE} has not passed the gauntlet: fail" in err


def test_a_plan_as_a_document(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "plan.md"
    code, out, _ = run("#1", "--out", file, "--json")
    document = json.loads(out)
    assert code == 0
    assert (document["name"], document["file"], document["skeleton"]) == ("#1", str(file), None)
    assert document["plan"] == file.read_text()
    assert len(document["gauntlet"]["checks"]) == 5


BAD = {
    "no such issue": ((99,), "no issue #99"),
    "a pull request": ((7,), "#7 is a pull request"),
    "no such note": (("T5",), "no note T5"),
    "no number": (("x\x1b[2J",), "not an issue number"),
    "a file without lint": ((1, "plan.md"), "only 'lint' takes a file"),
    "lint without a file": (("lint",), "needs the FILE"),
    "lint of nothing": (("lint", "/nowhere.md"), "cannot read '/nowhere.md'"),
    "a place that cannot be": ((1, "--out", "/dev/null/plan.md"), "cannot write"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_exits_2_with_one_line(name: str, run: Run) -> None:
    words, says_what = BAD[name]
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert says_what in err
    assert (err.count("\n"), err.count("\x1b")) == (1, 0)
