"""From text to tokens and back: bytes, or what a tokenizer.json says."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from orionbed.training.text.problems import TextError, missing

BYTES: Final = 256
Tokens = NDArray[np.int64]


class Tokenizer(Protocol):
    """Makes tokens of text and text of tokens."""

    @property
    def size(self) -> int:
        """Number of tokens that there are; the last one stands between documents."""

    def encode(self, text: str) -> Tokens:
        """Return the tokens of a document, without the one that separates it from the next."""

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens; a separator becomes a blank line, what is no text a replacement character."""


class Bytes:
    """A token is a byte of UTF-8."""

    size = BYTES + 1

    def encode(self, text: str) -> Tokens:
        # Half a surrogate pair, which broken sources have, is not worth a failure.
        return np.frombuffer(text.encode("utf-8", errors="replace"), dtype=np.uint8).astype(np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        parts = (b"\n\n" if token == BYTES else bytes([token]) for token in tokens if 0 <= token <= BYTES)
        return b"".join(parts).decode("utf-8", errors="replace")


class Given:
    """The tokens of a tokenizer.json, as the `tokenizers` library reads it, and one more between documents."""

    def __init__(self, path: str) -> None:
        try:
            from tokenizers import Tokenizer as Library
        except ImportError:
            raise missing("tokenizers", "tokenizer") from None
        try:
            self._library: Any = Library.from_file(path)
        except Exception as error:  # noqa: BLE001  (the library raises no other, whatever is wrong with the file)
            text = f"{path} is no tokenizer that can be read ({error}); give the path of a tokenizer.json, or bytes"
            raise TextError("tokenizer", text) from None
        # Numbers may have gaps, so that the largest counts.
        self._separator = max(self._library.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.size = self._separator + 1

    def encode(self, text: str) -> Tokens:
        return np.array(self._library.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        parts: list[list[int]] = [[]]
        for token in tokens:
            if token >= self._separator:
                parts.append([])
            else:
                parts[-1].append(int(token))
        return "\n\n".join(self._library.decode(part) for part in parts)


@lru_cache(maxsize=4)
def make_tokenizer(name: str) -> Tokenizer:
    """Return the tokenizer `bytes`, or that of a file. A TextError says why there is none."""
    return Bytes() if name == "bytes" else Given(name)
