"""Versions and hardware that a report names, in `collect_env` output and in free text.

The tables are the whole knowledge: a new device or package is one line. What `collect_env` printed
was measured and therefore stands before what a person wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """An accelerator, by the short name people use (`A100`, `RTX 5090`, `MI300X`).

    Attributes:
        vendor: "nvidia", "amd", "intel", "google", "ascend", "apple" or "cpu".
        count: how many; None where the text does not say.
        measured: whether `collect_env` (or `nvidia-smi`) says so.
    """

    name: str
    vendor: str
    count: int | None
    measured: bool


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the report ran on.

    Attributes:
        devices: measured ones first.
        parallel: sizes asked for: {"tensor": 2, "pipeline": 4}.
    """

    devices: tuple[Device, ...]
    parallel: dict[str, int]

    @property
    def gpus_needed(self) -> int | None:
        """How many devices one run takes as its parallel sizes say; None where none is given."""
        sizes = [size for kind, size in self.parallel.items() if kind != "expert"]
        product = 1
        for size in sizes:
            product *= size
        return product if sizes else None


_ENV_START = re.compile(
    r"^[^\n]{0,12}(?:Collecting environment information|PyTorch version\s*:|"
    r"Is debug build\s*:|CUDA used to build PyTorch\s*:)",
    re.MULTILINE,
)
_ENV_END = re.compile(r"^(?:\s{0,3}#{1,4} |\s*```|\s*</details>|\s*~~~)", re.MULTILINE)

_VERSION = (
    r"v?(\d{1,4}(?:\.\d{1,8}){1,4}(?:[._-]?(?:a|b|rc|post|dev)\d{0,10}){0,3}(?:\+[\w.]{1,40})?)"
)
_ENV_VERSIONS = {
    "vllm": re.compile(r"vLLM Version\s*:\s*" + _VERSION, re.I),
    "torch": re.compile(r"PyTorch version\s*:\s*" + _VERSION, re.I),
    "python": re.compile(r"Python version\s*:\s*" + _VERSION, re.I),
    "cuda": re.compile(r"CUDA used to build PyTorch\s*:\s*" + _VERSION, re.I),
    "rocm": re.compile(r"ROCM used to build PyTorch\s*:\s*" + _VERSION, re.I),
    "driver": re.compile(r"Nvidia driver version\s*:\s*" + _VERSION, re.I),
}
_PIP_LINE = re.compile(r"^\[(?:pip3|conda)\] ([\w-]{1,60})(?:==|\s{1,40})" + _VERSION, re.M)
_NAMES = {
    "pytorch": "torch",
    "flash-attn": "flash_attn",
    "flashinfer-python": "flashinfer",
    "nvidia-nccl-cu12": "nccl",
    "nvidia-nccl-cu13": "nccl",
}
_SAID_VERSION = re.compile(
    r"(?<![\w./-])(vllm(?:/vllm-openai|[ -]openai)?|pytorch|torch|transformers|triton|flashinfer|"
    r"flash[-_]attn|xformers|python|cuda|nccl|ray|numpy)"
    r"(?:[ \t]*(?:==?|[:@-])[ \t]*"
    r"|(?:[ \t]+(?:docker|version|release|image)){0,2}[ \t]*:?[ \t]+)" + _VERSION + r"(?![\w%])",
    re.IGNORECASE,
)
_ENGINE_VERSION = re.compile(
    r"(?:LLM engine \(|API server version |(?<![\w./-])vllm)" + _VERSION, re.IGNORECASE
)
_BARE_VERSION = re.compile(
    r"(?<![\w./=@:-])v(\d\.\d{1,3}\.\d{1,3}(?:\.?(?:post|rc|dev)\d{1,5})?)(?![\w.]\d)"
)

_GPU_LINE = re.compile(r"^[^\n]{0,12}GPU (\d{1,3}): ([^\n]{3,80})", re.MULTILINE)
_SMI_LINE = re.compile(
    r"^\|\s{1,4}(\d{1,3})\s{2}((?:NVIDIA|Tesla|GeForce) [^|\n]{2,40}?)\s{2,}", re.M
)
_NOTHING = re.compile(r"GPU models and configuration: (?:No CUDA|Could not collect)")

_DEVICE_NAMES = {
    "nvidia": r"RTX ?(?:PRO ?|A)?\d{4}(?: ?(?:Ti|SUPER|Ada|Blackwell))?|GTX ?\d{3,4}(?: ?Ti)?|"
    r"G[BH]\d{2,3}|[BH][1238]00|H20|A(?:10G?|16|2|30|40|100|800|[456]000)|L(?:4|20|40S?)|T4|V100|P(?:4|40|100)|"
    r"[2345]0[6-9]0(?: ?Ti)?|Jetson(?: \w{1,10})?|Orin|DGX Spark",
    "amd": r"MI ?\d{2,3}[AXP]?|RX ?\d{4}(?: ?XTX?)?|Radeon(?: \w{1,10}){0,2}|gfx\d{3,4}[a-z]?",
    "intel": r"Gaudi ?[23]?|HPU|Arc(?:\(TM\))? ?[AB]\d{2,3}|XPU|Data Center GPU Max \d{4}",
    "google": r"TPU(?: ?v\d[ep]?)?",
    "ascend": r"(?:Ascend ?)?(?:910[A-C]?\d?|310P)|Ascend|NPU",
    "apple": r"Apple M\d(?: (?:Pro|Max|Ultra))?|MPS",
    "cpu": r"CPU[- ]only|no GPU|without (?:a )?GPU|CPU backend",
}
_COUNT_WORDS = {
    "one": 1,
    "single": 1,
    "two": 2,
    "both": 2,
    "dual": 2,
    "three": 3,
    "four": 4,
    "eight": 8,
}
_DEVICE = re.compile(
    # The first letter first: most positions of a text end here.
    r"(?:(?<![A-Za-z0-9_./-])|(?<=\d[x×]))(?=[2-5AaBCcDGgHIJLlMNnOPRrTtVWwX])"
    r"(?:" + "|".join(f"(?P<{vendor}>{names})" for vendor, names in _DEVICE_NAMES.items()) + r")"
    r"(?:[- ]?(?:SXM\d?|PCIe|NVL)?[- ]?\d{2,3} ?G[Bb]?)?"
    r"(?: ?[x×*] ?(?P<after>\d{1,2})(?![\d.]))?(?![A-Za-z0-9_])",
    re.IGNORECASE,
)
_COUNT = re.compile(
    r"(?<![\w.])(?P<count>\d{1,3}|" + "|".join(_COUNT_WORDS) + r")(?: ?[x×*] ?| )"
    r"(?:NVIDIA |AMD |Tesla |GeForce |Instinct |Intel ){0,3}$",
    re.IGNORECASE,
)
_PARALLEL = re.compile(
    r"(?<![A-Za-z0-9])(?:(?P<long>tensor|pipeline|data|expert)[-_ ]parallel(?:[-_ ]size)?"
    r"|-{0,2}(?P<short>[tpde]p)(?:[-_]size)?)"
    r"[\"']?[ \t]*[=: ]?[ \t]*[\"']?(?P<size>\d{1,4})(?!\w|\.\d)",
    re.IGNORECASE,
)
_MORE_THAN_ONE = re.compile(r"(?<![A-Za-z0-9])([TPDE]P) ?> ?1(?!\d)")
_SHORT = {"tp": "tensor", "pp": "pipeline", "dp": "data", "ep": "expert"}


def environment_ranges(text: str) -> list[tuple[int, int]]:
    """Where `collect_env` output stands in `text`: character offsets, end exclusive."""
    ranges: list[tuple[int, int]] = []
    for start in _ENV_START.finditer(text):
        if ranges and start.start() < ranges[-1][1]:
            continue
        end = _ENV_END.search(text, start.end())
        ranges.append((start.start(), end.start() if end else len(text)))
    return ranges


def versions(text: str) -> dict[str, tuple[str, ...]]:
    """Package name to the versions that `text` gives for it, the most trustworthy first."""
    found: dict[str, list[str]] = {}
    for name, version in _versions(text):
        known = found.setdefault(_NAMES.get(name, name), [])
        if version not in known and len(known) < 8:
            known.append(version)
    return {name: tuple(known) for name, known in found.items()}


def hardware(text: str, logs: str = "") -> Hardware:
    """The devices that `text` names, and the parallel sizes that `text` or `logs` do.

    Logs name devices for many reasons, parallel sizes for one.
    """
    devices: dict[tuple[str, bool], Device] = {}
    for device in _devices(text):
        key = (device.name.lower(), device.measured)
        if key not in devices or devices[key].count is None:
            devices[key] = device
    measured = {device.name for device in devices.values() if device.measured}
    kept = [d for d in devices.values() if d.measured or d.name not in measured]
    parallel: dict[str, int] = {}
    for m in _PARALLEL.finditer(f"{text}\n{logs}"):
        kind = (m["long"] or _SHORT[m["short"].lower()]).lower()
        parallel[kind] = max(parallel.get(kind, 0), int(m["size"]))
    for m in _MORE_THAN_ONE.finditer(text):
        parallel.setdefault(_SHORT[m[1].lower()], 2)
    return Hardware(tuple(sorted(kept, key=lambda d: not d.measured)), parallel)


def _versions(text: str) -> Iterator[tuple[str, str]]:
    rest, at = [], 0
    for start, end in environment_ranges(text):
        printed = text[start:end]
        rest.append(text[at:start])
        at = end
        for name, pattern in _ENV_VERSIONS.items():
            for m in pattern.finditer(printed):
                yield name, m[1]
        for m in _PIP_LINE.finditer(printed):
            yield m[1].lower(), m[2]
    text = "".join((*rest, text[at:]))
    for m in _ENGINE_VERSION.finditer(text):
        yield "vllm", m[1]
    for m in _SAID_VERSION.finditer(text):
        yield m[1].lower().split("/")[0].split(" ")[0].replace("-openai", ""), m[2]
    # "v0.5.5 crash": without a name it can only be the project's own.
    for m in _BARE_VERSION.finditer(text):
        yield "vllm", m[1]


def _devices(text: str) -> Iterator[Device]:
    printed: dict[str, set[int]] = {}
    for pattern in (_GPU_LINE, _SMI_LINE):
        for line in pattern.finditer(text):
            printed.setdefault(line[2], set()).add(int(line[1]))
    for name, numbers in printed.items():
        if found := _DEVICE.search(name):
            yield _device(found, len(numbers), measured=True)
    if _NOTHING.search(text):
        yield Device("CPU only", "cpu", None, measured=True)
    for found in _DEVICE.finditer(text):
        before = _COUNT.search(text[max(0, found.start() - 40) : found.start()])
        said = before["count"].lower() if before else found["after"]
        count = _COUNT_WORDS.get(said) or int(said) if said else None
        yield _device(found, count, measured=False)


def _device(found: re.Match[str], count: int | None, measured: bool) -> Device:
    vendor = next(vendor for vendor in _DEVICE_NAMES if found[vendor])
    name = " ".join(found[vendor].split())
    if vendor == "nvidia" and name[:4].isdigit():
        name = f"RTX {name}"
    return Device(_spelling(name, vendor), vendor, count, measured)


def _spelling(name: str, vendor: str) -> str:
    """One spelling of a name, whatever case and spacing it came in."""
    if vendor == "cpu":
        return "CPU only"
    if vendor == "nvidia" and (found := re.match(r"(?i)(RTX|GTX) ?(PRO|A)? ?(\d{3,4})(.*)$", name)):
        pro = {"": "", "A": "A", "PRO": "PRO "}[(found[2] or "").upper()]
        return f"{found[1].upper()} {pro}{found[3]}{found[4]}"
    return name.upper() if len(name) <= 5 else name
