"""The reconstruction attack: certain where tokens lie open, chance where there is nothing, and the same every time."""

from collections.abc import Callable
from typing import Any

import pytest

from orionbed.scenario.schedules import QuantizeBoundary, TopKBoundary
from orionbed.scenario.training import InnerOptimizer
from orionbed.training.data import synthetic
from orionbed.training.probe import Seen, captured, probe
from orionbed.training.shape import ModelShape
from orionbed.training.worker import StageWorker

VOCAB = 16
Small = Callable[..., ModelShape]


def drawn(count: int, seed: int) -> Any:
    import torch

    return torch.randint(VOCAB, (count,), generator=torch.Generator().manual_seed(seed))


def one_hot(count: int, seed: int) -> Seen:
    import torch

    tokens = drawn(count, seed)
    return Seen(torch.nn.functional.one_hot(tokens, VOCAB).float(), tokens)


def noise(count: int, seed: int) -> Seen:
    import torch

    return Seen(torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)), drawn(count, seed + 1))


def workers_of(shape: ModelShape) -> list[StageWorker]:
    make = range(shape.num_chunks)
    return [StageWorker(shape, [chunk], seed=1, optimizer=InnerOptimizer()) for chunk in make]


@pytest.mark.parametrize("hidden", [None, 24])
def test_tokens_that_lie_open_are_all_named(hidden: int | None) -> None:
    assert probe(one_hot(512, 1), one_hot(256, 2), VOCAB, 0, hidden=hidden).accuracy == 1.0


def test_from_noise_nothing_is_named_but_by_chance() -> None:
    found = probe(noise(4096, 3), noise(4096, 5), VOCAB, 0)
    # A binomial with chance 1/16: five deviations are 0.019.
    assert found.accuracy == pytest.approx(1 / VOCAB, abs=0.019)
    assert found.majority == pytest.approx(1 / VOCAB, abs=0.019)


def test_the_same_seed_gives_the_same_and_leaves_torchs_own_draws_alone() -> None:
    import torch

    known, secret = noise(512, 3), noise(512, 5)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = probe(known, secret, VOCAB, 7)
    assert torch.equal(torch.rand(1), expected)
    assert probe(known, secret, VOCAB, 7) == first
    assert probe(known, secret, VOCAB, 8) != first


def test_what_is_captured_is_what_crosses(small: Small) -> None:
    shape = small(3, boundary=6)
    workers = workers_of(shape)
    seen = captured(workers, synthetic(shape, 1), range(2))
    first = workers[0].forward(0, 1, None)
    assert first is not None
    second = workers[1].forward(1, 1, first)
    assert second is not None
    assert sorted(seen) == [0, 1]
    for chunk, crossing in enumerate((first, second)):
        assert seen[chunk].values.shape == (2 * shape.tokens, 6)
        assert seen[chunk].values[shape.tokens :].equal(crossing.flatten(0, 1).float())
        assert seen[chunk].tokens[shape.tokens :].equal(synthetic(shape, 1)(1)[0].flatten())


@pytest.mark.parametrize("offset", [-1, 1])
def test_neighbours_are_those_of_the_same_sequence(small: Small, offset: int) -> None:
    import torch

    shape = small(2)
    workers = workers_of(shape)
    here, there = (captured(workers, synthetic(shape, 1), [0], each)[0] for each in (0, offset))
    positions = torch.arange(shape.tokens).view(shape.sequences, shape.sequence)
    kept = positions[:, 1:] if offset < 0 else positions[:, :-1]
    assert there.values.equal(here.values[kept.flatten()])
    assert there.tokens.equal(here.tokens[kept.flatten() + offset])


@pytest.mark.parametrize(
    "boundary", [QuantizeBoundary(kind="quantize", bits=4), TopKBoundary(kind="topk", keep=3)], ids=lambda b: b.kind
)
def test_packed_tensors_are_seen_as_the_values_that_are_left(small: Small, boundary: Any) -> None:
    shape = small(2, boundary=boundary)
    seen = captured(workers_of(shape), synthetic(shape, 1), [0])[0]
    plain = captured(workers_of(small(2)), synthetic(shape, 1), [0])[0]
    assert seen.values.shape == plain.values.shape
    largest = plain.values.abs().amax(dim=-1, keepdim=True)
    if isinstance(boundary, TopKBoundary):
        assert ((seen.values != 0.0).sum(dim=-1) == 3).all()
        assert seen.values[seen.values != 0.0].equal(plain.values[seen.values != 0.0])
    else:
        assert ((seen.values - plain.values).abs() <= 0.51 / 7 * largest).all()
