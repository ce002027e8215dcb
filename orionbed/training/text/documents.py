"""The documents of a text, one after the other: from files, from Parquet, from the Hugging Face hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from orionbed.scenario.training import FileData, HubData, ParquetData
from orionbed.training.text.problems import TextError, missing

SAMPLE: Final = Path(__file__).parent / "sample" / "northanger-abbey.txt"
"""The text that comes with orionbed; where it is from is written beside it."""
ROWS: Final = 256
"""Rows of Parquet that are in memory at once, beside what the library reads ahead."""
ENDINGS: Final = {"text": (".txt", ".md"), "parquet": (".parquet",)}


def documents(data: FileData | ParquetData | HubData) -> Iterator[str]:
    """Return the documents in the order in which they are numbered. A TextError says why there are none."""
    if isinstance(data, FileData):
        return _of_files(data)
    return _of_parquet(data) if isinstance(data, ParquetData) else _of_hub(data)


def files_of(data: FileData | ParquetData) -> list[Path]:
    """Return the files of a text, those of a folder by name; folders in it are not looked into."""
    if isinstance(data, FileData) and data.path == "sample":
        return [SAMPLE]
    path, endings = Path(data.path), ENDINGS[data.kind]
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in endings and file.is_file())
        if not found:
            raise TextError("path", f"{path} has no file that ends with {' or '.join(endings)}; give another folder")
        return found
    if not path.is_file():
        raise TextError("path", f"there is no {path}; give the path of a file or folder, from the scenario's folder")
    return [path]


def _of_files(data: FileData) -> Iterator[str]:
    for path in files_of(data):
        try:
            yield path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise TextError("path", f"{path} is no UTF-8 (byte {error.start}); convert it") from None
        except OSError as error:
            raise TextError("path", f"{path} cannot be read: {error.strerror}") from None


def _of_parquet(data: ParquetData) -> Iterator[str]:
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError:
        raise missing("pyarrow", "kind") from None
    for path in files_of(data):
        try:
            with parquet.ParquetFile(path) as file:
                _check_column(data.column, file.schema_arrow.names, str(path))
                for rows in file.iter_batches(ROWS, columns=[data.column]):
                    yield from (_text(value, data.column, str(path)) for value in rows.column(0).to_pylist())
        except (pa.ArrowInvalid, OSError) as error:
            raise TextError("path", f"{path} is no Parquet file that can be read: {_first_line(error)}") from None


def _of_hub(data: HubData) -> Iterator[str]:
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError:
        raise missing("datasets", "kind") from None
    try:
        rows: Any = datasets.load_dataset(data.name, data.subset, split=data.split, streaming=True)
        names = rows.column_names
        if names is not None:
            _check_column(data.column, names, data.name)
            rows = rows.select_columns([data.column])
        for row in rows:
            if data.column not in row:
                _check_column(data.column, list(row), data.name)
            yield _text(row[data.column], data.column, data.name)
    except TextError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever the library, its network and its file formats come up with)
        text = f"{data.name} cannot be streamed: {type(error).__name__}: {_first_line(error)}"
        hint = "check name, split and network, or use parquet with files that you have"
        raise TextError("name", f"{text}; {hint}") from None


def _check_column(column: str, names: list[str], where: str) -> None:
    if column not in names:
        raise TextError("column", f"{where} has no column {column!r}; there are {', '.join(names)}")


def _text(value: object, column: str, where: str) -> str:
    """Return the text of a row; none is no text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TextError("column", f"{column!r} of {where} holds {type(value).__name__} and no text; name another")
    return value


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
