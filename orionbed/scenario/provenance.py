"""Where every number of a scenario comes from."""

from collections.abc import Iterator, Mapping
from typing import Any

from orionbed.scenario.fields import Block
from orionbed.scenario.gpu import GpuProfile, gpu_profile
from orionbed.scenario.schema import Scenario
from orionbed.scenario.tree import prefixes

# Settings of the tool, of the comparison and of what is computed here, which claim nothing about the world.
_NO_CLAIMS = {"name", "title", "published", "provenance", "uncertain", "report", "training", "emulator", "real"}
_MEASUREMENTS = {"device", "measured", "measurement"}
_DEFAULT = "default of the schema"
_UNSOURCED = "given without a source"


def assumptions(scenario: Scenario) -> list[dict[str, str]]:
    """Every leaf of the scenario and of its GPU profile: key, value as it would be written, kind and source.

    A leaf has the source of the most specific `provenance` key that covers it; without one it is assumed, and the
    source says whether it is a default of the schema or was given without a source.
    """
    churn = scenario.churn
    known = {} if isinstance(churn, str) else {f"churn.{key}": source for key, source in churn.sources.items()}
    rows = list(_rows(scenario, known | scenario.provenance, "", _NO_CLAIMS))
    for name in scenario.peers.gpu_names:
        profile = gpu_profile(name)
        # A profile made by hand has no measurements, and that there are none is no assumption.
        left_out = {"name", "title", "provenance"} | (set() if profile.measured else _MEASUREMENTS)
        rows += _rows(profile, profile.provenance, f"gpus/{profile.name}.", left_out)
    return rows


def _rows(
    block: Scenario | GpuProfile, provenance: Mapping[str, str], prefix: str, left_out: set[str]
) -> Iterator[dict[str, str]]:
    defaults = set(_defaults(block, ""))
    for key, value in _leaves(block.model_dump(mode="json", exclude=left_out), ""):
        named = next((provenance[above] for above in prefixes(key) if above in provenance), None)
        if named is None:
            kind, source = "assumed", _UNSOURCED if defaults.isdisjoint(prefixes(key)) else _DEFAULT
        else:
            kind, source = (part.strip() for part in named.split(":", 1))
        yield {"key": prefix + key, "value": value, "kind": kind, "source": source}


def _defaults(block: Block, key: str) -> Iterator[str]:
    """Keys whose value is the default."""
    for name, field in type(block).model_fields.items():
        below, value = f"{key}.{name}" if key else name, getattr(block, name)
        if not field.is_required() and value == field.default:
            yield below
        elif isinstance(value, Block):
            yield from _defaults(value, below)


def _leaves(data: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(data, Mapping) and data:
        for name, value in data.items():
            yield from _leaves(value, f"{key}.{name}" if key else name)
    elif isinstance(data, list) and any(isinstance(item, Mapping) for item in data):
        for index, item in enumerate(data):
            yield from _leaves(item, f"{key}.{index}")
    elif isinstance(data, list):
        yield key, "[" + ", ".join(map(_printed, data)) + "]"
    else:
        yield key, _printed(data)


def _printed(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{}"
    return f"{value:.12g}" if isinstance(value, float) else str(value)
