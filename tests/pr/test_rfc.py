"""`trackrecord rfc`: upstream's own form, empty and answered."""

from __future__ import annotations

import json

import pytest
from upstream_shaped import run_command

ANSWER = "It takes blocks one by one, which costs a lock each. " * 4
GOOD = f"""# [RFC]: Take blocks in one go

### Motivation.

{ANSWER}

### Proposed Change.

{ANSWER} As alternatives we considered a lock-free list.

### Feedback Period.

Two weeks.

### Before submitting...

- [x] I searched.
"""


@pytest.fixture
def rfc(clone, tmp_path, capsys):
    def run(*words):
        place = ("--repo", clone.root, "--workspace", tmp_path / "w")
        code = run_command("rfc", *words, *place)
        return code, capsys.readouterr()

    return run


@pytest.fixture
def lint(rfc, tmp_path):
    def run(text):
        path = tmp_path / "rfc.md"
        path.write_text(text)
        code, streams = rfc("lint", path, "--json")
        return code, {f["rule"]: f for f in json.loads(streams.out)["findings"]}

    return run


def test_an_answered_rfc_is_complete(lint):
    assert lint(GOOD) == (0, {})


def test_a_new_rfc_has_the_forms_headings_and_answers_nothing(rfc, lint, tmp_path):
    out = tmp_path / "new.md"
    code, _ = rfc("new", "--title", "Take blocks", "--path", "vllm/core/pool.py", "--out", out)
    text = out.read_text()
    assert code == 0
    assert text.startswith("# [RFC]: Take blocks\n")
    headings = [line for line in text.splitlines() if line.startswith("### ")]
    assert headings == [
        *("### Motivation.", "### Proposed Change.", "### Feedback Period."),
        *("### CC List.", "### Before submitting..."),
    ]
    assert "`@grace`, `@alan`" in text
    code, found = lint(text)
    assert code == 1
    assert {"rfc-section", "rfc-box"} <= set(found)


@pytest.mark.parametrize("title", ["a\n### Motivation.", "\x1b[31mred", "\u202eabc", "a\u2028b"])
def test_a_title_that_would_not_show_as_it_is_is_refused(rfc, title):
    code, streams = rfc("new", "--title", title)
    assert (code, streams.out, streams.err.count("\n")) == (2, "", 1)
    assert streams.err.rstrip("\n").isprintable()


def test_the_forms_own_words_cannot_add_headings_or_escapes(clone, rfc):
    form = ".github/ISSUE_TEMPLATE/750-RFC.yml"
    clone.replace(form, "label: Motivation.", r'label: "Motivation.\n### More\e[2J"')
    clone.commit("A form that misbehaves")
    code, streams = rfc("new", "--title", "x")
    assert code == 0
    assert "### Motivation. ### More\\x1b[2J\n" in streams.out
    assert all(line.isprintable() for line in streams.out.splitlines())


def test_a_file_that_exists_is_never_replaced(rfc, tmp_path):
    out = tmp_path / "mine.md"
    out.write_text("mine")
    code, streams = rfc("new", "--title", "x", "--out", out)
    assert (code, out.read_text()) == (2, "mine")
    assert streams.err.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "rule", "code"),
    [
        ("# [RFC]: Take blocks in one go", "# Take blocks", "rfc-title", 1),
        ("# [RFC]: Take blocks in one go", "# [RFC]:", "rfc-title", 1),
        ("- [x] I searched.", "- [ ] I searched.", "rfc-box", 1),
        ("- [x] I searched.", "- [x] I did something else.", "rfc-box", 1),
        (f"### Motivation.\n\n{ANSWER}", "### Motivation.\n\nTBD", "rfc-section", 1),
        (f"### Motivation.\n\n{ANSWER}", "### Motivation.\n\n<!-- Why. -->", "rfc-section", 1),
        (f"### Motivation.\n\n{ANSWER}", "### Motivation.\n\nToo slow.", "rfc-short", 0),
        ("Two weeks.", "3 days", "rfc-period", 0),
        (" As alternatives we considered a lock-free list.", "", "rfc-alternatives", 0),
        ("### Feedback Period.", "### Extra\n\n### Feedback Period.", "rfc-heading", 0),
    ],
)
def test_what_is_missing_is_named_with_the_line_that_asks_for_it(lint, clone, old, new, rule, code):
    assert old in GOOD
    found_code, found = lint(GOOD.replace(old, new))
    assert (found_code, set(found)) == (code, {rule})
    source = found[rule]["sources"][0]
    assert source["line"] <= len((clone.root / source["path"]).read_text().splitlines())


def test_without_a_form_or_a_tree_it_is_one_line(clone, rfc, tmp_path, capsys):
    clone.git("rm", "-q", ".github/ISSUE_TEMPLATE/750-RFC.yml")
    clone.commit("No form")
    code, streams = rfc("new", "--title", "x")
    assert code == 2
    assert streams.err.count("\n") == 1
    assert run_command("rfc", "new", "--title", "x", "--workspace", tmp_path / "w") == 2
    assert "trackrecord upstream pin" in capsys.readouterr().err
