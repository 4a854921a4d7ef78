"""Every family computes transformers' logits: whole prompts, chunks and decodes, batched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from families import FAMILIES, SIZES, save_family
from mini_vllm.model.loader import LoadedModel, load_model
from model.paged_decoder import PagedDecoder

LENGTHS = (61, 7, 34, 96)


@pytest.fixture(scope="session", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family(request.param, tmp_path_factory.mktemp("families") / request.param)


def sequences() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randint(0, SIZES["vocab_size"], (n,), generator=generator).tolist() for n in LENGTHS
    ]


@torch.inference_mode()
def wanted_logits(folder: Path) -> list[Tensor]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return [model(torch.tensor([ids])).logits[0] for ids in sequences()]


def assert_same(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-5)
    assert got.argmax(-1).equal(want.argmax(-1))


def test_a_whole_prompt(folder: Path) -> None:
    decoder = load_model(str(folder), "float32").decoder
    for ids, want in zip(sequences(), wanted_logits(folder), strict=True):
        assert_same(PagedDecoder(decoder, [len(ids)]).step({0: ids})[0], want)


def test_chunks_and_decodes_of_several_sequences_in_one_batch(folder: Path) -> None:
    """Each sequence is cut differently, so that steps mix whole prompts, chunks and decodes."""
    paged = PagedDecoder(load_model(str(folder), "float32").decoder, list(LENGTHS))
    chunks = [
        [ids[i : i + size] for i in range(0, len(ids), size)]
        for ids, size in zip(sequences(), (13, 1, 34, 9), strict=True)
    ]
    logits: list[list[Tensor]] = [[] for _ in chunks]
    for step in range(max(map(len, chunks))):
        batch = {seq: parts[step] for seq, parts in enumerate(chunks) if step < len(parts)}
        for seq, found in paged.step(batch).items():
            logits[seq].append(found)
    for parts, want in zip(logits, wanted_logits(folder), strict=True):
        assert_same(torch.cat(parts), want)


def test_sharded_files_hold_the_same_model(tmp_path: Path) -> None:
    save_family("llama", tmp_path / "sharded", max_shard_size="40KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    whole = load_model(str(save_family("llama", tmp_path / "whole")), "float32")
    sharded = load_model(str(tmp_path / "sharded"), "float32")
    ids = sequences()[0]
    want, got = (PagedDecoder(m.decoder, [len(ids)]).step({0: ids})[0] for m in (whole, sharded))
    assert got.equal(want)


def test_bfloat16_is_near_float32(tmp_path: Path) -> None:
    folder = str(save_family("qwen3", tmp_path / "model"))
    ids = sequences()[0]
    want, got = (
        PagedDecoder(load_model(folder, dtype).decoder, [len(ids)]).step({0: ids})[0]
        for dtype in ("float32", "bfloat16")
    )
    assert got.dtype is torch.float32
    assert torch.nn.functional.cosine_similarity(got, want).min() > 0.99


def test_a_context_is_capped_to_the_sliding_window(tmp_path: Path) -> None:
    """Up to the window, sliding attention is full attention; beyond, nothing is promised."""
    folder = save_family("mistral", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"sliding_window": 61}))
    model = load_model(str(folder), "float32")
    assert model.config.max_position_embeddings == 61
    ids = sequences()[0]
    assert_same(PagedDecoder(model.decoder, [61]).step({0: ids})[0], wanted_logits(folder)[0])


def test_what_a_loaded_model_tells(tmp_path: Path) -> None:
    folder = save_family("qwen3", tmp_path / "model")
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 2, 5]}')
    model: LoadedModel = load_model(str(folder), "float32")
    config = model.config
    assert model.name == str(folder)
    assert model.tokenizer is None
    assert model.dtype is torch.float32
    assert (config.model_type, config.vocab_size, config.head_dim) == ("qwen3", 256, 20)
    assert (config.bos_token_id, config.eos_token_ids) == (1, (5, 2))
    assert config.kv_bytes_per_token(4) == 2 * 3 * 2 * 20 * 4


def test_a_folder_with_a_tokenizer_has_it(tiny_model: Path) -> None:
    tokenizer = load_model(str(tiny_model)).tokenizer
    assert tokenizer is not None
    assert tokenizer.decode(tokenizer.encode("hello")) == "hello"
