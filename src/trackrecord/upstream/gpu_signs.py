"""What in a test's text tells whether it needs an accelerator.

A sign is only a sign: the caller says where it stands, so that a person can look. A mark that sends
the test to CPU machines outweighs everything else, since upstream's CI relies on it.
"""

from __future__ import annotations

import re

_CPU_MARKS = re.compile(r"\bmark\.(cpu_test|cpu_model)\b")
_GPU_MARKS = re.compile(r"\b(multi_gpu_test|large_gpu_test|large_gpu_mark|multi_gpu_marks)\b")
_HINT = re.compile(r"cuda|LLM|_runner|Remote|DEVICE_TYPE|device_type|default_device")
"""Something that each alternative below contains, and that is quick to look for."""
_SIGN = re.compile(
    r"""device\s*=\s*["']cuda | ["']cuda(?::\d)?["'] | \.cuda\(\) | \btorch\.cuda\.\w+
        | \b(?:RemoteOpenAIServer|RemoteVLLMServer|AsyncLLM|LLMEngine|LLM)\(
        | \bvllm_runner\b | \bDEVICE_TYPE\b | \bcurrent_platform\.device_type\b
        | \bset_default_device\(""",
    re.VERBOSE,
)


def cpu_mark(marks: str) -> str:
    """The mark in `marks` that says "runs without an accelerator", or ""."""
    found = _CPU_MARKS.search(marks)
    return found[1] if found else ""


def gpu_mark(marks: str) -> str:
    """The mark in `marks` that asks for accelerators, or ""."""
    found = _GPU_MARKS.search(marks)
    return found[1] if found else ""


def is_neutral(sign: str) -> bool:
    """Whether a sign asks for the platform's device, whichever that is."""
    return sign.endswith(("DEVICE_TYPE", "device_type"))


def find_gpu_signs(text: str) -> list[tuple[int, str]]:
    """(line, sign) of what in a test file's text speaks of an accelerator or starts an engine."""
    signs: list[tuple[int, str]] = []
    line, position = 1, 0
    for hint in _HINT.finditer(text):
        line += text.count("\n", position, hint.start())
        position = hint.start()
        if signs and signs[-1][0] == line:
            continue
        start, end = text.rfind("\n", 0, position) + 1, text.find("\n", position)
        written = text[start : end if end >= 0 else len(text)].strip()
        found = _SIGN.search(written)
        if found and not written.startswith(("#", "import ", "from ")):
            signs.append((line, found.group()))
    return signs
