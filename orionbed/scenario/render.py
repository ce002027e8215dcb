"""A scenario as YAML, and its schema as JSON Schema."""

from copy import deepcopy
from typing import Any

import yaml

from orionbed.scenario.schema import Scenario
from orionbed.scenario.yaml_file import resolve


class _Dumper(yaml.SafeDumper):
    """Quotes what our own reader would not take for text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 -- PyYAML's name, replaced as a whole

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 -- every value is written out
        return True

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            found = resolve(value)
            names = {type(None): "null", bool: "bool", int: "int", float: "float"}
            return f"tag:yaml.org,2002:{names.get(type(found), 'str')}"
        return str(super().resolve(kind, value, implicit))


def to_yaml(scenario: Scenario) -> str:
    """The resolved scenario with all defaults, in canonical units; `load` of it gives an equal scenario."""
    data = scenario.model_dump(mode="json")
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    return text


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a scenario file. A file with `extends` may leave out what its parent has."""
    complete = Scenario.model_json_schema()
    definitions = complete.pop("$defs")
    partial = {f"{name}Part": _without_required(block) for name, block in definitions.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "orionbed scenario",
        "if": {"required": ["extends"]},
        "then": {"$ref": "#/$defs/ScenarioPart"},
        "else": {"$ref": "#/$defs/Scenario"},
        "$defs": {**definitions, "Scenario": complete, **partial, "ScenarioPart": _extending(complete)},
    }


def _extending(schema: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = _without_required(schema)
    part["properties"]["extends"] = {
        "type": "string",
        "description": "Path (relative to this file) or name of the scenario that this one changes.",
    }
    return part


def _without_required(schema: Any) -> Any:
    """The schema with nothing required, and its references pointing at definitions of the same kind."""
    if isinstance(schema, list):
        return [_without_required(item) for item in schema]
    if not isinstance(schema, dict):
        return deepcopy(schema)
    names = {"oneOf": "anyOf"}
    part = {names.get(key, key): _without_required(value) for key, value in schema.items() if key != "required"}
    if isinstance(part.get("$ref"), str):
        part["$ref"] += "Part"
    part.pop("discriminator", None)
    return part
