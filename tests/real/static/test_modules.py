"""Recompute policies give the same gradients; what cannot be compiled is said and left as it was."""

from typing import Any

import pytest

from orionbed.scenario.schedules import ResBMBoundary
from orionbed.training.shape import ModelShape

pytest.importorskip("torch")
pytestmark = [pytest.mark.xdist_group("real"), pytest.mark.usefixtures("one_thread")]

POLICIES = ("none", "selective", "full")
SHAPE = ModelShape((1, 2, 1), 32, 48, 4, 2, 64, 8, 2, ResBMBoundary(kind="resbm", width=6), "float64")


def made(policy: str, number: int = 1) -> Any:
    from orionbed.training.modules import make_chunk
    from real.static.modules import PipelinedChunk

    return PipelinedChunk(make_chunk(SHAPE, number, 0), policy)  # type: ignore[arg-type]


def gradients(piece: Any) -> list[Any]:
    import torch

    targets = torch.arange(SHAPE.tokens).view(2, 8) if piece.chunk.head is not None else None
    inputs = torch.linspace(-1.0, 1.0, 2 * 8 * 6, dtype=torch.float64).view(2, 8, 6).requires_grad_()
    output = piece(inputs, targets)
    return list(torch.autograd.grad(output.square().sum(), [inputs, *piece.parameters()]))


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("policy", POLICIES)
def test_policies_differ_in_nothing_but_what_is_done_again(policy: str, number: int) -> None:
    import torch

    from orionbed.training.layers import Attention

    piece, layers = made(policy, number), SHAPE.layers_per_chunk[number]
    cores: list[int] = []
    done: list[int] = []
    for module in piece.modules():
        if isinstance(module, Attention):
            _counted(module, "core", cores)
    for block in piece.chunk.blocks:
        block.register_forward_hook(lambda *_: done.append(1))
    found = gradients(piece)
    torch.testing.assert_close(found, gradients(made("none", number)), rtol=0, atol=1e-14)
    assert len(cores) == layers * (1 if policy == "none" else 2)
    assert len(done) == layers * (2 if policy == "full" else 1)


def _counted(module: Any, name: str, calls: list[int]) -> None:
    original = getattr(module, name)

    def counted(*tensors: Any) -> Any:
        calls.append(1)
        return original(*tensors)

    setattr(module, name, counted)


def test_full_recompute_keeps_the_input_alone() -> None:
    import torch

    from orionbed.training.kept import measured

    kept = {}
    for policy in POLICIES:
        piece = made(policy, 2)
        inputs = torch.zeros(SHAPE.boundary_shape, dtype=torch.float64, requires_grad=True)
        targets = torch.zeros(2, 8, dtype=torch.int64)
        constant = [*piece.parameters(), *piece.buffers(), targets]
        _, kept[policy] = measured(lambda p=piece, i=inputs, t=targets: p(i, t), inputs, constant)  # type: ignore[misc]
    assert kept["full"] == SHAPE.boundary_bytes
    assert kept["full"] < kept["selective"] < kept["none"]


def test_weight_gradients_are_put_off_through_a_recompute() -> None:
    import torch

    for policy in POLICIES:
        piece = made(policy)
        inputs = torch.ones(SHAPE.boundary_shape, dtype=torch.float64, requires_grad=True)
        output = piece(inputs)
        with piece.deferral.collecting() as pending:
            output.sum().backward()
        assert len(pending) == 2 * 7 + 2, "seven matrices a layer, decoder and encoder"
        assert all(weight.grad is None for weight, *_ in pending)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="recompute must be one of full, selective, none, not 'some'"):
        made("some")


def compiled(piece: Any, backend: Any, *, splits_backward: bool = False) -> str | None:
    import torch

    from real.static.modules import compile_layers

    torch._dynamo.reset()
    return compile_layers(piece.chunk, SHAPE, splits_backward=splits_backward, backend=backend)


@pytest.mark.parametrize("policy", POLICIES)
def test_compiled_layers_have_the_same_gradients(policy: str) -> None:
    import torch

    piece = made(policy)
    assert compiled(piece, "aot_eager") is None
    assert all(block._compiled_call_impl is not None for block in piece.chunk.blocks)
    torch.testing.assert_close(gradients(piece), gradients(made("none")), rtol=0, atol=1e-13)


def test_what_cannot_be_compiled_is_said_and_left_as_it_was() -> None:
    import torch

    def broken(_graph: Any, _inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    piece = made("none")
    warning = compiled(piece, broken)
    assert warning is not None
    assert warning.startswith("real.compile was left out, layers run as they are: torch.compile: ")
    assert "no compiler here" in warning
    torch.testing.assert_close(gradients(piece), gradients(made("none")), rtol=0, atol=0)
    with piece.deferral.collecting() as pending:
        piece(torch.ones(SHAPE.boundary_shape, dtype=torch.float64, requires_grad=True)).sum().backward()
    assert len(pending) == 16


def test_schedules_that_split_backwards_are_not_compiled() -> None:
    piece = made("none")
    warning = compiled(piece, "aot_eager", splits_backward=True)
    assert warning is not None
    assert "splits backwards" in warning
    assert all(block._compiled_call_impl is None for block in piece.chunk.blocks)
