"""The design file: what is read of it, and what is said of the rest."""

import pytest

from trackrecord.loop.design.keys import template
from trackrecord.loop.design.sheet import MOST_PROBLEMS, read_design
from trackrecord.loop.grading.prose import MOST_CHARACTERS

GPUS = ("h100", "l4")
FILLED = """# Design: x

## Topology
gpu = H100   # the large one
- tensor_parallel_size = 4
replicas = 2
## Knobs
max_num_batched_tokens = 2,048
enable_prefix_caching = off
## Predicted
p99_ttft = 700 ms
## Arithmetic
# a remark
2 * 3 B = 6 B   # six
## Risks
- Prompts pile up
  at noon.
  shows as: TTFT rises
1. A node dies. Shows as: errors
## Why
Because.

And so on.
"""


def test_every_section_is_read_with_its_lines():
    design = read_design(FILLED, GPUS)
    assert design.problems == []
    assert {key: entry.value for key, entry in design.settings.items()} == {
        "gpu": "h100",
        "tp": 4,
        "replicas": 2,
        "max_num_batched_tokens": 2048,
        "enable_prefix_caching": False,
    }
    assert design.predicted["p99_ttft"].value == "700 ms"
    assert [line.text for line in design.arithmetic] == ["2 * 3 B = 6 B   # six"]
    assert [risk.shows for risk in design.risks] == ["TTFT rises", "errors"]
    assert design.why.text == "Because.\n\nAnd so on."


def test_lines_know_where_they_stand_in_the_text():
    design = read_design(FILLED, GPUS)
    lines = [entry.line for entry in design.settings.values()]
    lines += [*design.arithmetic, *(risk.line for risk in design.risks), design.why]
    for line in lines:
        assert FILLED.startswith(line.text, line.start)
        assert FILLED[: line.start].count("\n") == line.number - 1


@pytest.mark.parametrize(
    ("section", "line", "problem"),
    [
        ("Topology", "tp = 99999", "tp: must be a whole number from 1 to 1,024, got '99999'"),
        ("Topology", "tp = -1", "from 1 to 1,024, got '-1'"),
        ("Topology", "gpu = v100", "gpu: must be one of h100, l4, got 'v100'"),
        ("Topology", "replica = 2", "no key 'replica'; did you mean replicas?"),
        ("Topology", "kv = fp8", "it belongs under ## Knobs"),
        ("Topology", "four cards", "write key = value, got 'four cards'"),
        ("Topology", "ep = perhaps", "ep: must be yes or no, got 'perhaps'"),
        ("Knobs", "memory_utilization = -0.5", "must be a number from 0.05 to 1, got '-0.5'"),
        ("Knobs", "memory_utilization = nan", "must be a number from 0.05 to 1, got 'nan'"),
        ("Knobs", "max_num_seqs = \u0663", "max_num_seqs: must be a whole number"),
        ("Predicted", "p99_tfft = 1 s", "no figure 'p99_tfft'; did you mean p99_ttft?"),
        ("Risks", "It may rain.", "begin a risk with a dash"),
        ("Risks", "- It may rain.", "a risk without `shows as:`"),
        ("Topologie", "tp = 2", "no section 'Topologie'; did you mean Topology?"),
    ],
)
def test_what_is_not_understood_is_one_line_with_its_number(section, line, problem):
    found = read_design(f"# x\n\n## {section}\n{line}\n", GPUS).problems
    numbered = [entry for entry in found if entry.startswith("line ")]
    assert any(problem in entry for entry in numbered)
    assert not any("\n" in entry for entry in found)


def test_a_setting_given_twice_keeps_its_first_value():
    design = read_design("## Topology\ntp = 2\ntp = 4\n", GPUS)
    assert design.value("tp") == 2
    assert "line 3: tp is given twice; the first stands" in design.problems


def test_the_template_untouched_holds_nothing():
    design = read_design(template("x"), GPUS)
    assert design.settings == design.predicted == {}
    assert design.arithmetic == design.risks == []
    assert not design.why.text.strip()
    assert all("missing or empty" in problem for problem in design.problems)


def test_a_file_without_end_is_read_to_a_bound_and_says_so():
    design = read_design("## Topology\n" + "what = ever\n" * 100_000, GPUS)
    assert f"only the first {MOST_CHARACTERS:,} characters were read" in design.problems
    assert len(design.problems) < MOST_PROBLEMS + 10


def test_control_characters_are_shown_and_not_sent():
    design = read_design("## Topology\ntp\x1b[2J = 4\ngpu = \x00\x07\n", GPUS)
    assert all(problem.isprintable() for problem in design.problems)
    assert any("\\x1b" in problem for problem in design.problems)
