"""The timeline of a simulation as a picture: load, cache and output over time."""

from __future__ import annotations

from pathlib import Path

from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.simulate import Result

_BLUE, _ORANGE, _GREEN = "#0072b2", "#d55e00", "#007a5a"


def draw_timeline(result: Result, path: Path) -> None:
    """Writes the timeline of the first engine to `path`, an SVG or a PNG.

    Raises:
        InvalidInputError: it cannot be written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    times = [moment["time"] for moment in result.timeline]
    figure, axes = pyplot.subplots(3, 1, sharex=True, figsize=(8, 6), layout="constrained")
    figure.suptitle(result.title)
    axes[0].fill_between(times, [m["running"] for m in result.timeline], color=_BLUE, alpha=0.3)
    axes[0].plot(times, [m["running"] for m in result.timeline], color=_BLUE, label="running")
    axes[0].plot(times, [m["waiting"] for m in result.timeline], color=_ORANGE, label="waiting")
    axes[0].set_ylabel("requests")
    axes[0].legend(loc="upper right")
    axes[1].plot(times, [100 * m["kv_usage"] for m in result.timeline], color=_GREEN)
    axes[1].set_ylabel("KV cache, %")
    axes[1].set_ylim(0, 100)
    rates = [m["output_tokens"] / m["seconds"] if m["seconds"] else 0 for m in result.timeline]
    axes[2].plot(times, rates, color=_BLUE)
    axes[2].set_ylabel("output tokens/s")
    axes[2].set_xlabel("seconds of the first engine")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise InvalidInputError(f"cannot write {str(path)!r}: {error.strerror}") from None
    finally:
        pyplot.close(figure)
