"""GGUF files: types as the `gguf` package reads them, models as transformers computes them."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor
from transformers import AutoModelForCausalLM, GgufConfig

from families import LLAMA3_ROPE, SIZES, save_family
from mini_vllm.kernels.cpu.blocks import widen_blocks
from mini_vllm.kernels.cpu.formats import FORMATS
from mini_vllm.kernels.gguf_blocks import BY_NAME, TYPES, UNSUPPORTED_NAMES
from mini_vllm.kernels.quantized import BLOCK_BYTES
from mini_vllm.model.config import ModelConfig
from mini_vllm.model.loader import load_model
from model.gguf_files import write_gguf
from model.paged_decoder import PagedDecoder

PROMPT = [7, 200, 31, 4, 4, 90, 12, 255, 61, 100, 3]


def logits_of(path: Path) -> Tensor:
    decoder = load_model(str(path), "float32").decoder
    return PagedDecoder(decoder, [len(PROMPT)]).step({0: PROMPT})[0]


def transformers_logits(folder: Path, **options: object) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    with torch.inference_mode():
        return model(torch.tensor([PROMPT])).logits[0]


@pytest.mark.parametrize("number", TYPES)
def test_a_type_is_read_as_the_gguf_package_reads_it(number: int) -> None:
    """Random bytes reach every bit of a block; scales are kept finite, which is all they are."""
    kind = TYPES[number]
    random = np.random.default_rng(number)
    blocks = random.integers(0, 256, (64, kind.bytes), dtype=np.uint8)
    scale_bytes = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
    affine = (0, 2) if kind.name in ("Q4_1", "Q5_1") else (0,)
    if kind.weights == 1:
        blocks = random.standard_normal((64, kind.bytes)).astype(np.float32)
        blocks = gguf.quantize(blocks, Kind(number)).view(np.uint8).reshape(-1, kind.bytes)
    else:
        for start in scale_bytes.get(kind.name, affine):
            scales = random.standard_normal((64, 1)).astype(np.float16)
            blocks[:, start : start + 2] = scales.view(np.uint8)
    want = gguf.dequantize(blocks, Kind(number)).reshape(-1, kind.weights)
    got = torch.empty(len(blocks), kind.weights)
    kind.dequantize(torch.from_numpy(blocks), got)
    torch.testing.assert_close(got, torch.from_numpy(want.copy()), atol=0, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", BLOCK_BYTES)
@pytest.mark.parametrize("count", [1, 33, 5000])
def test_the_compiled_reader_gives_the_same_numbers(
    form: str, dtype: torch.dtype, count: int
) -> None:
    """Of all bytes and all finite scales, bit by bit, and none beyond."""
    kind = BY_NAME[form.upper()]
    random = np.random.default_rng(count)
    blocks = torch.from_numpy(random.integers(0, 256, (count, kind.bytes), dtype=np.uint8))
    for start in range(0, 4 if form == "q4_1" else 2, 2):
        blocks[:, start + 1] &= 0xFB  # no exponent of ones: neither infinite nor NaN
    want = torch.empty(count, kind.weights)
    kind.dequantize(blocks, want)
    got = torch.full((count + 1, kind.weights), 7, dtype=dtype)
    markers = FORMATS[form].marker, FORMATS[str(dtype).removeprefix("torch.")].marker
    widen_blocks(*markers, blocks.data_ptr(), count, got.data_ptr())
    assert got[:count].equal(want.to(dtype))
    assert (got[count] == 7).all()


def test_types_have_the_names_and_sizes_of_the_gguf_package() -> None:
    for number, kind in TYPES.items():
        assert Kind(number).name == kind.name
        assert gguf.GGML_QUANT_SIZES[Kind(number)] == (kind.weights, kind.bytes)
    for number, name in UNSUPPORTED_NAMES.items():
        assert Kind(number).name == name


@pytest.mark.parametrize("family", ["llama", "llama-biased", "mistral", "qwen2", "qwen3"])
def test_an_architecture_equals_the_folder_it_was_converted_from(
    family: str, tmp_path: Path
) -> None:
    folder = save_family(family, tmp_path / "model")
    got = logits_of(write_gguf(folder, tmp_path / "model.gguf"))
    torch.testing.assert_close(got, transformers_logits(folder), atol=1e-4, rtol=1e-5)


def test_llama3_rope_comes_as_a_tensor_of_factors(tmp_path: Path) -> None:
    folder = save_family("llama3-rope", tmp_path / "model")

    def add_factors(writer: gguf.GGUFWriter) -> None:
        head_dim = SIZES["hidden_size"] // SIZES["num_attention_heads"]
        plain = 10000.0 ** -(np.arange(0, head_dim, 2) / head_dim)
        wavelengths = 2 * np.pi / plain
        original = LLAMA3_ROPE["original_max_position_embeddings"]
        low, high, factor = (
            LLAMA3_ROPE[key] for key in ("low_freq_factor", "high_freq_factor", "factor")
        )
        smooth = (original / wavelengths - low) / (high - low)
        factors = 1 / ((1 - smooth) / factor + smooth)
        factors[wavelengths < original / high] = 1
        factors[wavelengths > original / low] = factor
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))

    path = write_gguf(folder, tmp_path / "model.gguf", edit=add_factors)
    torch.testing.assert_close(logits_of(path), transformers_logits(folder), atol=1e-4, rtol=1e-5)


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose matrices have rows of whole blocks."""
    from transformers import LlamaConfig

    sizes = SIZES | {"hidden_size": 96, "intermediate_size": 128, "num_hidden_layers": 2}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**sizes))
    for parameter in model.parameters():
        parameter.detach().normal_(0, parameter.shape[-1] ** -0.5)
    folder = tmp_path_factory.mktemp("wide")
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1]
)
def test_a_quantized_model_equals_transformers_reading_the_same_file(
    kind: Kind, wide_model: Path, tmp_path: Path
) -> None:
    path = write_gguf(wide_model, tmp_path / "model.gguf", kind)
    quantization = GgufConfig(dequantize=True)
    want = transformers_logits(tmp_path, gguf_file=path.name, quantization_config=quantization)
    torch.testing.assert_close(logits_of(path), want, atol=1e-4, rtol=1e-5)


def test_what_the_metadata_tells(tmp_path: Path) -> None:
    folder = save_family("qwen2", tmp_path / "model")
    path = write_gguf(folder, tmp_path / "model.gguf", **{"attention.sliding_window": 100})
    config = load_model(str(path)).config
    assert (config.model_type, config.vocab_size, config.head_dim) == ("qwen2", 256, 8)
    assert (config.num_attention_heads, config.num_key_value_heads) == (6, 2)
    assert (config.attention_bias, config.o_bias, config.tie_word_embeddings) == (
        True,
        False,
        False,
    )
    assert (config.bos_token_id, config.eos_token_ids) == (254, (255,))
    assert (config.max_position_embeddings, config.sliding_window) == (100, 100)


def test_every_way_to_stop_is_known() -> None:
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.context_length": 8,
        "llama.embedding_length": 8,
        "llama.feed_forward_length": 8,
        "llama.attention.head_count": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.vocab_size": 10,
        "tokenizer.ggml.eos_token_id": 4,
        "tokenizer.ggml.eot_token_id": 7,
        "tokenizer.ggml.eom_token_id": 4,
    }
    assert ModelConfig.from_gguf(metadata, ()).eos_token_ids == (4, 7)
