"""What peers are worth, as lines on a terminal and as a figure, from what `orionbed value --json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from orionbed.aligned import aligned
from reports import formatting as fmt
from reports.figures import values as figure
from reports.quantities import show_difference

_HEADS: Final = ("adds", "from", "to", "$ per M tokens", "price", "break-even", "")
_TOKENS: Final = "tokens_per_s"
_DOLLARS: Final = "usd_per_million_tokens"


def value_lines(result: Mapping[str, Any]) -> list[str]:
    """Return a table of the peers, those that add most first."""
    found = ordered(result)
    rows = [(_name(one), *_cells(one)) for one in found]
    heads = (result["by"], *_HEADS)
    return [*_head(result), "", *aligned([heads, *rows], left=(0, len(_HEADS)), indent="  "), ""]


def draw_values(result: Mapping[str, Any]) -> bytes:
    """Return the figure as PNG."""
    return figure.draw({**result, "values": ordered(result)}).png()


def ordered(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the values, what adds most tokens first."""
    return sorted(result["values"], key=lambda one: -float(one[_TOKENS]["difference"]["mean"]))


def _head(result: Mapping[str, Any]) -> list[str]:
    one, seeds = result["values"][0], result["seeds"]
    tokens, dollars = (_mean(one[name]["with"]) for name in (_TOKENS, _DOLLARS))
    which = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    length = fmt.duration(result["horizon_s"])
    costs = f"{fmt.per_second(tokens, 'tok')}, {fmt.money(dollars)} per million tokens"
    return [
        f"{result['scenario']} with all peers: {costs} ({which}, {length} each)",
        "adds: tokens/s with minus without, 95 % interval of the pairs; $ per M tokens: likewise; prices are per hour",
    ]


def _name(one: Mapping[str, Any]) -> str:
    return f"{one['name']} ({one['num_peers']} peers)" if one["num_peers"] > 1 else str(one["name"])


def _cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    tokens, dollars = one[_TOKENS]["difference"], one[_DOLLARS]["difference"]
    ends = (fmt.ABSENT if tokens[end] is None else show_difference(_TOKENS, tokens[end]) for end in ("low", "high"))
    return (
        show_difference(_TOKENS, tokens["mean"]),
        *ends,
        fmt.ABSENT if dollars is None else show_difference(_DOLLARS, dollars["mean"]),
        fmt.money(one["usd_per_hour"]),
        fmt.money(one["break_even_usd_per_hour"]),
        one["verdict"],
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
