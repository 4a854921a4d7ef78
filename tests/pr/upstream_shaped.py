"""A small git repository with the parts of upstream that rules are read from.

The sentences are our own but for the words that a rule is found by. What the branch does is up to
each test.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from mini_vllm import console

Run = Callable[..., tuple[int, str, str]]
AUTHOR = ("Ada Example", "ada@example.org")
HEADER = (
    "# SPDX-License-Identifier: Apache-2.0\n"
    "# SPDX-FileCopyrightText: Copyright contributors to the vLLM project\n"
)
POOL = (
    HEADER
    + '''"""A pool of blocks."""


class Pool:
    """Hands out blocks, the least recently used first."""

    def __init__(self, size: int) -> None:
        self.free = list(range(size))

    def take(self, count: int) -> list[int]:
        """Takes `count` blocks."""
        if count > len(self.free):
            raise ValueError(f"cannot take {count} blocks")
        taken, self.free = self.free[:count], self.free[count:]
        return taken
'''
)
ARGUMENTS = (
    HEADER
    + '''"""Arguments of the engine."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--old-switch", action="store_true")
'''
)
CONFIG = (
    HEADER
    + '''"""Settings of the cache."""

from vllm.config.utils import config


@config
class CacheConfig:
    block_size: int = 16
    """Tokens in a block."""
'''
)
TEST = (
    HEADER
    + """from vllm.core.pool import Pool


def test_takes_blocks() -> None:
    assert Pool(3).take(2) == [0, 1]
"""
)
FILES = {
    "AGENTS.md": """# For agents

## 1. Policy

### Duplicate-work checks

Before proposing a PR, run these checks:

```bash
gh issue view <issue_number> --repo vllm-project/vllm --comments
gh pr list --repo vllm-project/vllm --state open --search "<issue_number> in:body"
```

- If an open PR already addresses the same fix, leave it at that.

### No busywork

Do not open one-off PRs for tiny edits (a typo, a mutable default).

### Accountability

- Agents open nothing alone. A human must understand and defend the change.
- The human must review every changed line and run relevant tests.
- Descriptions of assisted work say:
    - Why this is not duplicating an existing PR.
    - Test commands run and results.
    - Clear statement that AI assistance was used.

### Commits

Add attribution using commit trailers such as `Co-authored-by:` (or `Assisted-by:`).
""",
    "DCO": "Developer Certificate of Origin\n",
    "CONTRIBUTING.md": "See docs/contributing/README.md.\n",
    "docs/contributing/README.md": """# Contributing

Our community is open to everyone.

## Pull requests

### DCO

Commits must include a `Signed-off-by:` line.

### AI

1. **Be involved**: no agent alone; running relevant tests is yours to do.
2. **Ensure significance**: nothing tiny.
3. **Disclose in PR**: say so.
4. **Mark commits**: with `Co-authored-by:`.

### PR Title and Classification

The PR title is prefixed with one of:

- `[Bugfix]` for fixes.
- `[Core]` for the engine.
- `[Doc]` for documents.
- `[Hardware][Vendor]` for hardware.

### Code Quality

- Pass all linter checks.
- Include sufficient tests.
- Please add documentation to `docs/` if users notice.

### Large changes

Please keep the changes as concise as possible. For large ones
(>40 LOC excluding kernel/data/config/test) we want an RFC.
""",
    "docs/contributing/deprecation_policy.md": """# Deprecation

- CLI flags

## Removed

- Only features that have passed through the stages before are removed.
""",
    "docs/contributing/editing-agent-instructions.md": """# Editing

Keep `AGENTS.md` under **200 lines**.
""",
    "docs/governance/collaboration.md": """# Working together

An RFC gives the motivation, the alternatives considered, and the change.
""",
    "docs/governance/process.md": """# Process

- **Sustained contributions**: across releases.

Past committers have:

- Submitted approximately 3+ PRs of substance
- Provided high-quality reviews of approximately 2+ PRs

PRs requires at least one committer review.
""",
    "docs/governance/committers.md": """# Committers

- [@grace](https://example.org/grace): everything

### Emeritus Committers

- [@former](https://example.org/former): the past
""",
    "docs/usage.md": "# Usage\n\nThe pool hands out bloks.\n",
    ".github/PULL_REQUEST_TEMPLATE.md": """<!-- markdownlint-disable -->
PLEASE FILL IN THE PR DESCRIPTION HERE.

## Purpose

## Test Plan

## Test Result

---
<details>
<summary> Checklist </summary>

- [ ] The purpose, such as "Fix something (link existing issues this resolves)".
- [ ] The test plan, such as a command.
- [ ] The test results, such as pasting the results comparison before and after
- [ ] (Optional) The necessary documentation.
</details>

**BEFORE SUBMITTING, READ THE GUIDE** (anything written below this line will be removed by a robot)
""",
    ".github/CODEOWNERS": "/vllm/core @grace @alan\n/vllm/config @alan\n",
    ".github/mergify.yml": """pull_request_rules:
- name: label-core
  conditions:
    - label != stale
    - files~=^vllm/core/
  actions:
    label:
      add:
        - core
- name: comment-dco-failure
  conditions:
    - check-failure=dco
  actions:
    comment:
      message: sign off
- name: comment-pre-commit-failure
  conditions:
    - check-failure=pre-commit
  actions:
    comment:
      message: run it
""",
    ".github/ISSUE_TEMPLATE/750-RFC.yml": """name: RFC
description: Ask for comments.
title: "[RFC]: "
labels: ["RFC"]
body:
- type: markdown
  attributes:
    value: Look at earlier ones.
- type: textarea
  attributes:
    label: Motivation.
    description: Why.
  validations:
    required: true
- type: textarea
  attributes:
    label: Proposed Change.
    description: What.
  validations:
    required: true
- type: textarea
  attributes:
    label: Feedback Period.
    description: Usually at least one week.
  validations:
    required: false
- type: textarea
  attributes:
    label: CC List.
    description: Whom.
  validations:
    required: false
- type: checkboxes
  attributes:
    label: Before submitting...
    options:
      - label: I searched.
        required: true
""",
    ".buildkite/ci_config.yaml": """name: ci
job_dirs:
  - ".buildkite/test_areas"
run_all_patterns:
  - "setup.py"
run_all_exclude_patterns: []
""",
    ".buildkite/test_areas/core.yaml": """group: Core
steps:
- label: Core on CPU
  device: cpu
  source_file_dependencies:
  - vllm/core
  - tests/core
  commands:
  - pytest -v core
- label: Models
  device: h100
  source_file_dependencies:
  - vllm/models/
  commands:
  - pytest -v models
""",
    ".pre-commit-config.yaml": """exclude: 'vllm/third_party/.*'
repos:
- repo: https://example.org/ruff
  rev: v1
  hooks:
  - id: ruff-check
- repo: local
  hooks:
  - id: check-spdx-header
    name: Check SPDX headers
    entry: python tools/pre_commit/check_spdx_header.py
    language: python
    types: [python]
  - id: check-forbidden-imports
    name: Check for forbidden imports
    entry: python tools/pre_commit/check_forbidden_imports.py
    language: python
    types: [python]
  - id: check-torch-cuda-call
    name: Prevent torch.cuda
    entry: python tools/pre_commit/check_torch_cuda.py
    language: python
    types: [python]
  - id: check-boolean-context-manager
    name: Check for boolean ops
    entry: python tools/pre_commit/check_boolean_context_manager.py
    language: python
    types: [python]
  - id: check-root-lazy-imports
    name: Check root lazy imports
    entry: python tools/pre_commit/check_init_lazy_imports.py
    language: python
    types: [python]
  - id: validate-config
    name: Validate configuration
    entry: python tools/pre_commit/validate_config.py
    language: python
  - id: check-filenames
    name: Check for spaces
    entry: bash
    language: system
    always_run: true
""",
    "tools/pre_commit/check_spdx_header.py": HEADER
    + """
LICENSE_LINE = "# SPDX-License-Identifier: Apache-2.0"
COPYRIGHT_LINE = "# SPDX-FileCopyrightText: Copyright contributors to the vLLM project"
""",
    "tools/pre_commit/check_forbidden_imports.py": HEADER
    + """
import regex as re

CHECK_IMPORTS = {
    "pickle": ForbiddenImport(
        pattern=(r"^\\s*(import\\s+pickle(\\s|$)" r"|from\\s+pickle\\s+import\\b)"),
        tip="Do without pickle.",
        allowed_files={"vllm/core/trusted.py"},
    ),
    "re": ForbiddenImport(
        pattern=r"^\\s*import\\s+re(?:$|\\s)",
        tip="Use regex.",
        allowed_pattern=re.compile(r"^\\s*import\\s+regex\\b"),
    ),
}
""",
    "tools/pre_commit/check_torch_cuda.py": HEADER
    + """
_TORCH_CUDA_PATTERNS = [
    r"\\btorch\\.cuda\\.(empty_cache|synchronize)\\b",
]

ALLOWED_FILES = {"vllm/platforms/"}
""",
    "tools/pre_commit/check_init_lazy_imports.py": HEADER
    + """
INIT_PATH: Final = Path("vllm/__init__.py")
ALLOWED_IMPORTS: Final = frozenset({"vllm.env_override"})
ALLOWED_FROM_MODULES: Final = frozenset({".version"})
""",
    "vllm/__init__.py": HEADER + "from .version import __version__\n",
    "vllm/version.py": HEADER + '__version__ = "0"\n',
    "vllm/core/__init__.py": "",
    "vllm/core/pool.py": POOL,
    "vllm/core/arguments.py": ARGUMENTS,
    "vllm/config/cache.py": CONFIG,
    "vllm/config/utils.py": HEADER + "def config(cls):\n    return cls\n",
    "tests/core/test_pool.py": TEST,
}
BODY = """## Purpose

Fixes #7: taking no block failed.

No other PR does the same: searched for the number and for "pool".

AI assistance was used: Claude drafted the test.

## Test Plan

```bash
pytest tests/core/test_pool.py
```

## Test Result

```text
2 passed in 0.02s
```
"""
STATED = (
    *("--ai-assistance", "used", "--i-reviewed-every-line", "--i-ran-the-tests"),
    *("--i-can-defend-this-change", "--i-checked-for-duplicates"),
)
"""What a person has to state for `good_change`."""
TRAILERS = f"Co-authored-by: Claude\nSigned-off-by: {AUTHOR[0]} <{AUTHOR[1]}>"


@dataclass(frozen=True)
class Clone:
    """A clone on a branch `fix` that starts where `main` ends."""

    root: Path

    def git(self, *words: str, **variables: str) -> str:
        done = subprocess.run(
            ["git", *words],
            cwd=self.root,
            env=os.environ | {"GIT_CONFIG_NOSYSTEM": "1"} | variables,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def write(self, path: str, text: str | bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)

    def replace(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text()
        assert old in text
        self.write(path, text.replace(old, new))

    def commit(self, message: str, **variables: str) -> str:
        """Commits everything, and says which commit that is."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message, **variables)
        return self.git("rev-parse", "HEAD")


def make_clone(folder: Path) -> Clone:
    """A clone with `FILES` on `main`, standing on the new branch `fix`."""
    folder.mkdir(parents=True, exist_ok=True)
    clone = Clone(folder)
    clone.git("init", "-q", "-b", "main")
    for key, value in zip(("user.name", "user.email"), AUTHOR, strict=True):
        clone.git("config", key, value)
    clone.git("config", "commit.gpgsign", "false")
    for path, text in FILES.items():
        clone.write(path, text)
    clone.commit(f"Begin\n\n{TRAILERS}")
    clone.git("checkout", "-q", "-b", "fix")
    return clone


def good_change(clone: Clone) -> str:
    """A change that only a person's statements keep from being ready."""
    clone.replace(
        "vllm/core/pool.py",
        "        if count > len(self.free):\n",
        "        if count == 0:\n            return []\n        if count > len(self.free):\n",
    )
    clone.replace(
        "tests/core/test_pool.py",
        "[0, 1]\n",
        "[0, 1]\n\n\ndef test_takes_nothing() -> None:\n    assert Pool(0).take(0) == []\n",
    )
    return clone.commit(f"[Bugfix] Take no block\n\n{TRAILERS}")


def run_command(command: str, *words: str | Path) -> int:
    """Runs a command as the program would; its exit code."""

    def main(argv: Sequence[str]) -> int:
        module = import_module(f"trackrecord.commands.{command}")
        parser = console.Parser(prog=f"trackrecord {command}")
        module.configure(parser)
        return int(module.run(parser.parse_args(argv)))

    return console.run("trackrecord", main, [str(word) for word in words])


def runner(command: str, place: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """What runs a command in the workspace at `place`; gives exit code, output and errors."""

    def run(*words: object) -> tuple[int, str, str]:
        try:
            code = run_command(command, *map(str, words), "--workspace", place)
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        return code, *capsys.readouterr()

    return run


class Checked:
    """The outcome of one run, as its JSON says."""

    def __init__(self, code: int, report: dict) -> None:
        self.code = code
        self.report = report
        self.findings = report["findings"]

    def of(self, rule: str) -> list[dict]:
        return [finding for finding in self.findings if finding["rule"] == rule]

    @property
    def blocking(self) -> set[str]:
        return {f["rule"] for f in self.findings if f["level"] in ("error", "unstated")}

    def message(self, rule: str) -> str:
        (finding,) = self.of(rule)
        return finding["message"]
