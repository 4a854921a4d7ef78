"""The compiled decoder computes what `Decoder` does from the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from families import FAMILIES, save_family, save_wide
from mini_vllm.kernels import reference as kernels
from mini_vllm.kernels.cpu.layers import OWN_FROM, SLAB
from mini_vllm.kernels.quantized import Matrix, QuantizedMatrix
from mini_vllm.model.cpu_decoder import CPUDecoder
from mini_vllm.model.decoder import Decoder
from mini_vllm.model.loader import load_model
from model.gguf_files import write_gguf
from model.paged_decoder import PagedDecoder

ALIKE, EXACT = 2e-4, 2e-2
"""How far, in mean squares, logits may be from those of activations that are rounded alike (a sum's
last bit can turn a rounding), and of activations that are not rounded at all."""
SLOW_TO_COMPILE = [pytest.param(kind, marks=pytest.mark.slow) for kind in (Kind.Q8_0, Kind.Q4_0)]
LENGTHS = (61, 7, 34, 182)
CHUNKS = (49, 1, 34, 176)
"""In the first step the threads share the tokens, in slabs; in later ones they share matrices."""
THREADS = 2
assert sum(CHUNKS) >= THREADS * max(OWN_FROM, SLAB + 1)
assert sum(LENGTHS) - sum(CHUNKS) < THREADS * OWN_FROM


@pytest.fixture(autouse=True, scope="module")
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def reference(path: Path, dtype: str = "float32", quantization: str | None = None) -> Decoder:
    return load_model(str(path), dtype, quantization, kernels="reference").decoder


def compiled(decoder: Decoder) -> CPUDecoder:
    return CPUDecoder(decoder.config, decoder.weights)


class Rounding:
    """Plain torch, but activations become int8 where they meet integers, 32 with one scale."""

    def __getattr__(self, name: str) -> object:
        return getattr(kernels, name)

    @staticmethod
    def linear(x: Tensor, weight: Matrix, bias: Tensor | None = None) -> Tensor:
        if isinstance(weight, QuantizedMatrix):
            padded = torch.nn.functional.pad(x, (0, -x.shape[-1] % 32))
            chunks = padded.view(len(x), -1, 32)
            scale = chunks.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
            x = ((chunks / scale).round() * scale).flatten(1)[:, : x.shape[-1]]
        return kernels.linear(x, weight, bias)


def rounding(decoder: Decoder) -> Decoder:
    other = copy(decoder)
    other.kernels = Rounding()
    return other


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


def assert_near(got: Tensor, want: Tensor, share: float) -> None:
    assert (got - want).square().mean() <= share * want.square().mean()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    return reference(save_family(request.param, tmp_path_factory.mktemp("family")))


def test_a_family(family: Decoder) -> None:
    torch.testing.assert_close(run(compiled(family)), run(family), atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("every", [1, 2, 70, 200, 1000])
def test_only_what_is_wanted_is_computed_to_the_end(family: Decoder, every: int) -> None:
    """All, some, one or none of a step's tokens; the next step finds the keys of all."""
    plain, fast = (PagedDecoder(d, list(LENGTHS)) for d in (family, compiled(family)))
    for start, end in ((0, 90), (90, 95), (95, 96)):
        step = {i: list(range(start, min(end, n))) for i, n in enumerate(LENGTHS) if n > start}
        want = plain.logits_of(step)
        wanted = np.arange(len(want))[every - 1 :: every]
        got = fast.logits_of(step, wanted)
        torch.testing.assert_close(got, want[wanted], atol=1e-3, rtol=1e-5)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_wide(tmp_path_factory.mktemp("wide"))


@pytest.fixture(scope="module", params=["int8", "int4", *SLOW_TO_COMPILE, Kind.Q4_1])
def quantized(
    request: pytest.FixtureRequest, wide: Path, tmp_path_factory: pytest.TempPathFactory
) -> Decoder:
    if isinstance(request.param, str):
        return reference(wide, quantization=request.param)
    path = tmp_path_factory.mktemp("quantized") / "model.gguf"
    return reference(write_gguf(wide, path, request.param), quantization="gguf")


def test_quantized_weights_are_multiplied_as_what_they_mean(quantized: Decoder) -> None:
    assert isinstance(quantized.weights.layers[0].qkv, QuantizedMatrix)
    got = run(compiled(quantized))
    assert_near(got, run(rounding(quantized)), ALIKE)
    assert_near(got, run(quantized), EXACT)


@pytest.mark.slow
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
    assert_near(run(compiled(decoder)), run(rounding(decoder)), ALIKE)


def test_bfloat16_is_as_near_to_float32_as_the_reference(wide: Path) -> None:
    exact = run(reference(wide, "float32"))
    plain = reference(wide, "bfloat16")
    got, want = run(compiled(plain)), run(plain)
    assert got.dtype is torch.float32
    assert (got - exact).square().mean() <= 1.5 * (want - exact).square().mean()


@pytest.mark.parametrize("lengths", [(2,), (1, 1, 9), (1, 64, 1, 70)])
@pytest.mark.parametrize("few", [False, True])
def test_the_likeliest_tokens_are_those_of_the_logits(
    quantized: Decoder, lengths: tuple[int, ...], few: bool
) -> None:
    decoder = compiled(quantized)
    generator = torch.Generator().manual_seed(5)
    vocabulary, total = decoder.config.vocab_size, sum(lengths)
    tokens = {
        i: torch.randint(vocabulary, (n,), generator=generator).tolist()
        for i, n in enumerate(lengths)
    }
    wanted = np.arange(1, total, 2) if few else None
    paged = [PagedDecoder(decoder, list(lengths)) for _ in range(2)]
    likeliest = paged[0].next_tokens(tokens, wanted)
    assert likeliest.tolist() == paged[1].logits_of(tokens, wanted).argmax(-1).tolist()
    assert len(likeliest) == (total // 2 if few else total)


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_matrices_are_rearranged_in_place_only_where_they_may_be(
    wide: Path, quantization: str | None
) -> None:
    plain = reference(wide, quantization=quantization)
    want = run(rounding(plain))
    for take_over in (False, True):
        gate_up = plain.weights.layers[0].gate_up
        data = gate_up if isinstance(gate_up, Tensor) else gate_up.data
        before = data.clone()
        decoder = CPUDecoder(plain.config, plain.weights, take_over)
        assert_near(run(decoder), want, ALIKE)
        assert data.equal(before) is not take_over


def test_quantized_rows_that_are_no_whole_chunks(tmp_path: Path) -> None:
    plain = reference(save_family("llama", tmp_path), quantization="int8")
    assert {layer.o.shape[1] % 32 for layer in plain.weights.layers} != {0}
    assert_near(run(compiled(plain)), run(rounding(plain)), ALIKE)
