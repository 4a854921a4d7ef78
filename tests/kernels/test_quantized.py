"""Quantized matrices: what their bytes mean, how near they come, and what is refused at load."""

from __future__ import annotations

import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file, save_file
from torch import Tensor

from families import save_family, save_wide
from mini_vllm.errors import InvalidInputError, ModelLoadError
from mini_vllm.kernels.quantized import BLOCK_BYTES, QuantizedMatrix, quantize
from mini_vllm.model.decoder import DecoderWeights
from mini_vllm.model.loader import load_model
from model.gguf_files import write_gguf

HEAD, Q_PROJ = "lm_head.weight", "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize("form", BLOCK_BYTES)
def test_blocks_mean_what_the_gguf_package_reads(form: str) -> None:
    """Random bytes reach every bit of a block; scales are kept finite."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (50 * 3, BLOCK_BYTES[form]), dtype=np.uint8)
    for start in (0, 2) if form == "q4_1" else (0,):
        scales = random.standard_normal((len(blocks), 1)).astype(np.float16)
        blocks[:, start : start + 2] = scales.view(np.uint8)
    matrix = QuantizedMatrix(form, 96, torch.from_numpy(blocks).view(50, -1))
    assert matrix.shape == (50, 96)
    want = torch.from_numpy(gguf.dequantize(blocks, Kind[form.upper()]).reshape(50, 96).copy())
    torch.testing.assert_close(matrix.dequantize(), want, atol=0, rtol=1e-6)
    rows = torch.tensor([7, 0, 49, 7])
    torch.testing.assert_close(matrix.dequantize(rows), want[rows], atol=0, rtol=1e-6)


def weights_of_many_kinds() -> Tensor:
    """Rows of 96: normal ones, with outliers, far from zero, tiny, one-sided, constant, zero."""
    torch.manual_seed(0)
    w = torch.randn(70, 96)
    w[10:20, ::17] *= 30
    w[20:30] += 5
    w[30:40] *= 1e-4
    w[40:50].abs_()
    w[50:60] = 0.3
    w[60:] = 0
    return w


def test_int8_is_within_half_a_step_of_each_row() -> None:
    w = weights_of_many_kinds()
    step = w.abs().amax(1, keepdim=True) / 127
    assert ((quantize(w, "int8").dequantize() - w).abs() <= step * 0.5001).all()


def test_q4_1_is_within_a_step_of_each_block() -> None:
    """Least squares may move a weight beyond half a step, to bring the others nearer."""
    w = weights_of_many_kinds()
    blocks = w.view(-1, 32)
    step = (blocks.amax(1, keepdim=True) - blocks.amin(1, keepdim=True)) / 15
    rounding = blocks.abs().amax(1, keepdim=True) * 2**-11  # of the float16 minimum
    error = (quantize(w, "q4_1").dequantize().view(-1, 32) - blocks).abs()
    assert (error <= step + rounding + 1e-6).all()


@pytest.mark.parametrize("rows", [slice(0, 10), slice(10, 20), slice(20, 30), slice(40, 50)])
def test_q4_1_is_nearer_than_the_gguf_package(rows: slice) -> None:
    """Which takes its scales from the range of a block alone."""
    w = weights_of_many_kinds()[rows]
    blocks = gguf.quantize(w.numpy(), Kind.Q4_1)
    theirs = torch.from_numpy(gguf.dequantize(blocks, Kind.Q4_1).copy())
    ours = quantize(w, "q4_1").dequantize()
    assert (ours - w).square().mean() <= 0.95 * (theirs - w).square().mean()


@pytest.mark.parametrize("form", ["int8", "q4_1"])
def test_bfloat16_weights_are_quantized_as_the_numbers_they_are(form: str) -> None:
    w = torch.randn(20, 64).bfloat16()
    assert quantize(w, form).dequantize().equal(quantize(w.float(), form).dequantize())


def test_columns_that_are_no_whole_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="48 columns are no whole blocks of 32"):
        quantize(torch.zeros(4, 48), "q4_1")
    assert quantize(torch.zeros(4, 48), "int8").shape == (4, 48)


def test_a_format_that_nothing_is_quantized_to_is_refused() -> None:
    with pytest.raises(ValueError, match="int8 or q4_1, not q4_0"):
        quantize(torch.zeros(4, 64), "q4_0")


# --- at load -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_wide(tmp_path_factory.mktemp("wide"))


def load(path: Path, quantization: str | None) -> DecoderWeights:
    model = load_model(str(path), "float32", quantization, kernels="reference")
    return model.decoder.weights


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_0, Kind.Q4_1])
def test_gguf_keeps_the_blocks_of_the_file(kind: Kind, wide: Path, tmp_path: Path) -> None:
    path = write_gguf(wide, tmp_path / "model.gguf", kind)
    kept, widened = load(path, "gguf"), load(path, None)
    block_bytes = BLOCK_BYTES[kind.name.lower()]
    for name in ("qkv", "o", "gate_up", "down"):
        matrix = getattr(kept.layers[1], name)
        assert isinstance(matrix, QuantizedMatrix)
        assert matrix.format == kind.name.lower()
        numbers = getattr(widened.layers[1], name)
        assert matrix.nbytes == numbers.numel() // 32 * block_bytes
        # Q and K too, whose rows lie in another order in the file.
        torch.testing.assert_close(matrix.dequantize(), numbers, atol=0, rtol=1e-6)
    assert kept.embedding.nbytes == widened.embedding.numel() // 32 * block_bytes


def test_gguf_types_that_no_kernel_reads_are_widened(wide: Path, tmp_path: Path) -> None:
    path = write_gguf(wide, tmp_path / "model.gguf", Kind.Q5_1)
    kept, widened = load(path, "gguf"), load(path, None)
    assert kept.layers[0].down.equal(widened.layers[0].down)


def test_gguf_of_a_folder_is_refused(wide: Path) -> None:
    with pytest.raises(InvalidInputError, match="use int8 or int4") as caught:
        load(wide, "gguf")
    assert caught.value.args[0].startswith("quantization 'gguf' reads the blocks of a GGUF file")
    assert "\n" not in str(caught.value)


def test_int4_keeps_the_embedding_and_the_head_in_int8(wide: Path) -> None:
    weights = load(wide, "int4")
    forms = [m.format for m in (weights.embedding, weights.lm_head, weights.layers[0].qkv)]
    assert forms == ["int8", "int8", "q4_1"]


def test_what_is_quantized_is_the_matrix_of_the_folder(wide: Path) -> None:
    """Q, K and V are fused, each row with its own scale."""
    whole, quantized = load(wide, None), load(wide, "int8")
    for layer, small in zip(whole.layers, quantized.layers, strict=True):
        step = layer.qkv.abs().amax(1, keepdim=True) / 127
        assert ((small.qkv.dequantize() - layer.qkv).abs() <= step * 0.5001).all()
        assert layer.input_norm.equal(small.input_norm)


def test_int4_of_odd_rows_names_the_tensor(tmp_path: Path) -> None:
    folder = save_family("llama", tmp_path / "model")  # rows of 48
    with pytest.raises(ModelLoadError) as caught:
        load(folder, "int4")
    message = str(caught.value)
    assert "tensor model.layers.0.self_attn.q_proj.weight has rows of 48" in message
    assert message.endswith("use --quantization int8")
    assert "\n" not in message


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", [Q_PROJ, HEAD, "model.norm.weight"])
def test_a_weight_that_is_no_finite_number_is_named(
    quantization: str | None, number: float, name: str, wide: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(wide, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors[name].view(-1)[-1] = number
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=f"tensor {name} holds a number that is not finite"):
        load(folder, quantization)


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_1])
@pytest.mark.parametrize("quantization", [None, "gguf"])
def test_a_scale_that_is_no_finite_number_is_refused(
    kind: Kind, quantization: str | None, wide: Path, tmp_path: Path
) -> None:
    path = write_gguf(wide, tmp_path / "model.gguf", kind)
    reader = gguf.GGUFReader(path, "r+")
    blocks = next(t for t in reader.tensors if t.name == "blk.1.ffn_down.weight").data
    blocks.reshape(-1, BLOCK_BYTES[kind.name.lower()])[-1, :2] = (0x00, 0x7C)  # infinity
    reader.data.flush()
    with pytest.raises(ModelLoadError, match=r"tensor model\.layers\.1\.mlp\.down_proj"):
        load(path, quantization)
