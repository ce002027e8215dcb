"""Checkpoints of a training under way: when one is due, what is in it, and how a training goes on from one."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orionbed import checkpoints
from orionbed.checkpoints import CheckpointError
from orionbed.checkpoints.about import about_run
from orionbed.checkpoints.folders import MANIFEST, path_of, remove
from orionbed.checkpoints.manifest import load
from orionbed.keys import Keyring, Trusted
from orionbed.learning.curve import HeldOut, Point
from orionbed.learning.learning import Learning
from orionbed.script import Line
from orionbed.training.keeping import RUN, can_keep, restore, shards_of, table


class Keeper:
    """Keeps a training's state in a folder, `every` so many micro-batches, and gives it back.

    Where forwards keep more than their inputs, it is kept only when none waits for its backward: `can` is False when
    that never is.
    """

    def __init__(self, learning: Learning, folder: Path, every: int, keys: Keyring | None = None) -> None:
        self._learning, self._folder, self._every = learning, folder, every
        self._about = _about(learning)
        self._keys = keys
        self._kept_at = 0
        player = learning.player
        self.can = any(can_keep(player, number) for number in range(1, len(learning.lines)))

    def go_on(self) -> int:
        """Let the training go on from the last checkpoint of this very run; return its micro-batches, 0 for none.

        Those of other runs are removed.

        Raises:
            CheckpointError: the checkpoint is damaged, or not signed with the keys that are here.

        """
        own = self._own()
        if not own:
            return 0
        kept = checkpoints.read(own[-1], None if self._keys is None else Trusted.of(self._keys.keys.values()))
        learning = self._learning
        restore(learning.player, kept)
        learning.curve.points = [
            Point(int(number), at_s, int(tokens), *losses)
            for number, at_s, tokens, *losses in kept.tensor(RUN, "curve").tolist()
        ]
        learning.held_out = [
            HeldOut(int(count), at_s, int(tokens), loss)
            for count, at_s, tokens, loss in kept.tensor(RUN, "held-out").tolist()
        ]
        learning.next_line = kept.position
        self._kept_at = len(learning.curve.points)
        return self._kept_at

    def _own(self) -> list[Path]:
        """Return the checkpoints of this run in the order of their positions, and remove all others."""
        own = []
        for position in checkpoints.positions(self._folder):
            path = path_of(self._folder, position)
            try:
                about = load(path / MANIFEST).about
            except CheckpointError as error:
                raise CheckpointError(f"{path}: the checkpoint is refused: {error}") from None
            if about == self._about | {"position": position}:
                own.append(path)
            else:
                remove(path)
        return own

    def pause(self, learning: Learning) -> None:
        """Keep the state if that is due."""
        count = len(learning.curve.points)
        if count - self._kept_at < self._every or not can_keep(learning.player, learning.next_line):
            return
        self._kept_at = count
        shards = shards_of(learning.player)
        # As numbers, because JSON has no word for the loss of a training that has diverged.
        shards[RUN]["curve"] = table(learning.curve.points, len(Point._fields))
        shards[RUN]["held-out"] = table(learning.held_out, len(HeldOut._fields))
        about = self._about | {"position": learning.next_line}
        checkpoints.write(self._folder, shards, about, keys=self._keys, keep=1)


def _about(learning: Learning) -> dict[str, Any]:
    about = about_run(learning.planned.plan.scenario, learning.seed, 0, script_sha256=_digest(learning.lines))
    del about["position"]
    return about


def _digest(lines: Sequence[Line]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(repr(tuple(line)).encode())
    return digest.hexdigest()
