"""Scripts written by hand, played, and held against the plain model, workers driven by hand, and closed forms."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from orionbed.scenario.training import InnerOptimizer
from orionbed.schedule.catalogue import ENTRIES, Wanted
from orionbed.schedule.order import Order
from orionbed.schedule.timing import equal_times
from orionbed.script import Line
from orionbed.training.data import synthetic
from orionbed.training.linking import ScriptError
from orionbed.training.outer import momentum_at, nesterov
from orionbed.training.player import Player
from orionbed.training.serial import train_serially
from orionbed.training.shape import ModelShape, parameters_of
from orionbed.training.worker import StageWorker

ADAM = InnerOptimizer(learning_rate=1e-2)
BATCHES = [[0, 1, 2, 3], [4, 5, 6, 7]]


class Peer:
    def __init__(self, stage: int, replica: int) -> None:
        self.stage = stage
        self.name = f"s{stage:02d}r{replica}"


class PlanOf:
    """As much of a plan as a player looks at: who sits where, and who holds which chunks."""

    def __init__(self, stage_of: Sequence[int], replicas: int = 1) -> None:
        self.stage_of = tuple(stage_of)
        self.num_stages = max(stage_of) + 1
        self.stages = range(self.num_stages)
        self.peers = [Peer(stage, replica) for stage in self.stages for replica in range(replicas)]

    def chunks_of(self, stage: int) -> list[int]:
        return [chunk for chunk, holder in enumerate(self.stage_of) if holder == stage]


def played(
    plan: Any, shape: ModelShape, lines: Sequence[Line], optimizer: InnerOptimizer = ADAM, seed: int = 3
) -> Player:
    player = Player(plan, shape, lines, seed=seed, optimizer=optimizer, batches=synthetic(shape, seed))
    for number in range(len(lines)):
        player.play(number)
    assert not player.tensors, "nothing is kept that nobody needs"
    return player


def step_of(order: Order, microbatches: Sequence[int], replica: int = 0, replicas: int = 1) -> Iterator[Line]:
    """One step of an order, its lists interleaved as causes allow."""
    lists = [list(actions) for actions in order.lists]
    done: set[tuple[str, int, int]] = set()
    last = order.num_chunks - 1
    while any(lists):
        for stage, actions in enumerate(lists):
            while actions:
                kind, chunk, index = actions[0]
                source = {"F": chunk - 1, "W": chunk}.get(kind, chunk + 1)
                before = ("F" if kind == "F" else "B", source, index)
                if kind != "W" and 0 <= source <= last and before not in done:
                    break
                actions.pop(0)
                done.add(("F" if kind == "F" else "B", chunk, index))
                comes = kind != "W" and 0 <= source <= last
                peer = -1 if not comes else order.stage_of[source] * replicas + replica
                yield Line(0.0, kind, stage * replicas + replica, chunk, microbatches[index], peer)
    for stage in range(order.num_stages):
        yield Line(0.0, "STEP", stage * replicas + replica)


def weights(player: Player) -> list[Any]:
    """The weights of each chunk, in one row."""
    found: dict[int, Any] = {}
    for seat in player.seats:
        counts = [parameters_of(player.shape, chunk) for chunk in seat.worker.chunks]
        found |= dict(zip(seat.worker.chunks, seat.worker.weights().split_with_sizes(counts), strict=True))
    return [found[chunk] for chunk in sorted(found)]


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "interleaved-1f1b", "zb-h2", "zb-v", "dualpipe-v"])
def test_fixed_batches_end_with_the_weights_of_the_plain_model(name: str, small: Any, relative_error: Any) -> None:
    chunks = ENTRIES[name].chunks or 2
    order = ENTRIES[name].make(Wanted(4 // chunks, 4, equal_times(4, 1.0, 1.0, 1.0), chunks=chunks))
    shape = small()
    lines = [line for batch in BATCHES for line in step_of(order, batch)]
    player = played(PlanOf(order.stage_of), shape, lines)
    assert relative_error(weights(player), train_serially(shape, 3, BATCHES, ADAM)) < 1e-10
    assert sorted(number for number, _, _ in player.used) == list(range(8))


# ---------------------------------------------------------------- one stage, two replicas: F and B are one line


def line(does: str, peer: int = -1, microbatch: int = -1, **more: Any) -> Line:
    return Line(0.0, does, peer, 0, microbatch, **more)


def worker(small: Any, microbatches: Sequence[Sequence[int]] = ()) -> StageWorker:
    """The whole model in one piece after a step per list of micro-batches."""
    made = StageWorker(small(1), [0], seed=3, optimizer=ADAM)
    for batch in microbatches:
        for microbatch in batch:
            made.forward_backward(0, microbatch, None)
        made.step(len(batch))
    return made


def step(peer: int, *microbatches: int) -> list[Line]:
    return [*(line("B", peer, microbatch) for microbatch in microbatches), line("STEP", peer)]


def two(small: Any, lines: Sequence[Line]) -> Player:
    return played(PlanOf([0], replicas=2), small(1), lines)


def state(player: Player, peer: int) -> str:
    return player.seats[peer].worker.state_hash()


def test_summed_gradients_are_divided_by_all_micro_batches(small: Any) -> None:
    first = [line("B", 0, 0), line("B", 0, 1), line("B", 0, 2), line("B", 1, 3)]
    player = two(small, [*first, line("SUM", others=(0, 1)), line("STEP", 0), line("STEP", 1), *step(0, 4)])
    assert state(player, 1) == state(two(small, [*first, line("SUM", others=(0, 1)), line("STEP", 1)]), 1)
    alone = worker(small, [[0, 1, 2, 3]])
    assert (player.seats[1].worker.weights() - alone.weights()).abs().max() < 1e-12
    assert player.seats[0].num_steps == 2


def test_what_is_unused_is_taken_out_and_what_is_forgotten_stays_accumulated(small: Any) -> None:
    lines = [line("B", 0, 0), line("B", 0, 1), line("UNUSED", 0, 1), line("FORGET", 0, 0), line("STEP", 0)]
    assert state(two(small, lines), 0) == worker(small, [[0]]).state_hash()


def test_a_reset_drops_what_was_accumulated_and_an_undo_goes_back_behind_steps(small: Any) -> None:
    reset = [*step(0, 0), line("B", 0, 1), line("RESET", 0), *step(0, 2)]
    assert state(two(small, reset), 0) == worker(small, [[0], [2]]).state_hash()
    undone = [*step(0, 0), *step(0, 1), line("B", 0, 2), line("UNDO", 0, number=1), *step(0, 3)]
    assert state(two(small, undone), 0) == worker(small, [[0], [3]]).state_hash()
    with pytest.raises(ScriptError, match="no state of 2 steps ago"):
        two(small, [*step(0, 0), line("UNDO", 0, number=2)])


def test_a_merge_is_the_mean_weighted_by_work_slice_by_slice(small: Any) -> None:
    before = [*step(0, 0, 1), *step(0, 2), *step(1, 3)]
    mean = line("MERGE", others=(0, 1), works=(3, 1), takers=(0,), part=0, parts=2)
    player = two(small, [*before, mean])
    one, other = worker(small, [[0, 1], [2]]).weights(), worker(small, [[3]]).weights()
    half = len(one) // 2
    wanted = (3 * one + other) / 4
    assert (player.seats[0].worker.weights()[:half] == wanted[:half]).all()
    assert (player.seats[0].worker.weights()[half:] == one[half:]).all()
    assert (player.seats[1].worker.weights() == other).all()
    later = line("MERGE", takers=(1,))
    player = two(small, [*before, mean, later])
    initial = worker(small).weights()
    assert (player.seats[1].worker.weights()[:half] == wanted[:half]).all()
    assert (player.seats[1].worker.weights()[half:] == initial[half:]).all()
    ((_, stage, drift),) = player.merges.drifts
    middle = (one + other) / 2
    assert stage == 0
    assert drift == pytest.approx(float((one - middle).norm() / middle.norm()))


def test_outer_merges_are_those_of_the_outer_optimizer(small: Any) -> None:
    merges = [line("MERGE", number=n, others=(0, 1), works=(2, 1), takers=(0, 1)) for n in range(2)]
    lines = [*step(0, 0, 1), *step(1, 2), merges[0], *step(0, 3, 4), *step(1, 5), merges[1]]
    player = two(small, lines)
    models = [worker(small), worker(small)]
    old = models[0].weights().numpy()
    velocity = np.zeros_like(old)
    for number, batches in enumerate([([0, 1], [2]), ([3, 4], [5])]):
        for model, batch in zip(models, batches, strict=True):
            for microbatch in batch:
                model.forward_backward(0, microbatch, None)
            model.step(len(batch))
        rows = np.stack([model.weights().numpy() for model in models])
        old, velocity = nesterov(old, old - np.average(rows, axis=0, weights=(2, 1)), velocity, momentum_at(number))
        for model in models:
            model.load_weights(_tensor(old))
    assert np.abs(player.seats[1].worker.weights().numpy() - old).max() < 1e-12
    assert state(player, 1) != state(player, 0), "each has its own optimizer's memory"


def _tensor(values: Any) -> Any:
    import torch

    return torch.tensor(values)


def test_who_adopts_begins_anew_with_others_weights_or_their_memory_too(small: Any) -> None:
    learned = [*step(0, 0), *step(1, 1)]
    source = worker(small, [[0]])
    with_memory = two(small, [*learned, line("ADOPT", 1, source=0, with_state=True)])
    assert state(with_memory, 1) == source.state_hash()
    bare = two(small, [*learned, line("ADOPT", 1, source=0)]).seats[1].worker
    assert (bare.weights() == source.weights()).all()
    assert bare.state_hash() != source.state_hash()
    anew = two(small, [*learned, line("ADOPT", 1)])
    assert state(anew, 1) == worker(small).state_hash()
    itself = two(small, [*learned, line("RESET", 1), line("ADOPT", 1, source=1, with_state=True)])
    assert state(itself, 1) == worker(small, [[1]]).state_hash()


def test_a_peer_moves_to_another_stage_and_rebuilds_what_is_alike(small: Any) -> None:
    shape = small(4)
    plan = PlanOf([0, 1, 2, 3])
    before = [Line(0.0, "ADOPT", 2, 1, source=1, with_state=True)]
    assert played(plan, shape, before).seats[2].worker.chunks == (1,)
    lines = [Line(0.0, "ADOPT", 1, 1, source=1, others=(0, 2))]
    player = played(plan, shape, lines)
    mine, left, right = (player.seats[peer].worker for peer in (1, 0, 2))
    parts = [
        dict(zip(each.names, each.weights().split_with_sizes(each.sizes), strict=True)) for each in (mine, left, right)
    ]
    assert set(parts[0]) == set(parts[2])
    for name, values in parts[0].items():
        assert (values == (parts[1][name] + parts[2][name]) / 2).all()


# ---------------------------------------------------------------- queues


def test_a_queue_with_stale_gradients_is_what_workers_do_by_hand(small: Any) -> None:
    shape = small(2, recompute=True)
    lines = [
        Line(1.0, "F", 0, 0, 0), Line(2.0, "F", 0, 0, 1), Line(2.5, "B", 1, 1, 0, 0), Line(2.6, "STEP", 1),
        Line(3.0, "B", 0, 0, 0, 1), Line(3.1, "STEP", 0), Line(4.0, "B", 1, 1, 1, 0), Line(4.1, "STEP", 1),
        Line(5.0, "B", 0, 0, 1, 1), Line(5.1, "STEP", 0),
    ]  # fmt: skip
    player = played(PlanOf([0, 1]), shape, lines)
    first, last = (StageWorker(shape, [chunk], seed=3, optimizer=ADAM) for chunk in (0, 1))
    zero, one = first.forward(0, 0, None), first.forward(0, 1, None)
    back = last.forward_backward(1, 0, zero)
    losses = [last.take_loss(0)]
    last.step(1)
    first.backward(0, 0, back)
    first.step(1)
    back = last.forward_backward(1, 1, one)
    losses.append(last.take_loss(1))
    last.step(1)
    first.backward(0, 1, back)
    first.step(1)
    assert [state(player, 0), state(player, 1)] == [first.state_hash(), last.state_hash()]
    assert player.used == [(0, 3.0, losses[0]), (1, 5.0, losses[1])]
    assert [(each.count, each.total, each.largest) for each in player.staleness] == [(2, 1, 1), (2, 0, 0)]


def test_a_window_of_one_is_the_plain_model(small: Any, relative_error: Any) -> None:
    shape = small(2)
    lines = []
    for number in range(3):
        lines += [Line(0.0, "F", 0, 0, number), Line(0.0, "B", 1, 1, number, 0), Line(0.0, "STEP", 1)]
        lines += [Line(0.0, "B", 0, 0, number, 1), Line(0.0, "STEP", 0)]
    player = played(PlanOf([0, 1]), shape, lines)
    assert relative_error(weights(player), train_serially(shape, 3, [[0], [1], [2]], ADAM)) < 1e-10


def test_a_tensor_is_kept_for_all_who_need_it_and_what_is_done_again_takes_the_place(small: Any) -> None:
    lines = [
        Line(0.0, "F", 0, 0, 0), Line(0.0, "F", 2, 1, 0, 0), Line(0.0, "F", 2, 1, 0, 0),
        Line(0.0, "FORGET", 2, 1, 0), Line(0.0, "F", 3, 1, 0, 0), Line(0.0, "B", 4, 2, 0, 3),
        Line(0.0, "B", 3, 1, 0, 4), Line(0.0, "B", 0, 0, 0, 3),
    ]  # fmt: skip
    plan: Any = PlanOf([0, 1, 2], replicas=2)
    player = played(plan, small(3), lines)
    assert len(player.used) == 1
    with pytest.raises(ScriptError, match=r"line 1 needs what peer 3 has not made"):
        Player(
            plan,
            small(3),
            [lines[0], Line(0.0, "F", 2, 1, 0, 3)],
            seed=3,
            optimizer=ADAM,
            batches=synthetic(small(3), 3),
        )
    with pytest.raises(ScriptError, match=r"line 0 ends what peer 0 has not begun"):
        Player(plan, small(3), [Line(0.0, "W", 0, 0, 0)], seed=3, optimizer=ADAM, batches=synthetic(small(3), 3))


@pytest.mark.parametrize("before", [[], [line("B", 0, 0)], [line("B", 0, 1), line("STEP", 0)], [line("B", 1, 1)]])
def test_only_what_was_just_accumulated_can_be_taken_out(small: Any, before: list[Line]) -> None:
    with pytest.raises(ScriptError, match=r"takes out what peer 0 has not just accumulated"):
        two(small, [*before, line("UNUSED", 0, 1)])
