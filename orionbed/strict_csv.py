"""Reading CSV files whose first line must name exactly the columns that are expected."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path


def read_rows(path: Path | str, columns: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each row with its place, `file:line`; ValueError names the line whose columns are wrong."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        if next(reader, None) != list(columns):
            raise ValueError(f"{path}:1: the first line must read {','.join(columns)}")
        for row in reader:
            place = f"{path}:{reader.line_num}"
            if len(row) != len(columns):
                raise ValueError(f"{place}: {len(row)} columns, not {len(columns)}")
            yield place, row
