"""The checks after `claimed`, their order, and the command that runs them, on a made tree."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from gauntlet_threads import REPO, issue, pull, put, says, store_of
from upstream_shaped import Run, runner

from trackrecord.issues.harvest import harvest
from trackrecord.issues.store import Store
from trackrecord.pr.gauntlet.case import Case, issue_case, note_case
from trackrecord.pr.gauntlet.report import CheckResult
from trackrecord.pr.gauntlet.run import CHECKS, run_gauntlet
from trackrecord.upstream.index.build import build_index
from trackrecord.upstream.index.query import Index
from trackrecord.upstream.index.records import Note
from trackrecord.upstream.pin import Tree
from trackrecord.workspace import Areas, Hardware, Settings
from upstream.made_upstream import FILES, PIN, index_of, pinned_workspace, write_tree

NOW = datetime(2026, 3, 1, tzinfo=UTC)
POOL = "vllm/v1/core/block_pool.py"
RFC_RULE = "A major architectural change needs an RFC issue first."
EXTRA = {
    "vllm/config/cache.py": "class CacheConfig:\n    block_size: int = 16\n",
    "vllm/entrypoints/llm.py": "class LLM:\n    def __init__(self, model, block_size=16): ...\n",
    "vllm/sampling_params.py": "class SamplingParams:\n    temperature: float = 1.0\n",
    "vllm/orphan.py": "def orphan():\n    pass\n",
    "vllm/device.py": "def copy_over():\n    pass\n",
    "vllm/unsure.py": "def unsure_of():\n    pass\n",
    "vllm/corner.py": "def corner_of():\n    pass\n",
    "csrc/paged.cu": "__global__ void paged() {}\n",
    "tests/v1/core/test_device.py": "import torch\nfrom vllm.device import copy_over\n\n\n"
    'def test_copies():\n    copy_over(torch.zeros(1, device="cuda"))\n',
    "tests/v1/core/test_unsure.py": "from vllm.unsure import unsure_of\n\n\n"
    "def test_unsure():\n    unsure_of()\n",
    "tests/corner/test_corner.py": "import pytest\nfrom vllm.corner import corner_of\n\n"
    "pytestmark = pytest.mark.cpu_test\n\n\ndef test_corner():\n    corner_of()\n",
    ".github/CODEOWNERS": FILES[".github/CODEOWNERS"] + "/vllm/orphan.py\n",
    "docs/contributing/README.md": f"# Contributing\n\n## Large changes\n\n{RFC_RULE}\n",
}
H100 = Settings(hardware=Hardware(("h100",), 1))
NO_GPU = Settings(hardware=Hardware(("none",), 0))
SILENT = Settings()
SCRIPT = "```python\nfrom vllm.v1.core.block_pool import BlockPool\nBlockPool(3)\n```\n"
TRACE = """```
Traceback (most recent call last):
  File "/usr/lib/python3/site-packages/{}", line {}, in {}
ValueError: no
```
"""
SERVE = "```bash\nvllm serve m {}\n```\n"
AT_PIN = "Seen with vllm 1.0.\n"
IN_TREE = TRACE.format(POOL, 20, "get_new_blocks")
GONE = TRACE.format("vllm/worker/old.py", 7, "step")
NL = "\n"
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m \u202egnp.exe \x00 \r fake prompt $"
Make = Callable[..., Case]


@pytest.fixture(scope="module", name="index")
def _index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("checks")
    tree = write_tree(folder / "tree", FILES | EXTRA)
    with index_of(tree, folder / "index.sqlite") as made:
        yield made


@pytest.fixture(name="case_of")
def _case_of(tmp_path: Path, index: Index) -> Iterator[Make]:
    """Makes the case of issue 1, which has `body` and stands beside `others`."""
    with ExitStack() as stack:
        made: list[Case] = []

        def make(
            body: str = "It breaks.", *others: dict[str, Any], settings: Settings = SILENT,
            now: datetime = NOW, passed: tuple[str, ...] = (), synced: str = "", **more: Any,
        ) -> Case:  # fmt: skip
            folder = tmp_path / str(len(made))
            folder.mkdir()
            store = stack.enter_context(store_of(folder, issue(body=body, **more), *others))
            if synced:
                store.set_meta("last_sync", synced)
            made.append(issue_case(store, 1, index, settings, now, passed))
            return made[-1]

        yield make


@pytest.fixture(name="note_of")
def _note_of(tmp_path: Path, index: Index) -> Iterator[Make]:
    """Makes the case of a TODO note with the words `text`, which stands in the pool."""
    with ExitStack() as stack:

        def make(text: str, *threads: dict[str, Any], synced: str = "") -> Case:
            store = stack.enter_context(store_of(tmp_path, *threads))
            found = harvest(store, [Note(POOL, 19, text, index.symbol_at(POOL, 19))])
            if synced:
                store.set_meta("last_sync", synced)
            return note_case(store, found[0].number, index, SILENT, NOW)

        yield make


def pinned(code: str) -> str:
    """A report on the pinned version that brings `code`."""
    return f"{AT_PIN}```python\n{code}\n```\n"


def check(name: str, case: Case) -> CheckResult:
    return CHECKS[name](case)  # type: ignore[index]


def expect(found: CheckResult, verdict: str, words: str) -> None:
    """Whether the check says so, and of an unknown, and only of one, what would settle it."""
    assert (found.verdict, bool(found.settle)) == (verdict, verdict == "unknown"), found
    assert words in " / ".join((found.summary, *found.settle))


# Reproducible: what the report brings. Each: the verdict, words of the answer, the report.

LLM = "from vllm import LLM\n"
REPORTS = {
    "a script": ("pass", "on the pinned version 1.0", AT_PIN + SCRIPT),
    "an older version": ("unknown", "run it on 1.0: newer code", f"vllm 0.9.1\n{SCRIPT}"),
    "a newer version": ("unknown", "upstream pin --version 1.2.0", f"vllm 1.2.0\n{SCRIPT}"),
    "no version": ("unknown", "ask for the version", SCRIPT),
    "nothing": ("unknown", "ask for a script, a command or a trace", "It breaks."),
    "a name unknown": ("unknown", "lacks vllm.Nothing", pinned("from vllm import Nothing")),
    "a module unknown": ("unknown", "lacks vllm.nothing", pinned("import vllm.nothing")),
    "an argument unknown": ("unknown", "lacks LLM(warp=)", pinned(f"{LLM}LLM('x', warp=9)")),
    "half a script": ("unknown", "does not parse", pinned("from vllm import (")),
    "a null byte": ("unknown", "does not parse", pinned("import vllm\0")),
    "deep nesting": ("unknown", "does not parse", pinned(f"import vllm\nx = {'(' * 9000}")),
    "known arguments": ("pass", "names the tree has", pinned(f"{LLM}LLM('x', block_size=16)")),
    "a session": ("pass", "names the tree has", pinned(f">>> {LLM}>>> LLM('x')\n<LLM object>")),
    "an indented script": ("pass", "names the tree has", pinned(f"  {LLM}  print('\\d')")),
    "a command": ("pass", "options the tree has", AT_PIN + SERVE.format("--block-size 16")),
    "an option unknown": ("unknown", "no option --warp-speed:", SERVE.format("--warp-speed 9")),
    "quoted code": ("unknown", "ask for a script", f"{AT_PIN}> {SCRIPT.replace(NL, NL + '> ')}"),
    "a trace": ("unknown", "write a script that reaches the frames", AT_PIN + IN_TREE),
    "a trace of another tree": ("fail", "none of the code in the trace", GONE + SCRIPT),
    "a function gone": ("unknown", "functions of the trace are gone", TRACE.format(POOL, 20, "f")),
}


@pytest.mark.parametrize("name", REPORTS)
def test_what_a_report_brings_decides_whether_it_is_reproducible(name: str, case_of: Make) -> None:
    verdict, words, body = REPORTS[name]
    expect(check("reproducible", case_of(body)), verdict, words)


def test_a_build_between_releases_belongs_to_its_release(case_of: Make, index: Index) -> None:
    case = case_of(f"Seen with vllm 1.0.3rc1.dev9+g12ab.\n{SCRIPT}")
    tree = Tree(index.tree.root, replace(PIN, version="1.0.3"))
    case = replace(case, index=Index(index.connection, tree))
    assert check("reproducible", case).verdict == "pass"


def test_a_version_that_only_a_comment_names_counts(case_of: Make) -> None:
    found = check("reproducible", case_of(SCRIPT, says("reporter", "02-01", "It is vllm 1.0.")))
    assert found.verdict == "pass"


def test_frames_that_the_tree_has_are_counted(case_of: Make) -> None:
    found = check("reproducible", case_of(GONE + IN_TREE))
    assert found.details["frames"] == {"reported": 2, "in_tree": 1}


def test_nothing_that_an_issue_contains_is_run(case_of: Make, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    write = f"open({str(ran)!r}, 'w').write('x')"
    body = pinned(f"import vllm\n{write}") + SERVE.format(f"--block-size $(touch {ran})")
    report = run_gauntlet(case_of(f"{body}\n`{write}`"), run_all=True)
    assert report.results[1].details["runnable"]
    assert not ran.exists()


# Reproducible: hardware.

FOUR = f"{AT_PIN}With --tensor-parallel-size 4\n{SCRIPT}"


@pytest.mark.parametrize(
    ("hardware", "verdict", "words"),
    [
        (Hardware(("h100",), 1), "fail", "takes 4 accelerators (tensor parallel 4), you have 1"),
        (Hardware(("none",), 0), "fail", "you have 0"),
        (Hardware(("h100",), 8), "pass", "brings a script"),
        (Hardware(), "unknown", "say in trackrecord.toml which hardware you have"),
    ],
    ids=["one", "none", "eight", "not said"],
)
def test_accelerators_are_counted_against_the_settings(
    hardware: Hardware, verdict: str, words: str, case_of: Make
) -> None:
    found = check("reproducible", case_of(FOUR, settings=Settings(hardware=hardware)))
    expect(found, verdict, words)


@pytest.mark.parametrize(
    ("label", "gpus", "verdict"),
    [
        ("rocm", ("h100",), "fail"),
        ("rocm", ("none",), "fail"),
        ("rocm", ("mi300x",), "pass"),
        ("tpu", ("h100",), "fail"),
        ("intel-gpu", ("arc b580",), "pass"),
        ("rocm", (), "pass"),
    ],
)
def test_a_label_of_a_vendor_asks_for_that_vendor(
    label: str, gpus: tuple[str, ...], verdict: str, case_of: Make
) -> None:
    settings = Settings(hardware=Hardware(gpus, 0))
    case = case_of(f"vllm 1.0\n{SCRIPT}", settings=settings, labels=[label])
    assert check("reproducible", case).verdict == verdict


def test_what_was_seen_on_a_gpu_is_open_for_somebody_without(case_of: Make) -> None:
    found = check("reproducible", case_of(f"vllm 1.0 on an A100.\n{SCRIPT}", settings=NO_GPU))
    expect(found, "unknown", "unit test")


# Reproducible: wishes and notes.


@pytest.mark.parametrize(
    ("title", "verdict", "words"),
    [
        ("[Feature]: something with wings", "pass", "a feature request: nothing to reproduce"),
        ("[Feature]: support a scheduler", "unknown", "read vllm/v1/scheduler.py: is that what"),
    ],
)
def test_a_feature_is_open_only_where_the_tree_may_have_it(
    title: str, verdict: str, words: str, case_of: Make
) -> None:
    expect(check("reproducible", case_of("Please.", title=title)), verdict, words)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("TODO: remove when pydantic v2.12 is released", "pass"),
        ("TODO: remove once the new queue is merged", "unknown"),
    ],
)
def test_a_note_is_reproducible_where_its_cause_can_be_looked_up(
    text: str, verdict: str, note_of: Make
) -> None:
    found = check("reproducible", note_of(text))
    assert found.verdict == verdict
    assert bool(found.settle) == (verdict == "unknown")
    assert f"stands at {POOL}:19" in found.summary


# Within the map. The pool lies in the area kv-cache.

IN_POOL = "`BlockPool.get_new_blocks` takes too many."


@pytest.mark.parametrize(
    ("areas", "passed", "verdict", "words"),
    [
        (Areas(read=("kv-cache",)), (), "pass", "lands in kv-cache, which you have read"),
        (Areas(declared=("kv-cache",)), (), "pass", "lands in kv-cache, which you have declared"),
        (Areas(), ("kv-cache",), "pass", "lands in kv-cache, which you have passed"),
        (Areas(read=("sampling",)), (), "fail", "neither read nor declared"),
        (Areas(), (), "unknown", "run trackrecord upstream read kv-cache"),
    ],
    ids=["read", "declared", "passed", "unknown", "nothing said"],
)
def test_the_area_is_compared_with_those_that_are_known(
    areas: Areas, passed: tuple[str, ...], verdict: str, words: str, case_of: Make
) -> None:
    case = case_of(IN_POOL, settings=Settings(areas=areas), passed=passed)
    expect(check("within-map", case), verdict, words)


@pytest.mark.parametrize("area", ["kv-cache", "sampling"])
def test_a_guess_by_the_title_neither_passes_nor_fails(area: str, case_of: Make) -> None:
    settings = Settings(areas=Areas(read=(area,)))
    found = check("within-map", case_of(title="[Bug]: the pool is empty", settings=settings))
    assert (found.verdict, found.details["areas"]) == ("unknown", ["kv-cache"])
    assert found.settle


def test_a_place_outside_of_every_area_is_to_be_read(case_of: Make) -> None:
    found = check("within-map", case_of("See vllm/v1/scheduler.py."))
    expect(found, "unknown", "read vllm/v1/scheduler.py")


# Testable.

TESTED = {
    "without a gpu": ("pass", "CI runs a new one in “Core (CPU)”", IN_POOL, NO_GPU),
    "on a gpu, no gpu": ("fail", "needs a GPU, and you have none", "`copy_over`", NO_GPU),
    "on a gpu, nothing said": ("unknown", "trackrecord.toml", "`copy_over`", SILENT),
    "on a gpu, a gpu": ("pass", "need a GPU, which you have", "`copy_over`", H100),
    "need unknown": ("unknown", "run tests/v1/core/test_unsure.py", "`unsure_of`", NO_GPU),
    "no step of ci": ("unknown", "find the step that runs tests/corner/", "`corner_of`", NO_GPU),
    "no test": ("unknown", "no test comes near orphan", "`orphan()`", NO_GPU),
    "a kernel, no gpu": ("fail", "compiled for accelerators", "See csrc/paged.cu.", NO_GPU),
    "a kernel, a gpu": ("unknown", "no test comes near", "See csrc/paged.cu.", H100),
}


@pytest.mark.parametrize("name", TESTED)
def test_tests_near_the_place_decide_whether_it_is_testable(name: str, case_of: Make) -> None:
    verdict, words, body, settings = TESTED[name]
    expect(check("testable", case_of(body, settings=settings)), verdict, words)


def test_the_test_that_uses_the_function_is_the_first_evidence(case_of: Make) -> None:
    found = check("testable", case_of(IN_POOL))
    assert found.evidence[0].text == "tests/v1/core/test_block_pool.py::test_takes_blocks"


@pytest.mark.parametrize("name", ["testable", "reviewable", "within-map"])
def test_without_a_place_the_place_is_to_be_found(name: str, case_of: Make) -> None:
    expect(check(name, case_of()), "unknown", "find the function that is at fault")


# Reviewable. The pool is owned by @pool.

SEEN = says("Pool", "02-20", "Hello.", number=2)


def test_an_owner_heard_of_lately_passes(case_of: Make) -> None:
    found = check("reviewable", case_of(IN_POOL, issue(2), SEEN))
    assert (found.verdict, found.details["active_owners"]) == ("pass", ["pool"])


def test_owners_that_fell_silent_leave_it_open(case_of: Make) -> None:
    late = datetime(2026, 9, 1, tzinfo=UTC)
    case = case_of(IN_POOL, issue(2), SEEN, now=late, synced="2026-09-01T00:00:00Z")
    found = check("reviewable", case)
    assert found.details["active_owners"] == []
    expect(found, "unknown", "no sign of pool for 90 days")


def test_without_a_sync_nobody_knows_whether_owners_are_active(case_of: Make) -> None:
    expect(check("reviewable", case_of(IN_POOL)), "unknown", "sync pull requests")


def test_files_that_nobody_owns_leave_it_open(case_of: Make) -> None:
    expect(check("reviewable", case_of("`orphan()` fails.")), "unknown", "nobody owns these files")


EVERYBODY = says("everybody", "02-20", "Hello.", number=2)


def test_a_bug_in_a_public_part_says_which(case_of: Make) -> None:
    found = check("reviewable", case_of("`CacheConfig` breaks.", issue(2), EVERYBODY))
    expect(found, "pass", "touches configuration")


def test_a_feature_of_a_public_part_is_to_be_agreed_first(case_of: Make) -> None:
    body, title = "Extend `CacheConfig`.", "[Feature]: more of it"
    found = check("reviewable", case_of(body, issue(2), EVERYBODY, title=title))
    assert found.verdict == "unknown"
    assert found.settle == ("ask an owner in the issue before changing the configuration",)


THREE = "`BlockPool`, `SamplingParams` and `LLM`."


@pytest.mark.parametrize(
    ("title", "body", "why"),
    [
        ("[RFC]: blocks for all", IN_POOL, "the issue itself is an RFC"),
        ("[Feature]: Redesign of the blocks", IN_POOL, "the title speaks of redesign"),
        ("[Feature]: a seed", THREE, "it reaches 3 areas"),
    ],
)
def test_a_large_change_needs_an_rfc_and_the_rule_is_quoted(
    title: str, body: str, why: str, case_of: Make
) -> None:
    found = check("reviewable", case_of(body, issue(2), SEEN, title=title))
    assert found.verdict == "fail"
    assert why in found.summary
    assert found.evidence[-1].text == RFC_RULE
    assert found.evidence[-1].url.endswith("docs/contributing/README.md#L3")


@pytest.mark.parametrize("body", [IN_POOL, THREE])
def test_a_bug_needs_no_rfc(body: str, case_of: Make) -> None:
    title = "[Bug]: the rewrite breaks the new scheduler"
    assert check("reviewable", case_of(body, issue(2), SEEN, title=title)).verdict == "pass"


# A note has no thread.

SYNCED = "2026-03-01T00:00:00Z"
WAITS = "TODO: remove once the new queue is merged"


def test_a_note_that_nothing_stored_takes_on_passes(note_of: Make) -> None:
    found = check("claimed", note_of(WAITS, issue(), synced=SYNCED))
    assert (found.verdict, found.details["outcome"]) == ("pass", "free")


def test_without_a_sync_nobody_knows_who_takes_a_note_on(note_of: Make) -> None:
    expect(check("claimed", note_of(WAITS, issue())), "unknown", f"trackrecord issues sync {REPO}")


def test_a_note_whose_issue_is_claimed_fails(note_of: Make) -> None:
    claim = says("ada", "02-20", "I'll take this.", number=12)
    found = check("claimed", note_of("TODO: remove, see #12", issue(12), claim, synced=SYNCED))
    assert found.verdict == "fail"
    assert [entry.author for entry in found.evidence] == ["", "ada"]


def test_a_note_whose_issue_is_free_passes_and_says_so(note_of: Make) -> None:
    found = check("claimed", note_of("TODO: remove, see #12", issue(12), synced=SYNCED))
    assert found.verdict == "pass"
    assert "#12, which it names: nobody has claimed it" in found.evidence[0].says


@pytest.mark.parametrize(("state", "verdict"), [("open", "unknown"), ("closed", "pass")])
def test_an_open_pull_request_that_changes_its_file_leaves_a_note_open(
    state: str, verdict: str, note_of: Make
) -> None:
    found = check("claimed", note_of(WAITS, pull(7, files=[POOL], state=state), synced=SYNCED))
    assert found.verdict == verdict
    assert ("read #7: does it take the note on?" in found.settle) == (state == "open")


def test_a_pull_request_about_the_same_thing_leaves_a_note_open(note_of: Make) -> None:
    words = "evict once the lazy queue of drafts is merged"
    others = [issue(n, f"Something else, number {n}.") for n in range(20, 50)]
    case = note_of(f"TODO: {words}", pull(7, words, title=words), *others, synced=SYNCED)
    assert check("claimed", case).settle == ("read #7: is it about this?",)


def test_whom_a_note_names_is_evidence(note_of: Make) -> None:
    found = check("claimed", note_of("TODO(ada): remove once the queue is merged", synced=SYNCED))
    assert "the note names ada" in [entry.says for entry in found.evidence]


# The order.


def test_the_checks_run_in_their_order(case_of: Make) -> None:
    report = run_gauntlet(case_of())
    names = ["claimed", "reproducible", "within-map", "testable", "reviewable"]
    assert [result.check for result in report.results] == names


def test_the_first_failure_ends_the_run(case_of: Make) -> None:
    report = run_gauntlet(case_of("It breaks.", says("ada", "02-20", "I'll take this.")))
    assert [result.check for result in report.results] == ["claimed"]
    assert report.skipped == ("reproducible", "within-map", "testable", "reviewable")
    assert (report.verdict, report.survives) == ("fail", False)


def test_an_unknown_lets_the_run_go_on(case_of: Make) -> None:
    report = run_gauntlet(case_of(FOUR, says("ada", "02-20", "I'll look into it."), settings=H100))
    assert [result.verdict for result in report.results] == ["unknown", "fail"]


def test_all_goes_on_after_a_failure(case_of: Make) -> None:
    case = case_of("It breaks.", says("ada", "02-20", "I'll take this."))
    report = run_gauntlet(case, run_all=True)
    assert len(report.results) == 5
    assert (report.verdict, report.skipped) == ("fail", ())


# The command.

THREADS = [
    issue(1, "It breaks.", title=f"[Bug]: {HOSTILE}"),
    says("ada", "02-20", f"I'll take this. {HOSTILE}"),
    issue(2, f"{HOSTILE}\n{IN_TREE}"),
    says("pool", "02-20", "Thanks.", number=2),
    issue(3, f"{IN_POOL}\n\nvllm 1.0\n{SCRIPT}"),
    pull(7),
]


@pytest.fixture(scope="module", name="place")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace with the pinned tree, its index, the threads, and what the person knows."""
    folder = tmp_path_factory.mktemp("command")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKRECORD_CACHE", str(folder / "cache"))
        workspace = pinned_workspace(folder / "work", write_tree(folder / "tree"))
        build_index(Tree.open(PIN).root, workspace.index_path(PIN.name), PIN.name, processes=1)
        with Store.open(workspace.issues_db(REPO), REPO, create=True) as store:
            put(store, folder, *THREADS)
        (workspace.root / "trackrecord.toml").write_text('[areas]\nread = ["kv-cache"]\n')
        yield workspace.root


@pytest.fixture(name="run")
def _run(place: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner("gauntlet", place, capsys)


def test_a_survivor_exits_0_and_says_what_comes_next(run: Run) -> None:
    code, out, _ = run(3)
    assert code == 0, out
    assert out.endswith("Verdict: #3 survives. Next: trackrecord plan 3\n")


@pytest.mark.parametrize("number", [1, 2], ids=["disqualified", "open"])
def test_what_does_not_survive_exits_1(number: int, run: Run) -> None:
    assert run(number)[0] == 1
    assert run(3, f"#{number}")[0] == 1


def test_what_was_not_run_is_listed_and_all_runs_it(run: Run) -> None:
    assert "2 reproducible  not run (--all runs it)" in run(1)[1]
    assert "not run" not in run(1, "--all")[1]


BAD = {
    "nothing asked": ((), "give issue numbers"),
    "no such issue": ((99,), "no issue #99"),
    "a pull request": ((7,), "#7 is a pull request"),
    "no such note": (("T5",), "no note T5"),
    "no number": (("abc",), "not an issue number"),
    "a number in other digits": (("١٢",), "not an issue number"),
    "no date": ((1, "--now", "soon"), "not a date"),
    "no store": ((1, "--repo", "nobody/nothing"), "nobody/nothing"),
    "judgements that are not there": (("--judged", "/nowhere.json"), "/nowhere.json"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_exits_2_with_one_line(name: str, run: Run) -> None:
    words, says_what = BAD[name]
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert says_what in err
    assert err.count("\n") == 1


def test_what_strangers_wrote_is_shown_with_its_escapes_visible(run: Run) -> None:
    _, out, _ = run(1, 2, "--all")
    assert all(c.isprintable() for c in out.replace("\n", ""))
    assert "\\x1b]0;owned\\x07" in out


def test_the_document_has_every_check_and_nothing_unprintable(run: Run) -> None:
    code, out, _ = run(1, 3, "--json")
    assert code == 1
    assert all(c.isprintable() for c in out.replace("\n", ""))
    taken, survivor = json.loads(out)["reports"]
    assert list(taken) == [
        "name", "title", "url", "as_of", "verdict", "survives", "checks", "skipped",
    ]  # fmt: skip
    assert (taken["name"], taken["verdict"], taken["as_of"]) == ("#1", "fail", "2026-02-20")
    assert taken["title"].startswith("[Bug]: \x1b]0;owned\x07")
    assert [entry["check"] for entry in survivor["checks"]] == list(CHECKS)
    (claim,) = taken["checks"]
    assert set(claim) == {"check", "verdict", "summary", "evidence", "settle", "details"}
    assert set(claim["evidence"][0]) == {"text", "says", "url", "author", "date", "line"}


def test_silence_is_counted_up_to_the_day_that_is_asked_for(run: Run) -> None:
    reports = json.loads(run(1, "--now", "2026-12-01", "--json")[1])["reports"]
    assert reports[0]["checks"][0]["details"]["outcome"] == "stale-claim"


@pytest.mark.parametrize(("judged", "code"), [("claimed", 0), ("free", 1)])
def test_judged_outcomes_decide_the_exit_code(
    judged: str, code: int, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "judged.json"
    file.write_text(json.dumps({"1": {"claimed": judged}}))
    assert run("--judged", file)[0] == code
