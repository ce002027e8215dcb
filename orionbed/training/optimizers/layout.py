"""What lies where in a flat tensor of parameters, as far as an optimizer asks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orionbed.training.shape import ModelShape, parameters_of

if TYPE_CHECKING:
    from orionbed.training.modules import Chunk


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix of a block, row after row from `start` on."""

    start: int
    rows: int
    columns: int

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk of the pipeline, from `start` to `end`; its matrices lie in order."""

    chunk: int
    start: int
    end: int
    matrices: tuple[Matrix, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """The pieces of a flat tensor, one after the other, and the whole model that they are of."""

    pieces: tuple[Piece, ...]
    num_chunks: int
    num_parameters: int

    def share(self, piece: Piece) -> float:
        """Return the share of the whole model's gradient norm that is a piece's: sqrt(its parameters / all)."""
        return float(((piece.end - piece.start) / self.num_parameters) ** 0.5)


def layout_of(shape: ModelShape, chunks: Sequence[int], modules: "Sequence[Chunk]") -> Layout:
    """Return where the parameters of some chunks lie, one chunk after the other."""
    pieces: list[Piece] = []
    end = 0
    for chunk, module in zip(chunks, modules, strict=True):
        start = end
        in_blocks = {id(parameter) for parameter in module.blocks.parameters() if parameter.dim() == 2}
        matrices: list[Matrix] = []
        for parameter in module.parameters():
            if id(parameter) in in_blocks:
                matrices.append(Matrix(end, *parameter.shape))
            end += parameter.numel()
        pieces.append(Piece(chunk, start, end, tuple(matrices)))
    num_parameters = sum(parameters_of(shape, chunk) for chunk in range(shape.num_chunks))
    return Layout(tuple(pieces), shape.num_chunks, num_parameters)


def one_piece(num_parameters: int, matrices: tuple[Matrix, ...] = ()) -> Layout:
    """Return the layout of a model in one piece, as good as any where a step is only to be timed."""
    return Layout((Piece(0, 0, num_parameters, matrices),), 1, num_parameters)
