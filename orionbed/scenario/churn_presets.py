"""Ready-made pairs of `churn.up` and `churn.down`, each with where its numbers are from.

The Weibull pairs are maximum-likelihood fits to traces of single spot instances (skypilot-org/spot-traces, NSDI 2024,
"Can't Be Late"). A fit of two numbers misses the long tail: means come out up to 17 % short, see docs/model.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

PresetName = Literal[
    "spot-aws-v100",
    "spot-aws-v100-calm",
    "spot-aws-v100-scarce",
    "marketplace",
    "google-preemptible",
    "hardware-llama3",
]
PRESETS: Final[tuple[str, ...]] = get_args(PresetName)

_SPOT = "derived: Weibull fits to {} of skypilot-org/spot-traces (NSDI 2024)"


@dataclass(frozen=True, slots=True)
class Preset:
    """Two distributions as a scenario would write them, and their source with its kind."""

    up: Mapping[str, Any]
    down: Mapping[str, Any]
    source: str


def _weibull(shape: float, scale: str) -> Mapping[str, Any]:
    return {"dist": "weibull", "shape": shape, "scale": scale}


_BY_NAME: Final[Mapping[str, Preset]] = {
    "spot-aws-v100": Preset(
        _weibull(0.57, "3.03 h"), _weibull(0.97, "0.79 h"), _SPOT.format("us-west-2a, one V100, February 2023")
    ),
    "spot-aws-v100-calm": Preset(
        _weibull(0.5, "4.04 h"), _weibull(0.89, "1.03 h"), _SPOT.format("us-west-2b, one V100, February 2023")
    ),
    "spot-aws-v100-scarce": Preset(
        _weibull(0.93, "0.69 h"), _weibull(0.57, "1.9 h"), _SPOT.format("us-east-1a, one V100, February 2023")
    ),
    "marketplace": Preset(
        _weibull(0.67, "1.5 h"), _weibull(0.74, "1 h"), _SPOT.format("21 single instances, the medians")
    ),
    "google-preemptible": Preset(
        {"dist": "bathtub", "early": "1 h", "late": "0.8 h", "limit": "24 h"},
        {"dist": "exponential", "mean": "10 min"},
        "assumed: form and 24 h limit from arXiv 1911.05160, its time constants and the time away assumed",
    ),
    "hardware-llama3": Preset(
        {"dist": "exponential", "mean": "50677 h"},
        {"dist": "exponential", "mean": "30 min"},
        "derived: 419 unexpected interruptions in 54 days of 16384 GPUs (Llama 3 report); the repair is assumed",
    ),
}


def preset(name: str) -> Preset:
    """Return the preset of this name."""
    return _BY_NAME[name]
