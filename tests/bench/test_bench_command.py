"""`mini-vllm bench`, from its flags to its output, on a real engine with a model of kilobytes."""

from __future__ import annotations

import json

import pytest

from bench.sample_report import sample_report
from mini_vllm.bench.records import from_json
from mini_vllm.bench.report import Report, engine_words
from mini_vllm.cli import main
from mini_vllm.commands.bench import table
from mini_vllm.engine.config import EngineConfig


def test_it_measures_and_prints_one_document(tiny_model, tmp_path, capsys):
    out = tmp_path / "result.json"
    words = f"bench --workload single --repeat 1 --json --out {out} --model {tiny_model}"
    assert main([*words.split(), "--num-threads", "1", "--num-gpu-blocks-override", "65"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document == json.loads(out.read_text())
    report = from_json(Report, document)
    assert [(result.name, result.seconds.n) for result in report.workloads] == [("single", 1)]
    assert report.model.name == "tiny"
    assert report.command_line == (
        "mini-vllm bench --workload single --repeat 1 --model tiny "
        "--num-gpu-blocks-override 65 --num-threads 1"
    )
    assert str(tiny_model.parent) not in printed.out
    assert "single: run 1" in printed.err


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--workload burst", "invalid choice: 'burst'"),
        ("--repeat 0", "at least 1, got '0'"),
        ("--budget-seconds -1", "must be a length of time above 0"),
        ("--budget-seconds nan", "must be a length of time above 0"),
        ("--repeat 1 --budget-seconds 5", "not allowed with argument"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(flags, complaint, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bench", *flags.split()])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--model /nowhere/at/all", "/nowhere/at/all"),
        ("--compare /nowhere.json", "cannot read the result document '/nowhere.json'"),
        ("--out /nowhere/at/all.json", "its folder does not exist"),
        ("--workload prefill --model {tiny}", "'prefill' needs a context of 1025 tokens"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(flags, complaint, tiny_model, capsys):
    assert main(["bench", *flags.format(tiny=tiny_model).split()]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert complaint in said.err.splitlines()[-1]
    assert "Traceback" not in said.err


def test_the_table_shows_medians_counts_ranges_and_ratios():
    report = sample_report()
    lines = table(report, earlier=report)
    rows = {line.split()[0]: line for line in lines if line}
    assert "20.3 (19.4 to 21.3)" in rows["single"]
    assert rows["batch"].split()[:2] == ["batch", "1"]
    assert all(rows[name].endswith("1.00x") for name in ("single", "batch", "prefix", "prefill"))
    assert len({len(rows[name]) for name in ("single", "batch", "prefix", "prefill")}) == 1
    assert not any("vs earlier" in line for line in table(report))


def test_a_hostile_model_name_cannot_write_to_the_terminal():
    assert "\x1b" not in "\n".join(table(sample_report(model_name="a\x1b[31m\nb")))


def test_the_words_for_an_engine_make_the_same_engine(tmp_path):
    from mini_vllm.commands.engine_flags import add_engine_flags, engine_config
    from mini_vllm.console import Parser

    config = EngineConfig(
        "org/name",
        dtype="bfloat16",
        max_model_len=512,
        enable_prefix_caching=False,
        kv_cache_memory_bytes=2**30,
        scheduling_policy="priority",
    )
    parser = Parser()
    add_engine_flags(parser)
    assert engine_config(parser.parse_args(engine_words(config))) == config
    assert engine_words(EngineConfig()) == ["--model", "smollm2-135m"]
