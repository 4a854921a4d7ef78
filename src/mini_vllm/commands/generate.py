"""`mini-vllm generate`: complete prompts from arguments, a file or standard input."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mini_vllm.commands.engine_flags import add_engine_flags, engine_config
from mini_vllm.commands.sampling_flags import add_sampling_flags, sampling_params
from mini_vllm.commands.terminal import harmless
from mini_vllm.console import EXIT_OK, emit_json, say
from mini_vllm.core.sampling_params import RequestOutputKind, SamplingParams
from mini_vllm.engine.config import EngineConfig
from mini_vllm.engine.outputs import RequestOutput
from mini_vllm.engine.stats import SpecDecodingStats
from mini_vllm.errors import InvalidInputError

if TYPE_CHECKING:
    from mini_vllm.engine.engine import Prompt


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="text to complete")
    parser.add_argument(
        "--file",
        metavar="FILE",
        help="one prompt a line; in a .jsonl file, objects with prompt or prompt_token_ids; "
        "'-' is standard input, which is also read if there is no prompt at all",
    )
    parser.add_argument("--n", type=int, default=1, help="completions of each prompt")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_sampling_flags(parser, max_tokens=64)
    add_engine_flags(parser)


def run(args: argparse.Namespace) -> int:
    params = sampling_params(args, n=args.n)
    config = engine_config(args)
    prompts = _prompts(args)
    if len(prompts) == 1 and args.n == 1 and not args.json and sys.stdout.isatty():
        asyncio.run(_stream(config, prompts[0], params))
        return EXIT_OK

    from mini_vllm import LLM

    llm, drafts = LLM(**asdict(config)), SpecDecodingStats()
    llm.add_observer(lambda step: drafts.add(step.spec_decoding) if step.spec_decoding else None)
    outputs = llm.generate(prompts, params)
    if args.json:
        results = [_as_json(output) for output in outputs]
        document: dict[str, Any] = {"model": config.model, "results": results}
        if config.speculation is not None:
            document["spec_decoding"] = asdict(drafts)
        emit_json(document)
    else:
        _print_texts(prompts, outputs)
        if config.speculation is not None:
            say(drafts.in_words())
    return EXIT_OK


def _prompts(args: argparse.Namespace) -> list[Prompt]:
    prompts: list[Prompt] = list(args.prompts)
    if args.file is not None or not prompts:
        prompts += _read(args.file or "-")
    if not prompts:
        raise InvalidInputError("there is no prompt: give one as an argument, or --file", "prompt")
    return prompts


def _read(name: str) -> list[Prompt]:
    """The prompts of a file, whose empty lines are passed over."""
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        text = data.decode()
    except OSError as error:
        raise InvalidInputError(f"cannot read {name}: {error.strerror}", "file") from None
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{name} is not UTF-8 (byte {error.start})", "file") from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not name.endswith(".jsonl"):
        return [line.removesuffix("\r") for _, line in lines]
    return [_from_json(f"{name}, line {number}", line) for number, line in lines]


def _from_json(where: str, line: str) -> Prompt:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{where}: not JSON: {error}", "file") from None
    if isinstance(found, dict):
        given, text, ids = found.keys(), found.get("prompt"), found.get("prompt_token_ids")
        if given == {"prompt"} and isinstance(text, str):
            return {"prompt": text}
        if given == {"prompt_token_ids"} and isinstance(ids, list):
            return {"prompt_token_ids": ids}
    raise InvalidInputError(
        f'{where}: must be {{"prompt": "text"}} or {{"prompt_token_ids": [1, 2]}}', "file"
    )


async def _stream(config: EngineConfig, prompt: Prompt, params: SamplingParams) -> None:
    from mini_vllm import AsyncEngine

    engine = AsyncEngine(config)
    await engine.start()
    try:
        delta = params.clone(output_kind=RequestOutputKind.DELTA)
        print(harmless(_text_of(prompt)), end="", flush=True)
        async for output in engine.generate(prompt, delta):
            print(harmless(output.outputs[0].text), end="", flush=True)
        print()
    finally:
        await engine.shutdown(drain=False)


def _print_texts(prompts: list[Prompt], outputs: Iterable[RequestOutput]) -> None:
    """The bare text of a single completion, and numbered ones of several."""
    texts = [(i, part) for i, output in enumerate(outputs) for part in output.outputs]
    clean = harmless if sys.stdout.isatty() else str
    if len(texts) == 1:
        print(clean(texts[0][1].text))
        return
    for index, part in texts:
        asked = json.dumps(_text_of(prompts[index]) or "(token ids)", ensure_ascii=False)
        print(f"[{index}.{part.index}] {asked}\n{clean(part.text)}\n")


def _text_of(prompt: Prompt) -> str:
    """A prompt's text, empty if it is token ids."""
    return prompt if isinstance(prompt, str) else str(prompt.get("prompt", ""))


def _as_json(output: RequestOutput) -> dict[str, Any]:
    return {
        "prompt": output.prompt,
        "prompt_token_ids": output.prompt_token_ids,
        "num_cached_tokens": output.num_cached_tokens,
        "outputs": [
            {
                "index": part.index,
                "text": part.text,
                "token_ids": part.token_ids,
                "finish_reason": part.finish_reason,
                "stop_reason": part.stop_reason,
            }
            for part in output.outputs
        ],
    }
