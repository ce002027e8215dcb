"""A scenario as YAML, and its schema as JSON Schema."""

from collections.abc import Mapping
from typing import Any

import yaml

from orionbed.quantity import DIMENSIONS, show
from orionbed.scenario.fields import Block
from orionbed.scenario.schema import Scenario
from orionbed.scenario.yaml_file import resolve


class _Dumper(yaml.SafeDumper):
    """Writes everything out, and quotes text that our reader or one of YAML 1.1 would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 -- every value is written out
        return True

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        found = _NAMES.get(type(resolve(value))) if kind is yaml.ScalarNode and implicit[0] else None
        return f"tag:yaml.org,2002:{found}" if found else super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


_NAMES = {type(None): "null", bool: "bool", int: "int", float: "float"}


_DIMENSIONS = {dimension.name: dimension for dimension in DIMENSIONS}


def to_yaml(scenario: Scenario) -> str:
    """The resolved scenario with all defaults, in canonical units; `load` of it gives an equal scenario."""
    data = scenario.model_dump(mode="json")
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    return text


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a scenario file. A file with `extends` may leave out what its parent has."""
    blocks = definitions(Scenario)
    complete = blocks.pop("Scenario")
    partial = {f"{name}Part": _partial(block) for name, block in blocks.items()}
    child = _partial(complete)
    child["properties"]["extends"] = {
        "type": "string",
        "description": "Path (relative to this file) or name of the scenario that this one changes.",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "orionbed scenario",
        "if": {"required": ["extends"]},
        "then": {"$ref": "#/$defs/ScenarioPart"},
        "else": {"$ref": "#/$defs/Scenario"},
        "$defs": {**blocks, "Scenario": complete, **partial, "ScenarioPart": child},
    }


def definitions(model: type[Block]) -> dict[str, Any]:
    """The JSON Schemas of a block and of all blocks inside it, by their names."""
    complete = model.model_json_schema()
    titles = {f"#/$defs/{name}": block["title"] for name, block in complete["$defs"].items()}
    complete = _tidy(complete, titles)
    return {block["title"]: block for block in complete.pop("$defs").values()} | {model.__name__: complete}


def _tidy(schema: Any, titles: Mapping[str, str]) -> Any:
    """The schema with definitions called by their titles, defaults as in a file, and no bounds of numbers on text."""
    if isinstance(schema, list):
        return [_tidy(item, titles) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidy = {key: _tidy(value, titles) for key, value in schema.items()}
    if "$ref" in tidy:
        tidy["$ref"] = f"#/$defs/{titles[tidy['$ref']]}"
    dimension = _DIMENSIONS.get(tidy.get("items", tidy).get("x-dimension"))
    if dimension is not None:
        tidy = {key: value for key, value in tidy.items() if not key.endswith(("inimum", "aximum"))}
        default = tidy.get("default")
        if isinstance(default, float | int):
            tidy["default"] = show(default, dimension)
        elif isinstance(default, list):
            tidy["default"] = [show(value, dimension) for value in default]
    return tidy


def _partial(schema: Any) -> Any:
    """The schema with nothing required, and its references pointing at definitions of the same kind."""
    if isinstance(schema, list):
        return [_partial(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # What is not required cannot tell blocks apart, so several may fit.
    part = {"anyOf" if key == "oneOf" else key: _partial(value) for key, value in schema.items()}
    part.pop("required", None)
    part.pop("discriminator", None)
    if "$ref" in part:
        part["$ref"] += "Part"
    return part
