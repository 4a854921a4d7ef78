from __future__ import annotations

from mini_vllm.bench.budget import Budget
from mini_vllm.bench.measure import MAX_ROUNDS, Run, measure
from mini_vllm.bench.workloads import WORKLOADS


class FakeMachine:
    """A clock, and a runner on which each workload takes the time it is said to."""

    def __init__(self, costs: dict[str, float]) -> None:
        self.now, self.costs, self.ran = 0.0, {"warm-up": 0.0, **costs}, []

    def clock(self) -> float:
        return self.now

    def run(self, workload) -> Run:
        self.ran.append(workload.name)
        self.now += self.costs[workload.name]
        return Run(self.costs[workload.name] or 1.0, None, 0, 0)


def measured(machine: FakeMachine, **how) -> dict[str, int]:
    workloads = [WORKLOADS[name] for name in machine.costs if name in WORKLOADS]
    return {result.name: result.seconds.n for result in measure(workloads, machine.run, **how)}


def test_a_budget_counts_down_and_never_below_zero():
    machine = FakeMachine({})
    budget = Budget(10, machine.clock)
    assert budget.fits(10)
    machine.now = 7
    assert budget.left() == 3
    assert not budget.fits(3.1)
    machine.now = 12
    assert budget.left() == 0


def test_a_part_ends_with_the_whole():
    machine = FakeMachine({})
    budget = Budget(10, machine.clock)
    machine.now = 8
    assert budget.part(5).left() == 2
    assert budget.part(1).left() == 1
    assert budget.part(-3).left() == 0


def test_rounds_are_interleaved_after_one_warm_up():
    machine = FakeMachine({"single": 1, "batch": 2})
    assert measured(machine, rounds=2) == {"single": 2, "batch": 2}
    assert machine.ran == ["warm-up", "single", "batch", "single", "batch"]


def test_everything_is_measured_once_even_when_the_budget_is_spent():
    machine = FakeMachine({"single": 5, "batch": 50, "prefix": 5})
    budget = Budget(1, machine.clock)
    assert measured(machine, budget=budget) == {"single": 1, "batch": 1, "prefix": 1}


def test_what_is_left_goes_to_the_workloads_that_still_fit():
    machine = FakeMachine({"single": 6, "batch": 26, "prefix": 10, "prefill": 17})
    budget = Budget(75, machine.clock)
    assert list(measured(machine, budget=budget).items()) == [
        *(("single", 2), ("batch", 1), ("prefix", 2), ("prefill", 1)),
    ]
    assert machine.now <= 75


def test_a_fast_engine_stops_at_the_most_rounds():
    machine = FakeMachine({"single": 0.001})
    assert measured(machine, budget=Budget(1000, machine.clock)) == {"single": MAX_ROUNDS}
