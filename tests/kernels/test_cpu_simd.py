"""The pieces that compiled kernels are put together from."""

from __future__ import annotations

import numpy as np
from numba import njit, types

from mini_vllm.kernels.cpu.formats import FLOAT
from mini_vllm.kernels.cpu.products import turn_16
from mini_vllm.kernels.cpu.simd import (
    address_of,
    exp2_16,
    load_16,
    row_at,
    rows_from,
    rows_of,
    silu_16,
    store_16,
)


@njit
def walk(array):
    address = address_of(array)
    for _ in range(3):
        address += 4
    return address


def test_an_address_stays_an_integer_in_a_loop() -> None:
    """numba takes its own uint64, changed by an int64, for a float64: exact, and ten times slow."""
    array = np.zeros(4, np.float32)
    assert walk(array) == array.ctypes.data + 12
    (signature,) = walk.nopython_signatures
    assert signature.return_type == types.int64


@njit
def turn(source, out):
    turn_16(address_of(source), source.strides[0], address_of(out), out.strides[0])


def test_sixteen_rows_become_columns() -> None:
    source, out = np.random.randint(0, 1 << 31, (16, 20)), np.zeros((16, 24), np.int32)
    source = source.astype(np.int32)
    turn(source, out)
    assert (out[:, :16] == source[:, :16].T).all()
    assert (out[:, 16:] == 0).all()


@njit
def third_of_the_rest(array):
    return row_at(rows_from(rows_of(array), 2), 3)


def test_rows_are_found_by_their_addresses() -> None:
    array = np.zeros((8, 5), np.float32)
    assert third_of_the_rest(array) == array[5:].ctypes.data


@njit
def powers_and_silu(x, powers, silu):
    for i in range(0, len(x), 16):
        numbers = load_16(FLOAT, address_of(x) + 4 * i)
        store_16(FLOAT, address_of(powers) + 4 * i, exp2_16(numbers))
        store_16(FLOAT, address_of(silu) + 4 * i, silu_16(numbers))


def test_powers_of_two_and_silu_are_close_and_never_denormal() -> None:
    """What a query does not see has a score of -1e30; denormal weights take a hundred times as long
    on some processors."""
    x = np.linspace(-130, 30, 4096, dtype=np.float32)
    x[:3] = -1e30, -1e4, -127
    powers, silu = np.empty_like(x), np.empty_like(x)
    powers_and_silu(x, powers, silu)
    assert powers.min() >= np.finfo(np.float32).tiny
    exact = np.exp2(np.maximum(x.astype(np.float64), -125))
    np.testing.assert_allclose(powers, exact, rtol=3e-7)
    shown = x > -80
    wanted = x[shown].astype(np.float64) / (1 + np.exp(-x[shown].astype(np.float64)))
    np.testing.assert_allclose(silu[shown], wanted, rtol=1e-5, atol=1e-37)
