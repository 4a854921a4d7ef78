"""The decoder on a CPU: the same function as `Decoder`, computed by `mini_vllm.kernels.cpu`.

A step runs through all layers in one compiled call, whatever mixture of prompts and single tokens
it is. Matrices are rearranged into panels, in as many bytes as they had.

Invariant: a weight exists once; only norms and biases are copied, to float32.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from mini_vllm.kernels.cpu import layers as kernels
from mini_vllm.kernels.cpu.attention_work import attention_work
from mini_vllm.kernels.cpu.buffers import Buffers
from mini_vllm.kernels.cpu.compiled import (
    most_threads,
    note_compiled,
    say_if_compiling,
    use_threads,
)
from mini_vllm.kernels.cpu.formats import CHUNK, FORMATS, whole_chunks
from mini_vllm.kernels.cpu.head import head_logits
from mini_vllm.kernels.cpu.integers import INTEGER_ROWS, panels_of_integers
from mini_vllm.kernels.cpu.panels import PANEL, panels
from mini_vllm.kernels.cpu.prompt_attention import room_for_prompts
from mini_vllm.kernels.metadata import Array, AttentionMetadata
from mini_vllm.kernels.quantized import Matrix, QuantizedMatrix
from mini_vllm.model.config import ModelConfig
from mini_vllm.model.decoder import Decoder, DecoderWeights, KVCaches, LayerWeights

MATRICES = ("qkv", "o", "gate_up", "down")

NO_TOKENS, NO_HIDDEN = np.empty(0, np.int64), np.empty((0, 0), np.float32)


class CPUDecoder(Decoder):
    """A model ready to run; see `Decoder` for what it computes.

    Args:
        take_over: whether the weights may be rearranged where they are: they are then of no use
            to anybody else. Otherwise they are copied.
    """

    def __init__(
        self, config: ModelConfig, weights: DecoderWeights, take_over: bool = False
    ) -> None:
        super().__init__(config, weights)
        self._take_over = take_over
        self._kept: list[Tensor] = []
        self._dtype = weights.final_norm.dtype
        self._numbers = FORMATS[_name(weights.final_norm)].marker
        head = embedding = self._arranged(weights.lm_head)
        if weights.embedding is not weights.lm_head:
            embedding = self._arranged(weights.embedding)
        self._layers = np.zeros(config.num_hidden_layers, kernels.LAYER)
        for record, layer in zip(self._layers, weights.layers, strict=True):
            self._describe(record, layer)
        for i in config.nope_layers:
            self._layers["rope"][i] = 0
        self._runs: list[tuple[np.ndarray, ...]] = []
        self._names = {_name(head), _name(embedding)}
        formats = [[_name(getattr(layer, name)) for name in MATRICES] for layer in weights.layers]
        start = 0
        for names, alike in groupby(formats):
            end = start + len(list(alike))
            markers = [FORMATS[name].marker for name in names]
            self._runs.append((*markers, self._numbers, self._layers[start:end]))
            self._names.update(names)
            start = end
        self._head = kernels.Head(*_described(head), config.vocab_size)
        self._embedding = _described(embedding)
        self._last_norm = self._floats(weights.final_norm)
        self._rope = np.empty((0, 0), np.float32), np.empty((0, 0), np.float32)
        self._caches: KVCaches | None = None
        group = config.num_attention_heads // config.num_key_value_heads
        self._threads = most_threads()
        self._sizes = kernels.Sizes(
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            0,
            config.rms_norm_eps,
        )
        self._buffers = Buffers(*self._sizes[:5], self._threads)
        self._prompt_room = room_for_prompts(self._threads, group, config.head_dim)
        if take_over:
            self.weights = DecoderWeights(
                weights.embedding, (), weights.final_norm, weights.lm_head, weights.rope_factors
            )

    def compile(self) -> None:
        """Compiles what a step may need, or loads it from the cache; says so where it takes long.

        A few tokens are run through all paths, over a cache of their own.
        """
        config = self.config
        names = [*sorted(self._names), _name(self.weights.final_norm)]
        what = " + ".join(dict.fromkeys(names))
        say_if_compiling(what)
        shape = (2, 16, config.num_key_value_heads, config.head_dim)
        caches = [
            (torch.zeros(shape, dtype=self._dtype), torch.zeros(shape, dtype=self._dtype))
            for _ in range(config.num_hidden_layers)
        ]
        meta = AttentionMetadata(
            query_start_loc=torch.tensor([0, 1, 4]),
            seq_lens=torch.tensor([1, 3]),
            block_table=torch.tensor([[1], [1]], dtype=torch.int32),
            slot_mapping=torch.tensor([16, 16, 17, 18]),
            num_decodes=1,
            query_lens=[1, 3],
            context_lens=[1, 3],
        )
        ids, positions = torch.zeros(4, dtype=torch.int64), torch.tensor([0, 0, 1, 2])
        hidden = self.forward(ids, positions, caches, meta)
        self.logits(hidden[:1])
        self._caches = None
        note_compiled(what)

    def forward(
        self,
        input_ids: Array,
        positions: Array,
        kv_caches: KVCaches,
        meta: AttentionMetadata,
        wanted: np.ndarray | None = None,
    ) -> Tensor:
        """As `Decoder.forward`, in float32."""
        count = len(input_ids) if wanted is None else len(wanted)
        hidden = torch.empty(count, self.config.hidden_size)
        self._step(input_ids, positions, kv_caches, meta, wanted, hidden.numpy(), NO_TOKENS)
        return hidden

    def next_tokens(
        self,
        input_ids: Array,
        positions: Array,
        kv_caches: KVCaches,
        meta: AttentionMetadata,
        wanted: np.ndarray | None = None,
    ) -> np.ndarray:
        chosen = np.empty(len(input_ids) if wanted is None else len(wanted), np.int64)
        self._step(input_ids, positions, kv_caches, meta, wanted, NO_HIDDEN, chosen)
        return chosen

    def _step(
        self,
        input_ids: Array,
        positions: Array,
        kv_caches: KVCaches,
        meta: AttentionMetadata,
        wanted: np.ndarray | None,
        hidden: np.ndarray,
        chosen: np.ndarray,
    ) -> None:
        """Hidden states of the `wanted`, or the likeliest tokens after them."""
        if kv_caches is not self._caches:
            self._caches = kv_caches
            for record, (k_cache, v_cache) in zip(self._layers, kv_caches, strict=True):
                record["k_cache"], record["v_cache"] = k_cache.data_ptr(), v_cache.data_ptr()
            self._sizes = self._sizes._replace(block_size=kv_caches[0][0].shape[1])
        use_threads(self._threads)
        sizes, token_ids, places = self._sizes, np.asarray(input_ids), np.asarray(positions)
        query_start, seq_lens, tables, slots = meta.on_host()
        sequences, parts, shared, sharers, blocks = attention_work(
            query_start, seq_lens, tables, sizes.block_size, sizes.kv_heads, self._threads
        )
        kept, kept_blocks = NO_TOKENS, blocks
        if wanted is not None and len(wanted) < len(token_ids):
            kept, first = wanted, blocks[:, 1]
            before, after = np.searchsorted(kept, (first, first + blocks[:, 3]))
            kept_blocks = blocks[before < after]
        rotations = self._rotations(max(meta.context_lens))
        buffers = self._buffers.step(len(token_ids), len(parts))
        last = len(self._runs) - 1
        for number, run in enumerate(self._runs):
            ends = (hidden, kept, chosen) if number == last else (NO_HIDDEN, NO_TOKENS, NO_TOKENS)
            run_hidden, run_kept, run_chosen = ends
            kernels.run_layers(
                self._buffers.hall, *run, sizes, *self._embedding,
                NO_TOKENS if number else token_ids, slots, places, *rotations, tables, sequences,
                parts, shared, sharers, blocks, run_kept, kept_blocks, buffers, self._prompt_room,
                self._last_norm, run_hidden, self._head, run_chosen,
            )  # fmt: skip

    def _rotations(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and sines of RoPE `[positions, head_dim / 2]`; they grow with contexts."""
        if length > len(self._rope[0]):
            length = min(max(1024, 2 * length), max(length, self.config.max_position_embeddings))
            angles = torch.arange(length)[:, None].float() * self._frequencies
            self._rope = angles.cos().numpy(), angles.sin().numpy()
        return self._rope

    def logits(self, hidden: Tensor) -> Tensor:
        packed = self._buffers.packed(len(hidden))
        out = torch.empty(len(hidden), self.config.vocab_size)
        head_logits(
            self._buffers.hall, self._threads, *self._head, hidden.numpy(), packed, out.numpy()
        )
        return out

    def _describe(self, record: np.void, layer: LayerWeights) -> None:
        """Fills in a layer's addresses."""
        for name in ("input_norm", "q_norm", "k_norm", "post_norm"):
            record[name] = self._floats(getattr(layer, name))
        for name in MATRICES:
            matrix = self._arranged(getattr(layer, name))
            record[name], record[f"{name}_scale"] = _address(matrix), _scale(matrix)
            record[f"{name}_bias"] = self._floats(getattr(layer, f"{name}_bias"))
        record["rope"] = 1

    def _floats(self, tensor: Tensor | None) -> int:
        if tensor is None:
            return 0
        self._kept.append(tensor.float().contiguous())
        return self._kept[-1].data_ptr()

    def _arranged(self, matrix: Matrix) -> Matrix:
        """The matrix as the kernels read it: in panels, of rows of whole chunks."""
        if isinstance(matrix, QuantizedMatrix):
            return self._integers(matrix)
        rows, columns = matrix.shape
        matrix = matrix.contiguous()
        in_place = self._take_over and rows % PANEL == 0 and columns % CHUNK == 0
        shape = _whole(rows, PANEL), whole_chunks(columns)
        out = matrix if in_place else torch.zeros(shape, dtype=self._dtype)
        panels(self._numbers, matrix.data_ptr(), rows, columns, out.data_ptr())
        self._kept.append(out)
        return out

    def _integers(self, matrix: QuantizedMatrix) -> QuantizedMatrix:
        data, (rows, columns) = matrix.data, matrix.shape
        if columns % CHUNK:
            data = torch.nn.functional.pad(data, (0, -columns % CHUNK))
        in_place = self._take_over and rows % INTEGER_ROWS == 0
        out = data if in_place else data.new_zeros(_whole(rows, INTEGER_ROWS), data.shape[1])
        marker = FORMATS[matrix.format].marker
        panels_of_integers(marker, data.data_ptr(), rows, columns, out.data_ptr())
        self._kept += [out, *([] if matrix.scales is None else [matrix.scales])]
        return QuantizedMatrix(matrix.format, columns, out, matrix.scales)


def _whole(rows: int, panel: int) -> int:
    """`rows`, padded to whole panels."""
    return -(-rows // panel) * panel


def _name(matrix: Matrix) -> str:
    """The name of the matrix' format."""
    if isinstance(matrix, QuantizedMatrix):
        return matrix.format
    return str(matrix.dtype).removeprefix("torch.")


def _described(matrix: Matrix) -> tuple[np.ndarray, int, int]:
    """A matrix as kernels take it: the marker of its format, its address, and its scales'."""
    return FORMATS[_name(matrix)].marker, _address(matrix), _scale(matrix)


def _address(matrix: Matrix) -> int:
    return matrix.data.data_ptr()


def _scale(matrix: Matrix) -> int:
    """The address of the rows' scales; 0 if there are none."""
    scales = matrix.scales if isinstance(matrix, QuantizedMatrix) else None
    return 0 if scales is None else scales.data_ptr()
