"""When a send that failed is tried again, and when it is given up."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retries:
    """The rule of one run. Seconds throughout.

    A send fails when nobody answers or, with `push_timeout_s`, when it takes longer. Before the next try there is a
    pause that doubles from `first_s` up to `cap_s`. A micro-batch is given up after `attempts` failures, or at one that
    comes `drop_after_s` or more after its forward. With `backward` gradients are tried again too, at the same peer,
    since nobody else has the activation.
    """

    attempts: int = 5
    first_s: float = 0.0
    cap_s: float = 5.0
    push_timeout_s: float | None = None
    drop_after_s: float | None = None
    backward: bool = False

    def pause_s(self, failures: int) -> float:
        """Return the pause before the try that follows so many failures (1 or more)."""
        if self.first_s <= 0.0:
            return 0.0
        # A few dozen doublings are beyond any cap; more would overflow.
        return min(self.cap_s, self.first_s * 2.0 ** min(failures - 1, 60))

    def gives_up(self, failures: int, since_s: float) -> bool:
        """Whether a micro-batch is given up after so many failures, `since_s` after its forward."""
        return failures >= self.attempts or (self.drop_after_s is not None and since_s >= self.drop_after_s)
