"""Where a first-stage peer has got to: the numbers that it gives to its micro-batches, and so the data they have."""


class Cursor:
    """Numbers `ordinal * num_replicas + replica` for ordinals 0, 1, ...: no two replicas ever give the same.

    A peer that is started again goes on at the ordinal behind the last one that is on record, so that no number is left
    out and none given twice: what the peer makes is on record before anything of it can be felt elsewhere.
    """

    def __init__(self, replica: int, num_replicas: int) -> None:
        self._replica, self._num_replicas = replica, num_replicas
        self.ordinal = 0

    def take(self) -> int:
        """Return the number of a new micro-batch."""
        number = self.ordinal * self._num_replicas + self._replica
        self.ordinal += 1
        return number

    def go_on(self, ordinal: int) -> None:
        """Begin no earlier than at an ordinal."""
        self.ordinal = max(self.ordinal, ordinal)
