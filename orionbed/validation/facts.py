"""Published figures: typed as facts in scenarios/published, or larger tables in a folder of the user's."""

import csv
from pathlib import Path
from typing import Any

from orionbed.scenario.packaged import FOLDER
from orionbed.scenario.yaml_file import read_file

Row = dict[str, Any]


def facts(name: str) -> list[Row]:
    """Return the rows of a table of scenarios/published, by column."""
    path = FOLDER / "published" / f"{name}.yaml"
    content = read_file(path, f"scenarios/published/{name}.yaml").plain()
    columns = content["columns"]
    return [dict(zip(columns, row, strict=True)) for row in content["rows"]]


class DataError(ValueError):
    """A file of the user's data folder that is not the table it should be."""


def read_table(path: Path, columns: tuple[str, ...]) -> list[Row]:
    """Return the rows of a CSV whose lines with `#` are comments; numbers become numbers.

    Raises:
        DataError: a column is missing.
        OSError: it cannot be read.

    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(line for line in file if line.strip() and not line.startswith("#"))
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path}: has no column {', '.join(missing)}; is it the table of that name?")
        return [{key: _number(value) for key, value in row.items()} for row in reader]


def _number(text: str | None) -> Any:
    try:
        value = float(text or "")
    except ValueError:
        return text
    return int(value) if value.is_integer() else value
