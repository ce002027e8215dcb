"""Keys of two peers and a writer, and a checkpoint that they have signed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orionbed import checkpoints
from orionbed.keys import Key, Keyring

CONTENTS: Mapping[str, Mapping[str, Any]] = {
    "s00r0": {"weights": np.arange(12.0, dtype=np.float32).reshape(3, 4), "cursor": checkpoints.as_json({"at": 7})},
    "s01r0": {"weights": np.ones(5, dtype=np.float64), "nothing": b""},
}


@pytest.fixture(scope="session")
def keyring() -> Keyring:
    pytest.importorskip("cryptography")
    return Keyring({name: Key.new(name) for name in ("s00r0", "s01r0", "writer")}, "writer")


@pytest.fixture(name="write")
def _write(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a checkpoint of a position into `kept`."""

    def write(position: int = 1, *, keys: Keyring | None = None, keep: int = 2, **about: Any) -> Path:
        told = {"scenario": "tiny", "seed": 0, "position": position, "share": 0.5, **about}
        return checkpoints.write(tmp_path / "kept", CONTENTS, told, keys=keys, keep=keep)

    return write
