"""The tokens of a text in one row: read once, document after document, and kept for as long as the process lives."""

import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from orionbed.training.text.tokenizer import Tokenizer, Tokens

SMALL: Final = 1 << 16
"""Tokenizers with no more tokens than this are kept in two bytes per token, others in four."""
AT_ONCE: Final = 1 << 16
"""Tokens that are collected before they are written."""


class TokenRow:
    """The tokens of documents, each followed by the tokenizer's separator, read as far as somebody has asked.

    They are kept in a temporary file without a name, which goes with the process; two or four bytes per token.
    """

    def __init__(self, documents: Iterator[str], tokenizer: Tokenizer) -> None:
        self._documents, self._tokenizer = documents, tokenizer
        self._dtype = np.dtype(np.uint16 if tokenizer.size <= SMALL else np.uint32)
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (closed with this object)
        weakref.finalize(self, self._file.close)
        self.num_tokens = 0
        self.ended = False

    def reach(self, num_tokens: int) -> bool:
        """Read on until there are so many tokens; return whether there are."""
        while self.num_tokens < num_tokens and not self.ended:
            self._write(self._some())
        return self.num_tokens >= num_tokens

    def read_all(self) -> None:
        """Read to the end."""
        while not self.ended:
            self._write(self._some())

    def get(self, start: int, count: int) -> Tokens:
        """Return tokens that have been reached."""
        size = self._dtype.itemsize
        found = os.pread(self._file.fileno(), count * size, start * size)
        return np.frombuffer(found, dtype=self._dtype).astype(np.int64)

    def _some(self) -> list[Tokens]:
        """Return the tokens of the next documents; none when there is no other."""
        parts: list[Tokens] = []
        num_tokens = 0
        separator = np.array([self._tokenizer.size - 1])
        while num_tokens < AT_ONCE:
            text = next(self._documents, None)
            if text is None:
                self.ended = True
                break
            if text:
                parts += [self._tokenizer.encode(text), separator]
                num_tokens += len(parts[-2]) + 1
        return parts

    def _write(self, parts: list[Tokens]) -> None:
        if not parts:
            return
        row: NDArray[np.integer] = np.concatenate(parts).astype(self._dtype)
        view = memoryview(row.tobytes())
        while view:
            view = view[self._file.write(view) :]
        self.num_tokens += len(row)
