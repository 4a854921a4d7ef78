"""Compiling a kernel once for a machine: numba's cache, in a folder of its own.

numba keeps what it compiled as long as the file of the function is unchanged, and looks neither at
the files that it calls nor at the processor's name. So the folder is named for all of these.

Invariant: code is only found again by the sources, the numba and the processor it was made for. A
folder that cannot be written costs a compilation at each start, and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import llvmlite.binding as llvm
import numba
import torch
from numba import njit

from mini_vllm.kernels.cpu.tiles import NATIVE_TILES

_LOG = logging.getLogger("mini_vllm")


@cache
def cache_folder() -> Path | None:
    """Where compiled kernels are kept; None if no folder can be written.

    `MINI_VLLM_KERNEL_CACHE` names another than the user's cache folder.
    """
    named = os.environ.get("MINI_VLLM_KERNEL_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(named) if named else base / "mini_vllm" / "kernels"
    folder /= _fingerprint()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        _LOG.warning(
            "mini_vllm: compiled kernels cannot be kept in %s (%s); each start compiles them. "
            "MINI_VLLM_KERNEL_CACHE names another folder.",
            folder,
            error.strerror,
        )
        return None


def _fingerprint() -> str:
    digest = hashlib.sha256(f"{numba.__version__} {llvm.get_host_cpu_name()}".encode())
    digest.update(llvm.get_host_cpu_features().flatten().encode())
    digest.update(str(NATIVE_TILES).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def entry(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` for a function called from Python: without the GIL, and kept once compiled."""

    def compile_with_cache(function: Callable[..., Any]) -> Any:
        folder = cache_folder()
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = "" if folder is None else str(folder)
        try:
            compiled = njit(nogil=True, cache=folder is not None, **options)(function)
        finally:
            numba.config.CACHE_DIR = before
        if folder is not None:
            _keep_apart(compiled)
        return compiled

    return compile_with_cache


def _keep_apart(compiled: Any) -> None:
    """Gives each file that a function's code is kept in a name of its own.

    numba counts them. Two processes that compile at once count alike, and then one would be given,
    for its types, what the other compiled for its own.
    """
    files = compiled._cache._cache_file
    counted = files._data_name
    files._data_name = lambda number: f"{uuid4().hex[:8]}.{counted(number)}"


def say_if_compiling(what: str) -> None:
    """Tells, the first time for this `what`, that a compilation is about to begin."""
    folder = cache_folder()
    if folder is None or not (folder / f"{what}.compiled").exists():
        _LOG.warning(
            "mini_vllm: compiling the %s kernels for this processor%s ...",
            what,
            "" if folder is None else "; once, about a minute",
        )


def note_compiled(what: str) -> None:
    """Remembers that everything for this `what` is compiled and kept."""
    folder = cache_folder()
    if folder is not None:
        (folder / f"{what}.compiled").touch()


class _Asked(threading.local):
    count = 0


_ASKED = _Asked()


def most_threads() -> int:
    """As many threads as torch was told to use, if numba has them."""
    return int(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))


def use_threads(count: int) -> None:
    """So many threads, at most `most_threads`, for the kernels that this thread calls."""
    if _ASKED.count != count:
        numba.set_num_threads(count)
        _ASKED.count = count
