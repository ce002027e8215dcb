"""Tables as lines of text, for terminals."""

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,), indent: str = "") -> list[str]:
    """Return a line per row, its cells two spaces apart: those of the columns `left` begin, all others end alike."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = enumerate(zip(row, widths, strict=True))
        return "  ".join(cell.ljust(width) if at in left else cell.rjust(width) for at, (cell, width) in cells)

    return [(indent + line(row)).rstrip() for row in rows]
