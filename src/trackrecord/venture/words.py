"""Numbers as a person reads them, in derivations and in the text."""

from __future__ import annotations

from mini_vllm.sim import quantity


def number(value: float) -> str:
    """Four digits, or all before the point: `0.4644`, `12,290`."""
    return f"{value:,.0f}" if abs(value) >= 1000 else quantity.number(value)


def money(value: float) -> str:
    """Dollars to three digits, or whole ones from 1,000 on."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.3g}"


def percent(share: float) -> str:
    """`42.4 %`."""
    return f"{100 * share:.1f} %"


def shown(value: float | None, unit: str) -> str:
    """A value with its unit; `none` where there is no number."""
    text = bare(value, unit)
    return text if value is None or unit == "share" else f"{text} {unit}"


def bare(value: float | None, unit: str) -> str:
    """As `shown`, without the unit; a share keeps its `%`."""
    if value is None:
        return "none"
    if unit == "share":
        return percent(value)
    return money(value) if unit.startswith("USD") else number(value)
