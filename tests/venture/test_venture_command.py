"""`trackrecord venture`: what is written where, and the exit codes."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from mini_vllm import console
from trackrecord.commands import venture

ROOT = Path(__file__).parents[2]


def run(*words: str) -> int:
    def main(argv):
        parser = console.Parser(prog="trackrecord venture")
        venture.configure(parser)
        return venture.run(parser.parse_args(argv))

    return console.run("trackrecord", main, list(words))


@pytest.fixture
def filled(folder, monkeypatch):
    """A sheet of the example's values over a small scenario."""
    monkeypatch.chdir(folder)
    text = resources.files("trackrecord.venture").joinpath("example.toml").read_text()
    text = text.replace("../simulations/70b-chat.toml", "scenario.toml")
    text = text.replace('capacity = "search"', "").replace("requests = 1000", "")
    (folder / "sheet.toml").write_text(text)
    return folder / "sheet.toml"


def test_new_writes_a_sheet_that_lints_and_its_scenario(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    assert run("new", str(path)) == 0
    assert 'scenario = "mine-scenario.toml"' in path.read_text()
    assert (tmp_path / "mine-scenario.toml").is_file()
    assert run("lint", str(path)) == 0
    assert "passes" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["mine.toml", "mine-scenario.toml"])
def test_new_never_overwrites(tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    assert run("new", str(tmp_path / "mine.toml")) == 2
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_the_examples_are_what_new_writes():
    shipped = resources.files("trackrecord.venture")
    example = ROOT / "examples" / "venture" / "70b-chat-api.toml"
    assert example.read_text() == shipped.joinpath("example.toml").read_text()
    scenario = (ROOT / "examples" / "simulations" / "70b-chat.toml").read_text()
    mine = shipped.joinpath("example_scenario.toml").read_text()
    assert tomllib.loads(mine) == tomllib.loads(scenario)


def test_report_saves_itself_and_writes_the_page(filled, capsys, no_plots):
    out = filled.parent / "out"
    code = run("report", str(filled), "--out", str(out), "--draws", "100", "--json")
    printed = json.loads(capsys.readouterr().out)
    saved = json.loads((filled.parent / ".trackrecord" / "venture" / "report.json").read_text())
    assert printed == saved == json.loads((out / "venture.json").read_text())
    likely = next(f for f in printed["figures"] if f["key"] == "probability_gross_margin")
    assert code == (0 if likely["value"] > 0.5 else 1)
    assert (out / "venture.html").is_file()


def test_report_prints_every_figure_with_its_range(filled, capsys):
    run("report", str(filled), "--draws", "100")
    printed = capsys.readouterr().out
    assert "cost of a million output tokens" in printed
    assert "5th to 95th percentile" in printed


def test_a_loss_is_a_negative_verdict(filled):
    text = filled.read_text()
    for price in (
        'value = 3.0, low = 2.0, high = 3.6, distribution = "triangular"',
        'value = 0.9, low = 0.6, high = 1.1, distribution = "triangular"',
    ):
        assert price in text
        text = text.replace(price, "value = 0.01")
    filled.write_text(text)
    assert run("report", str(filled), "--draws", "100") == 1


def test_lint_fails_what_cannot_be_checked(filled, capsys):
    filled.write_text(filled.read_text().replace("falsifiers = [", "falsifiers = []\n_ = ["))
    assert run("lint", str(filled)) == 2
    filled.write_text(
        filled.read_text()
        .replace("falsifiers = []\n_ = [", "falsifiers = [")
        .replace("A small team", "A team of 3")
    )
    capsys.readouterr()
    assert run("lint", str(filled), "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert not document["passes"]
    assert document["problems"][0]["rule"] == "bare-number"


@pytest.mark.parametrize(
    "words",
    [
        "report missing.toml",
        "lint missing.toml",
        "report sheet.toml --workspace scenario.toml",
        "report sheet.toml --out scenario.toml --draws 100",
    ],
)
def test_bad_input_is_one_line_and_exit_2(filled, capsys, words, no_plots):
    assert run(*words.split()) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("trackrecord: ")


@pytest.mark.parametrize("flags", ["--draws 0", "--draws x", "--seed -1", "--draws 9999999"])
def test_bad_usage_is_one_line_and_exit_2(filled, capsys, flags):
    with pytest.raises(SystemExit) as ended:
        run("report", "sheet.toml", *flags.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_scenario_that_is_missing_is_named(filled, capsys):
    (filled.parent / "scenario.toml").unlink()
    assert run("report", "sheet.toml") == 2
    assert "scenario.toml" in capsys.readouterr().err
