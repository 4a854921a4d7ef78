"""Reading GGUF headers, against `gguf.GGUFReader`, and refusing broken ones."""

from __future__ import annotations

import contextlib
import struct

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mini_vllm.errors import ModelLoadError
from mini_vllm.model import embedded
from mini_vllm.model.gguf_header import read_header

VALUES = {
    "a.uint8": ("add_uint8", 200),
    "a.int8": ("add_int8", -100),
    "a.uint16": ("add_uint16", 60000),
    "a.int16": ("add_int16", -30000),
    "a.uint32": ("add_uint32", 4_000_000_000),
    "a.int32": ("add_int32", -2_000_000_000),
    "a.uint64": ("add_uint64", 2**63),
    "a.int64": ("add_int64", -(2**62)),
    "a.float32": ("add_float32", 0.25),
    "a.float64": ("add_float64", 1e300),
    "a.bool": ("add_bool", True),
    "a.text": ("add_string", "zwölf ▁ 😀"),
    "a.integers": ("add_array", [1, -2, 3]),
    "a.floats": ("add_array", [0.5, -0.25]),
    "a.flags": ("add_array", [True, False]),
    "a.texts": ("add_array", ["", "ein", "▁zwei"]),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for key, (method, value) in VALUES.items():
        getattr(writer, method)(key, value)
    writer.add_context_length(4096)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_tensor("one", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("two", np.arange(5, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_metadata_of_every_type_comes_as_python_values(path):
    metadata = read_header(path).metadata
    assert {key: metadata[key] for key in VALUES} == {k: value for k, (_, value) in VALUES.items()}
    fields = gguf.GGUFReader(path).fields
    theirs = {key: f.contents() for key, f in fields.items() if not key.startswith("GGUF.")}
    assert metadata == theirs


def test_tensors_are_where_the_reference_finds_them(path):
    ours = [(t.name, t.shape, t.ggml_type, t.offset) for t in read_header(path).tensors]
    theirs = [
        (t.name, tuple(int(n) for n in reversed(t.shape)), int(t.tensor_type), t.data_offset)
        for t in gguf.GGUFReader(path).tensors
    ]
    assert ours == theirs


def test_what_a_model_is_can_be_told_from_its_header(path):
    header = read_header(path)
    assert (header.num_parameters, header.context_length, header.quantization) == (11, 4096, "Q8_0")
    smollm = read_header(embedded.verify("smollm2-135m", full=False))
    assert (smollm.num_parameters, smollm.context_length) == (134_515_008, 8192)


def test_a_truncated_header_is_refused_wherever_it_is_cut(path, tmp_path):
    whole = path.read_bytes()
    end = whole.index(b"two") + 3 + 4 + 8 + 4 + 8
    read_header(path)
    for length in range(0, end, 3):
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelLoadError, match=r"cut\.gguf"):
            read_header(cut)


@given(st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_header_is_read_or_refused_but_never_worse(path, tmp_path_factory, damage):
    damaged = bytearray(path.read_bytes())
    for place, byte in damage:
        damaged[place % len(damaged)] = byte
    copy = tmp_path_factory.getbasetemp() / "damaged.gguf"
    copy.write_bytes(damaged)
    with contextlib.suppress(ModelLoadError):
        header = read_header(copy)
        _ = header.num_parameters, header.context_length, header.quantization


def _header(*parts: bytes) -> bytes:
    return b"GGUF" + struct.pack("<I", 3) + b"".join(parts)


def _key(kind: int, rest: bytes) -> bytes:
    return _header(
        struct.pack("<QQ", 0, 1), struct.pack("<Q", 1), b"k", struct.pack("<I", kind), rest
    )


HUGE = 2**62
BROKEN = {
    "does not start with": b"PK\x03\x04" + bytes(40),
    "version 99": b"GGUF" + struct.pack("<I", 99) + bytes(40),
    "empty": b"",
    "ends after": _header(struct.pack("<QQ", HUGE, HUGE)),
    "in the middle": _key(8, struct.pack("<Q", HUGE)),
    "claims": _key(9, struct.pack("<IQ", 9, HUGE)),
    "its header": _key(9, struct.pack("<IQ", 10, HUGE)),
    f"{HUGE} items": _key(9, struct.pack("<IQ", 8, HUGE)),
    "unknown value type 77": _key(77, b""),
    "unknown value type 9": _key(9, struct.pack("<IQ", 9, 1) * 9 + bytes(40)),
}


@pytest.mark.parametrize("says", BROKEN)
def test_a_hostile_header_is_refused_by_what_is_wrong(tmp_path, says):
    path = tmp_path / "model.gguf"
    path.write_bytes(BROKEN[says])
    with pytest.raises(ModelLoadError, match=says):
        read_header(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelLoadError, match=r"nowhere\.gguf"):
        read_header(tmp_path / "nowhere.gguf")
