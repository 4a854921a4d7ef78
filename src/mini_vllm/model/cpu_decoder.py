"""The decoder on a CPU: the same function as `Decoder`, computed by `mini_vllm.kernels.cpu`.

A step of few tokens runs through all layers in one compiled call, bound by reading weights and
cache. A step of many tokens takes its matrix products from torch (oneDNN), with compiled code
around them. `few_tokens` says up to how many tokens the first is the faster one on this machine.

Invariant: weights are read where the loader put them; only norms and biases are copied, to float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mini_vllm.kernels.cpu import layers as few
from mini_vllm.kernels.cpu import many
from mini_vllm.kernels.cpu.attention import attend
from mini_vllm.kernels.cpu.buffers import Buffers
from mini_vllm.kernels.cpu.compiled import note_compiled, say_if_compiling, use_threads
from mini_vllm.kernels.cpu.formats import CHUNK, FLOAT, FORMATS
from mini_vllm.kernels.cpu.matmul import widen
from mini_vllm.kernels.cpu.prompt_attention import QUERY_BLOCK, attend_prompts, room_for_prompts
from mini_vllm.kernels.metadata import AttentionMetadata
from mini_vllm.kernels.quantized import Matrix, QuantizedMatrix
from mini_vllm.model.config import ModelConfig
from mini_vllm.model.decoder import Decoder, DecoderWeights, KVCaches, LayerWeights

PART = 256
"""Positions of a context that one thread attends to at a time."""
MATRICES = ("qkv", "o", "gate_up", "down")


class CPUDecoder(Decoder):
    """A model ready to run; see `Decoder` for what it computes.

    Args:
        few_tokens: steps of at most so many tokens take the compiled path.
    """

    def __init__(self, config: ModelConfig, weights: DecoderWeights, few_tokens: int = 64) -> None:
        super().__init__(config, weights)
        self.few_tokens = few_tokens
        self._kept: list[Tensor] = []
        self._dtype = weights.final_norm.dtype
        self._numbers = FORMATS[str(self._dtype).removeprefix("torch.")].marker
        self._head = self._padded(weights.lm_head)
        self._layers = np.zeros(config.num_hidden_layers, few.LAYER)
        for record, layer in zip(self._layers, weights.layers, strict=True):
            self._describe(record, layer)
        for i in config.nope_layers:
            self._layers["rope"][i] = 0
        self._runs = _runs_of_equal_formats(weights.layers)
        self._final_norm = self._floats(weights.final_norm)
        self._caches: KVCaches | None = None
        self._buffers = Buffers(
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self._threads = torch.get_num_threads()
        self._prompt_room = room_for_prompts(
            self._threads,
            config.num_attention_heads // config.num_key_value_heads,
            config.head_dim,
        )
        self._dequantized = torch.empty(0, dtype=self._dtype)

    def compile(self) -> None:
        """Compiles what a step may need, or loads it from the cache; says so where it takes long.

        A few tokens are run through both paths, over a cache of their own.
        """
        config = self.config
        formats = sorted({_name(self._head), *(_name(m) for run in self._matrices() for m in run)})
        what = " + ".join(dict.fromkeys([*formats, str(self._dtype).removeprefix("torch.")]))
        say_if_compiling(what)
        shape = (2, 16, config.num_key_value_heads, config.head_dim)
        caches = [
            (torch.zeros(shape, dtype=self._dtype), torch.zeros(shape, dtype=self._dtype))
            for _ in range(config.num_hidden_layers)
        ]
        zero = torch.zeros(1, dtype=torch.int64)
        meta = AttentionMetadata(
            query_start_loc=torch.tensor([0, 1, 3]),
            seq_lens=torch.tensor([1, 2]),
            block_table=torch.tensor([[1], [1]], dtype=torch.int32),
            slot_mapping=torch.tensor([16, 16, 17]),
            num_decodes=1,
            query_lens=[1, 2],
            context_lens=[1, 2],
        )
        few_tokens = self.few_tokens
        for self.few_tokens in (few_tokens, 0):
            hidden = self.forward(zero.expand(3), torch.tensor([0, 0, 1]), caches, meta)
        self.few_tokens = few_tokens
        self.logits(hidden[:1])
        self.greedy(hidden[:1])
        self._caches = None
        note_compiled(what)

    def _matrices(self) -> list[list[Matrix]]:
        return [[getattr(layer, name) for name in MATRICES] for layer in self.weights.layers]

    def forward(
        self, input_ids: Tensor, positions: Tensor, kv_caches: KVCaches, meta: AttentionMetadata
    ) -> Tensor:
        if kv_caches is not self._caches:
            self._caches = kv_caches
            for record, (k_cache, v_cache) in zip(self._layers, kv_caches, strict=True):
                record["k_cache"], record["v_cache"] = k_cache.data_ptr(), v_cache.data_ptr()
        use_threads(self._threads)
        residual = self.embed(input_ids)
        angles = positions[:, None].float() * self._frequencies
        cos, sin = angles.cos().numpy(), angles.sin().numpy()
        run = self._run_few if len(input_ids) <= self.few_tokens else self._run_many
        return run(residual, positions.numpy(), cos, sin, meta)

    def logits(self, hidden: Tensor) -> Tensor:
        rows = self.config.vocab_size
        if len(hidden) > self.few_tokens:
            return self._product(hidden.to(self._dtype), self.weights.lm_head, None).float()
        packed, scales = self._buffers.packed(len(hidden))
        out = torch.empty(len(hidden), rows)
        few.head_logits(
            _marker(self._head), _address(self._head), _scale(self._head), rows,
            hidden.numpy(), packed, scales, out.numpy(),
        )  # fmt: skip
        return out

    def greedy(self, hidden: Tensor) -> Tensor:
        if len(hidden) > self.few_tokens:
            return super().greedy(hidden)
        packed, scales = self._buffers.packed(len(hidden))
        tiles, best, place = self._buffers.argmax(len(hidden))
        out = torch.empty(len(hidden), dtype=torch.int64)
        few.head_argmax(
            _marker(self._head), _address(self._head), _scale(self._head), self.config.vocab_size,
            hidden.numpy(), packed, scales, tiles, best, place, out.numpy(),
        )  # fmt: skip
        return out

    def _run_few(
        self,
        residual: Tensor,
        positions: np.ndarray,
        cos: np.ndarray,
        sin: np.ndarray,
        meta: AttentionMetadata,
    ) -> Tensor:
        tokens = len(residual)
        sequences = np.repeat(np.arange(len(meta.query_lens)), meta.query_lens)
        parts = _parts(positions + 1)
        buffers = self._buffers.few(residual.numpy(), len(parts))
        sizes = self._sizes()
        slots, tables = meta.slot_mapping.numpy(), meta.block_table.numpy()
        for (qkv, o, gate_up, down), start, end in self._runs:
            few.run_layers(
                qkv, o, gate_up, down, self._numbers, self._layers[start:end], sizes, tokens,
                slots, cos, sin, tables, sequences, parts, buffers,
            )  # fmt: skip
        hidden = torch.empty_like(residual)
        many.add_and_norm(
            FLOAT, FLOAT, residual.data_ptr(), 0, tokens, residual.shape[1], self._final_norm,
            self.config.rms_norm_eps, hidden.data_ptr(),
        )  # fmt: skip
        return hidden

    def _run_many(
        self,
        residual: Tensor,
        positions: np.ndarray,
        cos: np.ndarray,
        sin: np.ndarray,
        meta: AttentionMetadata,
    ) -> Tensor:
        """The same stages, over all tokens at a time."""
        config, numbers = self.config, self._numbers
        tokens, hidden_size = residual.shape
        inner, eps = config.intermediate_size, config.rms_norm_eps
        sizes, slots = self._sizes(), meta.slot_mapping.numpy()
        attention = self._attention_of(positions, meta)
        empty = residual.new_empty
        normed = empty((tokens, hidden_size), dtype=self._dtype)
        gated = empty((tokens, inner), dtype=self._dtype)
        queries = empty((tokens, config.num_attention_heads, config.head_dim), dtype=self._dtype)
        attended = torch.empty_like(queries)
        delta: Tensor | None = None

        def norm_into(out: Tensor, weight: int, form: np.ndarray) -> None:
            many.add_and_norm(
                numbers, form, residual.data_ptr(), _address(delta), tokens, hidden_size,
                weight, eps, out.data_ptr(),
            )  # fmt: skip

        for i, layer in enumerate(self.weights.layers):
            norm_into(normed, self._layers["input_norm"][i], numbers)
            qkv = self._product(normed, layer.qkv, layer.qkv_bias)
            many.place(
                numbers, qkv.data_ptr(), tokens, self._layers, i, sizes, slots, cos, sin,
                queries.data_ptr(),
            )  # fmt: skip
            attention(i, queries, attended)
            delta = self._product(attended.view(tokens, -1), layer.o, layer.o_bias)
            norm_into(normed, self._layers["post_norm"][i], numbers)
            gate_up = self._product(normed, layer.gate_up, layer.gate_up_bias)
            many.gate(numbers, gate_up.data_ptr(), tokens, inner, gated.data_ptr())
            delta = self._product(gated, layer.down, layer.down_bias)
        hidden = torch.empty_like(residual)
        norm_into(hidden, self._final_norm, FLOAT)
        return hidden

    def _sizes(self) -> few.Sizes:
        c = self.config
        assert self._caches is not None
        return few.Sizes(
            c.hidden_size,
            c.intermediate_size,
            c.num_attention_heads,
            c.num_key_value_heads,
            c.head_dim,
            self._caches[0][0].shape[1],
            c.rms_norm_eps,
        )

    def _attention_of(
        self, positions: np.ndarray, meta: AttentionMetadata
    ) -> Callable[[int, Tensor, Tensor], None]:
        """A function of a layer, queries and the room for what they attend to.

        Single tokens go by themselves, as in a step of few; prompts in blocks of queries.
        """
        config, numbers = self.config, self._numbers
        kv_heads, dim = config.num_key_value_heads, config.head_dim
        heads = config.num_attention_heads
        singles = meta.num_decodes if dim % CHUNK == 0 else 0
        blocks = _query_blocks(meta, singles)
        parts = _parts(positions[:singles] + 1)
        buffers = self._buffers.few(np.empty((1, 0), np.float32), len(parts))
        sequences = np.arange(singles)
        tables, block_size = meta.block_table.numpy(), self._sizes().block_size

        def attend_all(i: int, queries: Tensor, attended: Tensor) -> None:
            q, out = _numpy(queries), _numpy(attended)
            cache = (self._layers["k_cache"][i], self._layers["v_cache"][i])
            if singles:
                packed = q[:singles].view(np.uint8).reshape(singles, heads, -1)
                attend(
                    numbers, packed, *cache, tables, sequences, parts, block_size, kv_heads, dim,
                    dim**-0.5, numbers, out[:singles], buffers.scores, buffers.sums,
                    buffers.states, buffers.scratch,
                )  # fmt: skip
            if len(blocks):
                attend_prompts(
                    numbers, q, *cache, tables, blocks, block_size, kv_heads, dim, dim**-0.5, out,
                    *self._prompt_room,
                )  # fmt: skip

        return attend_all

    def _product(self, x: Tensor, matrix: Matrix, bias: Tensor | None) -> Tensor:
        """`x @ matrix.T + bias` by torch, which wants its weights as numbers."""
        if isinstance(matrix, QuantizedMatrix):
            rows, columns = matrix.shape
            if self._dequantized.numel() < rows * columns:
                self._dequantized = torch.empty(rows * columns, dtype=self._dtype)
            wide = self._dequantized[: rows * columns].view(rows, columns)
            widen(
                _marker(matrix), _address(matrix), _scale(matrix), rows, columns,
                self._numbers, wide.data_ptr(),
            )  # fmt: skip
            matrix = wide
        return F.linear(x, matrix, bias)

    def _describe(self, record: np.void, layer: LayerWeights) -> None:
        """Fills in a layer's addresses."""
        for name in ("input_norm", "q_norm", "k_norm", "post_norm"):
            record[name] = self._floats(getattr(layer, name))
        for name in MATRICES:
            matrix = self._padded(getattr(layer, name))
            record[name], record[f"{name}_scale"] = _address(matrix), _scale(matrix)
            record[f"{name}_bias"] = self._floats(getattr(layer, f"{name}_bias"))
        record["rope"] = 1

    def _floats(self, tensor: Tensor | None) -> int:
        if tensor is None:
            return 0
        self._kept.append(tensor.float().contiguous())
        return self._kept[-1].data_ptr()

    def _padded(self, matrix: Matrix) -> Matrix:
        """The matrix, or a copy whose rows are whole chunks."""
        columns = matrix.shape[1]
        if columns % CHUNK == 0:
            return matrix
        data = matrix.data if isinstance(matrix, QuantizedMatrix) else matrix
        self._kept.append(F.pad(data, (0, -columns % CHUNK)).contiguous())
        if isinstance(matrix, QuantizedMatrix):
            return QuantizedMatrix(matrix.format, columns, self._kept[-1], matrix.scales)
        return self._kept[-1]


def _marker(matrix: Matrix) -> np.ndarray:
    return FORMATS[_name(matrix)].marker


def _name(matrix: Matrix) -> str:
    """The name of the matrix' format."""
    if isinstance(matrix, QuantizedMatrix):
        return matrix.format
    return str(matrix.dtype).removeprefix("torch.")


def _address(matrix: Matrix | None) -> int:
    if isinstance(matrix, QuantizedMatrix):
        return matrix.data.data_ptr()
    return 0 if matrix is None else matrix.data_ptr()


def _scale(matrix: Matrix) -> int:
    """The address of the rows' scales; 0 if there are none."""
    scales = matrix.scales if isinstance(matrix, QuantizedMatrix) else None
    return 0 if scales is None else scales.data_ptr()


def _numpy(tensor: Tensor) -> np.ndarray:
    """The tensor's memory: float32, or bfloat16 as uint16."""
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


def _runs_of_equal_formats(
    layers: Sequence[LayerWeights],
) -> list[tuple[tuple[np.ndarray, ...], int, int]]:
    """Markers of the matrices' formats, and the layers `start:end` that have them."""
    formats = [tuple(_name(getattr(layer, name)) for name in MATRICES) for layer in layers]
    runs = []
    start = 0
    for kinds, group in groupby(formats):
        end = start + len(list(group))
        runs.append((tuple(FORMATS[kind].marker for kind in kinds), start, end))
        start = end
    return runs


def _parts(contexts: np.ndarray) -> np.ndarray:
    """Token, first position and end of what a thread attends to at a time: int64 `[P, 3]`."""
    counts = -(-contexts // PART)
    token = np.repeat(np.arange(len(contexts)), counts)
    start = (np.arange(len(token)) - np.repeat(np.cumsum(counts) - counts, counts)) * PART
    return np.stack([token, start, np.minimum(start + PART, contexts[token])], axis=1)


def _query_blocks(meta: AttentionMetadata, singles: int) -> np.ndarray:
    """`blocks` of `attend_prompts` for the sequences after the first `singles`."""
    blocks = []
    token = singles
    for sequence in range(singles, len(meta.query_lens)):
        count = meta.query_lens[sequence]
        first = meta.context_lens[sequence] - count
        for start in range(0, count, QUERY_BLOCK):
            size = min(QUERY_BLOCK, count - start)
            blocks.append((sequence, token + start, first + start, size))
        token += count
    return np.array(blocks, np.int64).reshape(-1, 4)
