"""The inner optimizers: torch's rules on flat tensors, each chunk with its own momentum and its own clipping."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionbed.scenario.training import InnerOptimizer
from orionbed.schedule.catalogue import ENTRIES, Wanted
from orionbed.schedule.timing import equal_times
from orionbed.training.optimizers.build import CLIP_EPSILON, clip, make_optimizer, momentum_of, rate_at
from orionbed.training.optimizers.layout import Layout, Matrix, Piece, layout_of, one_piece

BATCHES = [[4 * step + microbatch for microbatch in range(4)] for step in range(5)]
KINDS: dict[str, dict[str, Any]] = {
    "adamw": {"kind": "adamw", "weight_decay": 0.1},
    "adamw with a momentum": {"kind": "adamw", "momentum": 0.8},
    "nadam": {"kind": "nadam", "weight_decay": 0.1},
    "nadam with a momentum": {"kind": "nadam", "momentum": 0.95},
    "muon": {"kind": "muon", "weight_decay": 0.1},
    "muon with a momentum": {"kind": "muon", "momentum": 0.9},
    "sgd": {"kind": "sgd"},
    "sgd with a momentum": {"kind": "sgd", "momentum": 0.9},
}


def settings_of(name: str, **changes: Any) -> InnerOptimizer:
    return InnerOptimizer(**{"learning_rate": 1e-2, "warm_up": 3, "clip": 0.5} | KINDS[name] | changes)


def trained(name: str, schedule: str, shape: Any, pipeline: Any, **changes: Any) -> tuple[list[Any], list[Any]]:
    """Weights of a pipeline and of the whole model after five steps."""
    from orionbed.training.serial import train_serially

    settings = settings_of(name, **changes)
    chunks = ENTRIES[schedule].chunks or 1
    order = ENTRIES[schedule].make(Wanted(4 // chunks, 4, equal_times(4, 1.0, 1.0, 1.0), chunks=chunks))
    made = pipeline(order, shape, seed=3, optimizer=settings)
    for microbatches in BATCHES:
        made.step(microbatches)
    return made.weights(), train_serially(shape, 3, BATCHES, settings)


@pytest.mark.parametrize("name", KINDS)
def test_two_chunks_a_peer_train_as_the_whole_model_does(
    name: str, small: Any, pipeline: Any, relative_error: Any
) -> None:
    shape = small(boundary=6, layers_per_chunk=(1, 2, 1, 0))
    found, expected = trained(name, "zb-v", shape, pipeline)
    assert relative_error(found, expected) < 1e-10


@pytest.mark.parametrize("name", ["adamw", "nadam", "muon", "sgd"])
def test_in_single_precision_too(name: str, small: Any, pipeline: Any, relative_error: Any) -> None:
    # Of the first gradients Adam takes little but the sign, also of those that are all rounding: so at a small rate.
    found, expected = trained(name, "1f1b", small(dtype="float32"), pipeline, learning_rate=1e-3)
    assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize("change", [{"clip": None}, {"warm_up": 0}, {"momentum": 0.97}, {"weight_decay": 0.0}])
@pytest.mark.parametrize("name", ["adamw", "nadam", "muon", "sgd"])
def test_every_key_matters(name: str, change: dict[str, Any], small: Any, relative_error: Any) -> None:
    from orionbed.training.worker import StageWorker

    weights = []
    for settings in (settings_of(name), settings_of(name, **change)):
        worker = StageWorker(small(1), [0], seed=3, optimizer=settings)
        for microbatch in range(2):
            worker.forward_backward(0, microbatch, None)
            worker.step(1)
        weights.append([worker.weights()])
    differs = relative_error(*weights)
    assert differs == 0.0 if (name, *change) == ("sgd", "weight_decay") else differs > 1e-7


def test_the_earlier_a_stage_the_more_momentum_has_nadam() -> None:
    auto = InnerOptimizer(kind="nadam")
    momenta = [momentum_of(auto, chunk, 16) for chunk in range(16)]
    assert momenta[0] == pytest.approx(0.984375)
    assert momenta[15] == 0.9
    assert [a - b for a, b in pairwise(momenta)] == pytest.approx([0.09 / 16] * 15)
    assert momentum_of(auto, 0, 1) == 0.9
    assert momentum_of(InnerOptimizer(kind="nadam", momentum=0.7), 3, 16) == 0.7
    assert [momentum_of(InnerOptimizer(kind=kind), 0, 4) for kind in ("sgd", "adamw", "muon")] == [0.0, 0.9, 0.95]


def test_the_rate_grows_linearly() -> None:
    settings = InnerOptimizer(learning_rate=0.8, warm_up=4)
    assert [rate_at(settings, number) for number in range(1, 7)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert rate_at(InnerOptimizer(learning_rate=0.8), 1) == 0.8


def walk(settings: InnerOptimizer, layout: Layout, theirs: Any, num_steps: int, dtype: str = "float64") -> Any:
    """Largest difference between our weights and those of one of torch's optimizers along the same gradients."""
    import torch

    draws = torch.Generator().manual_seed(0)
    weights = torch.randn(layout.num_parameters, generator=draws, dtype=torch.float64).to(getattr(torch, dtype))
    parameter = torch.nn.Parameter(weights.clone().view(layout.pieces[0].matrices[0].rows, -1))
    ours, torchs = make_optimizer(settings, weights, layout), theirs(parameter)
    for number in range(1, num_steps + 1):
        gradients = torch.randn(len(weights), generator=draws, dtype=torch.float64).to(weights.dtype)
        parameter.grad = gradients.view_as(parameter)
        torchs.step()
        ours.step(weights, gradients, number)
    return (weights - parameter.detach().flatten()).abs().max()


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.984, 0.9])
def test_nadam_is_torchs(momentum: float, decay: float) -> None:
    import torch

    def theirs(parameter: Any) -> Any:
        optimizer = torch.optim.NAdam(
            [parameter], 1e-2, (momentum, 0.95), weight_decay=decay, momentum_decay=1.0, decoupled_weight_decay=True
        )
        zeros = torch.zeros_like
        optimizer.state[parameter] = {  # as it begins, but with the product of momenta in float64
            "step": torch.tensor(0.0), "mu_product": torch.tensor(1.0, dtype=torch.float64),
            "exp_avg": zeros(parameter), "exp_avg_sq": zeros(parameter),
        }  # fmt: skip
        return optimizer

    settings = InnerOptimizer(kind="nadam", learning_rate=1e-2, momentum=momentum, weight_decay=decay)
    assert walk(settings, one_piece(60, (Matrix(0, 5, 12),)), theirs, 300) < 1e-12


@pytest.mark.parametrize("rows", [5, 12])
def test_muon_is_torchs_but_for_its_rounding(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from torch.optim import _muon

    from orionbed.training.optimizers.muon import orthogonalised

    def theirs(parameter: Any) -> Any:
        return torch.optim.Muon([parameter], 1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")

    settings = InnerOptimizer(kind="muon", learning_rate=1e-2, weight_decay=0.1)
    layout = one_piece(60, (Matrix(0, rows, 60 // rows),))
    # torch orthogonalises in bfloat16: 8 bits. Of 20 steps of 1e-2 * 0.2 each that may leave some 1e-3.
    assert 1e-6 < walk(settings, layout, theirs, 20) < 2e-3
    monkeypatch.setattr(_muon, "_zeropower_via_newtonschulz", lambda gradient, *_: orthogonalised(gradient))
    assert walk(settings, layout, theirs, 20) < 1e-12
    monkeypatch.undo()
    matrix = torch.randn(rows, 60 // rows, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = _muon._zeropower_via_newtonschulz(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7)
    assert torch.equal(orthogonalised(matrix), expected)


@pytest.mark.parametrize("size", [(8, 8), (6, 20), (20, 6)])
def test_orthogonalising_is_a_polynomial_of_the_singular_values(size: tuple[int, int]) -> None:
    import torch

    from orionbed.training.optimizers.muon import orthogonalised

    matrix = torch.randn(size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    assert (orthogonalised(matrix) - left @ values.diag() @ right).abs().max() < 1e-12
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_a_muon_update_is_as_long_as_one_of_adam() -> None:
    import torch

    layout = one_piece(64 * 256, (Matrix(0, 64, 256),))
    weights = torch.zeros(64 * 256)
    gradients = torch.randn(64 * 256, generator=torch.Generator().manual_seed(0))
    make_optimizer(InnerOptimizer(kind="muon", learning_rate=1.0), weights, layout).step(weights, gradients, 1)
    assert 0.15 < weights.square().mean().sqrt() < 0.25


numbers = st.floats(-1e3, 1e3, allow_subnormal=False)


@given(st.lists(numbers, min_size=1, max_size=8), st.floats(1e-3, 1e4))
def test_clipping_never_leaves_more_than_the_share_nor_touches_less(values: list[float], largest: float) -> None:
    import torch

    before = torch.tensor(values, dtype=torch.float64)
    after = before.clone()
    clip(after, largest)
    norm = float(torch.linalg.vector_norm(before))
    assert float(torch.linalg.vector_norm(after)) <= largest * (1 + 1e-12)
    if norm <= largest - 1.1 * CLIP_EPSILON:
        assert torch.equal(after, before)
    else:
        assert torch.allclose(after * norm, before * float(torch.linalg.vector_norm(after)), rtol=1e-9, atol=1e-9)
        assert float(torch.linalg.vector_norm(after)) >= min(norm, largest) - 2 * CLIP_EPSILON


def test_each_chunk_is_clipped_at_its_own_share() -> None:
    import torch

    # A quarter and three quarters of half the model.
    layout = Layout((Piece(0, 0, 2), Piece(3, 2, 8)), num_chunks=4, num_parameters=16)
    weights = torch.zeros(8, dtype=torch.float64)
    gradients = torch.tensor([3.0, 4.0] + [0.1] * 6, dtype=torch.float64)
    optimizer = make_optimizer(InnerOptimizer(kind="sgd", learning_rate=1.0, clip=2.0), weights, layout)
    optimizer.step(weights, gradients.clone(), 1)
    share = 2.0 * (2 / 16) ** 0.5
    assert float(weights[:2].norm()) == pytest.approx(share, rel=1e-6)
    assert torch.equal(weights[2:], -gradients[2:]), "its norm, 0.24, is below its share, 1.22"


@pytest.mark.parametrize("boundary", [None, 6])
def test_shares_of_all_chunks_make_the_whole(boundary: int | None, small: Any) -> None:
    from orionbed.training.modules import make_chunk

    shape = small(3, boundary=boundary)
    layout = layout_of(shape, [0, 1, 2], [make_chunk(shape, chunk, 0) for chunk in range(3)])
    assert sum(layout.share(piece) ** 2 for piece in layout.pieces) == pytest.approx(1.0, rel=1e-12)
    assert [len(piece.matrices) for piece in layout.pieces] == [7, 7, 7]
    per_block = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48
    assert all(sum(m.end - m.start for m in piece.matrices) == per_block for piece in layout.pieces)
