"""Dotted keys: what they lead to in a scenario, which type stands there, and which keys there are."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from orionbed.scenario.distributions import MODELS, Choice, Constant, Of
from orionbed.scenario.fields import Block, Loc, Measures, Quantity


def field_type(field: FieldInfo) -> Any:
    """The type of a field with all its annotations."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


@cache
def names_of(model: type[Block]) -> Mapping[str, str]:
    """The keys of a block in a file, each with its name in Python; they differ where a key is a word of Python."""
    return {field.alias or name: name for name, field in model.model_fields.items()}


def annotations(annotation: Any) -> Iterator[Any]:
    """Everything that an annotation and the members of its union carry."""
    if get_origin(annotation) is Annotated:
        inner, *carried = get_args(annotation)
        yield from carried
        yield from annotations(inner)
    elif get_origin(annotation) in {Union, type(int | str)}:
        for member in get_args(annotation):
            yield from annotations(member)


def members(annotation: Any) -> list[Any]:
    """The plain types that an annotation allows, unions and annotations removed."""
    if get_origin(annotation) is Annotated:
        for carried in get_args(annotation)[1:]:
            if isinstance(carried, Of):
                return [model[carried.quantity_type] for model in MODELS.values()]
        return members(get_args(annotation)[0])
    if get_origin(annotation) in {Union, type(int | str)}:
        return [one for member in get_args(annotation) for one in members(member)]
    return [annotation]


def quantity_type(annotation: Any) -> Any:
    """What a distribution of this type is a distribution of: `Annotated[float, Quantity]`, float, int or None."""
    for carried in annotations(annotation):
        if isinstance(carried, Quantity):
            return Annotated[float, carried]
        if isinstance(carried, Of | Measures):
            return carried.quantity_type
    kinds = members(annotation)
    return float if float in kinds else int if int in kinds else None


def look_up(root: Any, key: str, annotation: Any = None) -> tuple[Any, Any]:
    """The value at a dotted key of a block, mapping or list, and its type. Raises KeyError with the part not found.

    Keys of mappings may themselves have dots.
    """
    if not key:
        return root, annotation
    parts = key.split(".")
    if isinstance(root, Block):
        key_here = "values" if isinstance(root, Choice) and parts[0] == "choice" else parts[0]
        if key_here not in names_of(type(root)):
            raise KeyError(key_here)
        name = names_of(type(root))[key_here]
        field = type(root).model_fields[name]
        return look_up(getattr(root, name), ".".join(parts[1:]), field_type(field))
    if isinstance(root, Mapping):
        for length in range(len(parts), 0, -1):
            name = ".".join(parts[:length])
            if name in root:
                inside = [get_args(kind)[1] for kind in members(annotation) if get_origin(kind) is dict]
                return look_up(root[name], ".".join(parts[length:]), inside[0] if inside else None)
    if isinstance(root, tuple | list) and parts[0].isdecimal() and int(parts[0]) < len(root):
        inside = [get_args(kind)[0] for kind in members(annotation) if get_origin(kind) in {tuple, list}]
        return look_up(root[int(parts[0])], ".".join(parts[1:]), inside[0] if inside else None)
    raise KeyError(parts[0])


def all_keys(root: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a scenario, blocks and leaves, in the order of the schema."""
    if isinstance(root, Constant):
        return
    if isinstance(root, Block):
        items = [(key, getattr(root, name)) for key, name in names_of(type(root)).items()]
    elif isinstance(root, Mapping):
        items = list(root.items())
    elif isinstance(root, tuple):
        items = [(str(index), value) for index, value in enumerate(root)]
    else:
        return
    for name, value in items:
        key = f"{prefix}.{name}" if prefix else str(name)
        yield key
        yield from all_keys(value, key)


@cache
def kinds_of(model: type[Block]) -> tuple[str, ...]:
    """The values of `kind` or `dist` that select this block; empty when it is not selected by one."""
    for name in ("kind", "dist"):
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is Literal:
            return get_args(field.annotation)
    return ()


def blocks_at(root: Any, loc: Loc) -> list[type[Block]]:
    """The blocks that may stand at a location of a validation error, its tags included."""
    return [kind for kind in types_at(root, loc) if _is_block(kind)]


def types_at(root: Any, loc: Loc) -> list[Any]:
    """The types that may stand at a location of a validation error, its tags included."""
    types = members(root)
    for part in loc:
        tag = str(part).removeprefix("=")
        chosen = [t for t in types if _is_block(t) and tag in kinds_of(t)]
        inside = [kind for t in types for kind in _children(t, part)]
        types = chosen or inside or types
    return types


def _is_block(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Block)


def _children(kind: Any, part: str | int) -> list[Any]:
    if _is_block(kind):
        name = names_of(kind).get(str(part))
        return members(field_type(kind.model_fields[name])) if name is not None else []
    if get_origin(kind) is dict and not str(part).startswith("="):
        return members(get_args(kind)[1])
    if get_origin(kind) in {tuple, list} and isinstance(part, int):
        return members(get_args(kind)[0])
    return []
