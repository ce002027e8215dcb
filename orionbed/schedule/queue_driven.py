"""The IOTA schedule: asynchronous, driven by queues, backward first, within an in-flight window."""

from collections import deque
from collections.abc import Callable

from orionbed.schedule.actions import Action
from orionbed.schedule.policy import Waiting
from orionbed.schedule.routers import Router, StageView

AUTO_BACKWARDS = 3
OPEN = 1 << 30
MOST_BROADCAST = 1 << 10  # an open window is told to the others as this many slots


class QueueDrivenPolicy:
    """Backward whenever one is queued; else forward while fewer than `window` micro-batches are in flight here.

    A `window` of `None` sizes itself, as IOTA's automatic cache does: it is open until this peer has finished
    `AUTO_BACKWARDS` backwards, and then stays at the number in flight at that moment.

    In flight are micro-batches whose forward this peer has started and whose gradient it has not yet used. The first
    stage makes new micro-batches through `source`, unless it is given one to begin again. The last stage runs forward,
    loss and backward in one go (a B) and so holds nothing. After `local_step_every` backwards comes a STEP. Activations
    go where the router says; gradients go back the way the activation came.
    """

    __slots__ = (
        "_backwards",
        "_backwards_since_step",
        "_backwards_to_freeze",
        "_came_from",
        "_forwards",
        "_is_first",
        "_is_last",
        "_opens_itself",
        "_router",
        "_source",
        "local_step_every",
        "num_steps",
        "replica",
        "stage",
        "window",
    )

    def __init__(
        self,
        stage: int,
        num_stages: int,
        replica: int,
        *,
        window: int | None,
        local_step_every: int,
        router: Router,
        source: Callable[[], int] | None,
    ) -> None:
        self.stage = stage
        self.replica = replica
        self.window = OPEN if window is None else window
        self._opens_itself = window is None
        self._backwards_to_freeze = AUTO_BACKWARDS if window is None else 0
        self.local_step_every = local_step_every
        self.num_steps = 0
        self._router = router
        self._source = source
        self._is_first = stage == 0
        self._is_last = stage == num_stages - 1
        self._forwards: deque[tuple[int, int]] = deque()
        self._backwards: deque[int] = deque()
        # micro-batch -> (peer it came from, local steps taken when its forward ran)
        self._came_from: dict[int, tuple[int, int]] = {}
        self._backwards_since_step = 0

    def on_message(self, kind: str, microbatch: int, from_peer: int, chunk: int = 0) -> None:  # noqa: ARG002
        """Queue what arrived."""
        if kind == "B":
            self._backwards.append(microbatch)
        else:
            self._forwards.append((microbatch, from_peer))

    def ready(self) -> bool:
        """Whether there is something to do now."""
        if self._backwards or self._backwards_since_step >= self.local_step_every:
            return True
        return (self._is_first or bool(self._forwards)) and len(self._came_from) < self.window

    @property
    def waiting(self) -> Waiting:
        """`WINDOW` when only the window keeps this peer from a forward."""
        full = len(self._came_from) >= self.window
        return Waiting.WINDOW if full and (self._is_first or self._forwards) else Waiting.EMPTY

    def next_action(self) -> Action | None:
        """Optimizer step when due, else the oldest backward, else the oldest forward the window allows."""
        if self._backwards_since_step >= self.local_step_every:
            return Action("STEP", self.stage, -1)
        if self._backwards:
            return Action("B", self.stage, self._backwards.popleft())
        if len(self._came_from) >= self.window:
            return None
        if self._forwards:
            microbatch, from_peer = self._forwards.popleft()
        elif self._is_first:
            microbatch, from_peer = self._next_from_source()
        else:
            return None
        self._came_from[microbatch] = (from_peer, self.num_steps)
        return Action("B" if self._is_last else "F", self.stage, microbatch)

    def _next_from_source(self) -> tuple[int, int]:
        if self._source is None:
            raise ValueError("the first stage needs a source of micro-batches")
        return self._source(), -1

    def on_finished(self, action: Action) -> None:
        """Count backwards towards the next optimizer step."""
        if action.kind == "B":
            self._backwards_since_step += 1
            if self._backwards_to_freeze:
                self._backwards_to_freeze -= 1
                if not self._backwards_to_freeze:
                    self.window = max(1, len(self._came_from))
        elif action.kind == "STEP":
            self._backwards_since_step = 0
            self.num_steps += 1

    def partner(self) -> int | None:
        """Nobody: messages do not wait for one another."""
        return None

    def opens_pair(self, action: Action) -> bool:  # noqa: ARG002
        """Never: every result goes out at once."""
        return False

    def staleness(self, microbatch: int) -> int:
        """Local optimizer steps since the forward of `microbatch`, which must be in flight here."""
        return self.num_steps - self._came_from[microbatch][1]

    def route(self, action: Action, candidates: StageView | None) -> int | None:
        """For an F the router's choice; for a B the peer the activation came from, and the slot becomes free."""
        if action.kind == "F":
            return None if candidates is None else self._router.choose(candidates, self.replica)
        if action.kind == "B":
            from_peer = self._came_from.pop(action.microbatch)[0]
            return None if self._is_first else from_peer
        return None

    def on_lost(self, microbatch: int) -> None:
        """Free the slot of `microbatch`, if it still has one."""
        self._came_from.pop(microbatch, None)

    def not_used(self) -> None:
        """The gradient of the backward just finished counts for nothing: an earlier attempt's was used here."""
        self._backwards_since_step -= 1

    def rename(self, microbatch: int, new: int) -> None:
        """`microbatch`, in flight here, has a new number: its next attempt."""
        self._came_from[new] = self._came_from.pop(microbatch)

    def forget(self, microbatch: int) -> bool:
        """Free the slot of `microbatch` and take it out of the queues; return whether it was here."""
        queued = [entry for entry in self._forwards if entry[0] == microbatch]
        if not queued and microbatch not in self._came_from:
            return False
        for entry in queued:
            self._forwards.remove(entry)
        if microbatch in self._backwards:
            self._backwards.remove(microbatch)
        self._came_from.pop(microbatch, None)
        return True

    def adopt(self, microbatch: int, from_peer: int) -> None:
        """Hold `microbatch` without a forward of one's own: its gradient will come here and go on to `from_peer`."""
        self._came_from[microbatch] = (from_peer, self.num_steps)

    def came_from(self, microbatch: int) -> int:
        """Return the peer that the activation of `microbatch`, in flight here, came from; -1 at the first stage."""
        return self._came_from[microbatch][0]

    def sources(self) -> dict[int, int]:
        """Every micro-batch held, in order of arrival, and the peer that its activation came from."""
        held = dict(self._forwards)
        held.update((microbatch, from_peer) for microbatch, (from_peer, _) in self._came_from.items())
        return held

    def waits(self, microbatch: int) -> bool:
        """Whether the forward of `microbatch` has yet to begin here."""
        return microbatch not in self._came_from

    @property
    def is_last(self) -> bool:
        """Whether this is the last stage."""
        return self._is_last

    def with_gradient(self) -> list[int]:
        """Micro-batches whose gradient waits here for its backward."""
        return list(self._backwards)

    def holds(self, microbatch: int) -> bool:
        """Whether a gradient of `microbatch` would be of use here."""
        return microbatch in self._came_from

    def held(self) -> list[int]:
        """Queued and in-flight micro-batches, each once, in order of arrival."""
        return list(dict.fromkeys([*(m for m, _ in self._forwards), *self._backwards, *self._came_from]))

    def queued(self) -> list[int]:
        """Micro-batches waiting in a queue here, and so nowhere else."""
        return [*(microbatch for microbatch, _ in self._forwards), *self._backwards]

    @property
    def num_free(self) -> int:
        """Free slots of the in-flight window, as broadcast to the other peers."""
        return min(self.window, MOST_BROADCAST) - len(self._came_from)

    @property
    def num_queued(self) -> int:
        """Length of the forward queue, as broadcast to the other peers."""
        return len(self._forwards)

    def reset(self) -> None:
        """Empty queues and window; the count towards the next optimizer step starts anew too."""
        self._forwards.clear()
        self._backwards.clear()
        self._came_from.clear()
        self._backwards_since_step = 0

    def restart(self) -> None:
        """Begin anew as a new process: a window that sizes itself opens again."""
        self.reset()
        if self._opens_itself:
            self.window = OPEN
            self._backwards_to_freeze = AUTO_BACKWARDS
