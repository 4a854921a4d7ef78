"""A step's time as a fit to steps that were recorded from the real engine on this machine.

`mini-vllm bench --record-steps FILE` writes one line a step: its shape and how long it took. The
fit is a sum of non-negative costs: of a step, of a (query, key) pair, of a token of context that is
read, of a sequence, and of a token, which costs more in small steps than in large ones.
Non-negative least squares on relative errors, so that short steps count as much as long ones.

Invariant: every price is 0 or above, so more work never takes less time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.cost.shape import StepShape
from mini_vllm.sim.cost.step_cost import Terms

SCHEMA = "mini-vllm-steps/1"
_LEAST_STEPS = 20
_KNEES = (2, 8, 32, 128)
"""Token counts from which a token costs less: of small products most is reading the weights, which
more tokens share."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of the real engine: what it computed, and the seconds it took."""

    decodes: int
    decode_context: int
    chunks: int
    chunk_tokens: int
    chunk_context: int
    chunk_pairs: float
    seconds: float

    @property
    def shape(self) -> StepShape:
        return StepShape(
            self.decodes,
            self.decode_context,
            self.chunks,
            self.chunk_tokens,
            self.chunk_context,
            self.chunk_pairs,
        )


def write_steps(path: Path, records: Iterable[StepRecord], about: dict[str, Any]) -> None:
    """Writes a recording: a header line, then a line a step.

    Raises:
        InvalidInputError: it cannot be written.
    """
    try:
        with path.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"schema": SCHEMA, **about}) + "\n")
            for record in records:
                file.write(json.dumps(asdict(record)) + "\n")
    except OSError as error:
        raise InvalidInputError(f"cannot write {str(path)!r}: {error.strerror}") from None


def read_steps(path: Path) -> list[StepRecord]:
    """The steps of a recording.

    Raises:
        InvalidInputError: naming the line that is none.
    """
    number = 1
    try:
        with path.open(encoding="utf-8") as file:
            header = json.loads(file.readline() or "null")
            if not isinstance(header, dict) or header.get("schema") != SCHEMA:
                raise InvalidInputError(f"{path}: not a recording of steps ({SCHEMA})", "file")
            found: list[StepRecord] = []
            for line in file:
                number += 1
                found.append(_checked(StepRecord(**json.loads(line))))
    except OSError as error:
        raise InvalidInputError(f"cannot read {str(path)!r}: {error.strerror}", "file") from None
    except (ValueError, TypeError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{path}, line {number}: no step ({error!s:.60})", "file") from None
    return found


def _checked(record: StepRecord) -> StepRecord:
    values = asdict(record).values()
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and v >= 0 for v in values):
        raise ValueError("counts and seconds must be numbers from 0")
    if not record.seconds:
        raise ValueError("it took no time")
    return record


@dataclass(frozen=True)
class FittedCost:
    """Prices in seconds, by feature of a step."""

    prices: tuple[float, ...]
    steps: int
    median_error: float
    """Of the steps that were fitted, relative."""

    @property
    def name(self) -> str:
        return f"a fit to {self.steps:,} recorded steps, {self.median_error:.1%} off at the median"

    @property
    def extrapolated(self) -> float:
        return 0.0

    @classmethod
    def load(cls, path: Path) -> FittedCost:
        """Fits the recording at `path`."""
        return cls.fit(read_steps(path))

    @classmethod
    def fit(cls, records: Sequence[StepRecord]) -> FittedCost:
        """The prices that explain `records` best.

        Raises:
            InvalidInputError: too few steps.
        """
        import numpy as np

        if len(records) < _LEAST_STEPS:
            raise InvalidInputError(
                f"{len(records)} steps are too few to fit: record at least {_LEAST_STEPS}", "file"
            )
        seconds = np.array([record.seconds for record in records])
        features = np.array([_features(record.shape) for record in records])
        prices = _non_negative(features / seconds[:, None], np.ones(len(records)))
        errors = np.abs(features @ prices / seconds - 1)
        return cls(tuple(map(float, prices)), len(records), float(np.median(errors)))

    def terms(self, shape: StepShape) -> Terms:
        values = [p * f for p, f in zip(self.prices, _features(shape), strict=True)]
        return Terms(overhead=values[0], arithmetic=sum(values[4:]), attention=sum(values[1:4]))


def _features(shape: StepShape) -> list[float]:
    tokens = shape.tokens
    pairs = shape.decode_context + shape.chunk_pairs
    read = shape.decode_context + shape.chunk_context
    few = (float(min(tokens, knee)) for knee in _KNEES)
    return [1.0, pairs, read, shape.sequences, float(tokens), *few]


def _non_negative(features: Any, wanted: Any) -> Any:
    """Non-negative least squares (Lawson and Hanson, 1974) by projected coordinate descent: the
    problem has nine unknowns and is convex."""
    import numpy as np

    scale = np.maximum(np.linalg.norm(features, axis=0), 1e-300)
    scaled = features / scale
    gram, moment = scaled.T @ scaled, scaled.T @ wanted
    solution = np.zeros(features.shape[1])
    for _ in range(20_000):
        before = solution.copy()
        for index in range(len(solution)):
            if gram[index, index] > 0:
                rest = moment[index] - gram[index] @ solution + gram[index, index] * solution[index]
                solution[index] = max(0.0, rest / gram[index, index])
        if np.abs(solution - before).max() < 1e-10:
            break
    return solution / scale
