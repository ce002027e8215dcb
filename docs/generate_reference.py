"""Write docs/reference.md from the code: every scenario key, every command, every file of a run.

    python docs/generate_reference.py

Run it by hand after a change of the schema, the command line or the summary; a test asserts that the page is up to
date. Keys, types, defaults and sentences come from `orionbed schema` and from the commands themselves; what files and
summary keys mean is written in reference_words.py, and a test compares those keys with a real run's.
"""

# ruff: noqa: INP001 -- a script, not a package

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import reference_words as words

TARGET: Final = Path(__file__).resolve().parent / "reference.md"


class Schema:
    """The JSON Schema of scenario files, walked block by block."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self.definitions = definitions

    def blocks(self, name: str, prefix: str, seen: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
        """Yield (name of the block, dotted prefix of its keys) for a block and all blocks inside it, in order."""
        yield name, prefix
        for key, field in self.definitions[name].get("properties", {}).items():
            for inner, suffix in self._inner_blocks(field):
                if inner not in seen:
                    yield from self.blocks(inner, f"{prefix}{key}{suffix}.", (*seen, name))

    def _inner_blocks(self, field: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        if self.is_distribution(field):
            return
        for option in field.get("oneOf", field.get("anyOf", [field])):
            if "$ref" in option:
                yield _name(option), ""
        for part, suffix in (("items", "[]"), ("additionalProperties", ".NAME")):
            inside = field.get(part)
            for option in inside.get("oneOf", [inside]) if isinstance(inside, dict) else ():
                if "$ref" in option:
                    yield _name(option), suffix

    @staticmethod
    def is_distribution(field: Mapping[str, Any]) -> bool:
        """Whether the field is a distribution of a quantity."""
        return any(_name(option).startswith("Constant") for option in field.get("oneOf", []) if "$ref" in option)

    def type_of(self, field: Mapping[str, Any]) -> str:
        """Say in words what may stand in a field."""
        if self.is_distribution(field):
            constant = self.definitions[next(_name(o) for o in field["oneOf"] if "$ref" in o)]
            return f"{self.type_of(constant['anyOf'][0])}, or a [distribution](#distributions)"
        for union in ("oneOf", "anyOf"):
            if union in field:
                return " or ".join(dict.fromkeys(self.type_of(option) for option in field[union]))
        if "$ref" in field:
            return "block"
        if "const" in field:
            return f"`{field['const']}`"
        if "enum" in field:
            return " or ".join(f"`{value}`" for value in field["enum"])
        if "x-dimension" in field:
            return str(field["x-dimension"]).partition(" ")[2]
        return self._plain(field)

    def _plain(self, field: Mapping[str, Any]) -> str:
        kind = field.get("type")
        if kind in {"integer", "number"}:
            return _number(field)
        if kind == "array":
            return f"list of {self.type_of(field.get('items', {}))}"
        if kind == "object":
            inside = field.get("additionalProperties")
            return f"mapping to {self.type_of(inside)}" if isinstance(inside, dict) else "mapping"
        if kind == "string":
            return "percentage" if "%" in field.get("pattern", "") else "text"
        return {"boolean": "`true` or `false`", "null": "`null`"}.get(str(kind), "anything")

    def rows(self, name: str, prefix: str) -> Iterator[Sequence[str]]:
        """Yield one row per key of a block."""
        block = self.definitions[name]
        required = set(block.get("required", ()))
        for key, field in block.get("properties", {}).items():
            described = field.get("description") or self._docstring(field)
            default = "required" if key in required else _default(field.get("default"))
            yield f"`{prefix}{key}`", self.type_of(field), default, described

    def _docstring(self, field: Mapping[str, Any]) -> str:
        return str(self.definitions[_name(field)].get("description", "")) if "$ref" in field else ""


def _name(reference: Mapping[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _number(field: Mapping[str, Any]) -> str:
    kind = "whole number" if field["type"] == "integer" else "number"
    if "exclusiveMaximum" in field and "exclusiveMinimum" in field:
        return f"{kind} above {field['exclusiveMinimum']:g} and below {field['exclusiveMaximum']:g}"
    if "maximum" in field and "exclusiveMinimum" in field:
        return f"{kind} above {field['exclusiveMinimum']:g}, at most {field['maximum']:g}"
    if "maximum" in field:
        return f"{kind} from {field['minimum']:g} to {field['maximum']:g}"
    if "exclusiveMinimum" in field:
        return f"{kind} above {field['exclusiveMinimum']:g}"
    return f"{kind} not below {field['minimum']:g}" if "minimum" in field else kind


def _default(value: Any) -> str:
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, float | int):
        return f"`{value:g}`"
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value) or "empty"
    if set(value) == {"kind"}:
        return f"`{{kind: {value['kind']}}}`"
    return "empty" if not value else "a distribution" if "dist" in value else "as below"


def table(heads: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join(' --- ' for _ in heads)}|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def units() -> str:
    """Return the section on units."""
    from orionbed import quantity

    rows = [
        (dimension.name.partition(" ")[2], ", ".join(f"`{unit}`" for unit in dimension.units), f"`{dimension.example}`")
        for dimension in quantity.DIMENSIONS
    ]
    return f"{words.UNITS}\n{table(('dimension', 'units', 'example'), rows)}\n"


def distributions(schema: Schema) -> str:
    """Return the section on distributions."""
    rows = []
    for name in ("Constant", "Uniform", "Normal", "Lognormal", "Exponential", "Weibull", "Choice"):
        block = schema.definitions[f"{name}Duration"]
        block = next((option for option in block.get("anyOf", []) if "dist" in option.get("properties", {})), block)
        keys = [key for key in block["properties"] if key != "dist"]
        said = str(block["properties"]["dist"]["description"]).partition(": ")[2]
        meant = "; ".join(f"`{key}`: {block['properties'][key]['description'].rstrip('.')}" for key in keys)
        rows.append((f"`{name.lower()}`", f"{said[0].upper()}{said[1:]}", meant))
    return f"{words.DISTRIBUTIONS}\n{table(('`dist`', 'meaning', 'keys'), rows)}\n"


def scenario_keys(schema: Schema) -> str:
    """Return the section on scenario keys."""
    parts = [words.SCENARIO]
    for name, prefix in dict.fromkeys(schema.blocks("Scenario", "")):
        block = schema.definitions[name]
        kind = block["properties"].get("kind", {})
        kinds = kind.get("enum", [kind["const"]] if "const" in kind else [])
        title = f"### `{prefix.rstrip('.')}`" if prefix else "### Top level"
        if kinds and "kind" in block.get("required", ()):
            title += ": kind " + " or ".join(f"`{k}`" for k in kinds)
        parts.append(f"{title}\n\n{block.get('description', '')}\n")
        parts.append(table(("key", "type", "default", "meaning"), schema.rows(name, prefix)) + "\n")
    return "\n".join(parts)


def gpu_keys() -> str:
    """Return the section on GPU profiles."""
    from orionbed.scenario import GpuProfile

    described = GpuProfile.model_json_schema()
    schema = Schema({**described.get("$defs", {}), "GpuProfile": described})
    rows = [row for name, prefix in schema.blocks("GpuProfile", "") for row in schema.rows(name, prefix)]
    return f"{words.GPU}\n{table(('key', 'type', 'default', 'meaning'), rows)}\n"


def sweep_keys() -> str:
    """Return the section on files of sweeps."""
    from orionbed.sweeps.blocks import Sweep

    schema = Schema({"Sweep": Sweep.model_json_schema()})
    return f"{words.SWEEP}\n{table(('key', 'type', 'default', 'meaning'), schema.rows('Sweep', ''))}\n"


def contest_keys() -> str:
    """Return the section on files of routing contests."""
    from orionbed.contest.schema import Contest
    from orionbed.scenario.render import definitions

    schema = Schema(definitions(Contest))
    rows = [row for name, prefix in schema.blocks("Contest", "") for row in schema.rows(name, prefix)]
    return f"{words.CONTEST}\n{table(('key', 'type', 'default', 'meaning'), rows)}\n"


def commands() -> str:
    """Return the section on commands."""
    import typer

    from orionbed.cli import app

    group = typer.main.get_command(app)
    parts = ["## Commands\n"]
    for name, command in getattr(group, "commands", {}).items():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        usage = " ".join(["orionbed", name, *(p.metavar or p.name.upper() for p in arguments)])
        parts.append(f"### `{usage}`\n\n{command.help}\n")
        rows = [(f"`{p.metavar or p.name.upper()}`", "required", p.help or "") for p in arguments]
        rows += [(_spelling(p), _option_default(p), p.help or "") for p in options]
        if rows:
            parts.append(table(("argument or option", "default", "meaning"), rows) + "\n")
    codes = table(("code", "meaning"), [(f"`{code}`", meaning) for code, meaning in words.EXIT_CODES])
    return "\n".join(parts) + f"\n## Exit codes\n\n{codes}\n"


def _spelling(option: Any) -> str:
    value = "" if option.is_flag else f" {option.metavar or option.name.upper()}"
    return f"`{'`, `'.join(option.opts)}{value}`"


def _option_default(option: Any) -> str:
    if option.is_flag:
        return "off"
    if option.default is None:
        return "none; may be repeated" if option.multiple else "none"
    return f"`{option.default}`"


def run_folder() -> str:
    """Return the section on the files of a run."""
    from orionbed import tables, tracing

    parts = [
        words.RUN_FOLDER,
        table(("file", "what it holds"), words.FILES),
        words.SUMMARY_HEAD,
        table(("key", "unit", "meaning"), [(f"`{key}`", unit, meaning) for key, unit, meaning in words.SUMMARY]),
        words.TABLES_HEAD,
    ]
    actual = {
        "steps": tables.STEP_COLUMNS,
        "stages": tables.STAGE_COLUMNS,
        "peers": tables.PEER_COLUMNS,
    }
    for name, (sentence, meanings) in words.COLUMNS.items():
        columns = actual.get(name, tuple(meanings))
        if set(columns) != set(meanings):
            raise SystemExit(f"{name}.csv: describe exactly its columns {', '.join(columns)}")
        rows = [(f"`{column}`", meanings[column]) for column in columns]
        parts.append(f"### `{name}.csv`\n\n{sentence}\n\n{table(('column', 'meaning'), rows)}\n")
    if set(words.TRACE_COLUMNS) != set(tracing.COLUMNS):
        raise SystemExit(f"the trace: describe exactly its columns {', '.join(tracing.COLUMNS)}")
    rows = [(f"`{column}`", words.TRACE_COLUMNS[column]) for column in tracing.COLUMNS]
    parts.append(f"### `curve.csv`\n\n{words.CURVE_COLUMNS}.\n")
    causes = ", ".join(f"`{code}` ({label})" for code, label in tracing.CAUSE_LABELS.items())
    parts.append(
        f"{words.TRACE_HEAD}\n{table(('column', 'meaning'), rows)}\n\nLanes: {', '.join(tracing.LANES)}. "
        f"Kinds: {', '.join(tracing.KINDS)}. Causes: {causes}.\n"
    )
    return "\n".join(parts)


def page() -> str:
    """Return the whole page."""
    from orionbed.scenario import json_schema

    schema = Schema(json_schema()["$defs"])
    keys = (units(), distributions(schema), scenario_keys(schema), gpu_keys(), sweep_keys(), contest_keys())
    return "\n".join([words.HEAD, *keys, words.PROVENANCE, commands(), run_folder()]).rstrip("\n") + "\n"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
