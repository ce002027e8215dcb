"""Where documents come from, in which order, and what is said when they do not come."""

import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from orionbed.scenario.training import FileData, HubData, ParquetData
from orionbed.training.text.documents import SAMPLE, documents
from orionbed.training.text.problems import TextError

TEXTS = [f"The {number}th page. It is about {'a' * (number % 7)} pelicans." for number in range(40)]


def write(path: Path, texts: list[str | None], *, rows: int = 8) -> None:
    """A Parquet file with the columns of HuggingFaceFW/fineweb-edu-score-2."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns: dict[str, tuple[list[Any], Any]] = {
        "text": (texts, arrow.string()),
        "id": ([f"<urn:uuid:{number}>" for number in range(len(texts))], arrow.string()),
        **{
            name: (["somewhere"] * len(texts), arrow.string())
            for name in ("dump", "url", "date", "file_path", "language")
        },
        "language_score": ([0.97] * len(texts), arrow.float64()),
        "token_count": ([12] * len(texts), arrow.int64()),
        "score": ([2.34] * len(texts), arrow.float64()),
        "int_score": ([2] * len(texts), arrow.int64()),
    }
    made = arrow.table({name: arrow.array(values, kind) for name, (values, kind) in columns.items()})
    parquet.write_table(made, path, row_group_size=rows)


def files(**changes: Any) -> FileData:
    return FileData(kind="text", **changes)


def parquet_files(**changes: Any) -> ParquetData:
    return ParquetData(kind="parquet", **changes)


def hub(**changes: Any) -> HubData:
    return HubData(kind="hub", **changes)


def test_the_sample_is_the_whole_of_a_novel() -> None:
    (text,) = documents(files())
    assert len(text) == 432_978
    assert text.isascii()
    assert text.startswith("NORTHANGER ABBEY\n")
    assert SAMPLE.with_name("README.md").is_file()


def test_the_files_of_a_folder_come_by_name(tmp_path: Path) -> None:
    for name in ("b.md", "a.txt", "c.TXT", "d.html"):
        (tmp_path / name).write_text(name)
    (tmp_path / "more.txt").mkdir()
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa.txt")  # a byte order mark is no text
    assert list(documents(files(path=str(tmp_path)))) == ["a.txt", "b.md", "c.TXT"]


def test_parquet_comes_row_by_row_and_files_by_name(tmp_path: Path) -> None:
    write(tmp_path / "1.parquet", [*TEXTS[20:], None, ""])
    write(tmp_path / "0.parquet", [*TEXTS[:20]])
    assert list(documents(parquet_files(path=str(tmp_path)))) == [*TEXTS, "", ""]
    assert next(documents(parquet_files(path=str(tmp_path / "1.parquet"), column="id"))) == "<urn:uuid:0>"


def test_the_library_of_the_hub_streams_the_same_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("datasets", reason="the data extra is not installed")
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train-00000.parquet", [*TEXTS])
    assert list(islice(documents(hub(name=str(tmp_path / "data"))), 45)) == TEXTS
    write(tmp_path / "data" / "crawl.parquet", TEXTS[:3])
    (tmp_path / "data" / "README.md").write_text(
        "---\nconfigs:\n- {config_name: default, data_files: train*}\n- {config_name: crawl, data_files: crawl*}\n---\n"
    )
    assert list(documents(hub(name=str(tmp_path / "data"), subset="crawl"))) == TEXTS[:3]
    with pytest.raises(TextError, match=r"data.column: .* has no column 'body'; there are text, id, dump, url"):
        next(documents(hub(name=str(tmp_path / "data"), column="body")))
    with pytest.raises(TextError, match=r"training.data.name: .* cannot be streamed: ValueError: Bad split: test"):
        next(documents(hub(name=str(tmp_path / "data"), split="test")))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (files(path="nowhere"), "path: there is no nowhere; give the path of a file or folder"),
        (files(path="bad.txt"), r"path: bad.txt is no UTF-8 \(byte 2\)"),
        (files(path="empty"), r"path: empty has no file that ends with .txt or .md"),
        (parquet_files(path="bad.txt"), "path: bad.txt is no Parquet file that can be read: "),
        (parquet_files(path="a.parquet", column="body"), "column: a.parquet has no column 'body'; there are text, id"),
        (parquet_files(path="a.parquet", column="score"), "column: 'score' of a.parquet holds float and no text"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: FileData | ParquetData, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.txt").write_bytes(b"ab\xff\xfe")
    write(tmp_path / "a.parquet", ["text"])
    with pytest.raises(TextError, match=f"training.data.{message}"):
        list(documents(data))


@pytest.mark.parametrize(
    ("library", "data"), [("pyarrow", parquet_files(path="a.parquet")), ("datasets", hub(name="somebody/something"))]
)
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, library: str, data: ParquetData | HubData
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(TextError, match=rf"needs the library {library}; install it with `pip install 'orionbed\[data"):
        next(documents(data))
