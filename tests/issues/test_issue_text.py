"""What is read in reports as people write them: forms, logs, traces, quotations, other scripts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackrecord.issues.environment import Device
from trackrecord.issues.markdown import blocks, prose, quoted_ranges, sections, strip_quotes
from trackrecord.issues.people import is_bot, mentions
from trackrecord.issues.references import references
from trackrecord.issues.text import Frame, PathRef, extract
from trackrecord.issues.traces import mask, package_path

REPORT = """\
### Your current environment

<details>
<summary>The output of <code>python collect_env.py</code></summary>

```text
Collecting environment information...
==============================
        System Info
==============================
OS                           : Ubuntu 22.04.4 LTS (x86_64)
PyTorch version              : 2.11.0+cu126
CUDA used to build PyTorch   : 12.6
Python version               : 3.12.11 (main, Jun  4 2025, 08:56:18) [GCC 11.4.0]
GPU models and configuration :
GPU 0: NVIDIA H100 80GB HBM3
GPU 1: NVIDIA H100 80GB HBM3
Nvidia driver version        : 550.54.15
Flags:                         fpu vme de_pse amx_bf16
[pip3] transformers==4.53.1
[conda] numpy                     2.2.6                    pypi_0    pypi
vLLM Version                 : 0.22.1
```

</details>

### 🐛 Describe the bug

With `--enable-prefix-caching`, `BlockPool.get_new_blocks()` fails
in vllm/v1/core/block_pool.py:333.

```python
from vllm import LLM
llm = LLM(model="Qwen/Qwen3-0.6B", tensor_parallel_size=2)
```

```
(EngineCore_0 pid=380) ERROR 04-12 05:43:37 [core.py:1110] Traceback (most recent call last):
(EngineCore_0 pid=380) ERROR 04-12 05:43:37 [core.py:1110]   File \
"/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/core.py", line 850, in __init__
(EngineCore_0 pid=380) ERROR 04-12 05:43:37 [core.py:1110]     raise ValueError(f"Cannot get {n}")
(EngineCore_0 pid=380) ERROR 04-12 05:43:37 [core.py:1110] ValueError: Cannot get 12 free blocks
```

### Anything else

_No response_

### Before submitting a new issue...

- [x] Make sure you already searched for relevant issues
"""


def test_a_whole_report() -> None:
    read = extract(REPORT)
    assert [(e.type, e.text, e.masked) for e in read.error_messages] == [
        ("ValueError", "Cannot get 12 free blocks", "Cannot get <n> free blocks")
    ]
    assert read.frames == (Frame("vllm/v1/engine/core.py", 850, "__init__"),)
    assert read.symbols == ("BlockPool.get_new_blocks",)
    assert read.options == ("--enable-prefix-caching",)
    assert PathRef("vllm/v1/core/block_pool.py", 333) in read.paths
    assert read.models == ("Qwen/Qwen3-0.6B",)
    assert [block.kind for block in read.code_blocks] == ["environment", "code", "log"]
    assert read.versions["vllm"] == ("0.22.1",)
    assert read.versions["torch"] == ("2.11.0+cu126",)
    assert read.versions["numpy"] == ("2.2.6",)
    assert read.versions["driver"] == ("550.54.15",)
    assert read.hardware.devices == (Device("H100", "nvidia", 2, measured=True),)
    assert read.hardware.gpus_needed == 2


def test_the_fields_of_an_issue_form() -> None:
    fields = sections(REPORT)
    assert list(fields)[:3] == [
        "Your current environment",
        "🐛 Describe the bug",
        "Anything else",
    ]
    assert "System Info" in fields["Your current environment"]
    assert fields["Anything else"] == ""


def test_a_heading_in_code_or_in_a_quotation_is_no_field() -> None:
    assert sections("### A\n```\n### B\n```\n> ### C\n") == {"A": "```\n### B\n```\n> ### C"}


# Traces


@pytest.mark.parametrize(
    ("line", "frame"),
    [
        (
            'ERROR 08-28 20:51:09 [core.py:632]   File "/usr/local/lib/python3.12/dist-packages/'
            'vllm/v1/executor/abstract.py", line 76, in determine_available_memory',
            Frame("vllm/v1/executor/abstract.py", 76, "determine_available_memory"),
        ),
        (
            '2025-06-01 06:42:29.680 | ERROR 06-01 04:42:29 [engine.py:457]   File "/home/user/'
            'vllm/vllm/worker/model_runner.py", line 1751, in _wrapped_call_impl',
            Frame("vllm/worker/model_runner.py", 1751, "_wrapped_call_impl"),
        ),
        (
            '[rank0]:   File "/opt/vllm/tests/v1/core/test_scheduler.py", line 3, in <module>',
            Frame("tests/v1/core/test_scheduler.py", 3, "<module>"),
        ),
        (
            '  File "C:\\Python\\Lib\\site-packages\\torch\\nn\\modules\\module.py", line 1, in f',
            Frame("torch/nn/modules/module.py", 1, "f"),
        ),
        (
            "│ /venv/lib/python3.11/site-packages/vllm/entrypoints/llm.py:300 in generate │",
            Frame("vllm/entrypoints/llm.py", 300, "generate"),
        ),
        (
            "vllm/v1/core/block_pool.py:340: in get_new_blocks",
            Frame("vllm/v1/core/block_pool.py", 340, "get_new_blocks"),
        ),
        (
            "frame #3: c10::cuda::check(int, char const*) + 0x118 (0x7f8 in "
            "/usr/local/lib/python3.12/site-packages/torch/lib/libc10_cuda.so)",
            Frame("torch/lib/libc10_cuda.so", None, "c10::cuda::check"),
        ),
        (
            "#4  0x00007fff5a1 in at::native::foo (x=1) from /usr/lib/libtorch.so",
            Frame("usr/lib/libtorch.so", None, "at::native::foo"),
        ),
        (
            "RuntimeError raised at csrc/attention/paged.cu:123 (most recent call first)",
            Frame("csrc/attention/paged.cu", 123, ""),
        ),
    ],
)
def test_frames_of_every_kind_of_log(line: str, frame: Frame) -> None:
    assert frame in extract(f"```\n{line}\n```").frames


@pytest.mark.parametrize(
    ("text", "kind", "masked"),
    [
        ("KeyError: 'model.layers.31.mlp'", "KeyError", "model.layers.<n>.mlp"),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0",
            "torch.OutOfMemoryError",
            "CUDA out of memory. Tried to allocate <n> GiB. GPU <n>",
        ),
        ("RuntimeError('boom 0x7f00ab')", "RuntimeError", "boom <addr>"),
        ("[rank0]: AssertionError", "AssertionError", ""),
        ("E   AssertionError", "AssertionError", ""),
        (
            "RuntimeError: CUDA error: an illegal memory access was encountered",
            "cuda error",
            "an illegal memory access was encountered",
        ),
        ("!!!!!!! Segmentation fault encountered !!!!!!!", "segmentation fault", "encountered"),
        (
            "terminate called after throwing an instance of 'c10::Error'",
            "C++ exception",
            "'c10::Error'",
        ),
        ("  what():  NCCL error in: foo.cpp:12", "C++ exception", "NCCL error in: foo.cpp:<n>"),
        ("kernel.cu(12): error: no operator matches", "compile error", "no operator matches"),
        ('"POST /v1/completions HTTP/1.1" 500 Internal', "HTTP error", "<n> Internal"),
        ("ImportError: /a/b/c.so: undefined symbol: _ZN3c10", "undefined symbol", "_ZN3c10"),
        (
            "FileNotFoundError: no such file: /home/me/models/x-1/config.json",
            "FileNotFoundError",
            "no such file: <path>",
        ),
    ],
)
def test_error_messages_are_masked(text: str, kind: str, masked: str) -> None:
    found = {error.type: error.masked for error in extract(f"Seen:\n{text}\n").error_messages}
    assert kind in found
    assert masked in found[kind]


def test_the_source_line_that_raises_is_not_the_error() -> None:
    trace = 'Traceback:\n    raise ValueError(f"no {x}")\nValueError: no 3'
    assert [e.text for e in extract(trace).error_messages] == ["no 3"]


def test_an_error_type_in_a_sentence_is_a_symbol_only() -> None:
    read = extract("It ends in an AssertionError saying that LoRA is missing.")
    assert read.error_messages == ()
    assert "AssertionError" in read.symbols


def test_a_log_in_a_terminals_box() -> None:
    box = (
        "│ ERROR 09-27 06:46:46 engine.py:157] RuntimeError: CUDA error: an illegal access   │\n"
        '│ ERROR 09-27 06:46:46 engine.py:157]   File "/x/site-packages/vllm/a.py", line 54,  \n'
        "in __init__                                                                         │\n"
    )
    read = extract(f"```\n{box}```")
    assert [e.masked for e in read.error_messages] == [
        "CUDA error: an illegal access",
        "an illegal access",
    ]
    assert [(f.path, f.line, f.function) for f in read.frames] == [("vllm/a.py", 54, "__init__")]


def test_the_language_of_a_block_with_a_file_name() -> None:
    assert [block.lang for block in blocks("```python:repro.py\nx\n```")] == ["python"]


def test_masking_forgets_what_differs_between_runs() -> None:
    one = mask("Request cmpl-8f14e45fceea167a took 1.25 s at 0x7f2a on /tmp/ray/session_1/x.log")
    two = mask("Request cmpl-c9f0f895fb98ab91 took 9 s at 0x11 on /var/other/y.log")
    assert one == two


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("/home/me/vllm/vllm/engine/x.py", "vllm/engine/x.py"),
        ("/home/me/vllm/csrc/x.cu", "csrc/x.cu"),
        ("vllm/v1/core/sched/scheduler.py", "vllm/v1/core/sched/scheduler.py"),
        ("/a/b/site-packages/pkg/site-packages/q.py", "q.py"),
        ("./tests/x.py", "tests/x.py"),
    ],
)
def test_paths_lose_what_belongs_to_one_machine(path: str, short: str) -> None:
    assert package_path(path) == short


# Names, versions, hardware


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("calls get_new_blocks() and self.drafter", ("get_new_blocks", "self.drafter")),
        ("`RequestOutput.metrics` is None", ("RequestOutput.metrics",)),
        ("see SingleTypeKVCacheManager and VLLM_USE_V1=0", ("SingleTypeKVCacheManager",)),
        ("plain words, GitHub, PyTorch and e.g. nothing", ()),
        ("vLLM 0.26.1rc1.dev920+g66e5414c6 is a version", ()),
        ("跑的是 get_new_blocks，出错了", ("get_new_blocks",)),
    ],
)
def test_names_of_code(text: str, symbols: tuple[str, ...]) -> None:
    found = extract(text).symbols
    assert found[: len(symbols)] == symbols
    assert bool(found) == bool(symbols)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("I get this bug too, on vllm=0.5.3.post1", "0.5.3.post1"),
        ("[Bug]: v0.5.5 crash", "0.5.5"),
        ("VLLM Docker v0.9.0 fails", "0.9.0"),
        ("vllm 0.18.1.dev35+g36ed358b1.empty", "0.18.1.dev35+g36ed358b1.empty"),
        ("docker run vllm/vllm-openai:v0.6.4.post1", "0.6.4.post1"),
        ("[Bug]: vllm0.22.1 has none", "0.22.1"),
        ("Initializing a V1 LLM engine (v0.11.0) with config", "0.11.0"),
        ("vLLM Version: 0.9.2.dev26+gcf75cd209.d20250626 (git sha: cf75cd209)", "0.9.2.dev26"),
    ],
)
def test_the_version_in_whatever_words(text: str, version: str) -> None:
    assert extract(text).versions["vllm"][0].startswith(version)


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("on 4 A10G 24Gb", "A10G", 4),
        ("two L40 (48G)", "L40", 2),
        ("hangs with both RTX A6000 GPUs", "RTX A6000", 2),
        ("1*A100（80G），会OOM？", "A100", 1),
        ("8xH20 and nothing else", "H20", 8),
        ("H100 x 8", "H100", 8),
        ("one RTX PRO 6000 Blackwell Max-Q", "RTX PRO 6000 Blackwell", 1),
        ("5090 cannot run it", "RTX 5090", None),
        ("on MI300X", "MI300X", None),
        ("在个A100上", "A100", None),
    ],
)
def test_devices_in_whatever_words(text: str, name: str, count: int | None) -> None:
    assert [(d.name, d.count) for d in extract(text).hardware.devices] == [(name, count)]


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("vllm serve m --tensor-parallel-size 4 --pipeline-parallel-size 2", 8),
        ("crashes on PP>1", 2),
        ("only with pipeline_parallel_size=8.", 8),
        ("tensor-parallel-size=2，The program hangs", 2),
        ("```\nINFO config: tensor_parallel_size=2, dtype=half\n```", 2),
        ("a plain question", None),
    ],
)
def test_how_many_devices_a_run_takes(text: str, needed: int | None) -> None:
    assert extract(text).hardware.gpus_needed == needed


# Whose words


def test_quotations_are_not_the_authors_words() -> None:
    body = "> I will take this.\n> > Me too\n\nNo, thanks.\n> tail"
    assert strip_quotes(body) == "No, thanks."
    assert quoted_ranges(body) == ((1, 2), (5, 5))


def test_an_answer_right_below_a_quotation_is_the_authors() -> None:
    assert prose("> Will you do it?\nYes, I will.") == "Yes, I will."


def test_code_inside_a_quotation_ends_with_it() -> None:
    kinds = [(b.kind, b.quoted, b.text) for b in blocks("> ```py\n> a\nafter\n```sh\nb\n```")]
    assert kinds == [("code", True, "a"), ("prose", False, "after"), ("code", False, "b")]


def test_mail_that_was_answered_is_left_out() -> None:
    body = (
        "I can do it.\n\nOn Thu, Jun 6, 2024 at 10:11 AM A B ***@***.***> wrote:\n> Can you?\n"
        "—\nReply to this email directly, view it on GitHub\nYou are receiving this because..."
    )
    assert strip_quotes(body).splitlines()[0] == "I can do it."
    assert "Reply" not in strip_quotes(body)
    assert "wrote" not in strip_quotes(body)


def test_hidden_template_hints_are_no_words() -> None:
    assert prose("<!-- please\nfix #1 -->visible<!-- no -->") == "visible"
    assert references("<!-- fixes #1 -->fixes #2") == references("fixes #2")


def test_mentions_are_of_people() -> None:
    text = "@a, @b-c (@d) x@y.org `@e` @scope/pkg\n> @quoted\n```\n@code\n```"
    assert mentions(text) == ("a", "b-c", "d")


@pytest.mark.parametrize(
    ("login", "bot"),
    [
        ("github-actions[bot]", True),
        ("mergify", True),
        ("gemini-code-assist", True),
        ("gemini-code-assist[bot]", True),
        ("stale", True),
        ("k8s-ci-robot", True),
        ("some-new-bot", True),
        ("robotics-fan", False),
        ("abbott", False),
        ("hmellor", False),
    ],
)
def test_programs_are_told_from_people(login: str, bot: bool) -> None:
    assert is_bot(login) is bot


def test_githubs_word_that_it_is_a_bot_counts() -> None:
    assert is_bot("looks-like-a-person", "Bot")


# References


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("Fixes #1", {1}),
        ("FIX #1 (*link existing issues this PR will resolve*)", {1}),
        ("fix issue #1 and the bug", {1}),
        ("Closes: #1, #2 and #3; see #4", {1, 2, 3}),
        ("Fixes:\n\nhttps://github.com/o/r/issues/1\nhttps://github.com/o/r/issues/2", {1, 2}),
        ("- Resolves [#1](https://github.com/o/r/issues/1)", {1}),
        ("**Fixes** o/r#1", {1}),
        ("This does not fix #1", set()),
        ("Partially fixes #1", set()),
        ("doesn't resolve #1. Fixes #2", {2}),
        ("related to #1", set()),
        ("prefix #1", set()),
    ],
)
def test_which_threads_a_text_closes(text: str, closed: set[int]) -> None:
    assert {r.number for r in references(text, "o/r") if r.closes} == closed


def test_references_know_their_form_repository_and_line() -> None:
    text = "#1\nother/x#2 GH-3\n\nhttps://github.com/o/r/pull/4#issuecomment-1 `#5` word#6"
    found = [(r.number, r.form, r.repo, r.line) for r in references(text, "O/R")]
    assert found == [
        (1, None, None, 1),
        (2, None, "other/x", 2),
        (3, None, None, 2),
        (4, "pull", None, 4),
    ]


# Hostile text

PIECES = [
    *(
        "a",
        "a_",
        "a.",
        "/a",
        "a/",
        "a-b/",
        "a/b-",
        "`",
        "> ",
        ">",
        ">\n",
        "#1 ",
        "Error ",
        "Error: ",
    ),
    *("x.Error", 'File "', "--a", "```\n", " ", "\t", "0x", "1", "1.", "<!--", "<a", "@a ", "@a-"),
    *(
        "[",
        "fix ",
        "fix #1, ",
        "\x1b[",
        "\x1b[31m",
        "GPU 0: ",
        "tp=2 ",
        "4 A100 ",
        "vllm 0.",
        "vllm ",
    ),
    *(
        "#0 0x1 in a\n",
        "#0 ",
        "a.cu:1 ",
        "On x ",
        "http://",
        "github.com/a/b/blob/c/",
        "中文",
        "\0",
    ),
    *(
        "CUDA error: ",
        "Error('",
        "[pip3] a",
        "0a",
        "_",
        ":",
        "│ a.py:1 in ",
        "a.py:1: x\n",
        "- ",
        "{",
    ),
    *("On Thu wrote", "PyTorch version:\n", "\ud800", "\u202e", "[#1](", "closes ", "é", "\r"),
]


@pytest.mark.parametrize("piece", PIECES, ids=repr)
def test_no_repetition_makes_reading_slow(piece: str) -> None:
    """A pattern that backtracks would not come to an end at this length."""
    text = piece * (40_000 // len(piece))
    extract(text)
    references(text, "o/r")
    strip_quotes(text)
    sections(text)
    mentions(text)


def test_a_megabyte_of_everything() -> None:
    draw = random.Random(3)
    extract("".join(draw.choices([*PIECES, "\n", "word "], k=300_000)))


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    read = extract(text)
    assert all("\n" not in error.text for error in read.error_messages)
    strip_quotes(text)
    sections(text)
    references(text, "o/r")


@given(
    st.lists(st.sampled_from(["a", "> q", "```", "```py", "~~~", "> ```", "<!-- x", "x -->", ""]))
)
def test_every_line_is_in_one_block_at_most(lines: list[str]) -> None:
    text = "\n".join(lines)
    covered: list[int] = []
    for block in blocks(text):
        covered += range(block.line, block.line + len(block.text.split("\n")) * bool(block.text))
    own = [number for number in covered if 1 <= number <= len(lines)]
    assert len(own) == len(set(own))
