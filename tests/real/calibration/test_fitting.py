"""What fits a GPU, for the middle stage of Orion-100B."""

import pytest

from orionbed.plan import make_plan
from orionbed.scenario import load
from orionbed.training.shape import ModelShape, parameters_of
from real.calibration.fitting import Room, largest_that_fits, output_gradients_bytes, with_layers
from real.calibration.whole import ALL, HALVES
from real.settings import real_shape

GB = 10**9
STREAM = 8000 * 9216 * 2


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    return real_shape(make_plan(load("orion-100b")), "cuda")


def test_the_states_of_a_middle_stage_are_the_plans(shape: ModelShape) -> None:
    room = Room(80 * GB, 0)
    memory = make_plan(load("orion-100b")).stages[1].memory
    # The plan leaves out the boundary's encoder and decoder.
    ends = 4 * 2 * 2 * 9216 * 144
    assert room.states_bytes(shape, 1) == memory.states_bytes + ends
    assert round(room.states_bytes(shape, 1) / 1e9, 1) == 51.9


def test_what_does_not_fit_is_left_out(shape: ModelShape) -> None:
    kept = 4 * GB
    states = Room(0, kept).states_bytes(shape, 1)
    plain, halves = states + 7 * kept, states + 7 * kept + 6 * output_gradients_bytes(shape)
    assert Room(halves, kept).passes(shape, 1) == ALL
    assert Room(halves - 1, kept).passes(shape, 1) == tuple(group for group in ALL if group != HALVES)
    assert Room(plain - 1, kept).passes(shape, 1) == ()
    smaller = largest_that_fits(Room(plain - 1, kept), shape, 1)
    assert smaller.layers_per_chunk[:3] == (4, 5, 6)
    assert parameters_of(smaller, 1) < parameters_of(shape, 1)
    assert largest_that_fits(Room(0, kept), shape, 1) == with_layers(shape, 1, 1)


def test_the_last_stage_needs_room_for_its_logits(shape: ModelShape) -> None:
    last = shape.num_chunks - 1
    room = Room(0, 0)
    logits = room.needed_bytes(shape, last, halves=False) - room.states_bytes(shape, last)
    assert logits == 2 * 8000 * 128256 * (2 + 4)


def test_recompute_of_every_layer_keeps_their_inputs(shape: ModelShape) -> None:
    kept = 4 * GB
    states = 2 * 2 * 6 * (parameters_of(with_layers(shape, 1, 7), 1) - parameters_of(shape, 1))
    assert Room(states + 7 * kept, kept).policy_fits(shape, 6, "none")
    assert not Room(states + 7 * kept - 1, kept).policy_fits(shape, 6, "none")
    assert Room(states + 6 * STREAM + 2 * kept, kept).policy_fits(shape, 6, "full")
    assert not Room(states + 6 * STREAM + 2 * kept - 1, kept).policy_fits(shape, 6, "full")
