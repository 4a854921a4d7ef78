"""`trackrecord portfolio build`: measured on a real engine once, and from a document."""

from __future__ import annotations

import json

import pytest

from bench.sample_report import sample_report
from mini_vllm.bench import suite
from mini_vllm.bench.workloads import Workload
from mini_vllm.engine.config import EngineConfig
from trackrecord.cli import main
from trackrecord.portfolio.benchmark import benchmark_page
from trackrecord.portfolio.folder import MARKER


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps(sample_report().to_json()))
    return path


def test_pages_are_made_again_from_a_document_to_the_byte(document, tmp_path, capsys):
    out = tmp_path / "portfolio"
    assert main(["portfolio", "build", "--from", str(document), "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    again = tmp_path / "again"
    assert main(["portfolio", "build", "--from", f"{out}/benchmark.json", "--out", str(again)]) == 0
    files = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    assert files == {path.relative_to(again) for path in again.rglob("*") if path.is_file()}
    assert {f for f in files if (out / f).read_bytes() != (again / f).read_bytes()} == set()
    assert {MARKER, "index.html", "index.md"} <= {str(file) for file in files}
    assert {str(f) for f in files} - {MARKER, "index.html", "index.md"} == set(
        printed["pages"][0]["files"]
    )


def test_a_measurement_of_a_real_engine_becomes_a_page(tiny_model, monkeypatch, no_plots):
    monkeypatch.setattr(suite, "LEAST_LOAD_SECONDS", 2.0)
    monkeypatch.setattr(suite, "probe", lambda: sample_report().machine)
    plan = suite.Plan(
        config=EngineConfig(str(tiny_model), num_gpu_blocks_override=257, num_threads=1),
        command=["trackrecord", "portfolio", "build"],
        workloads=[
            Workload("single", "one", 1, 16, 8),
            Workload("batch", "some", 4, 16, 4),
            Workload("prefix", "behind one prefix", 4, 8, 2, shared_tokens=32),
            Workload("prefill", "long", 2, 200, 1),
        ],
        budget_seconds=1.0,
        load_shares=(0.3, 0.6),
    )
    said = []
    report = suite.run_plan(plan, said.append)
    assert [result.seconds.n >= 1 for result in report.workloads] == [True] * 4
    assert report.workloads[2].cached_prompt_tokens == 3 * 32
    assert [phase.share_of_capacity for phase in report.load.phases] == [0.3, 0.6]
    assert all(phase.completed for phase in report.load.phases)
    page = benchmark_page(report)
    for text in (page.files["benchmark.html"].decode(), page.files["benchmark.md"].decode()):
        assert "tiny" in text
        assert str(tiny_model.parent) not in text
    assert json.loads(page.files["benchmark.json"]) == report.to_json()
    assert any(line.startswith("load: 2 of 2") or "requests/s" in line for line in said)


def test_a_folder_that_is_not_a_portfolio_is_refused_before_measuring(tmp_path, capsys):
    (tmp_path / "thesis").write_text("mine")
    assert main(["portfolio", "build", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "is not a portfolio" in said
    assert "loading" not in said


def test_a_model_that_cannot_be_loaded_leaves_nothing_behind(tmp_path, capsys):
    out = tmp_path / "portfolio"
    assert main(["portfolio", "build", "--out", str(out), "--model", "/nowhere/at/all"]) == 2
    assert "/nowhere/at/all" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--goodput p99:5", "must be ttft:MS, tpot:MS or e2el:MS, got 'p99:5'"),
        ("--goodput ttft:-5", "must be a length of time above 0"),
        ("--from a.json --budget-seconds 5", "not allowed with argument"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(flags, complaint, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["portfolio", "build", *flags.split()])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1


def test_a_document_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "x.json").write_text('{"schema": "other"}')
    out = tmp_path / "portfolio"
    assert main(["portfolio", "build", "--from", f"{tmp_path}/x.json", "--out", str(out)]) == 2
    assert "is not a mini-vllm-bench/1 document" in capsys.readouterr().err
    assert not out.exists()


def test_the_index_bears_the_authors_name(document, tmp_path, no_plots):
    out = tmp_path / "portfolio"
    words = ["portfolio", "build", "--from", str(document), "--out", str(out)]
    assert main([*words, "--author", "Ada <b>"]) == 0
    assert "Track record of Ada &lt;b&gt;" in (out / "index.html").read_text()
    assert r"# Track record of Ada \<b\>" in (out / "index.md").read_text()
