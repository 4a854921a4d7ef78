"""Installing peers, as far as it goes without a network."""

from __future__ import annotations

import zipfile
from pathlib import Path

import install
import pytest
from places import Places

from mini_vllm.errors import MiniVLLMError

METADATA = """\
Metadata-Version: 2.1
Name: made-up
Requires-Dist: numpy
Requires-Dist: torch==2.11.0+cpu; platform_machine == "x86_64"
Requires-Dist: torchaudio
Requires-Dist: pandas; extra == "bench"
Requires-Dist: regex>=2; python_version > "3.8"
"""


def test_what_a_wheel_needs_is_all_but_torch_and_extras(tmp_path: Path) -> None:
    wheel = tmp_path / "made_up-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("made_up-1.dist-info/METADATA", METADATA)
    assert install._needs(wheel) == ["numpy", 'regex>=2; python_version > "3.8"']


def test_llama_cpp_is_built_for_this_processor_but_without_amx() -> None:
    plain = {"avx2", "fma", "f16c", "bmi2", "avx512f", "avx512_bf16"}
    assert install.instruction_options(plain) == ["-DGGML_NATIVE=ON"]
    options = install.instruction_options(plain | {"amx_tile", "amx_bf16"})
    assert options[0] == "-DGGML_NATIVE=OFF"
    assert {"-DGGML_AVX512=ON", "-DGGML_AVX512_BF16=ON", "-DGGML_AVX2=ON"} < set(options)
    assert "-DGGML_AVX512_VNNI=ON" not in options
    assert not any("AMX" in option for option in options)


def test_what_is_installed_is_not_installed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    monkeypatch.setitem(install.INSTALLERS, "vllm", lambda places, jobs: done.append(jobs))
    words = ["vllm", "--into", str(tmp_path), "--jobs", "3"]
    assert install.main(words) == install.main(words) == 0
    assert done == [3]


def test_what_failed_is_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(places: Places, jobs: int) -> None:
        raise MiniVLLMError("no network")

    monkeypatch.setitem(install.INSTALLERS, "vllm", fail)
    for _ in range(2):
        with pytest.raises(MiniVLLMError, match="no network"):
            install.main(["vllm", "--into", str(tmp_path)])


def test_a_failed_tool_is_quoted_in_one_line(tmp_path: Path) -> None:
    log = install.Log(tmp_path / "x.log")
    with pytest.raises(MiniVLLMError, match=r"sh failed \(3\): oh no; see .*x\.log"):
        log.run("sh", "-c", "echo first; echo oh no >&2; exit 3")
    with pytest.raises(MiniVLLMError, match="cannot run no-such-program"):
        log.run("no-such-program")


def test_a_missing_compiler_is_said_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install.shutil, "which", lambda program: None)
    with pytest.raises(MiniVLLMError, match="cmake is not installed"):
        install.main(["llama.cpp", "--into", str(tmp_path)])


def test_the_model_needs_llama_cpp_first(tmp_path: Path) -> None:
    with pytest.raises(MiniVLLMError, match=r"install llama\.cpp first"):
        install.main(["model", "--into", str(tmp_path)])
