"""A runner without an engine. Its `--model` says how it behaves: well, or with one fault."""

from __future__ import annotations

import os
import sys
import time

from runner import Options, Outcome, RunnerError, Tokens, serve


class FakeEngine:
    engine, version, vocab_size = "fake", "1", 1000

    def __init__(self, options: Options) -> None:
        self.behaviour = options.model
        self.settings = {"threads": options.threads, **options.settings}
        print("a library greets standard output")
        if self.behaviour == "does not load":
            raise RunnerError("no such\nmodel")

    def run(self, prompts: Tokens, output_tokens: int) -> Outcome:
        print("and goes on doing so")
        if self.behaviour == "dies":
            print("it hurts", file=sys.stderr, flush=True)
            os._exit(3)
        if self.behaviour == "fails":
            raise RunnerError("out of blocks")
        if self.behaviour == "too few":
            output_tokens = 1
        time.sleep(0.002)
        return Outcome(0.5, 0.1, [[sum(ids) % 1000] * output_tokens for ids in prompts])


if __name__ == "__main__":
    sys.exit(serve(FakeEngine))
