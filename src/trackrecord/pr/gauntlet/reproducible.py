"""Check 2: can the report be reproduced on the pinned version, on the person's hardware?

Nothing of the report is run. Code is parsed (`ast`), the names it takes from the package are looked
up in the index, as are the options of its commands and the frames of its traces. Versions and
hardware are read from what the report says and what `collect_env` printed.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

from trackrecord.issues.text import CodeBlock
from trackrecord.pr.gauntlet.case import Case
from trackrecord.pr.gauntlet.places import frame_place, own_frames
from trackrecord.pr.gauntlet.report import CheckResult, Evidence, Verdict

MAX_CODE = 100_000
"""Characters of one block that are parsed."""
MAX_NAMES = 200
"""Names of one script that are looked up."""
SAY_HARDWARE = "say in trackrecord.toml which hardware you have ([hardware])"
_PACKAGE = "vllm"
_CLASSES = ("LLM", "SamplingParams", "EngineArgs", "AsyncEngineArgs", "PoolingParams")
"""Classes whose keyword arguments are names of the tree."""
_SERVE = re.compile(r"\bvllm (?:serve|bench|chat|complete)\b|-m vllm\.")
_OPTION = re.compile(r"(?<!\S)--([a-z][\w.-]{1,60})")
_RELEASE = re.compile(r"v?(\d+(?:\.\d+)*)")
_VENDORS = {
    "amd": {"amd", "radeon", "instinct", "mi", "rx", "gfx"},
    "google": {"google", "tpu"},
    "intel": {"intel", "gaudi", "hpu", "xpu", "arc"},
}
_VENDOR_LABELS = {"rocm": "amd", "tpu": "google", "intel-gpu": "intel", "gaudi": "intel"}


@dataclass(slots=True)
class _Finding:
    """What the report gives, as it is put together."""

    evidence: list[Evidence] = field(default_factory=list)
    settle: list[str] = field(default_factory=list)
    details: dict[str, object] = field(default_factory=dict)
    fails: list[str] = field(default_factory=list)
    good: list[str] = field(default_factory=list)

    def note(self, case: Case, text: str, says: str, line: int | None = None) -> None:
        author = case.issue.user if case.issue else ""
        self.evidence.append(Evidence(text, says, case.url, author, _day(case), line))


def check_reproducible(case: Case) -> CheckResult:
    """Reads what the report gives; see the module."""
    found = _Finding()
    if case.note is not None:
        return _note(case, found)
    if case.kind in ("feature", "model", "rfc", "docs"):
        return _wish(case, found)
    _version(case, found)
    _hardware(case, found)
    runnable = _scripts(case, found)
    trace = _trace(case, found)
    if found.fails:
        return _result(found, "fail", "; ".join(found.fails))
    words = "; ".join(found.good) or "the report gives nothing to run or to follow"
    if runnable and not found.settle:
        return _result(found, "pass", words)
    if not runnable and not trace:
        found.settle.append("ask for a script, a command or a trace")
    elif not found.settle:
        found.settle.append("write a script that reaches the frames of the trace")
    return _result(found, "unknown", words)


def _result(found: _Finding, verdict: Verdict, words: str) -> CheckResult:
    settle = tuple(dict.fromkeys(found.settle)) if verdict == "unknown" else ()
    return CheckResult(
        "reproducible", verdict, words, tuple(found.evidence), settle, dict(found.details)
    )


def _note(case: Case, found: _Finding) -> CheckResult:
    """A TODO of the pinned tree: it stands there, and its cause can be looked at."""
    note = case.note
    assert note is not None
    place = case.places[0]
    found.evidence.append(
        Evidence(note.text, "stands in the pinned tree", case.url, line=note.line)
    )
    found.details = {"cause": note.cause, "waits_for": note.evidence, "at": place.where}
    words = f"the note stands at {place.where} and waits for: {note.evidence}"
    if note.cause in ("version", "issue", "deadline"):
        return _result(found, "pass", words)
    found.settle.append(f"find out whether this has happened: {note.evidence}")
    return _result(found, "unknown", words)


def _wish(case: Case, found: _Finding) -> CheckResult:
    """A feature has nothing to reproduce; but the tree may have it by now."""
    have = [place for place in case.places if place.evidence == "guess" and not place.symbol]
    words = f"a {case.kind} request: nothing to reproduce"
    if not have:
        return _result(found, "pass", words)
    for place in have:
        found.evidence.append(
            Evidence(place.path, "is in the pinned tree", case.index.tree.pin.url(place.path))
        )
    found.settle.append(f"read {have[0].path}: is that what is asked for?")
    return _result(found, "unknown", f"{words}, but the tree has {have[0].path}")


def _version(case: Case, found: _Finding) -> None:
    """The reported version against the pin's."""
    pinned = case.index.tree.pin.version
    versions = case.signals.versions.get(_PACKAGE, ()) or case.said_later.versions.get(_PACKAGE, ())
    found.details["versions"] = list(versions)
    if not versions:
        found.settle.append(f"ask for the version; then try it on {pinned}")
        return
    reported = versions[0]
    found.note(case, reported, f"version reported; the pin is {pinned}")
    if _numbers(reported) == _numbers(pinned):
        found.good.append(f"reported on the pinned version {pinned}")
    elif _numbers(reported) < _numbers(pinned):
        found.good.append(f"reported on {reported}, before the pin")
        found.settle.append(f"run it on {pinned}: newer code may have mended it")
    else:
        found.good.append(f"reported on {reported}, after the pin")
        found.settle.append(f"run trackrecord upstream pin --version {reported}, and index it")


def _hardware(case: Case, found: _Finding) -> None:
    """What a run takes against what `trackrecord.toml` says the person has."""
    have = case.settings.hardware
    report = case.signals.hardware
    needed = report.gpus_needed or 1
    names = [device.name for device in report.devices]
    found.details |= {"gpus_needed": report.gpus_needed, "devices": names}
    if needed > 1:
        sizes = ", ".join(f"{kind} parallel {size}" for kind, size in report.parallel.items())
        found.note(case, sizes, f"one run takes {needed} accelerators")
        if case.gpus is None:
            found.settle.append(SAY_HARDWARE)
        elif case.gpus < needed:
            found.fails.append(f"takes {needed} accelerators ({sizes}), you have {case.gpus}")
    vendor = next((v for label, v in _VENDOR_LABELS.items() if label in case.labels), "")
    if vendor and case.gpus is not None and not any(_vendor(gpu) == vendor for gpu in have.gpus):
        found.fails.append(f"is about {vendor} hardware, which you do not have")
    elif names and needed == 1:
        found.note(case, ", ".join(names), "reported on this hardware")
        if case.gpus is None:
            found.settle.append(SAY_HARDWARE)
        elif case.gpus == 0 and not _all_cpu(case):
            found.settle.append("without a GPU: reproduce it in a unit test (see testable)")


def _vendor(gpu: str) -> str:
    name = gpu.lower()
    words = re.findall(r"[a-z]+", name)
    return next((vendor for vendor, signs in _VENDORS.items() if signs & set(words)), "nvidia")


def _all_cpu(case: Case) -> bool:
    return all(device.vendor == "cpu" for device in case.signals.hardware.devices)


# Scripts and commands.


def _scripts(case: Case, found: _Finding) -> bool:
    """Whether the report brings something to run whose names are those of the tree."""
    runnable = False
    for block in case.signals.code_blocks:
        if block.quoted or block.kind not in ("code", "shell"):
            continue
        runnable |= _command(case, block, found) or _script(case, block, found)
    found.details["runnable"] = runnable
    return runnable


def _script(case: Case, block: CodeBlock, found: _Finding) -> bool:
    if _PACKAGE not in block.text or len(block.text) > MAX_CODE:
        return False
    names = script_names(block.text)
    first = next((line for line in block.text.splitlines() if _PACKAGE in line), "")
    if names is None:
        found.note(case, first, "a script that does not parse", block.line)
        found.settle.append("mend the script: it does not parse as Python")
        return False
    unknown = [name for name in names if not _exists(case, name)]
    found.note(case, first, f"a script that uses {len(names)} names of the package", block.line)
    if unknown:
        found.settle.append(f"the tree lacks {', '.join(unknown[:4])}: bring the script up to date")
        return False
    found.good.append("brings a script whose names the tree has")
    return bool(names)


def script_names(code: str) -> list[str] | None:
    """The names that a script takes from the package: modules, what it imports from them, and the
    keyword arguments of the package's main classes. None if it does not parse. Nothing is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a report's invalid escapes are not our warnings
            tree = ast.parse(textwrap.dedent(_without_prompts(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        found |= dict.fromkeys(_names_of(node))
    return list(found)[:MAX_NAMES]


def _names_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (a.name for a in node.names if a.name.split(".")[0] == _PACKAGE)
    elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == _PACKAGE:
        yield str(node.module)
        yield from (f"{node.module}.{a.name}" for a in node.names if a.name != "*")
    elif isinstance(node, ast.Call):
        called = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        if called in _CLASSES:
            yield from (f"{called}({k.arg}=)" for k in node.keywords if k.arg)


def _without_prompts(code: str) -> str:
    """An interactive session without its prompts and answers."""
    lines = code.splitlines()
    if not any(line.startswith(">>> ") for line in lines):
        return code
    return "\n".join(line[4:] for line in lines if line.startswith((">>> ", "... ")))


def _exists(case: Case, name: str) -> bool:
    if name.endswith("=)"):
        return case.index.has_identifier(name.partition("(")[2][:-2])
    path = name.replace(".", "/")
    if case.index.has_path(f"{path}.py") or case.index.has_path(f"{path}/__init__.py"):
        return True
    last = name.rpartition(".")[2]
    return bool(case.index.find_symbols(name)) or case.index.has_identifier(last)


def _command(case: Case, block: CodeBlock, found: _Finding) -> bool:
    serve = _SERVE.search(block.text)
    if not serve:
        return False
    options = [m[1] for m in _OPTION.finditer(block.text)]
    unknown = [name for name in options if not _is_option(case, name)]
    line = next(line for line in block.text.splitlines() if _SERVE.search(line))
    found.note(case, line.strip(), f"a command with {len(options)} options", block.line)
    if unknown:
        listed = ", ".join(f"--{name}" for name in unknown[:4])
        found.settle.append(f"the tree has no option {listed}: find out what replaced it")
        return False
    found.good.append("brings a command whose options the tree has")
    return True


def _is_option(case: Case, option: str) -> bool:
    name = option.partition(".")[0].replace("-", "_")
    return any(case.index.has_identifier(n) for n in (name, name.removeprefix("no_")))


# Traces.


def _trace(case: Case, found: _Finding) -> bool:
    """Whether there is a trace, and how much of it the tree still has."""
    frames = own_frames(case.signals) or own_frames(case.said_later)
    if not frames:
        return False
    here = [frame for frame in frames if frame_place(case.index, frame)]
    found.details["frames"] = {"reported": len(frames), "in_tree": len(here)}
    last = frames[-1]
    text = f"{last.path}:{last.line}, in {last.function}"
    found.note(case, text, f"the tree has {len(here)} of {len(frames)} own frames")
    if here:
        found.good.append(f"the tree has {len(here)} of {len(frames)} frames of the trace")
    elif not any(case.index.has_path(frame.path) for frame in frames):
        found.fails.append("none of the code in the trace is in the pinned tree any more")
    else:
        found.settle.append("the functions of the trace are gone: find what took their place")
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """The release a version belongs to: `0.22.1rc1.dev9+g12` is of 0.22.1."""
    found = _RELEASE.match(version)
    parts = [int(part) for part in found[1].split(".")[:3]] if found else []
    return (*parts, *(0,) * (3 - len(parts)))


def _day(case: Case) -> str | None:
    return case.issue.created_at[:10] if case.issue and case.issue.created_at else None
