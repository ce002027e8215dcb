"""The table of an unattended script: what was found, printed as it comes and once more at the end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from orionbed.backends import BackendError

GIGA: Final = 1e9


@dataclass(slots=True)
class Table:
    """What is printed last: a line per finding, in order."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, what: str, value: str) -> None:
        """Add a line, and print it at once as well."""
        self.rows.append((what, value))
        print(f"{what}: {value}", flush=True)  # noqa: T201

    def attempt(self, what: str, work: Callable[[], None]) -> None:
        """Do one part; where it fails, say so in the table and go on."""
        try:
            work()
        except (RuntimeError, BackendError, OSError, ValueError) as error:
            self.add(f"{what}: FAILED", str(error).strip().splitlines()[0] if str(error) else type(error).__name__)

    def print(self) -> None:
        """Print the table."""
        width = max((len(what) for what, _ in self.rows), default=0)
        print("\n" + "\n".join(f"{what:{width}}  {value}" for what, value in self.rows), flush=True)  # noqa: T201
