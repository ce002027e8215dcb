"""Replicas agree on a gradient: reduce-scatter and all-gather round a ring, on real numbers."""

from typing import TYPE_CHECKING, Any

import numpy as np

from orionbed import tracing
from orionbed.training.surroundings import Header

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orionbed.training.fixed_loop import FixedLoop


class Ring:
    """One peer's part. In each of 2 (n-1) rounds it passes one n-th on to the next replica, as soon as it has it.

    Every part is summed in the same order wherever it ends up, so that all replicas get the same bits.
    """

    def __init__(self, loop: "FixedLoop") -> None:
        self._loop = loop
        self._block = loop.plan.scenario.sync
        members = [peer.index for peer in loop.plan.peers if peer.stage == loop.stage]
        self._count = len(members)
        self._place = members.index(loop.me.index)
        self._next = members[(self._place + 1) % self._count]
        self._early: dict[tuple[int, int], bytes] = {}
        self.num_exchanges = 0
        self.exchange_s = 0.0
        self.bytes_sent = 0.0
        self.clear()

    def clear(self) -> None:
        """Forget an exchange under way."""
        self._step = -1
        self._round = 0
        self._began_s = 0.0
        self._early.clear()

    def begin(self, step: int) -> None:
        """Begin with the gradients that have been accumulated."""
        if self._step == step:
            return
        assert not isinstance(self._block, str)
        loop = self._loop
        if (step + 1) % self._block.every or self._count == 1:
            self._step = step
            loop.agreed(step, 0, loop.now_s)
            return
        self._values: NDArray[Any] = np.frombuffer(loop.compute.gradients(), dtype=loop.compute.shape.dtype).copy()
        self._bounds = np.linspace(0, len(self._values), self._count + 1).astype(int)
        self._step, self._round, self._began_s = step, 0, loop.now_s
        self._pass_on(self._place)
        self._take_early()

    def _part(self, number: int) -> "NDArray[Any]":
        part: NDArray[Any] = self._values[self._bounds[number] : self._bounds[number + 1]]
        return part

    def _pass_on(self, number: int) -> None:
        loop = self._loop
        assert not isinstance(self._block, str)
        plan_bytes = loop.plan.stages[loop.stage].parameters * self._block.bits / 8.0 / self._count
        header = {"k": "R", "s": self._step, "r": self._round, "e": loop.generation}
        self.bytes_sent += plan_bytes
        loop.transport.send(self._next, header, self._part(number).tobytes(), plan_bytes, loop.now_s)

    def arrived(self, header: Header, body: bytes) -> None:
        """Take in a part from the replica before; one that is ahead may send before this peer has begun."""
        if header["e"] != self._loop.generation:
            return
        self._early[header["s"], header["r"]] = body
        self._take_early()

    def _take_early(self) -> None:
        while (self._step, self._round) in self._early:
            body = self._early.pop((self._step, self._round))
            number = (self._place - self._round - 1) % self._count
            part = self._part(number)
            values = np.frombuffer(body, dtype=self._values.dtype)[: len(part)]
            if self._round < self._count - 1:
                part += values
            else:
                part[:] = values
            self._round += 1
            if self._round == 2 * (self._count - 1):
                self._done()
            else:
                self._pass_on(number)

    def _done(self) -> None:
        loop, block = self._loop, self._block
        assert not isinstance(block, str)
        loop.compute.load_gradients(self._values.tobytes())
        loop.account.sync_compute_s = block.compute
        self.num_exchanges += 1
        self.exchange_s += loop.now_s - self._began_s
        num_microbatches = self._count * (loop.plan.order.num_microbatches if loop.plan.order else 0)
        step, began_s = self._step, self._began_s
        loop.timeline.at(loop.now_s + block.compute, lambda _: loop.agreed(step, num_microbatches, began_s))
        loop.reporter.span(
            tracing.LANE_MERGE, tracing.KIND_AVERAGE, tracing.CAUSE_MERGE_TRANSFER, -1, (began_s, loop.now_s)
        )
