"""The compiled decoder computes what `Decoder` does from the same weights, on both of its paths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from families import FAMILIES, save_family, save_wide
from mini_vllm.kernels.cpu.layers import SHARED_FROM, SLAB
from mini_vllm.kernels.quantized import QuantizedMatrix
from mini_vllm.model.cpu_decoder import CPUDecoder
from mini_vllm.model.decoder import Decoder
from mini_vllm.model.loader import load_model
from model.gguf_files import write_gguf
from model.paged_decoder import PagedDecoder

FEW, MANY, BOTH = 10_000, 0, 16
"""`widen_from` for the one path of quantized weights, the other, and both over the same cache."""
PATHS = pytest.mark.parametrize("widen_from", [FEW, MANY, BOTH])
QUANTIZED = {"atol": 2e-2, "rtol": 0}
"""Of logits up to 20: activations are rounded to 16 bits where weights are integers."""
LENGTHS = (61, 7, 34, 96)
CHUNKS = (49, 1, 34, 90)
"""In the first step the threads share the tokens, in slabs; in later ones they share matrices."""
THREADS = 2
assert sum(CHUNKS) >= THREADS * max(SHARED_FROM, SLAB + 1)
assert sum(LENGTHS) - sum(CHUNKS) < THREADS * SHARED_FROM


@pytest.fixture(autouse=True, scope="module")
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def reference(path: Path, dtype: str = "float32", quantization: str | None = None) -> Decoder:
    return load_model(str(path), dtype, quantization, kernels="reference").decoder


def compiled(decoder: Decoder, widen_from: int) -> CPUDecoder:
    return CPUDecoder(decoder.config, decoder.weights, widen_from=widen_from)


def run(decoder: Decoder) -> Tensor:
    """Logits of all tokens; steps mix whole prompts, chunks and decodes of the sequences."""
    generator = torch.Generator().manual_seed(3)
    paged = PagedDecoder(decoder, list(LENGTHS))
    chunks = [
        torch.randint(0, decoder.config.vocab_size, (n,), generator=generator).split(size)
        for n, size in zip(LENGTHS, CHUNKS, strict=True)
    ]
    logits: list[list[Tensor]] = [[] for _ in chunks]
    for step in range(max(map(len, chunks))):
        batch = {i: parts[step].tolist() for i, parts in enumerate(chunks) if step < len(parts)}
        for i, found in paged.step(batch).items():
            logits[i].append(found)
    return torch.cat([torch.cat(parts) for parts in logits])


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    return reference(save_family(request.param, tmp_path_factory.mktemp("family")))


@PATHS
def test_a_family(family: Decoder, widen_from: int) -> None:
    torch.testing.assert_close(run(compiled(family, widen_from)), run(family), atol=1e-3, rtol=1e-5)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_wide(tmp_path_factory.mktemp("wide"))


@pytest.fixture(scope="module", params=["int8", "int4", Kind.Q8_0, Kind.Q4_0, Kind.Q4_1])
def quantized(
    request: pytest.FixtureRequest, wide: Path, tmp_path_factory: pytest.TempPathFactory
) -> Decoder:
    if isinstance(request.param, str):
        return reference(wide, quantization=request.param)
    path = tmp_path_factory.mktemp("quantized") / "model.gguf"
    return reference(write_gguf(wide, path, request.param), quantization="gguf")


@PATHS
def test_quantized_weights_are_multiplied_as_what_they_mean(
    quantized: Decoder, widen_from: int
) -> None:
    assert isinstance(quantized.weights.layers[0].qkv, QuantizedMatrix)
    got, want = run(compiled(quantized, widen_from)), run(quantized)
    torch.testing.assert_close(got, want, **QUANTIZED)


def test_layers_of_several_formats_are_one_model(wide: Path, tmp_path: Path) -> None:
    """As mixtures of GGUF types are: here each layer, and matrices of one layer, differ."""
    kinds = iter([Kind.Q8_0, Kind.Q4_1, Kind.F32, Kind.Q4_0] * 20)
    original = gguf.quantize
    written: list[Kind] = []

    class Mixed(gguf.GGUFWriter):
        def add_tensor(self, name, tensor, raw_dtype=None):
            if tensor.ndim == 2 and raw_dtype == Kind.F32 and name.startswith("blk"):
                raw_dtype = next(kinds)
                tensor = original(tensor, raw_dtype)
                written.append(raw_dtype)
            super().add_tensor(name, tensor, raw_dtype=raw_dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf, "GGUFWriter", Mixed)
        path = write_gguf(wide, tmp_path / "model.gguf")
    assert len(set(written)) == 4
    decoder = reference(path, quantization="gguf")
    assert len({type(layer.down) for layer in decoder.weights.layers}) == 2
    for widen_from in (FEW, MANY):
        got = run(compiled(decoder, widen_from))
        torch.testing.assert_close(got, run(decoder), **QUANTIZED)


@pytest.mark.parametrize("widen_from", [FEW, MANY])
@pytest.mark.parametrize("quantization", [None, "int8"])
def test_bfloat16_is_as_near_to_float32_as_the_reference(
    wide: Path, widen_from: int, quantization: str | None
) -> None:
    exact = run(reference(wide, "float32", quantization))
    plain = reference(wide, "bfloat16", quantization)
    got, want = run(compiled(plain, widen_from)), run(plain)
    assert got.dtype is torch.float32
    assert (got - exact).square().mean() <= 1.5 * (want - exact).square().mean()


@pytest.mark.parametrize("widen_from", [FEW, MANY])
def test_the_likeliest_tokens_are_those_of_the_logits(quantized: Decoder, widen_from: int) -> None:
    decoder = compiled(quantized, widen_from)
    hidden = torch.randn(11, decoder.config.hidden_size)
    assert decoder.greedy(hidden).equal(decoder.logits(hidden).argmax(-1))


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_quantized_weights_are_read_where_the_loader_put_them(
    wide: Path, quantization: str
) -> None:
    """A second copy of the matrices would not see a change to the first."""
    plain = reference(wide, quantization=quantization)
    decoder = compiled(plain, FEW)
    before = run(decoder)
    for layer in plain.weights.layers:
        layer.down.data.zero_()
    got = run(decoder)
    assert not got.allclose(before, atol=0.1)
    torch.testing.assert_close(got, run(plain), **QUANTIZED)


def test_numbers_are_rearranged_in_place_only_where_they_may_be(wide: Path) -> None:
    plain = reference(wide)
    want = run(plain)
    for take_over in (False, True):
        gate_up = plain.weights.layers[0].gate_up
        before = gate_up.clone()
        decoder = CPUDecoder(plain.config, plain.weights, take_over)
        torch.testing.assert_close(run(decoder), want, atol=1e-3, rtol=1e-5)
        assert gate_up.equal(before) is not take_over


@PATHS
def test_quantized_rows_that_are_no_whole_chunks(
    tmp_path_factory: pytest.TempPathFactory, widen_from: int
) -> None:
    plain = reference(save_family("llama", tmp_path_factory.mktemp("odd")), quantization="int8")
    assert {layer.o.shape[1] % 32 for layer in plain.weights.layers} != {0}
    torch.testing.assert_close(run(compiled(plain, widen_from)), run(plain), **QUANTIZED)
