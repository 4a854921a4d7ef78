"""Stack frames and error messages in what people paste, reduced to what two reports can share.

Pasted logs differ in everything that does not matter: where the package is installed, process ids,
times, addresses, sizes. A frame keeps the path inside its package; a message is also kept `masked`,
with numbers, addresses, ids and paths replaced, so that equal causes give equal text.

Patterns are searched only where a fixed word stands, look at a bounded stretch of one line, and
repeat nothing inside a repetition that could match the same characters: time is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

MAX_FRAMES, MAX_ERRORS, MAX_EXAMINED = 400, 100, 2000
"""What is kept of one text, and how many exceptions are looked at; the rest repeats them."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a stack trace.

    Attributes:
        path: inside the package it was installed from (`vllm/v1/engine/core.py`), a compiled file
            (`csrc/x.cu`) or a library (`libtorch.so`).
        line: None where the trace gives none.
        function: "" where the trace gives none.
    """

    path: str
    line: int | None
    function: str


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """One error as reported.

    Attributes:
        type: `ValueError`, `torch.OutOfMemoryError`, `CUDA error`, ...
        text: what follows, one line, at most 400 characters; "" for a bare exception.
        masked: `text` with numbers `<n>`, addresses `<addr>`, ids `<id>` and paths `<path>`.
    """

    type: str
    text: str
    masked: str


_ANSI = re.compile(r"(?:\x1b\[|\x9b)[0-?]{0,32}[ -/]{0,8}[@-~]|\x1b\][^\x07\x1b\n]{0,200}\x07?")

_PYTHON_FRAME = re.compile(
    # Terminals wrap: the "in" may stand on the next line.
    r'File (?:"([^"\n]{1,400})", line |([^\s:,"]{1,400}):)(\d{1,7})'
    r"(?:,\s{1,160}in ([^\n(]{1,120}))?"
)
_RICH_FRAME = re.compile(r"│ +([^\s:│]{1,300}\.py):(\d{1,7}) in (\S{1,120})")
_PYTEST_FRAME = re.compile(r"^([\w./+-]{1,300}\.py):(\d{1,7}): (?:in (\w{1,80})|\w{1,80})?", re.M)
_NATIVE_FRAME = re.compile(
    r"^[^\n#]{0,80}(?:frame )?\#\d{1,4}:? +(?:0x[0-9a-fA-F]{1,16} in )?([^\n]{1,600})", re.M
)
_NATIVE_MARK = re.compile(r"#\d{1,4}:? ")
_NATIVE_PLACE = re.compile(r"(?:\bin|\bfrom|\bat) ([^\s()]{1,300})\)?$")
_NATIVE_SOURCE = re.compile(
    r"(?<![\w./+-])((?:[\w.+-]{1,80}/){0,20}[\w.+-]{1,80}\.(?:cuh?|cc|cpp|cxx|hpp|hip|rs|go|h|c))"
    r"[:(](\d{1,6})\b"
)
_INSTALLED = re.compile(r"(?:site|dist)-packages/")
_CLONE = re.compile(r"/vllm/((?:vllm|tests|csrc|benchmarks|examples|tools|cmake|docs)/[^\n]*)$")
_PACKAGE = re.compile(r"[^\n]*/(vllm/[^\n]*)$")

_TYPE_END = re.compile(
    r"(?:Error|Exception|OutOfResources|Interrupt|SystemExit|Failure|Timeout|Exit|Fault)(?![\w./])"
)
_SOURCE_END = re.compile(r"\.(?:cuh?|cc|cpp|cxx|hpp|hip|rs|go|h|c)[:(]\d")
_MESSAGE = re.compile(r":[ \t]{0,8}([^\n]{1,400})|\((['\"])([^\n]{1,400}?)\2[,)]")
_NAMED = {
    "cuda error": re.compile(r"CUDA error: ?([^\n]{0,400})", re.I),
    "cuda out of memory": re.compile(r"(?<![:\w] )CUDA out of memory([^\n]{0,400})", re.I),
    "nccl error": re.compile(r"NCCL error(?: in)?:? ?([^\n]{0,400})", re.I),
    "hip error": re.compile(r"HIP error: ?([^\n]{0,400})", re.I),
    "segmentation fault": re.compile(r"Segmentation fault([^\n]{0,100})", re.I),
    "fatal python error": re.compile(r"Fatal Python error: ?([^\n]{0,200})"),
    "terminate called": re.compile(
        r"terminate called after throwing an instance of ([^\n]{1,200})"
    ),
    "what():": re.compile(r"what\(\): +([^\n]{1,400})"),
    "undefined symbol": re.compile(r"undefined symbol: ?([^\s,;]{1,300})"),
    "device-side assert": re.compile(r"[Aa]ssertion [`'\"]([^\n]{1,300}?)[`'\"] failed"),
    "watchdog caught": re.compile(r"Watchdog caught ([^\n]{1,200})"),
    "exception raised from": re.compile(r"Exception raised from ([^\n]{1,200})"),
    "core dumped": re.compile(r"(?:Aborted|Bus error|Illegal instruction) \(core dumped\)()"),
    "http/1.": re.compile(r"HTTP/1\.\d\" (5\d\d[^\n]{0,60})"),
    " error: ": re.compile(
        r"\.(?:cuh?|cc|cpp|hpp|h|c)[:(][\d:,]{1,16}\)?:? (?:fatal )?error: ([^\n]{1,300})"
    ),
}
_SENTENCE_END = re.compile(r"[;.] ")
_NAMED_TYPES = {
    "what():": "C++ exception",
    "terminate called": "C++ exception",
    " error: ": "compile error",
    "http/1.": "HTTP error",
    "core dumped": "core dumped",
}

_MASKS = (
    (re.compile(r"0x[0-9a-fA-F]+"), "<addr>"),
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "<id>"),
    (re.compile(r"(?<![\w/])(?:[A-Za-z]:|~|\.{1,2})?(?:[/\\][\w.@+-]+){2,}[/\\]?"), "<path>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{12,64}\b"), "<id>"),
    (re.compile(r"(?<![A-Za-z_\d])[-+]?\d+(?:[.,:]\d+)*"), "<n>"),
)


def without_escapes(text: str) -> str:
    """`text` without the colour codes that terminals leave in pasted logs."""
    return _ANSI.sub("", text) if "\x1b" in text or "\x9b" in text else text


def mask(message: str) -> str:
    """`message` with everything replaced that differs between two runs of the same failure."""
    for pattern, name in _MASKS:
        message = pattern.sub(name, message)
    return " ".join(message.split())


def package_path(path: str) -> str:
    """The part of an installed file's path that every installation shares.

    >>> package_path("/usr/lib/python3.12/site-packages/vllm/v1/engine/core.py")
    'vllm/v1/engine/core.py'
    """
    path = path.replace("\\", "/")
    if installed := list(_INSTALLED.finditer(path)):
        return path[installed[-1].end() :]
    if found := _CLONE.search(path) or _PACKAGE.match(path):
        return found[1]
    parts = path.split("/")
    outside = path.startswith(("/", "~")) or path[1:2] == ":"
    return "/".join(parts[-3:]) if outside and len(parts) > 4 else path.lstrip("./")


def frames(text: str) -> tuple[Frame, ...]:
    """The stack frames of `text` in the order they are pasted, repetitions left out."""
    found: dict[Frame, None] = {}
    for frame in _frames(text):
        found[frame] = None
        if len(found) >= MAX_FRAMES:
            break
    return tuple(found)


def error_messages(text: str) -> tuple[ErrorMessage, ...]:
    """The errors that `text` reports, repetitions left out."""
    found: dict[tuple[str, str], ErrorMessage] = {}
    for kind, message in _errors(text):
        error = ErrorMessage(kind, message, mask(message))
        found.setdefault((kind, error.masked), error)
        if len(found) >= MAX_ERRORS:
            break
    return tuple(found.values())


def _frames(text: str) -> Iterator[Frame]:
    for m in _PYTHON_FRAME.finditer(text):
        yield Frame(package_path(m[1] or m[2]), int(m[3]), (m[4] or "").strip(" \t│|"))
    if "│" in text:
        for m in _RICH_FRAME.finditer(text):
            yield Frame(package_path(m[1]), int(m[2]), m[3])
    if ".py:" in text:
        for m in _PYTEST_FRAME.finditer(text):
            yield Frame(package_path(m[1]), int(m[2]), m[3] or "")
    if _NATIVE_MARK.search(text):
        yield from _native_frames(text)
    # The cheap pattern first: most texts name no compiled source.
    for m in _NATIVE_SOURCE.finditer(text) if _SOURCE_END.search(text) else ():
        yield Frame(package_path(m[1]), int(m[2]), "")


def _native_frames(text: str) -> Iterator[Frame]:
    for m in _NATIVE_FRAME.finditer(text):
        rest = m[1].rstrip(" )")
        place = _NATIVE_PLACE.search(rest)
        if place is None:
            continue
        function = rest[: place.start()].split(" + 0x")[0].split("(")[0].strip()
        path, _, line = place[1].partition(":")
        if "." in path:
            number = int(line) if line.isascii() and line.isdigit() and len(line) < 8 else None
            yield Frame(package_path(path), number, function[:120])


def _errors(text: str) -> Iterator[tuple[str, str]]:
    yield from _exceptions(text)
    lowered = text.lower()
    for word, pattern in _NAMED.items():
        if word in lowered:
            for m in pattern.finditer(text):
                yield _NAMED_TYPES.get(word, word), _SENTENCE_END.split(m[1], 1)[0].strip(" \t│|")


def _exceptions(text: str) -> Iterator[tuple[str, str]]:
    """`Type: message`, `Type('message')`, and a bare type that has a line to itself.

    `raise Type(...)` is a line of source that a traceback shows; what it raised follows below.
    """
    for found in islice(_TYPE_END.finditer(text), MAX_EXAMINED):
        start, end = _word_start(text, found.start()), found.end()
        before = text[max(0, start - 60) : start].rpartition("\n")[2]
        if before.endswith("raise ") or not text[start].isalpha():
            continue
        if message := _MESSAGE.match(text, end):
            yield text[start:end], (message[1] or message[3]).strip("\"'` \t│|")
        elif not text[end : end + 80].partition("\n")[0].strip("\"'` \t│|") and (
            not before.strip(" \tE") or before.endswith(("] ", "]: "))
        ):
            yield text[start:end], ""


def _word_start(text: str, at: int) -> int:
    """Where the dotted name begins that reaches up to `at`; looks back 160 characters at most."""
    start = at
    while start > max(0, at - 160) and (text[start - 1].isalnum() or text[start - 1] in "._"):
        start -= 1
    return start
