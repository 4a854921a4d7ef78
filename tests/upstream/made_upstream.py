"""A small tree with the shape of upstream: code, tests, CI, owners, labels and guides.

Everything in it is made up. What a test needs beyond this, it writes itself.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from trackrecord.upstream.fetch import bring_folder
from trackrecord.upstream.index.build import build_index
from trackrecord.upstream.index.query import Index
from trackrecord.upstream.pin import Pin, Tree, add_pin
from trackrecord.workspace import Workspace

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIN = Pin(
    name="made-1.0",
    project="vllm",
    version="1.0",
    repository="vllm-project/vllm",
    commit=COMMIT[:9],
    tag="v1.0",
    version_file="vllm/_version.py",
)

CODE = {
    "vllm/__init__.py": 'MODULE_ATTRS = {"Scheduler": ".v1.scheduler:Scheduler"}\n',
    "vllm/_version.py": f"__commit_id__ = commit_id = 'g{COMMIT[:9]}'\n",
    "vllm/v1/__init__.py": "",
    "vllm/v1/core/__init__.py": "from vllm.v1.core.block_pool import BlockPool\n",
    "vllm/v1/core/block_pool.py": '''"""Blocks."""


class BlockPool:
    """Holds the blocks."""

    def __init__(self, num_blocks: int) -> None:
        self.free = list(range(num_blocks))

    def get_new_blocks(
        self,
        count: int,
    ) -> list[int]:
        """Take blocks out of the pool.

        The first ones go first.
        """
        # TODO: evict when the queue is longer than
        # the pool.
        return [self.free.pop() for _ in range(count)]

    def free_blocks(self, blocks: list[int]) -> None:
        self.free += blocks
''',
    "vllm/v1/core/manager.py": """from vllm.v1.core import BlockPool


class KVManager:
    def __init__(self, block_pool: BlockPool) -> None:
        self.block_pool = block_pool

    def allocate(self, count):
        return self.block_pool.get_new_blocks(count)


class SpecManager(KVManager):
    def allocate_draft(self, num_draft_tokens):
        return self.allocate(num_draft_tokens)
""",
    "vllm/v1/scheduler.py": """from vllm.v1.core.manager import KVManager


class Scheduler:
    def __init__(self, lora_config) -> None:
        self.lora_config = lora_config
        self.kv_manager = make_manager()

    def schedule(self):
        if self.lora_config:
            return []
        return self.kv_manager.allocate(1)


class AsyncScheduler(Scheduler):
    pass


def make_manager() -> KVManager:
    from vllm.v1.core.block_pool import BlockPool

    return KVManager(BlockPool(8))
""",
    "vllm/logger.py": "def init_logger(name):\n    return name\n",
    "vllm/model_executor/layer.py": """import torch

from vllm.logger import init_logger

logger = init_logger(__name__)
BACKENDS = ["a", "b"]


class Layer(torch.nn.Module):
    def forward(self, x):
        return x
""",
    "vllm/model_executor/model.py": """from vllm.model_executor.layer import Layer


class Model:
    def __init__(self):
        self.layer = Layer()

    def run(self, x):
        return self.layer(x)
""",
    "benchmarks/bench_pool.py": """from vllm.v1.core.block_pool import BlockPool


def main():
    BlockPool(3).get_new_blocks(2)
""",
}

TESTS = {
    "tests/__init__.py": "",
    "tests/utils.py": "def multi_gpu_test(*, num_gpus):\n    return lambda test: test\n",
    "tests/v1/core/__init__.py": "",
    "tests/v1/core/helpers.py": """from vllm.v1.scheduler import Scheduler


def make_scheduler():
    return Scheduler(None)
""",
    "tests/v1/core/test_block_pool.py": """import pytest

from vllm.v1.core.block_pool import BlockPool

pytestmark = pytest.mark.cpu_test


def test_takes_blocks():
    assert BlockPool(2).get_new_blocks(1)


class TestFree:
    def test_gives_back(self):
        BlockPool(2).free_blocks([1])
""",
    "tests/v1/core/test_scheduler.py": """from .helpers import make_scheduler


def test_schedules():
    assert make_scheduler().schedule() == []
""",
    "tests/v1/test_engine.py": """from unittest.mock import patch

import torch

from tests.utils import multi_gpu_test


def test_on_the_device():
    torch.zeros(1, device="cuda")


@multi_gpu_test(num_gpus=2)
def test_on_two():
    pass


def test_patched():
    with patch("vllm.v1.core.manager.KVManager"):
        pass
""",
}

RULES = {
    ".buildkite/ci_config.yaml": """name: vllm_ci
job_dirs: [".buildkite/test_areas/"]
run_all_patterns: ["csrc/", "setup.py"]
run_all_exclude_patterns: ["csrc/cpu/"]
""",
    ".buildkite/test_areas/core.yaml": """group: Core
depends_on: [image-build]
steps:
- label: Core
  key: core
  device: h100
  num_devices: 2
  source_file_dependencies: [vllm/v1/, tests/v1/core]
  commands:
  - pytest -v v1/core --ignore=v1/core/test_scheduler.py
  mirror:
    amd:
      device: mi300_1
      source_file_dependencies: [vllm/platforms/rocm.py]
- label: Core (CPU)
  device: cpu-small
  source_file_dependencies: [vllm/v1/core/block_pool.py]
  commands: ["pytest -m cpu_test v1/core"]
- label: Slow
  optional: true
  source_file_dependencies: [vllm/]
  commands: ["pytest slow"]
- label: By name
  source_file_dependencies: [vllm/logg]
""",
    ".buildkite/test_areas/image.yaml": """group: Images
steps:
- label: Build
  key: image-build
""",
    ".github/CODEOWNERS": """# who looks at what
* @everybody
/vllm/v1 @core @second
/vllm/v1/core/block_pool.py @pool
/docs/
""",
    ".github/mergify.yml": """pull_request_rules:
- name: label-v1
  conditions: [label != stale, or: [files~=^vllm/v1/, files~=^tests/v1/]]
  actions: {label: {add: [v1]}}
- name: label-docs
  conditions: ["files~=^docs/"]
  actions: {label: {add: [documentation]}}
""",
    ".github/PULL_REQUEST_TEMPLATE.md": "## Purpose\n\n## Test Plan\n\n## Test Result\n",
    ".github/ISSUE_TEMPLATE/400-bug.yml": """name: Bug
title: "[Bug]: "
labels: [bug]
body:
- type: markdown
  attributes: {value: hello}
- type: textarea
  id: env
  attributes: {label: Your environment}
  validations: {required: true}
""",
    ".pre-commit-config.yaml": """repos:
- repo: local
  hooks:
  - id: spdx
    name: Check headers
    entry: python tools/spdx.py
    language: python
    types: [python]
""",
    "AGENTS.md": """# Instructions

## Duplicate work

Search first.

```bash
# not a heading
```
""",
    "docs/contributing/README.md": "# Contributing\n\nHello.\n\n## Sign-off\n\nUse `-s`.\n",
    "docs/index.md": "# Docs\n",
}

FILES = CODE | TESTS | RULES


def write_tree(root: Path, files: dict[str, str] | None = None) -> Path:
    """Writes the made tree, or `files`, below `root`."""
    for name, text in (FILES if files is None else files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def index_of(root: Path, path: Path) -> Index:
    """The index at `path` of the tree at `root`, brought up to date."""
    build_index(root, path, PIN.name, processes=1)
    return Index.open_at(path, Tree(root, PIN))


def pinned_workspace(folder: Path, tree: Path) -> Workspace:
    """A workspace whose default pin is `tree`, a made one, put in place in the cache."""
    workspace = Workspace.open(folder)
    add_pin(workspace, PIN)
    pins = workspace.root / "pins.toml"
    pins.write_text(f'default = "{PIN.name}"\n' + pins.read_text())
    bring_folder(PIN, tree, lambda *_: None)
    return workspace


def git(folder: Path, *words: str) -> str:
    """Runs git in `folder`, as somebody, and with nothing of the person's own settings."""
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *words],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(folder)},
    )
    return done.stdout.strip()


def git_repository(folder: Path, tag: str = "v1.0") -> str:
    """Makes the tree in `folder` a repository with one commit and a tag; the commit."""
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "everything")
    if tag:
        git(folder, "tag", tag)
    return git(folder, "rev-parse", "HEAD")
