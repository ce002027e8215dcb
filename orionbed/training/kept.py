"""What is kept of a micro-batch between its passes, and how many bytes that is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter


@dataclass(slots=True)
class Forward:
    """What the forward of one micro-batch left for its backward; without `output` that does the forward again."""

    inputs: "Tensor"
    targets: "Tensor | None"
    output: "Tensor | None"
    num_bytes: int


@dataclass(slots=True)
class Half:
    """What the input half of one backward left for the weight half."""

    finished: "list[tuple[Parameter, Tensor]]"
    pending: "list[tuple[Parameter, Tensor, Tensor]]"
    num_bytes: int


def num_bytes(tensors: "Sequence[Tensor]") -> int:
    """Return the bytes of the storages of some tensors, each once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def measured(run: "Callable[[], Tensor]", inputs: "Tensor", constant: "Sequence[Tensor]") -> "tuple[Tensor, int]":
    """Return the output of a forward, and the bytes that it and its graph hold besides what is `constant`."""
    import torch

    lasting = {tensor.untyped_storage().data_ptr() for tensor in constant}
    kept = [inputs]

    def keep(tensor: "Tensor") -> "Tensor":
        # Detached, since a graph that holds its own output is a cycle and lives on until it is collected.
        alone = tensor.detach()
        if alone.untyped_storage().data_ptr() not in lasting:
            kept.append(alone)
        return alone

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = run()
    return output, num_bytes(kept)
