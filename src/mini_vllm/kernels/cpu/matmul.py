"""Products of a matrix with the tokens of a step: how a crew of threads shares its panels.

Invariant: as in `panel_products`; so nor does a product depend on how many threads share it.
"""

from __future__ import annotations

from numba import njit

from mini_vllm.kernels.cpu.crew import share
from mini_vllm.kernels.cpu.panel_products import Next, all_of, rows_times_tokens, tokens_at_once
from mini_vllm.kernels.cpu.panels import HALF, PANEL, address_of_row, panel_rows
from mini_vllm.kernels.cpu.simd import LANES, plain
from mini_vllm.kernels.cpu.tiles import takes_tiles

GROUP_TOKENS = 32
"""About as many tokens as a thread takes a panel with before it turns to the next: small enough to
share the work out evenly."""


@njit
def _groups_of(form, tokens):
    """Into how many groups a product's tokens go, and how many are in each."""
    groups = (tokens + GROUP_TOKENS - 1) // GROUP_TOKENS
    unit = tokens_at_once(form)
    together = ((tokens + groups - 1) // groups + unit - 1) // unit * unit
    return (tokens + together - 1) // together, together


@njit
def _some_of(form, w, start, stop, columns):
    """`Next`: of a panel of numbers, rows from `start` on, and not beyond `stop`."""
    count = min(stop - start, PANEL - start % PANEL)
    width = 4 * ((count + LANES - 1) // LANES * LANES)
    return Next(address_of_row(form, w, start, columns), columns, width, plain(0), plain(1))


@njit
def first_panel(crew, form, w, rows, columns, tokens):
    """`Next`: the panel that a member will multiply first in `matmul`."""
    panel, (groups, _) = panel_rows(form), _groups_of(form, tokens)
    if takes_tiles(form) and groups == 1:
        first = share(crew, (rows + HALF - 1) // HALF)[0] * HALF
        return _some_of(form, w, first, min(first + PANEL, rows), columns)
    first = share(crew, (rows + panel - 1) // panel * groups)[0] // groups * panel
    return all_of(address_of_row(form, w, first, columns), columns)


@njit
def matmul(crew, form, w, scale, bias, rows, columns, x, out, tokens, add, then):
    """`out[:tokens] (+)= x [tokens, columns] @ w [rows, columns].T + bias [rows]`, a crew's work.

    Args:
        form: marker of the weights' format.
        w, scale, bias: addresses of weights in panels, float32 scales `[rows]` and biases; 0 for
            none.
        x: `Rows` of packed tokens.
        out: `Rows` of float32 `[tokens, rows]`.
        add: whether to add to `out` (a residual) rather than to overwrite it.
        then: `Next`, the weights that the member will read after these.
    """
    if not tokens:
        return
    groups, together = _groups_of(form, tokens)
    if takes_tiles(form) and groups == 1:
        _few_times_panels(crew, form, w, scale, bias, rows, columns, x, out, tokens, add, then)
        return
    part_rows = panel_rows(form)
    item, end = share(crew, (rows + part_rows - 1) // part_rows * groups)
    while item < end:
        part, group = item // groups, item % groups
        after = min(group + end - item, groups)
        item += after - group
        following = then
        if item < end:
            place = address_of_row(form, w, item // groups * part_rows, columns)
            following = all_of(place, columns)
        rows_times_tokens(
            form, w, scale, bias, part * part_rows, min((part + 1) * part_rows, rows), columns, x,
            out, group * together, min(after * together, tokens), add, following,
        )  # fmt: skip


@njit
def _few_times_panels(crew, form, w, scale, bias, rows, columns, x, out, tokens, add, then):
    """`matmul` where weights are read once, in halves of panels: members' shares are closer then
    to what they can read in equal times."""
    none = plain(0)
    first, last = share(crew, (rows + HALF - 1) // HALF)
    first, last = first * HALF, min(last * HALF, rows)
    while first < last:
        stop = (first // PANEL + 1) * PANEL
        if first % PANEL == 0 and last - first > PANEL:
            stop = last // PANEL * PANEL
        stop = min(stop, last)
        following = then
        if stop < last:
            following = _some_of(form, w, stop, last, columns)
        rows_times_tokens(
            form, w, scale, bias, first, stop, columns, x, out, none, tokens, add, following,
        )  # fmt: skip
        first = stop
