"""Values of which slices become known bit by bit: what merges have made of a stage."""


class Composed:
    """Bytes in one row, written slice by slice. Slices of different merges may be cut differently."""

    def __init__(self) -> None:
        self._values = bytearray()
        self._known: list[tuple[int, int]] = []

    def put(self, low: int, body: bytes) -> None:
        """Write a slice, which begins at byte `low`."""
        high = low + len(body)
        self._values.extend(bytes(max(0, high - len(self._values))))
        self._values[low:high] = body
        ranges: list[tuple[int, int]] = []
        for begin, end in sorted([*self._known, (low, high)]):
            if ranges and begin <= ranges[-1][1]:
                ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
            elif end > begin:
                ranges.append((begin, end))
        self._known = ranges

    def pieces(self, low: int, high: int) -> list[tuple[int, int, bytes]]:
        """Return what is known from byte `low` to `high`: begin, end and bytes of each piece, in order."""
        found = [(max(low, begin), min(high, end)) for begin, end in self._known]
        return [(begin, end, bytes(self._values[begin:end])) for begin, end in found if begin < end]
