"""Products of the compiled kernels, in every format of weights, against float64."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import product as product_of
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import prange
from torch import Tensor

from mini_vllm.kernels.cpu import integers
from mini_vllm.kernels.cpu.buffers import Buffers
from mini_vllm.kernels.cpu.compiled import entry
from mini_vllm.kernels.cpu.crew import join, new_hall, open_hall, shares_in
from mini_vllm.kernels.cpu.formats import CHUNK, FORMATS
from mini_vllm.kernels.cpu.head import first_of_head, head_logits, likeliest
from mini_vllm.kernels.cpu.integers import INTEGER_ROWS, panels_of_integers
from mini_vllm.kernels.cpu.matmul import first_panel, matmul
from mini_vllm.kernels.cpu.panels import PANEL, pack_row, panels, unpack_row
from mini_vllm.kernels.cpu.simd import row_at, rows_of
from mini_vllm.kernels.quantized import BLOCK_BYTES, QuantizedMatrix, quantize

THREADS = 2
WORK = 1 << 16
SHARES = WORK // 2, WORK // 7, WORK * 2 // 3
TOKENS = (1, 2, 3, 5, 8, 9, 16, 17, 33)
BLOCKS = tuple(BLOCK_BYTES)
QUANTIZED = ("int8", *BLOCKS)


@entry(parallel=True)
def pack_and_multiply(hall, form, w, scale, bias, rows, x, packed, out, add):
    """`matmul` as a layer calls it, kept among the compiled kernels."""
    for token in range(len(x)):
        target = row_at(rows_of(packed), token)
        pack_row(form, row_at(rows_of(x), token), x.shape[1], target)
    hall_, columns = open_hall(hall), x.shape[1]
    x_rows, out_rows = rows_of(packed), rows_of(out)
    for place in prange(THREADS):
        crew = join(hall_, THREADS, place)
        if crew.size:
            matmul(
                crew, form, w, scale, bias, rows, columns, x_rows, out_rows, len(x), add,
                first_panel(crew, form, w, rows, columns, len(x)),
            )  # fmt: skip


@entry(parallel=True)
def head_argmax(hall, form, head, scale, rows, x, packed, room, best, place, out):
    """`likeliest` as the last layer is followed by it."""
    hall_, columns = open_hall(hall), x.shape[1]
    x_rows = rows_of(packed)
    for token in range(len(x)):
        pack_row(form, row_at(rows_of(x), token), columns, row_at(x_rows, token))
    for number in prange(THREADS):
        crew = join(hall_, THREADS, number)
        if crew.size:
            likeliest(
                crew, form, head, scale, rows, columns, x_rows, len(x), room, best, place, out,
                first_of_head(crew, form, head, rows, columns),
            )  # fmt: skip


@entry()
def unpack_rows(form, w, scale, picked, out):
    for i in range(len(picked)):
        unpack_row(form, w, scale, picked[i], out.shape[1], row_at(rows_of(out), i))


@dataclass(frozen=True)
class Weights:
    """A random matrix in a format: what it means in float64, and where the kernels find it."""

    form: str
    exact: Tensor
    data: Tensor
    scales: Tensor | None

    @property
    def address(self) -> int:
        return self.data.data_ptr()

    @property
    def scale(self) -> int:
        return 0 if self.scales is None else self.scales.data_ptr()


def random_matrix(form: str, rows: int, columns: int) -> QuantizedMatrix:
    """Of random blocks, so that every bit of them is met."""
    if form == "int8":
        return quantize(torch.randn(rows, columns), form)
    blocks = torch.randint(0, 256, (rows * columns // 32, BLOCK_BYTES[form]), dtype=torch.uint8)
    for start in (0, 2) if form == "q4_1" else (0,):
        scales = torch.randn(len(blocks), 1).div(16).half()
        blocks[:, start : start + 2] = scales.view(torch.uint8)
    return QuantizedMatrix(form, columns, blocks.view(rows, -1))


def random_weights(form: str, rows: int, columns: int) -> Weights:
    if form in QUANTIZED:
        return quantized_weights(random_matrix(form, rows, columns))
    numbers = torch.randn(rows, columns).to(getattr(torch, form))
    return Weights(form, numbers.double(), in_panels(numbers), None)


def quantized_weights(matrix: QuantizedMatrix) -> Weights:
    rows, columns = matrix.shape
    data = matrix.data
    if columns % CHUNK:
        data = F.pad(data, (0, -columns % CHUNK))
    out = torch.full((-(-rows // INTEGER_ROWS) * INTEGER_ROWS, data.shape[1]), 77, dtype=data.dtype)
    marker = FORMATS[matrix.format].marker
    panels_of_integers(marker, data.data_ptr(), rows, columns, out.data_ptr())
    return Weights(matrix.format, matrix.dequantize().double(), out, matrix.scales)


def in_panels(numbers: Tensor) -> Tensor:
    rows, columns = numbers.shape
    form = str(numbers.dtype).removeprefix("torch.")
    shape = -(-rows // PANEL) * PANEL, -(-columns // CHUNK) * CHUNK
    out = torch.full(shape, torch.nan, dtype=numbers.dtype)
    panels(FORMATS[form].marker, numbers.data_ptr(), rows, columns, out.data_ptr())
    return out


def room(tokens: int, columns: int) -> np.ndarray:
    return Buffers(columns, 1, 1, 1, CHUNK).packed(tokens)


def product(
    weights: Weights, x: Tensor, bias: Tensor | None, before: Tensor | None, share: int = WORK // 2
) -> Tensor:
    """`share` is the first thread's, of `WORK`."""
    out = torch.full((len(x), len(weights.exact)), torch.nan) if before is None else before.clone()
    hall = new_hall(THREADS)
    shares_in(hall)[:] = share, WORK - share
    pack_and_multiply(
        hall, FORMATS[weights.form].marker, weights.address, weights.scale,
        0 if bias is None else bias.data_ptr(), len(weights.exact), x.numpy(),
        room(*x.shape), out.numpy(), before is not None,
    )  # fmt: skip
    return out


def rounding(form: str, x: Tensor) -> Tensor:
    """How far each activation may be from what it was, once packed."""
    if form == "float32":
        return torch.zeros_like(x).double()
    if form == "bfloat16":
        return x.double().abs() * 2**-8
    # Half a 127th of the largest of its chunk.
    chunks = F.pad(x.double().abs(), (0, -x.shape[1] % CHUNK)).view(len(x), -1, CHUNK)
    half = chunks.amax(2, keepdim=True) * (0.5001 / 127)
    return half.expand_as(chunks).reshape(len(x), -1)[:, : x.shape[1]]


def assert_product(got: Tensor, weights: Weights, x: Tensor, want: Tensor) -> None:
    """Within the activations' rounding, and that of float32 sums."""
    magnitude = weights.exact.abs().T
    allowed = rounding(weights.form, x) @ magnitude + 2e-6 * (x.double().abs() @ magnitude + 1)
    excess = (got.double() - want).abs() / allowed
    assert excess.max() <= 1, excess.max()


@st.composite
def sizes(draw: st.DrawFn, form: str) -> tuple[int, int, int]:
    """Tokens, rows and columns; blocks have no padding, the other formats do."""
    columns = 32 * draw(st.integers(1, 9))
    if form not in BLOCKS:
        columns -= draw(st.integers(0, 31))
    # Beyond one panel, threads share what is left of whole ones.
    rows = draw(st.one_of(st.integers(1, 70), st.sampled_from([160, 192, 301])))
    return draw(st.sampled_from(TOKENS)), rows, columns


@pytest.mark.parametrize("form", FORMATS)
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_a_product_is_what_dequantized_weights_give(form: str, data: st.DataObject) -> None:
    tokens, rows, columns = data.draw(sizes(form))
    torch.manual_seed(tokens + rows + columns)
    weights, x = random_weights(form, rows, columns), torch.randn(tokens, columns)
    bias = torch.randn(rows) if data.draw(st.booleans(), "bias") else None
    before = torch.randn(tokens, rows) if data.draw(st.booleans(), "add") else None
    want = x.double() @ weights.exact.T
    want += 0 if bias is None else bias.double()
    want += 0 if before is None else before.double()
    share = data.draw(st.sampled_from(SHARES), "share")
    assert_product(product(weights, x, bias, before, share), weights, x, want)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("rows", [48, 45, 192, 210])
def test_a_token_does_not_notice_those_beside_it(form: str, rows: int) -> None:
    """Bit by bit, whatever tile the number of tokens picks and however threads share the rows."""
    torch.manual_seed(0)
    weights, x = random_weights(form, rows, 96), torch.randn(33, 96)
    alone = torch.cat([product(weights, x[i : i + 1], None, None) for i in range(len(x))])
    for tokens, share in product_of(TOKENS, SHARES):
        assert product(weights, x[:tokens], None, None, share).equal(alone[:tokens])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("columns", [640, 672, 1376])
def test_rows_longer_than_are_asked_for_at_once(form: str, columns: int) -> None:
    """In as many equal parts as it takes, the last of them shorter, with one token or more."""
    torch.manual_seed(columns)
    weights, x = random_weights(form, 96, columns), torch.randn(33, columns)
    alone = torch.cat([product(weights, x[i : i + 1], None, None) for i in range(len(x))])
    assert_product(alone, weights, x, x.double() @ weights.exact.T)
    assert product(weights, x, None, None).equal(alone)


@pytest.mark.parametrize("form", FORMATS)
def test_a_token_of_zeros_gives_the_bias(form: str) -> None:
    """Its largest activation, by which others are scaled, is zero."""
    torch.manual_seed(0)
    weights, x, bias = random_weights(form, 20, 64), torch.randn(2, 64), torch.randn(20)
    x[1] = 0
    got = product(weights, x, bias, None)
    assert got[1].equal(bias)
    assert_product(got, weights, x, x.double() @ weights.exact.T + bias)


@pytest.mark.parametrize("form", QUANTIZED)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_do_not_overflow(form: str, sign: int) -> None:
    """All weights and activations at their extremes, in a row as long as an MLP's."""
    columns = 16_384
    weights = random_weights(form, 3, columns)
    extreme = torch.full((3, columns), 4.0)
    extreme[1] *= -1
    if form == "int8":
        matrix = quantize(extreme, form)
    else:
        ones = np.frombuffer(np.float16(1).tobytes(), np.uint8)
        largest = {"q8_0": 127, "q4_0": 0x00, "q4_1": 0xFF}[form]
        blocks = torch.full((3 * columns // 32, BLOCK_BYTES[form]), largest, dtype=torch.uint8)
        for start in (0, 2) if form == "q4_1" else (0,):
            blocks[:, start : start + 2] = torch.from_numpy(ones.copy())
        matrix = QuantizedMatrix(form, columns, blocks.view(3, -1))
    weights = quantized_weights(matrix)
    x = torch.full((2, columns), 3.0 * sign)
    assert_product(product(weights, x, None, None), weights, x, x.double() @ weights.exact.T)


def head_room(buffers: Buffers, tokens: int) -> tuple[np.ndarray, ...]:
    step = buffers.step(tokens, 1)
    return step.packed, step.logits, step.best, step.place


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("tokens", [1, 9])
def test_the_head_and_its_argmax_agree(form: str, tokens: int) -> None:
    torch.manual_seed(tokens)
    rows, columns = 1000, 64  # neither whole tiles of the vocabulary, nor as many for each thread
    weights, x = random_weights(form, rows, columns), torch.randn(tokens, columns)
    buffers = Buffers(columns, 1, 1, 1, CHUNK, THREADS)
    where = (FORMATS[form].marker, weights.address, weights.scale, rows, x.numpy())
    logits = np.empty((tokens, rows), np.float32)
    head_logits(buffers.hall, THREADS, *where, buffers.packed(tokens), logits)
    assert_product(torch.from_numpy(logits), weights, x, x.double() @ weights.exact.T)
    chosen = np.full(tokens, -1)
    head_argmax(buffers.hall, *where, *head_room(buffers, tokens), chosen)
    assert chosen.tolist() == logits.argmax(axis=1).tolist()


@pytest.mark.parametrize("rows", [5, 130, 2000])
def test_of_equal_logits_the_first_is_the_likeliest(rows: int) -> None:
    numbers = torch.zeros(rows, 32)
    numbers[rows // 2 :] = 1
    weights = Weights("float32", numbers.double(), in_panels(numbers), None)
    x = np.ones((1, 32), np.float32)
    buffers = Buffers(32, 1, 1, 1, CHUNK, THREADS)
    chosen = np.full(1, -1)
    where = (FORMATS["float32"].marker, weights.address, 0, rows, x)
    head_argmax(buffers.hall, *where, *head_room(buffers, 1), chosen)
    assert chosen.tolist() == [rows // 2]


@pytest.mark.parametrize("form", QUANTIZED)
@pytest.mark.parametrize("in_place", [True, False])
def test_panels_of_integers_mean_what_the_rows_did(form: str, in_place: bool) -> None:
    torch.manual_seed(0)
    rows = 48 if in_place else 37
    matrix = random_matrix(form, rows, 96)
    picked = torch.tensor([36, 0, 5, 5, rows - 1])
    want = matrix.dequantize(picked)
    marker, out = FORMATS[form].marker, torch.full((len(picked), 96), torch.nan)
    scale = 0 if matrix.scales is None else matrix.scales.data_ptr()
    data = matrix.data if in_place else quantized_weights(matrix).data
    if in_place:
        panels_of_integers(marker, data.data_ptr(), rows, 96, data.data_ptr())
    unpack_rows(marker, data.data_ptr(), scale, picked.numpy(), out.numpy())
    torch.testing.assert_close(out, want, atol=1e-6, rtol=1e-6)


def rows_from_panels(matrix: Tensor, rows: int, columns: int) -> Tensor:
    form = str(matrix.dtype).removeprefix("torch.")
    out = torch.full((rows, columns), torch.nan)
    picked = np.arange(rows)
    unpack_rows(FORMATS[form].marker, matrix.data_ptr(), 0, picked, out.numpy())
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "columns"), [(64, 32), (130, 96), (7, 45), (1, 1)])
def test_panels_hold_the_rows(dtype: torch.dtype, rows: int, columns: int) -> None:
    numbers = torch.randn(rows, columns).to(dtype)
    assert rows_from_panels(in_panels(numbers), rows, columns).equal(numbers.float())


_WITH_OTHER_DOTS = """
import sys
import pytest
from mini_vllm.kernels.cpu import integers
integers._DOTS = int(sys.argv[1])
sys.exit(pytest.main(["-p", "no:cacheprovider", *sys.argv[2:]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [0, 8])
def test_products_of_integers_on_other_processors(lanes: int, tmp_path: Path) -> None:
    """With no instruction for four products and their sum, and with one of half the width."""
    if lanes and not integers._DOTS:
        pytest.skip("this processor has no such instruction")
    tests = [
        f"{__file__}::{test_a_product_is_what_dequantized_weights_give.__name__}[{form}]"
        for form in ("int8", "q4_1")
    ]
    done = subprocess.run(
        [sys.executable, "-c", _WITH_OTHER_DOTS, str(lanes), *tests],
        env=os.environ | {"MINI_VLLM_KERNEL_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
