"""Between the contest and a router: checks every answer, routes at random in its place, and knows when it is enough."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from orionbed.contest.answering import Answering, Fault, FaultKind, RouterError
from orionbed.contest.schema import Limits

FEWEST_CALLS: Final = 100
"""The share of faults counts from this many calls on; before, as if there had been as many."""


class Referee:
    """Asks a router for routes of the contest's rules.

    `uniform` draws the routes that replace those which were late, wrong or raised. RouterError once more than the
    allowed share of calls were, or all calls together took longer than allowed.
    """

    def __init__(self, name: str, answering: Answering, limits: Limits, uniform: Callable[[], float]) -> None:
        self.faults: Counter[FaultKind] = Counter()
        self.first_fault = ""
        self.num_routes = 0
        self.num_fallbacks = 0
        self.name = name
        self._answering = answering
        self._limits = limits
        self._uniform = uniform
        self._known: list[list[int]] = []

    def begin(self, num_layers: int) -> None:
        """Start with nothing known of `num_layers` layers."""
        self._known = [[] for _ in range(num_layers)]

    def tell(self, layer: int, at_s: float, told: list[list[Any]]) -> None:
        """Tell the router the state of a layer; see `orionbed.contest.interface.Miner` for the values."""
        self._known[layer] = [row[0] for row in told]
        self._answering.tell(layer, at_s, told)

    def all_known(self) -> bool:
        """Whether every layer has a miner to choose."""
        return all(self._known)

    def route(self, now_s: float, epoch: int, activation: int, completed: list[int], lost: list[int]) -> list[int]:
        """Return a valid route: the router's, or one at random."""
        self.num_routes += 1
        try:
            answer = self._answering.route(now_s, epoch, activation, completed, lost)
            self._check_route(answer)
        except Fault as fault:
            self._note(fault)
            self.num_fallbacks += 1
            return [known[int(self._uniform() * len(known))] for known in self._known]
        self._check_time()
        return answer

    def rebalance(self, now_s: float, epoch: int, widths: Sequence[int], here: Sequence[bool]) -> dict[int, int]:
        """Return the first layers of the miners that move: the router's if they are valid, else none.

        `widths` are how many layers each miner serves, `here` who is there to move.
        """
        try:
            moves = self._answering.rebalance(now_s, epoch)
            self._check_moves(moves, widths, here)
        except Fault as fault:
            self._note(fault)
            return {}
        self._check_time()
        return moves

    def _check_route(self, answer: list[int]) -> None:
        if len(answer) != len(self._known):
            raise Fault("wrong", f"route must have {len(self._known)} miners, one per layer, not {len(answer)}")
        for layer, (miner, known) in enumerate(zip(answer, self._known, strict=True)):
            if miner not in known:
                raise Fault("wrong", f"route has miner {miner} for layer {layer}, which is not among its miners")

    def _check_moves(self, moves: dict[int, int], widths: Sequence[int], here: Sequence[bool]) -> None:
        num_layers = len(self._known)
        for miner, layer in moves.items():
            if not 0 <= miner < len(widths) or not here[miner]:
                raise Fault("wrong", f"rebalance moves miner {miner}, which is not there")
            if not 0 <= layer < num_layers:
                raise Fault(
                    "wrong", f"rebalance moves miner {miner} to layer {layer}; layers are 0 to {num_layers - 1}"
                )
        now_at = {miner: [layer for layer, known in enumerate(self._known) if miner in known] for miner in moves}
        left = [len(known) for known in self._known]
        for miner, layer in moves.items():
            for before in now_at[miner]:
                left[before] -= 1
            for k in range(widths[miner]):
                left[(layer + k) % num_layers] += 1
        empty = [layer for layer, count in enumerate(left) if count == 0 and self._known[layer]]
        if empty:
            raise Fault("wrong", f"rebalance leaves layer {empty[0]} without a miner")

    def _note(self, fault: Fault) -> None:
        self.faults[fault.kind] += 1
        self.first_fault = self.first_fault or str(fault)
        total, calls = self.faults.total(), max(self._answering.num_calls, FEWEST_CALLS)
        if total > self._limits.faults * calls:
            raise RouterError(
                f"router {self.name}: {total} of {self._answering.num_calls} calls failed, more than "
                f"{self._limits.faults:.0%} of {calls} may; the first: {self.first_fault}"
            )
        self._check_time()

    def _check_time(self) -> None:
        if self._answering.asking_s > self._limits.run_timeout:
            raise RouterError(
                f"router {self.name}: its {self._answering.num_calls} answers of one seed took longer than "
                f"{self._limits.run_timeout:g} s together; make it quicker, or raise router.run_timeout"
            )
