"""What a peer tells whoever runs it: journal entries, spans of its time, and the state of its account."""

from collections.abc import Callable
from typing import Any

from orionbed.account import Account
from orionbed.journal import Entry


class Reporter:
    """Collects what happened since the last `flush`, which hands it over before anything of it can be felt elsewhere.

    A span is (step, lane, kind, micro-batch, attempt, start_s, end_s, bytes, cause), codes as in `orionbed.tracing`.
    """

    def __init__(self, peer: int, life: int, stage: int, replica: int, emit: Callable[[dict[str, Any]], None]) -> None:
        self._place = (peer, life, stage, replica)
        self._emit = emit
        self._entries: list[list[Any]] = []
        self._spans: list[list[Any]] = []
        self._transfers: list[list[Any]] = []
        self._failures: list[list[Any]] = []
        self.epoch = 0

    def journal(
        self, at_s: float, event: str, *, chunk: int = -1, microbatch: int = -1, attempt: int = 0, step: int = -1,
        detail: str = "", source: int = -1,
    ) -> None:  # fmt: skip
        """Write one line of the journal."""
        entry = Entry(at_s, event, *self._place, chunk, microbatch, attempt, step, detail, source)
        self._entries.append(list(entry))

    def span(  # noqa: PLR0917
        self, lane: int, kind: int, cause: int, microbatch: int, span_s: tuple[float, float], num_bytes: float = 0.0
    ) -> None:
        """Add a span of time to the trace."""
        self._spans.append([self.epoch, lane, kind, microbatch, 0, *span_s, num_bytes, cause])

    def transfer(self, source: int, microbatch: int, num_bytes: float, span_s: tuple[float, float]) -> None:
        """Add a message that came from `source` during `span_s`."""
        self._transfers.append([self.epoch, source, microbatch, *span_s, num_bytes])

    def failure(self, target: int, at_s: float, num_bytes: float) -> None:
        """Add a message to `target` that could not be delivered."""
        self._failures.append([target, at_s, num_bytes])

    def flush(self, account: Account, doing: str) -> None:
        """Hand over what there is, with the account as it stands and what the peer is `doing` since then."""
        if not (self._entries or self._spans or self._transfers or self._failures):
            return
        report = {
            "t": "report", "account": [account.accounted_s, *account.cause_s], "doing": doing,
            "entries": self._entries, "spans": self._spans, "transfers": self._transfers,
            "failures": self._failures,
        }  # fmt: skip
        self._entries, self._spans, self._transfers, self._failures = [], [], [], []
        self._emit(report)
