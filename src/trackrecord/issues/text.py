"""What a report says beyond its words: errors, frames, names of code, versions, hardware.

`extract` reads a title, a body or a comment as GitHub has it (Markdown, issue forms, pasted logs)
and never fails: text from outside may be anything. At most `MAX_CHARACTERS` of it are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from trackrecord.issues.environment import Hardware, environment_ranges, hardware, versions
from trackrecord.issues.markdown import (
    MAX_CHARACTERS,
    Block,
    blocks,
    prose,
    quoted_ranges,
    sections,
    strip_quotes,
)
from trackrecord.issues.people import is_bot, mentions
from trackrecord.issues.references import Reference, references
from trackrecord.issues.traces import (
    ErrorMessage,
    Frame,
    error_messages,
    frames,
    mask,
    package_path,
    without_escapes,
)

__all__ = [
    "MAX_CHARACTERS",
    "CodeBlock",
    "ErrorMessage",
    "Frame",
    "PathRef",
    "Reading",
    "Reference",
    "Signals",
    "blocks",
    "extract",
    "is_bot",
    "mask",
    "mentions",
    "package_path",
    "prose",
    "quoted_ranges",
    "reading",
    "references",
    "sections",
    "strip_quotes",
]

_Item = TypeVar("_Item")

MAX_NAMES = 300
"""Symbols, options, paths or models kept of one text."""


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """Text between fences.

    Attributes:
        kind: "environment" (`collect_env`), "log" (a trace or log lines), "shell" or "code".
        line: line of the whole text it begins on, from 1.
    """

    lang: str
    text: str
    kind: str
    line: int
    quoted: bool


@dataclass(frozen=True, slots=True)
class PathRef:
    """A source file that the text names, with the line if it names one."""

    path: str
    line: int | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text says, without where and on what: the part of `Signals` that others can share.

    Attributes:
        words: the author's prose and code, without logs, forms' check boxes and `collect_env`.
    """

    error_messages: tuple[ErrorMessage, ...]
    frames: tuple[Frame, ...]
    symbols: tuple[str, ...]
    options: tuple[str, ...]
    models: tuple[str, ...]
    words: str


@dataclass(frozen=True, slots=True)
class Signals:
    """Everything `extract` finds, each kind in order of appearance and without repetitions.

    Attributes:
        symbols: names of code: in backticks, dotted, snake_case, CamelCase or called; `vllm.x.y`,
            `get_new_blocks`, `BlockPool`, `VLLM_USE_V1`.
        options: command-line options, `--enable-prefix-caching`.
        models: names on a model hub, `Qwen/Qwen3-0.6B`.
        versions: package to versions, the most trustworthy first.
        quoted_ranges: first and last line of each quotation, from 1, inclusive.
    """

    error_messages: tuple[ErrorMessage, ...]
    frames: tuple[Frame, ...]
    symbols: tuple[str, ...]
    options: tuple[str, ...]
    paths: tuple[PathRef, ...]
    models: tuple[str, ...]
    code_blocks: tuple[CodeBlock, ...]
    versions: dict[str, tuple[str, ...]]
    hardware: Hardware
    quoted_ranges: tuple[tuple[int, int], ...]


_BACKTICKED = re.compile(r"`([^`\n]{2,160})`")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*(?:\(\))?")
_WHOLE_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*$")
_CAMEL = re.compile(r"[A-Z]+[a-z0-9]+[A-Z]|[a-z0-9]+[A-Z]")
_OPTION = re.compile(r"(?<![\w-])--[A-Za-z][\w.-]{1,60}(?<![.-])")
_PATH = re.compile(
    r"(?<![\w/.:@-])((?:[\w.-]{1,80}/){1,12}[\w.-]{1,80}\.(?:py|pyi|cu|cuh|cpp|cc|h|hpp|rs|md|ya?ml|toml|json|sh|txt))"
    r"(?![\w/])(?:[:#]L?(\d{1,6})(?!\w))?"
)
_FILE = re.compile(r"(?<![\w/.:@-])([a-z_]\w{2,60}\.(?:py|cu|cuh|cpp))(?::(\d{1,6}))?(?![\w/])")
_BLOB = re.compile(
    r"github\.com/[\w.-]+/[\w.-]+/(?:blob|tree)/[\w.-]{1,100}/([\w./-]{1,300})(?:#L(\d{1,6}))?"
)
_MODEL = re.compile(
    r"(?:huggingface\.co/|(?<![\w./:@-]))([A-Za-z][\w.-]{1,50}/[A-Za-z][\w.]{0,60}(?:-[\w.]{1,60}){1,12})(?![\w/])"
)
_ADDRESS = re.compile(r"https?://[^\s)>\]]{1,500}")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,100}>")
_LOG_LINE = re.compile(
    r'File "[^"\n]{1,400}", line \d|Traceback \(most recent call last\)'
    r"|^[^\n]{0,60}\b(?:INFO|WARNING|ERROR|DEBUG|CRITICAL) \d\d-\d\d \d\d:\d\d"
    r"|^\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d"
    r"|^[^\n]{0,40}\b(?:INFO|ERROR|WARNING):? ",
    re.MULTILINE,
)
_SHELL = frozenset({"sh", "bash", "shell", "console", "zsh", "cmd", "powershell"})
_COMMAND_LINE = re.compile(
    r"\s*(?:\$ |(?:[A-Z_]+=\S+ )*(?:vllm|python3?|docker|pip|curl|torchrun|uv|ray) )"
)
_CHECK_BOX = re.compile(r"^\s*[-*] \[[ xX]\][^\n]*", re.MULTILINE)
_FILE_ENDINGS = frozenset({"py", "md", "so", "json", "yaml", "yml", "txt", "sh", "cu", "html"})
# fmt: off
_PLAIN_WORDS = frozenset({
    "GitHub", "PyTorch", "ChatGPT", "OpenAI", "HuggingFace", "DeepSeek", "JavaScript",
    "TypeScript", "YouTube", "LinkedIn", "README", "TODO", "LoRA", "QLoRA", "BugFix", "YaRN",
    "MiB", "GiB", "KiB", "AutoGPTQ", "AutoAWQ", "MiniMax", "ChatGLM", "vLLM", "vLLMs", "VLLM",
    "iPhone", "macOS", "PyPI", "GPUs", "CPUs", "LLMs", "RFCs", "PRs", "APIs", "TPUs", "MoE",
    "e.g", "i.e", "etc.", "and/or",
})
# fmt: on


def extract(text: str) -> Signals:
    """Reads `text`; see `Signals`."""
    text, reported, said, code = _parts(text)
    environment = "\n".join(text[start:end] for start, end in environment_ranges(text))
    return Signals(
        error_messages=error_messages(reported),
        frames=frames(reported),
        symbols=_first(_symbols(said)),
        options=_first(m[0] for m in _OPTION.finditer(reported)),
        paths=_first(_paths(said)),
        models=_first(_models(reported)),
        code_blocks=code,
        versions=versions(text),
        hardware=hardware(f"{environment}\n{said}\n{_commands(code)}", reported),
        quoted_ranges=quoted_ranges(text),
    )


def reading(text: str) -> Reading:
    """Reads `text` for comparison with others; the cheaper part of `extract`."""
    _, reported, said, code = _parts(text)
    return Reading(
        error_messages=error_messages(reported),
        frames=frames(reported),
        symbols=_first(_symbols(said)),
        options=_first(m[0] for m in _OPTION.finditer(reported)),
        models=_first(_models(reported)),
        words=f"{_ADDRESS.sub(' ', _CHECK_BOX.sub('', said))}\n{_commands(code)}",
    )


def _parts(text: str) -> tuple[str, str, str, tuple[CodeBlock, ...]]:
    """The whole text, the same without `collect_env` output, the author's prose, and all code."""
    text = without_escapes(text[:MAX_CHARACTERS])
    parts = blocks(text)
    said = "\n".join(_own_words(part) for part in parts if part.kind == "prose" and not part.quoted)
    return text, _cut(text), _cut(said), tuple(_code_block(p) for p in parts if p.kind == "code")


def _first(found: Iterable[_Item]) -> tuple[_Item, ...]:
    return tuple(islice(dict.fromkeys(found), MAX_NAMES))


def _cut(text: str) -> str:
    """`text` without its `collect_env` output, whose names are those of packages and CPU flags."""
    ranges = environment_ranges(text)
    if not ranges:
        return text
    kept, at = [], 0
    for start, end in ranges:
        kept.append(text[at:start])
        at = end
    return "".join((*kept, text[at:]))


def _code_block(block: Block) -> CodeBlock:
    if environment_ranges(block.text):
        kind = "environment"
    elif _LOG_LINE.search(block.text):
        kind = "log"
    elif block.lang in _SHELL or _COMMAND_LINE.match(block.text):
        kind = "shell"
    else:
        kind = "code"
    return CodeBlock(block.lang, block.text, kind, block.line, block.quoted)


def _commands(code: tuple[CodeBlock, ...]) -> str:
    return "\n".join(b.text[:20_000] for b in code if b.kind in ("shell", "code") and not b.quoted)


def _own_words(block: Block) -> str:
    """Prose without tags; log lines pasted outside a fence are no prose."""
    text = _TAG.sub(" ", block.text) if "<" in block.text else block.text
    if not _LOG_LINE.search(text):
        return text
    return "\n".join(line for line in text.split("\n") if not _LOG_LINE.search(line))


def _symbols(text: str) -> Iterator[str]:
    text = _ADDRESS.sub(" ", text)
    for quoted in _BACKTICKED.finditer(text):
        inner = quoted[1].strip().removesuffix("()")
        if _WHOLE_NAME.match(inner):
            yield inner
        else:
            yield from _names_of_code(inner)
    yield from _names_of_code(_BACKTICKED.sub(" ", text))


def _names_of_code(text: str) -> Iterator[str]:
    """Words that only code is written in: `a_b`, `a.b.c`, `aB`, `a()`."""
    for found in _NAME.finditer(text):
        if found[0].isalpha() and found[0][1:].islower():
            continue  # a plain word, as most are
        before, after = text[max(0, found.start() - 1) : found.start()], text[found.end() :][:1]
        if (before and (before in "/@-+." or before.isdigit())) or after == "/":
            continue
        name = found[0].removesuffix("()")
        called = name != found[0]
        inner = name.strip("_")
        if name in _PLAIN_WORDS or len(inner) < 3 or _FILE.match(name):
            continue
        if called or "_" in inner or "." in inner or _CAMEL.match(inner):
            yield name


def _paths(text: str) -> Iterator[PathRef]:
    for found in _BLOB.finditer(text):
        yield PathRef(found[1].rstrip("./"), int(found[2]) if found[2] else None)
    text = _ADDRESS.sub(" ", text)
    for pattern in (_PATH, _FILE):
        for found in pattern.finditer(text):
            yield PathRef(package_path(found[1]), int(found[2]) if found[2] else None)


def _models(text: str) -> Iterator[str]:
    for found in _MODEL.finditer(text):
        name = found[1].rstrip(".")
        if name.rpartition(".")[2] not in _FILE_ENDINGS and not name.startswith("vllm/"):
            yield name
