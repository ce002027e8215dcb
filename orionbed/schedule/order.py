"""A static schedule as data: which piece of the model each stage holds, and what it does with it in which order."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orionbed.schedule.actions import Action


class ScheduleError(ValueError):
    """A schedule that cannot be made, or that cannot be run; the message says why."""


@dataclass(frozen=True, slots=True)
class Order:
    """One list of actions per stage, for one optimizer step.

    `stage_of[c]` is the stage that holds chunk c of the model; chunks are numbered along the model. A forward in
    `pairs` and the backward listed after it are one operation: it starts with the inputs of both, and both results are
    there when it ends.
    """

    lists: tuple[tuple[Action, ...], ...]
    stage_of: tuple[int, ...]
    pairs: frozenset[Action] = frozenset()

    @property
    def num_stages(self) -> int:
        """Stages, that is peers of one pipeline."""
        return len(self.lists)

    @property
    def num_chunks(self) -> int:
        """Pieces the model is cut into."""
        return len(self.stage_of)

    @property
    def chunks_per_stage(self) -> int:
        """Pieces that one stage holds."""
        return self.num_chunks // self.num_stages

    @property
    def num_microbatches(self) -> int:
        """Micro-batches of one step."""
        return len({action.microbatch for action in self.lists[self.stage_of[0]]})

    @property
    def splits_backward(self) -> bool:
        """Whether any backward is split into its two halves."""
        return any(action.kind == "I" for actions in self.lists for action in actions)


def make_order(lists: Iterable[Iterable[Action]], stage_of: Sequence[int], pairs: Iterable[Action] = ()) -> Order:
    """Return an order of the given lists."""
    return Order(tuple(tuple(actions) for actions in lists), tuple(stage_of), frozenset(pairs))


def one_each(num_stages: int) -> tuple[int, ...]:
    """Chunk c on stage c."""
    return tuple(range(num_stages))


def looped(num_stages: int, chunks: int) -> tuple[int, ...]:
    """Chunk c on stage c modulo the number of stages: the model goes round `chunks` times."""
    return tuple(chunk % num_stages for chunk in range(num_stages * chunks))


def folded(num_stages: int) -> tuple[int, ...]:
    """Two chunks per stage in a V: down the stages and back up, so that the first stage also has the last chunk."""
    return (*range(num_stages), *reversed(range(num_stages)))


def check_order(order: Order) -> None:
    """Check that an order is complete and in itself consistent.

    Every chunk does the forward of every micro-batch once and its backward once, whole or in two halves; on each stage
    a forward precedes its backward and an input gradient its weight gradient; no stage works on a chunk of another.
    Whether the lists can run against one another without deadlock is found by timing them.

    Raises:
        ScheduleError: they are not; the message names the first stage and action at fault.

    """
    expected = {action.microbatch for actions in order.lists for action in actions if action.kind != "STEP"}
    if not expected:
        raise ScheduleError("the schedule has no actions")
    if expected != set(range(len(expected))):
        raise ScheduleError(f"micro-batches must be numbered 0 to {len(expected) - 1} without gaps")
    for stage, actions in enumerate(order.lists):
        _check_stage(stage, actions, order)
        held = [chunk for chunk, holder in enumerate(order.stage_of) if holder == stage]
        done = {(action.kind, action.chunk, action.microbatch) for action in actions}
        for chunk in held:
            for microbatch in sorted(expected):
                if ("F", chunk, microbatch) not in done:
                    raise ScheduleError(f"stage {stage} never does {chunk}F{microbatch}")
                whole = ("B", chunk, microbatch) in done
                halves = [("I", chunk, microbatch) in done, ("W", chunk, microbatch) in done]
                if whole == all(halves) or whole == any(halves):
                    text = f"stage {stage} must do either {chunk}B{microbatch} or both {chunk}I{microbatch} and "
                    raise ScheduleError(f"{text}{chunk}W{microbatch}")


def _check_stage(stage: int, actions: Sequence[Action], order: Order) -> None:
    done: set[Action] = set()
    for action in actions:
        kind, chunk, microbatch = action
        if kind == "STEP":
            raise ScheduleError(f"stage {stage} lists {action}; the optimizer step follows by itself")
        if not 0 <= chunk < order.num_chunks or order.stage_of[chunk] != stage:
            raise ScheduleError(f"stage {stage} lists {action}, but it does not hold chunk {chunk}")
        if action in done:
            raise ScheduleError(f"stage {stage} lists {action} twice")
        needed = {"F": None, "B": "F", "I": "F", "W": "I"}[kind]
        if needed is not None and Action(needed, chunk, microbatch) not in done:  # type: ignore[arg-type]
            raise ScheduleError(f"stage {stage} lists {action} before {chunk}{needed}{microbatch}")
        done.add(action)
