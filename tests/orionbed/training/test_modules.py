"""The modules, each against its definition."""

from typing import Any

import pytest

from orionbed.scenario.schedules import ResBMBoundary
from orionbed.training import data


def test_gradients_of_a_linear_layer_are_those_of_torch() -> None:
    import torch

    from orionbed.training.layers import Deferral, Linear, weight_gradient

    generator = torch.Generator().manual_seed(0)
    ours, plain = Linear(5, 3, Deferral(), torch.float64), torch.nn.Linear(5, 3, bias=False).double()
    with torch.no_grad():
        ours.weight.copy_(torch.randn(3, 5, generator=generator))
        plain.weight.copy_(ours.weight)
    inputs = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    expected = torch.autograd.grad(plain(inputs), [inputs, plain.weight], gradient)

    found = torch.autograd.grad(ours(inputs), [inputs, ours.weight], gradient)
    torch.testing.assert_close(found, expected)

    output = ours(inputs)
    with ours.deferral.collecting() as pending:
        (for_inputs,) = torch.autograd.grad(output, [inputs], gradient)
    torch.testing.assert_close(for_inputs, expected[0])
    ((weight, kept, kept_gradient),) = pending
    assert weight is ours.weight
    assert weight.grad is None
    assert not kept.requires_grad, "what is kept must not keep the graph"
    torch.testing.assert_close(weight_gradient(kept, kept_gradient).detach(), expected[1])
    assert not ours.deferral.active
    assert ours.deferral.pending == []


def test_rotation_makes_scores_depend_on_the_distance_alone(small: Any) -> None:
    import torch

    from orionbed.training.layers import Attention, Deferral

    attention = Attention(small(), Deferral())
    query, key = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = attention.rotate(query.expand(1, 1, 8, 8))[0, 0] @ attention.rotate(key.expand(1, 1, 8, 8))[0, 0].t()
    for distance in range(-7, 8):
        same = scores.diagonal(distance)
        torch.testing.assert_close(same, same[:1].expand_as(same))
    assert scores[0].unique().numel() == 8
    torch.testing.assert_close(scores[0, 0], query @ key)


def test_fewer_keys_are_keys_repeated(small: Any) -> None:
    import torch

    from orionbed.training.modules import make_chunk

    grouped, full = (make_chunk(small(1, kv_heads=heads), 0, 0).blocks[0].attention for heads in (2, 4))
    with torch.no_grad():
        for name in ("query", "out"):
            getattr(full, name).weight.copy_(getattr(grouped, name).weight)
        for name in ("key", "value"):
            narrow = getattr(grouped, name).weight.view(2, 8, 32)
            getattr(full, name).weight.copy_(narrow.repeat_interleave(2, dim=0).reshape(32, 32))
    inputs = torch.randn(2, 8, 32, dtype=torch.float64)
    torch.testing.assert_close(grouped(inputs), full(inputs))


def test_the_boundary_begins_as_a_plain_cut(small: Any) -> None:
    import torch

    from orionbed.training.modules import make_chunk

    shape = small(3, boundary=6)
    sender, receiver = make_chunk(shape, 0, 0).exit, make_chunk(shape, 1, 0).entrance
    residual = torch.randn(2, 8, 32, dtype=torch.float64)
    narrow = sender(residual)
    wide = receiver(narrow)
    assert narrow.shape == shape.boundary_shape
    assert (narrow - residual[..., :6]).abs().max() < 0.05
    assert (wide[..., :6] - narrow).abs().max() < 0.05
    assert 0 < wide[..., 6:].abs().max() < 0.05


@pytest.mark.parametrize("encoder_width", [None, 10])
def test_so_it_does_with_two_matrices(encoder_width: int | None, small: Any) -> None:
    import torch

    from orionbed.training.modules import make_chunk

    boundary = ResBMBoundary(kind="resbm", width=6, encoder="mlp", encoder_width=encoder_width)
    shape = small(2, boundary=boundary)
    sender, receiver = make_chunk(shape, 0, 0).exit, make_chunk(shape, 1, 0).entrance
    assert sender.projection.inner.weight.shape == (encoder_width or 24, 32)
    residual = torch.randn(2, 8, 32, dtype=torch.float64)
    assert 0 < (sender(residual) - residual[..., :6]).abs().max() < 0.05
    assert 0 < receiver(residual[..., :6])[..., 6:].abs().max() < 0.05


def test_a_token_sees_those_before_it_only(small: Any) -> None:
    from orionbed.training.modules import make_chunk

    shape = small(2)
    chunk = make_chunk(shape, 0, 0)
    tokens, _ = data.batch(shape, 0, 0)
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % shape.vocab
    moved = (chunk(tokens, None) - chunk(changed, None)).abs().amax(dim=(0, 2))
    assert not moved[:5].any()
    assert moved[5:].all()
