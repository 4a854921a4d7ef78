"""Which engines can be compared, and the command that runs each.

An engine is written `NAME` or `NAME:KEY=VALUE,KEY=VALUE`, settings in its own words: `mini_vllm`,
`mini_vllm:quantization=int8`, `vllm`, `llama.cpp:weights=q8_0`, `transformers`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from places import PACKAGED_WEIGHTS, WEIGHTS, Places

from mini_vllm.errors import InvalidInputError
from mini_vllm.model import embedded

NAMES = ("mini_vllm", "vllm", "llama.cpp", "transformers")
INSTALL = f"python {Path('benchmarks') / 'peers' / 'install.py'}"
HERE = Path(__file__).parent


@dataclass(frozen=True)
class EngineSpec:
    """One engine with its settings; `label` is what it was called by, and names it in results."""

    label: str
    name: str
    settings: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> EngineSpec:
        """Reads `NAME:KEY=VALUE,...`.

        Raises:
            InvalidInputError: an engine that is none, or a setting without a value.
        """
        name, _, rest = text.partition(":")
        if name not in NAMES:
            raise InvalidInputError(
                f"no engine is named {name!r}: choose from {', '.join(NAMES)}", "engines"
            )
        pairs = [pair.partition("=") for pair in rest.split(",")] if rest else []
        for key, equals, value in pairs:
            if not (key and equals and value):
                raise InvalidInputError(
                    f"engine {text!r}: settings are written KEY=VALUE,KEY=VALUE", "engines"
                )
        return cls(text, name, {key: value for key, _, value in pairs})

    def weights(self, dtype: str | None) -> str:
        """How the weights are held (`work.BYTES_PER_WEIGHT`), `dtype` being what it computes in."""
        if self.name == "llama.cpp":
            return self.settings.get("weights", "bf16")
        packed = self.settings.get("quantization", "none")
        return packed if packed != "none" else "f32" if dtype == "float32" else "bf16"


@dataclass(frozen=True)
class Command:
    """How to start a runner: the words, and what its environment has besides ours."""

    words: list[str]
    environment: dict[str, str]


def command_of(spec: EngineSpec, places: Places, kv_bytes: int, threads: int) -> Command:
    """The command that runs `spec`.

    Raises:
        InvalidInputError: it is not installed, with the command that installs it.
    """
    settings, environment = dict(spec.settings), {}
    if spec.name == "mini_vllm":
        python, script, model = sys.executable, "run_mini_vllm.py", "smollm2-135m"
        model = settings.pop("model", model)
    elif spec.name == "transformers":
        python, script = sys.executable, "run_transformers.py"
        model = _model_file(places.hf_model)
    elif spec.name == "vllm":
        python, script = _installed(places, "vllm", places.vllm_python), "run_vllm.py"
        model = _model_file(places.hf_model)
        if settings.get("zentorch") == "true":
            settings["zentorch"] = _installed(places, "vllm", places.zentorch)
    else:
        python = _installed(places, "llama.cpp", places.llama_cpp_python)
        script, model = "run_llama_cpp.py", _gguf(places, settings.pop("weights", "bf16"))
        environment["PYTHONPATH"] = str(places.llama_cpp_source)
    words = [python, str(HERE / script), "--model", model]
    words += ["--kv-bytes", str(kv_bytes), "--threads", str(threads)]
    for key, value in settings.items():
        words += ["--set", f"{key}={value}"]
    return Command(words, environment)


def _gguf(places: Places, weights: str) -> str:
    if weights not in WEIGHTS:
        raise InvalidInputError(
            f"llama.cpp has no weights {weights!r}: choose from {', '.join(WEIGHTS)}", "engines"
        )
    if weights == PACKAGED_WEIGHTS:
        return str(embedded.verify("smollm2-135m", full=False))
    return _model_file(places.gguf(weights))


def _installed(places: Places, what: str, path: Path) -> str:
    if not places.mark(what).is_file() or not path.exists():
        raise InvalidInputError(
            f"{what} is not installed in {places.folder}; run: "
            f"{INSTALL} {what} --into {places.folder}"
        )
    return str(path)


def _model_file(path: Path) -> str:
    if not path.exists():
        raise InvalidInputError(
            f"{path} does not exist; run: {INSTALL} llama.cpp model --into {path.parents[1]}"
        )
    return str(path)
