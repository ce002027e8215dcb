import numpy as np
import pytest

from orionbed.streams import Block, Streams


def test_a_stream_depends_on_seed_and_name_alone():
    one, other = Streams(7), Streams(7)
    other.get("something else").random(100)
    assert np.array_equal(one.get("jitter").random(5), other.get("jitter").random(5))
    assert one.get("jitter") is one.get("jitter")
    assert not np.array_equal(Streams(7).get("jitter").random(5), Streams(8).get("jitter").random(5))
    assert not np.array_equal(Streams(7).get("a").random(5), Streams(7).get("b").random(5))


def test_the_numbers_do_not_change_between_versions():
    assert Streams(0).get("x").integers(1000, size=4).tolist() == [667, 386, 524, 158]


def test_children_have_streams_of_their_own():
    parent = Streams(7)
    child = parent.child("draw 3")
    assert child.seed == Streams(7).child("draw 3").seed
    assert child.seed not in {7, parent.child("draw 4").seed}
    assert not np.array_equal(child.get("x").random(5), parent.get("x").random(5))


def test_a_block_serves_what_its_generator_draws():
    block = Block(np.random.default_rng(1).standard_normal, 10)
    served = [block.take() for _ in range(25)]
    rng = np.random.default_rng(1)
    assert served == np.concatenate([rng.standard_normal(10) for _ in range(3)])[:25].tolist()
    assert isinstance(next(block), float)


def test_a_block_is_drawn_when_it_is_needed():
    sizes = []

    def draw(size):
        sizes.append(size)
        return np.zeros(size)

    block = Block(draw, 3)
    assert sizes == []
    for _ in range(4):
        block.take()
    assert sizes == [3, 3]


def test_an_empty_block_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Block(np.zeros, 0)
