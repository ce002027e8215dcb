"""What each stage of a scenario could read out of what it is sent: a small training, then a probe per boundary."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from statistics import fmean
from typing import Any, Final

from orionbed.aligned import aligned
from orionbed.backends import BackendError
from orionbed.learning.planning import plan_training
from orionbed.plan import Plan
from orionbed.scenario import Scenario
from orionbed.training.data import Batches
from orionbed.training.probe import by_chunk, captured, probe
from orionbed.training.shape import ModelShape
from orionbed.training.text import held_out_batches, make_batches, vocab_of
from orionbed.training.threads import with_threads
from orionbed.training.worker import StageWorker

Row = dict[str, Any]
MICROBATCHES: Final = 300
KNOWN_TOKENS: Final = 16_384
SECRET_TOKENS: Final = 8_192
_SECRET_FROM: Final = 1 << 40
_MANY: Final = 1 << 20
_LOSS_MICROBATCHES: Final = 8
CAUTION: Final = (
    "a linear probe on a small model finds a lower bound: better attacks find more, and what counts is how many values "
    "per token cross, not how many times fewer they are"
)


def exposure(
    scenario: Scenario,
    seed: int,
    *,
    microbatches: int = MICROBATCHES,
    offsets: Sequence[int] = (0,),
    hidden: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Row]:
    """Train a scenario's model for some micro-batches and return what is read at each boundary, before and after.

    Peers are one replica that works in step, in this process: what is asked is what a boundary of this kind and width
    gives away, not how the run got there. With 0 micro-batches only the untrained model is probed. A row has `model`
    (untrained, trained), `stage` that has sent, `offset` of the token from the position, `accuracy`, `majority` and
    `chance`; `values` and `bytes` per token, and how many `times` fewer bytes; `loss` on the held-out text, in nats.

    Raises:
        BackendError: torch is missing, the scenario's own model cannot be trained, or it has one stage only.
        TextError: the text is at fault.

    """
    planned = plan_training(scenario, seed)
    plan, training = planned.plan, scenario.training
    if plan.num_stages < 2:
        raise BackendError("pipeline.stages: nothing crosses in a pipeline of one stage; use two or more")
    shape = replace(planned.shape, vocab=vocab_of(training.data, planned.shape.vocab))
    batches = _both(make_batches(training.data, shape, seed), held_out_batches(training.data, shape, seed))
    attack = _Attack(scenario, plan, shape, batches, range(microbatches, _MANY), tuple(offsets), hidden, seed)
    with with_threads(1):
        workers = [
            StageWorker(shape, plan.chunks_of(stage), seed=seed, optimizer=training.optimizer, batches=batches)
            for stage in range(plan.num_stages)
        ]
        rows = attack.rows("untrained", workers)
        if microbatches:
            every = int(plan.microbatches_per_step)
            for done in range(1, microbatches + 1):
                _learn(workers, done - 1)
                if done % every == 0 or done == microbatches:  # the last step may have fewer
                    for worker in workers:
                        worker.step(worker.num_accumulated)
                if progress is not None:
                    progress(done)
            rows += attack.rows("trained", workers)
    return rows


def _both(batches: Batches, held_out: Batches) -> Batches:
    """Return micro-batches of which those from `_SECRET_FROM` on are held out."""
    return lambda number: batches(number) if number < _SECRET_FROM else held_out(number - _SECRET_FROM)


def _learn(workers: Sequence[StageWorker], number: int) -> None:
    """Do one micro-batch, forward and backward through all chunks."""
    holder = by_chunk(workers)
    _forward(holder, number)
    crossing = None
    for chunk in reversed(range(len(holder))):
        crossing = holder[chunk].backward(chunk, number, crossing)


def _loss(workers: Sequence[StageWorker], numbers: Iterable[int]) -> float:
    """Return the mean loss per token of some micro-batches, in nats."""
    holder = by_chunk(workers)
    losses = []
    for number in numbers:
        losses.append(_forward(holder, number))
        for worker in workers:
            worker.forget(number)
    return fmean(losses)


def _forward(holder: Mapping[int, StageWorker], number: int) -> float:
    """Do the forward of one micro-batch through all chunks; return its loss."""
    crossing = None
    for chunk in range(len(holder)):
        crossing = holder[chunk].forward(chunk, number, crossing)
    return holder[len(holder) - 1].take_loss(number)


@dataclass(frozen=True, slots=True)
class _Attack:
    """What is probed, on which text, and how."""

    scenario: Scenario
    plan: Plan
    shape: ModelShape
    batches: Batches
    fresh: range
    offsets: tuple[int, ...]
    hidden: int | None
    seed: int

    def rows(self, model: str, workers: Sequence[StageWorker]) -> list[Row]:
        """Return a row for each boundary between stages and each offset."""
        known = self.fresh[: ceil(KNOWN_TOKENS / self.shape.tokens)]
        secret = range(_SECRET_FROM, _SECRET_FROM + ceil(SECRET_TOKENS / self.shape.tokens))
        loss = _loss(workers, secret[:_LOSS_MICROBATCHES])
        rows = []
        for offset in self.offsets:
            seen, wanted = (captured(workers, self.batches, numbers, offset) for numbers in (known, secret))
            for chunk in seen:
                sender, receiver = self.plan.stage_of[chunk : chunk + 2]
                if sender == receiver:
                    continue  # nothing crosses
                guessed = probe(seen[chunk], wanted[chunk], self.shape.vocab, self.seed, hidden=self.hidden)
                rows.append(
                    {
                        "model": model,
                        "boundary": self.scenario.pipeline.boundary.kind,
                        "values": self.shape.boundary_width,
                        "bytes": self.shape.boundary_bytes // self.shape.tokens,
                        "times": self.shape.hidden * self.shape.torch_dtype.itemsize * self.shape.tokens
                        / self.shape.boundary_bytes,
                        "stage": sender,
                        "chunk": chunk,
                        "offset": offset,
                        "accuracy": guessed.accuracy,
                        "majority": guessed.majority,
                        "chance": 1.0 / self.shape.vocab,
                        "loss": loss,
                    }
                )  # fmt: skip
        return rows


def lines(rows: Sequence[Row]) -> list[str]:
    """Return the table as text."""
    heads = ("model", "after", "token", "boundary", "values", "smaller", "named", "majority", "chance", "loss")
    return aligned([heads, *(_cells(row) for row in rows)], left=range(4))


def _cells(row: Row) -> tuple[str, ...]:
    token = {-1: "the one before", 0: "the same", 1: "the next"}.get(row["offset"], f"{row['offset']:+d}")
    return (
        row["model"], f"stage {row['stage']}", token, row["boundary"], str(row["values"]), f"{row['times']:.3g}x",
        f"{row['accuracy']:.1%}", f"{row['majority']:.1%}", f"{row['chance']:.1%}", f"{row['loss']:.2f}",
    )  # fmt: skip
