"""The few tensor operations a decoder is made of: the one place where fast kernels go.

Invariant: implementations differ in speed and rounding only. `Kernels` is the contract of those
that work operation by operation, `reference` the one that defines them and `cuda` the one for GPUs;
`kernels.cpu` runs whole layers at a time, and `model.cpu_decoder` is how the engine comes to it.

Shapes use T tokens in the flat batch of a step, H query heads, K key/value heads, D the head size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mini_vllm.errors import InvalidInputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mini_vllm.kernels.metadata import AttentionMetadata
    from mini_vllm.kernels.quantized import Matrix

DEVICES = ("auto", "cpu", "cuda")


class Kernels(Protocol):
    """What a module of kernels offers. Nothing here reads a tensor back to Python."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """`x / rms(x) * weight` over the last dimension (Zhang and Sennrich, 2019)."""

    def add_rms_norm(
        self, x: Tensor, residual: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """The next residual `x + residual`, after its norm: `(normed, residual)`.

        `residual` may be overwritten: the caller goes on with the one returned.
        """

    def linear(self, x: Tensor, weight: Matrix, bias: Tensor | None = None) -> Tensor:
        """`x [T, in] @ weight [out, in].T + bias [out]`, in the dtype of `x`."""

    def silu_and_mul(self, gate_up: Tensor) -> Tensor:
        """SwiGLU (Shazeer, 2020): `silu(gate) * up` of `gate_up [T, 2 * I]`; `[T, I]`."""

    def rope_and_write_kv(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        kv_cache: tuple[Tensor, Tensor],
        slot_mapping: Tensor,
    ) -> Tensor:
        """Rotates `q [T, H, D]`, which it returns, and `k [T, K, D]`, which it stores with `v`.

        `rope` is float32 cosines and sines `[T, D / 2]`, or None for no rotation. The halves of a
        head are the pairs (GPT-NeoX's layout, as in Hugging Face files). Slots of the cache are
        `block_id * block_size + offset`.
        """

    def paged_attention(
        self,
        q: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        meta: AttentionMetadata,
        scale: float,
    ) -> Tensor:
        """Causal attention of `q [T, H, D]` over each sequence's cached tokens; `[T, H, D]`.

        Caches are `[num_blocks, block_size, K, D]`, already hold this step's tokens, and must be
        finite everywhere (start from zeros): what is masked is multiplied by zero, not skipped.
        """


def get_kernels(device: torch.device, dtype: torch.dtype) -> Kernels:
    """The implementation, operation by operation, that computes `dtype` on `device`.

    Raises:
        InvalidInputError: a GPU, and no Triton.
    """
    if device.type != "cuda":
        from mini_vllm.kernels import reference

        return reference
    try:
        from mini_vllm.kernels import cuda
    except ImportError as error:
        raise InvalidInputError(
            f"the kernels for a GPU need triton, which cannot be imported ({error}); "
            "install it, or use kernels 'reference'",
            "kernels",
        ) from None
    return cuda


def choose_device(name: str) -> torch.device:
    """The device that "cpu", "cuda" or "auto" stands for; "auto" is a GPU where there is one.

    Raises:
        InvalidInputError: another name, or "cuda" without a GPU that torch can use.
    """
    import torch

    if name not in DEVICES:
        raise InvalidInputError(
            f"device must be one of {', '.join(DEVICES)}, got {name!r}", "device"
        )
    has_gpu = name != "cpu" and torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise InvalidInputError(
            f"device 'cuda' needs a GPU, and torch {torch.__version__} finds none; use device 'cpu'"
            ", or torch's CUDA build and a driver",
            "device",
        )
    return torch.device("cuda" if has_gpu else "cpu")


def multiplies_bf16() -> bool:
    """Whether this CPU has bfloat16 matrix units; without them bfloat16 products are emulated."""
    import torch

    has = torch.cpu.get_capabilities()
    return any(has.get(unit, False) for unit in ("avx512_bf16", "amx_bf16", "bf16"))
