"""One colour per cause, the same in every figure, on the colour-blind-safe hues of Okabe and Ito.

The hue tells the family (work, pipeline, network, merge, peer not there), the lightness its member. No figure relies
on colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from orionbed.tracing import CAUSE_LABELS

INK: Final = "#1b2330"
MUTED: Final = "#5a6472"
LINE: Final = "#cdd3da"
GRID: Final = "#eceff2"
BLUE: Final = "#0072b2"
SKY: Final = "#56b4e9"
GREEN: Final = "#009e73"
ORANGE: Final = "#e69f00"
VERMILLION: Final = "#d55e00"
PURPLE: Final = "#cc79a7"
SERIES: Final = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, INK)

FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {
    "useful": ("useful",),
    "computing": ("kernel", "recompute", "boundary", "optimizer"),
    "pipeline": ("imbalance", "fill", "window", "polling", "upstream"),
    "network": ("transfer", "encryption"),
    "merging": ("merge_transfer", "merge_wait", "merge_compute"),
    "peers": ("startup", "benched", "down"),
    "thrown away": ("thrown_away",),
}

CAUSE_COLOURS: Final[Mapping[str, str]] = {
    "useful": BLUE,
    "kernel": "#b9c2cc",
    "recompute": "#56b4e9",
    "boundary": "#9fd4f4",
    "optimizer": "#8193a6",
    "imbalance": "#f0e442",
    "fill": "#c9b81e",
    "window": "#e69f00",
    "polling": "#a86f00",
    "upstream": "#f4c56a",
    "transfer": "#d55e00",
    "encryption": "#f2a477",
    "merge_transfer": "#009e73",
    "merge_wait": "#7fceb9",
    "merge_compute": "#00573f",
    "startup": "#ecc9dc",
    "benched": "#cc79a7",
    "down": "#8d4668",
    "thrown_away": "#3a3a3a",
}

_PHRASES: Final[Mapping[str, str]] = {
    "useful": "useful work",
    "window": "waiting because the in-flight window is full",
    "benched": "peers set aside",
    "down": "peers being down",
}

WORK_COLOURS: Final[Mapping[str, str]] = {
    "F": "#86bfe3",
    "B": BLUE,
    "I": "#0072b2",
    "W": "#3d5a80",
    "step": "#1d3557",
    "send": VERMILLION,
    "receive": "#f0a070",
    "upload": GREEN,
    "download": "#7fceb9",
    "average": "#00573f",
    "down": "#8d4668",
    "benched": PURPLE,
}
"""What a peer does, for the Gantt; when it idles, the colour of the cause stands instead."""

ORDER_COLOURS: Final[Mapping[str, str]] = {"F": "#86bfe3", "B": BLUE, "I": ORANGE, "W": GREEN}
"""What an operation of a schedule does; here the halves of a backward must stand apart from whole ones."""
ORDER_INKS: Final[Mapping[str, str]] = {"F": INK, "B": "white", "I": INK, "W": "white"}

WORK_LABELS: Final[Mapping[str, str]] = {
    "F": "forward",
    "B": "backward",
    "I": "backward, inputs",
    "W": "backward, weights",
    "step": "optimizer step",
    "idle": "idle",
    "send": "sending",
    "receive": "receiving",
    "upload": "merge upload",
    "download": "merge download",
    "average": "merge averaging",
    "down": "down",
    "benched": "benched",
}


def cause_colour(cause: str) -> str:
    """Return the colour of a cause; an unknown one is grey."""
    return CAUSE_COLOURS.get(cause, "#9aa3ad")


def cause_label(cause: str) -> str:
    """Return the words for a cause; an unknown one speaks for itself."""
    return CAUSE_LABELS.get(cause, cause.replace("_", " "))


def cause_phrase(cause: str) -> str:
    """Return the words for a cause in the middle of a sentence."""
    return _PHRASES.get(cause, cause_label(cause))


def is_own_work(cause: str) -> bool:
    """Whether a cause lies in what a GPU computes itself, not in its waiting for something."""
    return cause in FAMILIES["useful"] or cause in FAMILIES["computing"]
