"""The router hashes the request instead of its prefix, so that a prefix lands everywhere."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from random import Random

from mini_vllm.core.scheduler import SchedulerConfig
from mini_vllm.sim.cluster import Cluster, Pool
from mini_vllm.sim.engine import SimulatedEngine
from mini_vllm.sim.executor import SimulatedExecutor
from mini_vllm.sim.outcome import Outcome as Served
from mini_vllm.sim.outcome import Slo
from mini_vllm.sim.traffic import Arrival
from trackrecord.loop.incidents import views
from trackrecord.loop.incidents.outcome import Outcome, Setup
from trackrecord.loop.incidents.site import roofline

_PREFIXES, _PREFIX, _REQUESTS, _ENGINES = 24, 1536, 200, 4
_BLOCKS = 1201
LEAST_HIT_RATE = 70.0
"""Percent of prompt tokens that were found before the change, and should be again."""


class Recorded(Cluster):
    """A cluster that writes down where each prefix went."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.routes: list[tuple[int, int, int]] = []
        """(the request's prefix, the key that was hashed, the engine)"""

    def _key(self, key: int) -> int:
        return key

    def _route(self, engines: Sequence[SimulatedEngine], key: int) -> SimulatedEngine:
        hashed = self._key(key)
        engine = super()._route(engines, hashed)
        place = next(n for n, each in enumerate(engines) if each is engine)
        self.routes.append((key, hashed, place))
        return engine


class Scattering(Recorded):
    """Hashes a key that no two requests share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._count = itertools.count()

    def _key(self, key: int) -> int:
        return 1_000_003 * next(self._count) + key


def run(setup: Setup) -> Outcome:
    blocks = 1501 if setup.change == "more-blocks" else _BLOCKS
    engines = 6 if setup.change == "more-replicas" else _ENGINES
    policy = {"least-loaded": "least-loaded", "round-robin": "round-robin"}
    router = policy.get(setup.change, "prefix-affine")
    config = SchedulerConfig(num_blocks=blocks, max_num_seqs=64, max_num_batched_tokens=4096)
    pool = Pool(engines, config, lambda n: SimulatedExecutor(roofline()))
    served = Served(Slo())
    kind = Scattering if setup.broken else Recorded
    cluster = kind(pool, router, served)
    cluster.run(iter(_arrivals(setup.seed)), _REQUESTS)
    managers = [engine.core.scheduler.kv_cache_manager for engine in cluster.engines]
    hits = sum(manager.prefix_cache_hits for manager in managers)
    rate = 100 * hits / sum(manager.prefix_cache_queries for manager in managers)
    spread = _spread(cluster)
    p50 = served.ttft.quantile(0.5) or 0.0
    return Outcome(
        symptom=rate < LEAST_HIT_RATE,
        says=f"{rate:.0f}% of the prompt tokens were found in a cache, TTFT p50 "
        f"{1000 * p50:.0f} ms; a prefix is served by {spread:.1f} replicas",
        figures={"hit_percent": rate, "spread": spread, "ttft_ms": 1000 * p50},
        views={
            "metrics": _metrics(cluster, served),
            "replicas": _replicas(cluster),
            "config": "\n".join(
                [f"router.policy = {router}", f"router.replicas = {engines}", views.config(config)]
            ),
            "router-log": _router_log(cluster),
            "prefix-map": _prefix_map(cluster),
            "one-replica": _one_replica(cluster),
            "workload": _workload(),
            "profile": _profile(cluster),
        },
    )


def _arrivals(seed: int) -> list[Arrival]:
    rng = Random(f"{seed}:router-affinity")
    prefixes = [[rng.randrange(32_000) for _ in range(_PREFIX)] for _ in range(_PREFIXES)]
    order = [n % _PREFIXES for n in range(_REQUESTS)]
    Random("router-affinity").shuffle(order)  # the same for every seed: it decides the figures
    return [
        Arrival(
            time=0.08 * n,
            prompt_token_ids=[*prefixes[prefix], *(rng.randrange(32_000) for _ in range(64))],
            output_tokens=16,
            priority=0,
            tenant="all",
            key=prefix,
        )
        for n, prefix in enumerate(order)
    ]


def _spread(cluster: Recorded) -> float:
    """Replicas that served a prefix, on average."""
    places: dict[int, set[int]] = {}
    for prefix, _, place in cluster.routes:
        places.setdefault(prefix, set()).add(place)
    return sum(map(len, places.values())) / len(places)


def _metrics(cluster: Recorded, served: Served) -> str:
    loads = cluster.loads
    managers = [engine.core.scheduler.kv_cache_manager for engine in cluster.engines]
    rows = [
        ("requests_finished_total", served.finished),
        ("vllm:prefix_cache_queries_total", sum(m.prefix_cache_queries for m in managers)),
        ("vllm:prefix_cache_hits_total", sum(m.prefix_cache_hits for m in managers)),
        ("vllm:prompt_tokens_computed_total", sum(load.prompt_tokens for load in loads)),
        ('vllm:time_to_first_token_seconds{quantile="0.5"}', served.ttft.quantile(0.5) or 0.0),
        ('vllm:time_to_first_token_seconds{quantile="0.99"}', served.ttft.quantile(0.99) or 0.0),
        ('vllm:inter_token_latency_seconds{quantile="0.5"}', served.itl.quantile(0.5) or 0.0),
    ]
    return "\n".join(f"{name} {value:.6g}" for name, value in rows)


def _replicas(cluster: Recorded) -> str:
    rows = ["replica  requests  hit rate  preemptions  cache used at most"]
    for place, engine in enumerate(cluster.engines):
        manager = engine.core.scheduler.kv_cache_manager
        count = sum(where == place for *_, where in cluster.routes)
        rate = 100 * manager.prefix_cache_hits / max(1, manager.prefix_cache_queries)
        load = engine.load
        rows.append(
            f"{place:>7} {count:>9} {rate:>8.1f}% {load.preemptions:>12} "
            f"{100 * load.kv_most:>18.1f}%"
        )
    return "\n".join(rows)


def _router_log(cluster: Recorded) -> str:
    rows = ["request  system prompt  hash key        replica"]
    for number, (prefix, hashed, place) in enumerate(cluster.routes):
        if prefix < 2 and len(rows) < 24:
            rows.append(f"{number:>7}  #{prefix:<12} {hashed:<14} {place:>8}")
    return "\n".join(rows)


def _prefix_map(cluster: Recorded) -> str:
    rows = ["system prompt: requests by replica"]
    for prefix in range(_PREFIXES):
        counts = [
            sum(p == prefix and where == place for p, _, where in cluster.routes)
            for place in range(len(cluster.engines))
        ]
        rows.append(f"  #{prefix:<3} {counts}")
    rows.append(f"  on average by {_spread(cluster):.2f} replicas")
    return "\n".join(rows)


def _one_replica(cluster: Recorded) -> str:
    manager = cluster.engines[0].core.scheduler.kv_cache_manager
    blocks = manager.block_pool.num_blocks - 1
    size = manager.block_size
    return "\n".join(
        [
            f"replica 0: {blocks} blocks of {size} tokens = {blocks * size} tokens",
            f"one system prompt takes {_PREFIX // size} blocks; {blocks // (_PREFIX // size)} fit",
            f"looked up {manager.prefix_cache_queries} tokens, found {manager.prefix_cache_hits}",
        ]
    )


def _workload() -> str:
    return "\n".join(
        [
            f"{_REQUESTS} requests, one every 80 ms, {_PREFIXES} system prompts",
            f"each: {_PREFIX} tokens of system prompt, 64 of its own, 16 out",
        ]
    )


def _profile(cluster: Recorded) -> str:
    busy = sum(load.busy for load in cluster.loads)
    tokens = sum(load.prompt_tokens for load in cluster.loads)
    return f"{busy:.2f} s of step time over all replicas, {tokens} prompt tokens computed"
