"""Reading many Python files, over several processes where that pays.

Invariant: what a file says depends on nothing but its bytes and its path, so the order in which
files come back, and how many processes read them, changes nothing but the time.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from trackrecord.errors import UpstreamError
from trackrecord.upstream.features import telling_names
from trackrecord.upstream.gpu_signs import find_gpu_signs, is_neutral
from trackrecord.upstream.index.reader import Definition, SourceFacts, read_source
from trackrecord.upstream.index.scan import is_test_module, module_of

_BATCH_BYTES = 1_000_000
_WORTH_A_PROCESS_BYTES = 4_000_000
_MOST_PROCESSES = 8

Sign = tuple[int, str]
"""The line of something that asks for an accelerator, and what it says; (0, "") for none."""


class FileFacts(NamedTuple):
    """What one file says, with the signs of an accelerator in each of its tests and around them."""

    path: str
    module: str
    facts: SourceFacts
    file_sign: Sign
    test_signs: dict[int, Sign]
    """By index of the test's definition."""


def read_files(
    root: Path, sizes: dict[str, int], roots: frozenset[str], processes: int | None = None
) -> Iterator[list[FileFacts]]:
    """Reads the Python files `sizes` (path to bytes), in batches and in no particular order.

    Raises:
        UpstreamError: a process died, or a file disappeared.
    """
    if processes is None:
        enough = max(1, sum(sizes.values()) // _WORTH_A_PROCESS_BYTES)
        processes = min(_processors(), enough, _MOST_PROCESSES)
    batches = list(_batches(sizes))
    if processes < 2:
        with _without_collector():
            for batch in batches:
                yield read_batch(str(root), batch, roots)
        return
    # Not forked: the caller may have threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=gc.disable) as pool:
        waiting = {pool.submit(read_batch, str(root), batch, roots): batch for batch in batches}
        try:
            for done in as_completed(waiting):
                yield done.result()
        except BrokenProcessPool:
            raise UpstreamError(
                "a process that was reading the tree died (out of memory?): run `trackrecord "
                "upstream index --processes 1`"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read_batch(root: str, paths: Sequence[str], roots: frozenset[str]) -> list[FileFacts]:
    """Reads `paths` below `root`, here and now."""
    return [_read_file(root, path, roots) for path in paths]


def _read_file(root: str, path: str, roots: frozenset[str]) -> FileFacts:
    module, is_package = module_of(path)
    try:
        with open(os.path.join(root, path), "rb") as file:
            source = file.read()
    except OSError as error:
        problem = SourceFacts(problem=f"cannot be read: {error.strerror}")
        return FileFacts(path, module, problem, (0, ""), {})
    facts = read_source(source, module, is_package, roots, telling_names())
    if facts.problem or not is_test_module(path):
        return FileFacts(path, module, facts, (0, ""), {})
    signs = find_gpu_signs(source.decode("utf-8-sig", errors="replace"))
    return FileFacts(path, module, facts, *_place_signs(signs, facts.definitions))


def _place_signs(
    signs: Sequence[Sign], definitions: Sequence[Definition]
) -> tuple[Sign, dict[int, Sign]]:
    """The first sign outside of every test, and the first one in each test; telling ones first."""
    tests = [
        (definition.line, definition.end_line, index)
        for index, definition in enumerate(definitions)
        if definition.qualname.rpartition(".")[2].startswith("test")
        and definition.kind in ("function", "method")
    ]
    around: Sign = (0, "")
    inside: dict[int, Sign] = {}
    for sign in sorted(signs, key=lambda sign: is_neutral(sign[1])):
        holders = [index for first, last, index in tests if first <= sign[0] <= last]
        if holders:
            inside.setdefault(holders[-1], sign)
        elif not around[0]:
            around = sign
    return around, inside


def _batches(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Batches of about a megabyte, the largest files first, so that none of them comes last."""
    batch: list[str] = []
    held = 0
    for path in sorted(sizes, key=lambda path: (-sizes[path], path)):
        batch.append(path)
        held += sizes[path]
        if held >= _BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _without_collector() -> Iterator[None]:
    """Syntax trees hold no cycles, and the collector would look at each of their nodes in vain."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
