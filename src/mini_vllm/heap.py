"""What a start makes stays: hundreds of thousands of objects of torch, numba and the model.

Python's collector of cycles would look through them while they are made, a sixth of the time to the
first token, and again at each full collection, a tenth of a second while requests wait.

Source of the idea: vLLM v0.22.1 `vllm/utils/gc_utils.py`, `freeze_gc_heap`.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def making_what_stays() -> Iterator[None]:
    """No cycles are collected meanwhile; if modules were imported, what there is by then is never
    looked through. Changes nothing where the collector was off already, as within another of these.
    """
    modules, collecting = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            # Later starts import nothing; what was dropped before them is still to be collected.
            if len(sys.modules) > modules:
                gc.freeze()
            gc.enable()
