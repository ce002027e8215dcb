"""Published figures beside ours, and where the published figures contradict one another."""

from typing import Any

from orionbed.scenario import Scenario

# Two published figures closer than this are the same figure in other units.
SAME = 1e-3


def lookup(summary: dict[str, Any], key: str) -> Any:
    """Return what stands at a dotted key, or None; also `waterfall.CAUSE` and the share of micro-batches applied."""
    parts = key.split(".")
    if parts[0] == "waterfall" and len(parts) == 2:
        entries = summary.get("waterfall") or []
        return next((entry.get("fraction") for entry in entries if entry.get("cause") == parts[1]), None)
    if key == "microbatches.applied_share":
        created, applied = lookup(summary, "microbatches.created"), lookup(summary, "microbatches.applied")
        return applied / created if created and applied is not None else None
    value: Any = summary
    for part in parts:
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return None
    return value


def fitted_quantities(scenario: Scenario) -> set[str]:
    """Summary keys that some value of the scenario was fitted to, after its `provenance`."""
    targets = set()
    for text in scenario.provenance.values():
        kind, _, rest = text.partition(":")
        if kind.strip() == "fitted":
            targets.add(rest.partition("=")[0].strip())
    return targets


def compare_published(scenario: Scenario, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each published figure beside ours.

    `kind` says what our figure is worth: `fitted` when the scenario was fitted to it, `input` when the scenario
    simply contains it, `predicted` otherwise. `error` is (ours - published) / published, `None` where we have no such
    number or the published one is nought.
    """
    fitted = fitted_quantities(scenario)
    rows = []
    for entry in scenario.published:
        if entry.kind == "reading":
            continue
        ours = lookup(summary, entry.quantity)
        number = float(ours) if isinstance(ours, int | float) and not isinstance(ours, bool) else None
        kind = "fitted" if entry.quantity in fitted else "input" if entry.kind == "input" else "predicted"
        rows.append(
            {
                "quantity": entry.quantity,
                "published": entry.value,
                "ours": number,
                "error": None if number is None or not entry.value else (number - entry.value) / abs(entry.value),
                "kind": kind,
                "source": entry.source,
                "note": entry.note,
            }
        )
    return rows


def contradictions(scenario: Scenario, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what each published average implies for tokens/s, MFU and hours; empty unless two can be compared.

    They can be compared when both an MFU and a rate in tokens/s are published. All rows use the same N, FLOP convention
    and number of tokens, so that two rows that differ cannot both describe the same average. Peaks are no averages, and
    a figure that only repeats another one in other units is left out.
    """
    layout = summary["layout"]
    per_token = summary["model"]["flops_per_token"] / (
        layout["peak_flops"] * layout["num_peers"] * layout["gpus_per_peer"]
    )
    tokens = scenario.run.tokens or summary["tokens"]["total"]
    rows: list[dict[str, Any]] = []
    units: set[str] = set()
    for entry in scenario.published:
        unit, _, average = entry.quantity.rpartition(".")
        if average.startswith("peak") or entry.value <= 0.0:
            continue
        if unit == "mfu":
            rate = entry.value / per_token
        elif unit == "tokens.per_s":
            rate = entry.value
        elif entry.quantity == "duration_s.total" and scenario.run.tokens is not None:
            rate = tokens / entry.value
        else:
            continue
        units.add(unit)
        if any(abs(rate - row["tokens_per_s"]) < SAME * rate for row in rows):
            continue
        rows.append(_reading(entry.note or entry.quantity, rate, per_token, tokens, entry.source))
    if not {"mfu", "tokens.per_s"} <= units:
        return []
    for name, label in (("in_phase", "training phases only"), ("with_merges", "with merges"), ("wall_clock", "all")):
        rows.append(_reading(f"this run, {label}", summary["tokens"]["per_s"][name], per_token, tokens, "this run"))
    return rows


def _reading(reading: str, rate: float, per_token: float, tokens: float, source: str) -> dict[str, Any]:
    return {
        "reading": reading,
        "tokens_per_s": rate,
        "mfu": rate * per_token,
        "hours": tokens / rate / 3600.0 if rate else None,
        "source": source,
    }
