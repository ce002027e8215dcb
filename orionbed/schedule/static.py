"""Static schedules: a list of actions per stage, run in order as inputs arrive."""

from collections.abc import Callable

from orionbed.schedule.actions import Action
from orionbed.schedule.policy import Waiting
from orionbed.schedule.routers import StageView


def gpipe(num_stages: int, num_microbatches: int) -> list[list[Action]]:
    """GPipe (arXiv 1811.06965): all forwards, then all backwards."""
    return [
        [Action("F", stage, m) for m in range(num_microbatches)]
        + [Action("B", stage, m) for m in range(num_microbatches)]
        for stage in range(num_stages)
    ]


def one_forward_one_backward(num_stages: int, num_microbatches: int) -> list[list[Action]]:
    """1F1B (PipeDream-Flush, arXiv 2006.09503): stage i warms up with num_stages-1-i forwards, then alternates."""
    lists = []
    for stage in range(num_stages):
        warm_up = min(num_stages - 1 - stage, num_microbatches)
        actions = [Action("F", stage, m) for m in range(warm_up)]
        for m in range(num_microbatches - warm_up):
            actions += [Action("F", stage, warm_up + m), Action("B", stage, m)]
        actions += [Action("B", stage, m) for m in range(num_microbatches - warm_up, num_microbatches)]
        lists.append(actions)
    return lists


SCHEDULES: dict[str, Callable[[int, int], list[list[Action]]]] = {"gpipe": gpipe, "1f1b": one_forward_one_backward}


class StaticPolicy:
    """Runs one stage's list step after step: the head of the list as soon as its input is there, then a STEP.

    Micro-batches are numbered through: number `m` of step `n` is `n x num_microbatches + m`.
    """

    __slots__ = (
        "_actions",
        "_arrived",
        "_is_first",
        "_is_last",
        "_position",
        "_started",
        "backward_peer",
        "forward_peer",
        "num_microbatches",
        "num_steps",
    )

    def __init__(self, actions: list[Action], *, backward_peer: int | None, forward_peer: int | None) -> None:
        self.forward_peer = forward_peer
        self.backward_peer = backward_peer
        self.num_steps = 0
        self.num_microbatches = len({action.microbatch for action in actions})
        self._is_first = backward_peer is None
        self._is_last = forward_peer is None
        self._actions = [*actions, Action("STEP", actions[0].stage, -1)]
        self._position = 0
        self._arrived: set[tuple[str, int]] = set()
        self._started: set[int] = set()

    def on_message(self, kind: str, microbatch: int, from_peer: int) -> None:  # noqa: ARG002
        """Note that an input is there."""
        self._arrived.add((kind, microbatch))

    def _head(self) -> tuple[Action, tuple[str, int] | None]:
        """Return the next action with its number, and the input it needs."""
        action = self._actions[self._position]
        if action.kind == "STEP":
            return action, None
        number = self.num_steps * self.num_microbatches + action.microbatch
        action = Action(action.kind, action.stage, number)
        if action.kind == "F" and not self._is_first:
            return action, ("F", number)
        if action.kind in {"B", "I"} and not self._is_last:
            return action, ("B", number)
        return action, None

    def ready(self) -> bool:
        """Whether the head of the list has its input."""
        _, needed = self._head()
        return needed is None or needed in self._arrived

    @property
    def waiting(self) -> Waiting:
        """A static schedule only ever waits for an input."""
        return Waiting.EMPTY

    def next_action(self) -> Action | None:
        """Return the head of the list, once its input has arrived."""
        action, needed = self._head()
        if needed is not None:
            if needed not in self._arrived:
                return None
            self._arrived.remove(needed)
        self._position += 1
        if action.kind == "F":
            self._started.add(action.microbatch)
        return action

    def on_finished(self, action: Action) -> None:
        """Begin the list anew after its optimizer step."""
        if action.kind == "STEP":
            self._position = 0
            self.num_steps += 1
        elif action.kind == "B":
            self._started.discard(action.microbatch)

    def route(self, action: Action, candidates: StageView | None) -> int | None:  # noqa: ARG002
        """Always the same neighbours."""
        if action.kind == "F":
            return self.forward_peer
        return self.backward_peer if action.kind in {"B", "I"} else None

    def staleness(self, microbatch: int) -> int:  # noqa: ARG002
        """None: the weights change only between steps."""
        return 0

    def holds(self, microbatch: int) -> bool:
        """Whether a gradient of `microbatch` would be of use here."""
        return microbatch in self._started

    def on_lost(self, microbatch: int) -> None:
        """A static schedule cannot go on without a micro-batch: the backend resets the whole replica instead."""

    def held(self) -> list[int]:
        """Micro-batches whose input is here and unused, or whose backward is still to come."""
        return sorted({microbatch for _, microbatch in self._arrived} | self._started)

    def reset(self) -> None:
        """Give up the step: the list begins anew. The backend sets `num_steps` to one value for the whole replica."""
        self._position = 0
        self._arrived.clear()
        self._started.clear()

    def restart(self) -> None:
        """Begin anew as a new process."""
        self.reset()
