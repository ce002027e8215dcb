"""Named merges, as keys of the scenario's `merge` block, with where each comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, Final

_PLAIN: Final[Mapping[str, Any]] = {
    "via": "auto", "partitions": "2026", "group_size": 4, "rounds": None, "codec": {"kind": "none"},
    "outer": "nesterov", "fragments": 1, "overlap": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Preset:
    """One way to merge: what differs from a plain one, and a line on it."""

    keys: Mapping[str, Any]
    about: str

    def changes(self, replicas: int) -> dict[str, Any]:
        """Return the keys of `merge` for a stage of so many peers; interval, deadline and what else is there stay."""
        keys = dict(_PLAIN) | dict(self.keys)
        if keys["algorithm"] == "grouped":
            keys["group_size"] = max(2, ceil(sqrt(replicas)))
        return {f"merge.{name}": value for name, value in keys.items()}


PRESETS: Final[Mapping[str, Preset]] = {
    "butterfly": Preset({"algorithm": "butterfly"}, "IOTA's code of 2026: two slices per peer, each at a random pair"),
    "butterfly-pairs": Preset(
        {"algorithm": "butterfly", "partitions": "pairs"}, "IOTA's code of 2025: one slice for every pair of peers"
    ),
    "ring": Preset({"algorithm": "ring"}, "ring all-reduce, as PRIME and PCCL do"),
    "tree": Preset({"algorithm": "tree"}, "reduce and broadcast along a binomial tree"),
    "central-ps": Preset({"algorithm": "central-ps"}, "one peer sums for all, as in federated learning"),
    "sharded-ps": Preset({"algorithm": "sharded-ps"}, "every peer sums one n-th for all, as hivemind does"),
    "noloco": Preset({"algorithm": "gossip", "deadline": None}, "NoLoCo: with one random peer, no barrier"),
    "moshpit": Preset({"algorithm": "grouped"}, "Moshpit: in groups along a grid of two dimensions"),
    "sparta": Preset(
        {"algorithm": "sharded-ps", "codec": {"kind": "sparta"}, "overlap": True},
        "SPARTA: a random 0.05 % of the weights, beside training",
    ),
    "sparseloco": Preset(
        {"algorithm": "gather", "codec": {"kind": "sparse"}}, "SparseLoCo: 64 of 4096 at 2 bits, through the store"
    ),
    "diloco-int8": Preset({"algorithm": "ring", "codec": {"kind": "int8"}}, "INTELLECT-1: ring of 8-bit numbers"),
    "streaming-diloco": Preset(
        {"algorithm": "ring", "codec": {"kind": "int8"}, "fragments": 4, "overlap": True},
        "Streaming DiLoCo: a quarter of the stage at a time, beside training; 8 bits instead of its 4",
    ),
}
