from __future__ import annotations

import copy
import json

import pytest

from bench.sample_report import sample_report
from mini_vllm.bench.records import from_json, to_json
from mini_vllm.bench.report import Report, read_report
from mini_vllm.errors import InvalidInputError


def test_a_report_survives_json():
    report = sample_report()
    assert from_json(Report, json.loads(json.dumps(report.to_json()))) == report


def test_a_report_is_read_back_from_its_file(tmp_path):
    path = tmp_path / "benchmark.json"
    path.write_text(json.dumps(sample_report().to_json()))
    assert read_report(path) == sample_report()


def changed(path: list[str | int], value: object) -> dict:
    document = copy.deepcopy(to_json(sample_report()))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (["threads"], "two", r"document\.threads must be a whole number .* got 'two'"),
        (["threads"], True, r"document\.threads must be a whole number .* got True"),
        (["machine", "memory", "value"], float("nan"), r"document\.machine\.memory\.value must be"),
        (["workloads", 1, "seconds"], [], r"document\.workloads\[1\]\.seconds must be an object"),
        (["workloads"], None, r"document\.workloads must be a list"),
        (["load", "phases", 0, "timeline", "running", 3], 1.5, r"running\[3\] must be a whole"),
        (["machine", "matmul_rates"], [], r"document\.machine\.matmul_rates must be an object"),
        (["surprise"], 1, r"document\.surprise is not a field of a result document"),
        (["created"], 7, r"document\.created must be a text"),
    ],
)
def test_a_wrong_document_is_refused_with_the_place(path, value, complaint):
    with pytest.raises(InvalidInputError, match=complaint):
        from_json(Report, changed(path, value))


def test_a_missing_field_is_named():
    document = to_json(sample_report())
    del document["model"]["layers"]
    with pytest.raises(InvalidInputError, match=r"document\.model\.layers is missing"):
        from_json(Report, document)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", r"is not a mini-vllm-bench/1 document \(its schema is None\)"),
        ('{"schema": "mini-vllm-bench/0"}', "its schema is 'mini-vllm-bench/0'"),
    ],
)
def test_a_file_that_is_no_result_document_is_refused(tmp_path, text, complaint):
    path = tmp_path / "benchmark.json"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=complaint):
        read_report(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="cannot read the result document"):
        read_report(tmp_path / "none.json")
