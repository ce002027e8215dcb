"""Layers dealt to stages whose peers are not equally fast, within what their memory holds."""

from collections.abc import Callable, Sequence

from orionbed.model import Transformer, balanced_split, embedding_parameters, layer_parameters

Fits = Callable[[list[int]], list[bool]]
"""Split of layers -> whether each stage fits the smallest memory among its peers."""


def by_speed(model: Transformer, speeds: Sequence[float], fits: Fits) -> list[int]:
    """Return the layers of each stage so that the slowest stage is as fast as it can be.

    `speeds` are what the peers of each stage do together, in any one unit; a stage takes its layers, embedding and head
    counted as `balanced_split` counts them, over its speed. Layers go one at a time to the stage that stays quickest,
    which for equal layers is optimal; with equal speeds that is `balanced_split`. A stage that does not fit gets no
    more than it can hold. Where all stages together cannot hold the model, memory is left out of account.
    """
    most = [model.layers] * len(speeds)
    split = first = _dealt(model, speeds, most)
    assert split is not None
    while True:
        over = [stage for stage, is_fine in enumerate(fits(split)) if not is_fine]
        if not over:
            return split
        for stage in over:
            most[stage] = split[stage] - 1
        found = _dealt(model, speeds, most)
        if found is None:
            assert first is not None
            return first
        split = found


def load_of(model: Transformer, split: Sequence[int]) -> list[float]:
    """Return the load of each stage in layers: its own, and the embedding and the head at the ends."""
    end_load = embedding_parameters(model) / layer_parameters(model)
    load = [float(layers) for layers in split]
    load[0] += end_load
    load[-1] += end_load
    return load


def _dealt(model: Transformer, speeds: Sequence[float], most: Sequence[int]) -> list[int] | None:
    """Return the split with at most so many layers in each stage; None where that is impossible."""
    fastest = max(speeds)
    relative = [speed / fastest for speed in speeds]
    # Every stage keeps a layer, however slow its peers are, unless the ends are full of embedding and head.
    split = [min(1, layers) for layers in balanced_split(model, len(speeds))]
    if any(layers > limit for layers, limit in zip(split, most, strict=True)):
        return None
    load = load_of(model, split)
    for _ in range(model.layers - sum(split)):
        open_stages = [stage for stage in range(len(split)) if split[stage] < most[stage]]
        if not open_stages:
            return None
        stage = min(open_stages, key=lambda s: ((load[s] + 1.0) / relative[s], s == 0, s))
        split[stage] += 1
        load[stage] += 1.0
    return split
