"""All attention of a step, whatever mixture of single tokens and prompts it is.

Invariant: of `attention_work`'s three lists, any may be empty; each row of `out` that a list names
is written, and no other.
"""

from __future__ import annotations

from numba import njit, prange

from mini_vllm.kernels.cpu.attention import attend, merge_parts
from mini_vllm.kernels.cpu.compiled import entry
from mini_vllm.kernels.cpu.crew import join, leave, meet, open_hall
from mini_vllm.kernels.cpu.prompt_attention import attend_prompts, attend_shared


@njit
def attention(
    crew, form, q, k_cache, v_cache, tables, sequences, parts, shared, sharers, blocks, block_size,
    kv_heads, dim, scale, out_form, out, buffers, room,
):  # fmt: skip
    """Attention of T tokens: `out [T, heads, dim]`, in the format `out_form`, by a crew.

    Args:
        form: marker of the format of the caches and queries, float32 or bfloat16.
        q: uint8 `[T, heads, bytes]`, each head padded with zeros to whole chunks.
        k_cache, v_cache: addresses; they hold these tokens' keys and values already.
        tables, sequences, parts: as `attend` takes them; shared, sharers: `attend_shared`; blocks:
            `attend_prompts`.
        buffers: `StepBuffers` for as many parts; room: from `room_for_prompts`.
    """
    if len(shared):
        attend_shared(
            crew, form, q, k_cache, v_cache, tables, sequences, shared, sharers, block_size,
            kv_heads, dim, scale, buffers.sums, buffers.states, room,
        )  # fmt: skip
    if len(parts):
        attend(
            crew, form, q, k_cache, v_cache, tables, sequences, parts, block_size, kv_heads, dim,
            scale, buffers.scores, buffers.sums, buffers.states, buffers.scratch,
            room,
        )  # fmt: skip
        meet(crew)
        merge_parts(crew, form, parts, buffers.sums, buffers.states, dim, out_form, out)
    if len(blocks):
        attend_prompts(
            crew, form, q, k_cache, v_cache, tables, blocks, block_size, kv_heads, dim, scale,
            out_form, out, room,
        )  # fmt: skip


@entry(parallel=True)
def paged_attention(
    hall, form, q, k_cache, v_cache, tables, sequences, parts, shared, sharers, blocks, block_size,
    kv_heads, dim, scale, out_form, out, buffers, room,
):  # fmt: skip
    """`attention` by itself: by as many threads as `room` has rows, who meet in `hall`."""
    hall_, workers = open_hall(hall), len(room)
    for place in prange(workers):
        crew = join(hall_, workers, place)
        if crew.size:
            attention(
                crew, form, q, k_cache, v_cache, tables, sequences, parts, shared, sharers, blocks,
                block_size, kv_heads, dim, scale, out_form, out, buffers, room,
            )  # fmt: skip
        leave(crew)
