"""Bytes and given tokenizers: text there and back, and how many tokens there are."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionbed.training.text.problems import TextError
from orionbed.training.text.tokenizer import Given, make_tokenizer


@given(st.text())
def test_bytes_go_there_and_back(text: str) -> None:
    tokenizer = make_tokenizer("bytes")
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == text
    assert tokenizer.size == 257


def test_bytes_of_no_text_and_separators_are_shown() -> None:
    tokenizer = make_tokenizer("bytes")
    assert tokenizer.decode([65, 0xC3, 256, 66, 300, -1]) == "A\ufffd\n\nB"
    assert tokenizer.encode("\ud800").tolist() == [63]


def test_a_given_tokenizer_has_a_separator_more(tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers")
    made = library.Tokenizer(library.models.WordLevel({"the": 0, "cat": 1, "sat": 5, "?": 2}, unk_token="?"))
    made.pre_tokenizer = library.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Given(str(tmp_path / "tokenizer.json"))
    assert tokenizer.size == 7
    assert tokenizer.encode("the cat sat down").tolist() == [0, 1, 5, 2]
    assert tokenizer.decode([0, 1, 6, 5]) == "the cat\n\nsat"


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text("{}")
    pytest.importorskip("tokenizers")
    for name in ("a.json", "b.json"):
        with pytest.raises(TextError, match=rf"training.data.tokenizer: .*{name} is no tokenizer that can be read"):
            Given(str(tmp_path / name))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(TextError, match=r"tokenizer: needs the library tokenizers; install it with `pip install"):
        Given("a.json")
