"""One running engine, as `compare.py` sees it: a process that answers workloads (`runner.py`).

Invariant: a peer whose turn it is not takes no processor time; `settle` waits until that is so.
Its process is gone when its `with` block ends, whatever happened in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psutil
from engines import Command

from mini_vllm.bench.workloads import Workload
from mini_vllm.errors import MiniVLLMError

LOAD_SECONDS, RUN_SECONDS, CLOSE_SECONDS = 900.0, 900.0, 20.0
"""After these an engine is given up."""
IDLE_SHARE, IDLE_WINDOW, SETTLE_SECONDS = 0.04, 0.5, 5.0
"""Less of a core than the first, over the second, is idle; it is waited for no longer than the
last. vLLM's processes look out for work for a second before they sleep."""


class PeerError(MiniVLLMError):
    """An engine did not start, died, or did not do what its workload asks for."""


class Peer:
    """A started runner, ready for workloads.

    Args:
        label: names it in messages.
        seed: of the workloads' token ids.

    Raises:
        PeerError: it does not get ready; with its own last words.
    """

    def __init__(self, label: str, command: Command, seed: int = 0) -> None:
        self.label = label
        self._seed = seed
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._started = time.perf_counter()
        self._process = subprocess.Popen(
            command.words,
            env=os.environ | command.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # so that Ctrl-C reaches us alone, and we end it
        )
        try:
            self.ready = self._read(LOAD_SECONDS)
        except BaseException:
            self.close()
            raise
        self.seconds_to_ready = time.perf_counter() - self._started

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seconds_since_start(self) -> float:
        return time.perf_counter() - self._started

    def run(self, workload: Workload, vocab_size: int, want_tokens: bool = False) -> dict[str, Any]:
        """The runner's answer to `workload` (`runner.Answer`).

        Raises:
            PeerError: it failed, or made another number of tokens than asked for.
        """
        request = {
            "name": workload.name,
            "prompts": workload.prompts(vocab_size, self._seed),
            "output_tokens": workload.output_tokens,
            "want_tokens": want_tokens,
        }
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise PeerError(f"{self.label} ended: {self._last_words()}") from None
        answer = self._read(RUN_SECONDS)
        if "error" in answer:
            raise PeerError(f"{self.label}: {workload.name} failed: {answer['error']}")
        if answer["output_tokens"] != workload.total_output_tokens:
            raise PeerError(
                f"{self.label}: {workload.name} asks for {workload.total_output_tokens} tokens "
                f"and {answer['output_tokens']} were made: it would not be comparable"
            )
        return answer

    def settle(self) -> float:
        """Waits until the process tree is idle; the share of a core that it takes then."""
        deadline = time.perf_counter() + SETTLE_SECONDS
        while True:
            before, began = self._cpu_seconds(), time.perf_counter()
            time.sleep(IDLE_WINDOW)
            share = max(0.0, self._cpu_seconds() - before) / (time.perf_counter() - began)
            if share < IDLE_SHARE or time.perf_counter() > deadline:
                return share

    def close(self) -> None:
        """Ends the runner and whatever it started."""
        family = _family(self._process.pid)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):  # it died with something unread
                    stream.close()
        _, alive = psutil.wait_procs(family, timeout=CLOSE_SECONDS)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        self._errors.close()

    def _cpu_seconds(self) -> float:
        total = 0.0
        for process in _family(self._process.pid):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system
        return total

    def _read(self, seconds: float) -> dict[str, Any]:
        """The runner's next line; it is killed if that takes longer than `seconds`."""
        assert self._process.stdout is not None
        timer = threading.Timer(seconds, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            late = not timer.is_alive()
            timer.cancel()
        if not line:
            reason = f"took more than {seconds:.0f} s" if late else f"ended: {self._last_words()}"
            raise PeerError(f"{self.label} {reason}")
        document: dict[str, Any] = json.loads(line)
        return document

    def _last_words(self) -> str:
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        self._errors.seek(0)
        lines: Sequence[str] = [line.strip() for line in self._errors if line.strip()]
        return lines[-1][:300] if lines else f"exit code {self._process.returncode}"


def _family(pid: int) -> list[psutil.Process]:
    """The process and its living descendants; none once it is gone."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
