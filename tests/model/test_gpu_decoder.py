"""Steps of single tokens are padded and replayed, and compute what they would have anyway.

Without a GPU, what is captured is computed again from the same memory at every replay; that a CUDA
graph does the same is tested where there is one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from families import FAMILIES, save_family
from kernels.paging import attention_metadata, shuffled_block_tables
from mini_vllm.model.decoder import Decoder
from mini_vllm.model.gpu_decoder import DecodeInputs, GPUDecoder, graph_sizes
from mini_vllm.model.loader import load_model
from model.captured import CAPTURABLE, FakeCapture
from model.paged_decoder import PagedDecoder

MAX_SEQS, MAX_LEN = 5, 60
LENGTHS = (60, 7, 34, 21, 48)
PROMPTS = (41, 3, 1, 17, 30)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    folder = save_family("qwen3", tmp_path_factory.mktemp("family"))
    return load_model(str(folder), "float32", kernels="reference").decoder


@pytest.fixture
def capture() -> FakeCapture:
    return FakeCapture()


@pytest.fixture
def decoder(plain: Decoder, capture: FakeCapture) -> GPUDecoder:
    return GPUDecoder(plain.config, plain.weights, CAPTURABLE, capture)


def run(paged: PagedDecoder) -> list[Tensor]:
    """Logits of steps that begin with the prompts; then fewer and fewer sequences decode."""
    generator = torch.Generator().manual_seed(3)
    tokens = [torch.randint(0, 256, (n,), generator=generator).tolist() for n in LENGTHS]
    found = []
    done = [0] * len(LENGTHS)
    for step in range(max(LENGTHS)):
        ends = [n if step == 0 else at + 1 for n, at in zip(PROMPTS, done, strict=True)]
        batch = {i: tokens[i][done[i] : end] for i, end in enumerate(ends) if end <= LENGTHS[i]}
        if not batch:
            break
        done = [ends[i] if i in batch else at for i, at in enumerate(done)]
        found += [logits for _, logits in sorted(paged.step(batch).items())]
    return found


def test_replayed_steps_compute_what_others_do(
    plain: Decoder, decoder: GPUDecoder, capture: FakeCapture
) -> None:
    paged = PagedDecoder(decoder, list(LENGTHS))
    decoder.prepare(paged.caches, MAX_SEQS, MAX_LEN)
    got, want = run(paged), run(PagedDecoder(plain, list(LENGTHS)))
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-5)
    assert capture.captured == [8, 4, 2, 1]  # the largest first
    assert sorted(set(capture.replayed)) == [1, 2, 4, 8]


def test_padding_touches_the_first_slot_of_the_null_block_alone(decoder: GPUDecoder) -> None:
    paged = PagedDecoder(decoder, [9, 9, 9], block_size=4)
    decoder.prepare(paged.caches, MAX_SEQS, MAX_LEN)
    before = [cache.clone() for pair in paged.caches for cache in pair]
    paged.step({0: [5], 1: [6], 2: [7]})  # and one that pads
    for cache, old in zip((cache for pair in paged.caches for cache in pair), before, strict=True):
        changed = (cache != old).flatten(2).any(dim=2).nonzero().tolist()
        assert len(changed) == 4
        assert [0, 0] in changed
        assert torch.isfinite(cache).all()


def test_what_is_no_step_of_single_tokens_within_the_limits_is_not_replayed(
    plain: Decoder, decoder: GPUDecoder, capture: FakeCapture
) -> None:
    paged = PagedDecoder(decoder, [70] * 9)
    run_one = paged.step
    run_one({0: [1], 1: [1]})  # before there are graphs
    decoder.prepare(paged.caches, MAX_SEQS, MAX_LEN)
    run_one({0: [1, 2], 1: [1]})  # a prompt among them
    run_one({i: [1] for i in range(9)})  # more than the largest graph
    run_one({2: [1] * (MAX_LEN - 1)})
    run_one({2: [1] * 2})  # now the context is longer than was captured for
    run_one({2: [1], 3: [1]})
    PagedDecoder(decoder, [4]).step({0: [1]})  # another cache
    assert capture.replayed == []
    run_one({3: [1]})
    assert capture.replayed == [1]


def test_rows_that_pad_are_one_token_whatever_was_there_before() -> None:
    inputs = DecodeInputs(4, MAX_LEN, 16, torch.device("cpu"))

    def fill(size: int, contexts: list[int]) -> None:
        tables = shuffled_block_tables(contexts, 16, 20)
        meta = attention_metadata([1] * len(contexts), contexts, tables, 16)
        ids = torch.arange(1, len(contexts) + 1)
        inputs.fill(size, ids, ids + 10, meta)

    fill(4, [50, 40, 30, 20])
    fill(2, [9])
    token_ids, positions, meta = inputs.first(2)
    assert token_ids.tolist() == [1, 0]
    assert positions.tolist() == [11, 0]
    assert meta.seq_lens.tolist() == [9, 1]
    assert meta.slot_mapping[1] == 0
    assert meta.block_table[1, 0] == 0
    assert meta.query_start_loc.tolist() == [0, 1, 2]
    assert meta.max_seq_len == MAX_LEN  # whatever the step's own contexts


@pytest.mark.parametrize(
    ("most", "sizes"),
    [
        (1, [1]),
        (3, [1, 2, 4]),
        (32, [1, 2, 4, 8, 16, 32]),
        (100, [1, 2, 4, 8, 16, 32, 64, 96, 128]),
    ],
)
def test_sizes_double_to_32_and_hold_the_largest_batch(most: int, sizes: list[int]) -> None:
    assert graph_sizes(most) == sizes


SLOW = [pytest.param(family, marks=pytest.mark.slow) for family in ("llama-biased", "smollm3")]


@pytest.mark.parametrize("family", ["qwen3", *SLOW])
def test_a_family_with_the_triton_kernels(family: str, tmp_path: Path) -> None:
    """Heads of 8 and 20, norms of heads, and layers without rotation; graphs and all."""
    import kernels.gpu as gpu
    from mini_vllm.kernels import cuda

    plain = load_model(str(save_family(family, tmp_path)), "float32", kernels="reference").decoder
    capture = None if gpu.HAS_GPU else FakeCapture()
    decoder = GPUDecoder(plain.config, plain.weights.to(gpu.DEVICE), cuda, capture)
    lengths = [24, 7, 11]
    got, want = PagedDecoder(decoder, lengths), PagedDecoder(plain, lengths)
    decoder.prepare(got.caches, 3, 24)
    steps = [{0: [*range(3, 25)], 1: [7]}, {0: [9], 1: [8], 2: [4] * 10}, {0: [1], 2: [5]}]
    for step in steps:
        found, expected = got.step(step), want.step(step)
        for sequence, logits in expected.items():
            torch.testing.assert_close(found[sequence], logits, atol=1e-4, rtol=1e-5)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@needs_gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_on_a_gpu(family: str, dtype: str, tmp_path: Path) -> None:
    """As the loader makes it, with real graphs, against plain torch on the host.

    Bfloat16 comes as near to what float32 gives as plain torch's own does.
    """
    folder = str(save_family(family, tmp_path))
    exact, plain = (
        load_model(folder, each, kernels="reference").decoder for each in ("float32", dtype)
    )
    decoder = load_model(folder, dtype, device="cuda").decoder
    paged = PagedDecoder(decoder, list(LENGTHS))
    decoder.prepare(paged.caches, MAX_SEQS, MAX_LEN)
    want, rounded = (torch.cat(run(PagedDecoder(each, list(LENGTHS)))) for each in (exact, plain))
    error = (torch.cat(run(paged)) - want).norm() / want.norm()
    assert error < max(1e-4, 1.5 * (rounded - want).norm() / want.norm())


@needs_gpu
def test_no_step_waits_for_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import triton

    decoder = load_model(str(save_family("qwen3", tmp_path)), "bfloat16", device="cuda").decoder
    paged = PagedDecoder(decoder, [1500, 900, 700])
    decoder.prepare(paged.caches, 2, 1500)
    compiled: list[str] = []
    monkeypatch.setattr(
        triton.knobs.runtime,
        "jit_post_compile_hook",
        lambda **given: compiled.append(given["repr"]),
    )
    paged.step({0: [1] * 17})
    paged.step({0: [1], 1: [1] * 600, 2: [1] * 33})
    paged.step({0: [1] * 1200, 1: [1], 2: [1] * 3})
    paged.step({0: [1], 1: [1], 2: [1]})  # more than the largest graph
    paged.step({0: [1], 1: [1]})
    assert compiled == []
