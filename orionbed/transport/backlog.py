"""What one peer still has for another: messages of both classes, those that have failed, and the counts of it all."""

from dataclasses import replace
from time import monotonic
from typing import Final

from orionbed.transport.counts import SentCount
from orionbed.transport.frames import CONTROL, FrameError, Kind, lane_of
from orionbed.transport.greeting import Identity
from orionbed.transport.messages import MOST_REFUSED, Body, Lane, Message
from orionbed.transport.telemetry import MessageTimes

SMALL_BYTES: Final = 64 * 1024


class Backlog:
    """The messages to one peer that it has not acknowledged. Whoever uses it holds the line's lock."""

    def __init__(self, target: int) -> None:
        self._lanes = (Lane(0), Lane(CONTROL))
        self._doomed: list[tuple[Message, str]] = []
        self._target: Identity | None = None
        self._count = SentCount(target)
        self.times = MessageTimes()

    def __bool__(self) -> bool:
        return any(self._lanes)

    @property
    def waits(self) -> bool:
        """Whether there is a message to be written."""
        return any(lane.waiting for lane in self._lanes)

    @property
    def has_failures(self) -> bool:
        """Whether there are messages whose failure has not been reported."""
        return bool(self._doomed)

    @property
    def first(self) -> tuple[int, int]:
        """The first messages, data and control, that have not been acknowledged, or are next."""
        return self._lanes[0].first, self._lanes[1].first

    def count(self) -> SentCount:
        """Return the counts as they are now."""
        return replace(self._count)

    def add(self, header: bytes, body: Body, *, control: bool) -> int:
        """Let a message wait; return its sequence number. ValueError: it is too large."""
        return self._lanes[control].add(header, body).sequence

    def take(self) -> list[Message]:
        """Return the messages to be written next: one, or as many as together are small; control goes first."""
        batch: list[Message] = []
        left = SMALL_BYTES
        while (lane := next((lane for lane in reversed(self._lanes) if lane.waiting), None)) is not None:
            following = lane.waiting[0]
            if batch and (callable(following.body) or following.num_bytes > left):
                break
            batch.append(message := lane.take())
            left -= message.num_bytes
            self._count_taken(message)
            if callable(message.body):
                break
        return batch

    def _count_taken(self, message: Message) -> None:
        if message.num_sent:
            self._count.num_repeated += 1
            self._count.repeated_bytes += message.num_bytes
        else:
            message.began_s = monotonic()
            self._count.num_messages += 1
            self._count.num_bytes += message.num_bytes
        message.num_sent += 1

    def resolved(self, message: Message) -> None:
        """The body of a message that has been taken is there now."""
        message.began_s = monotonic()
        self._count.num_bytes += message.num_bytes

    def answered(self, kind: Kind, sequence: int) -> None:
        """Take in what the other end says of a message. FrameError: it cannot say that."""
        lane = self._lanes[lane_of(sequence)]
        if kind is Kind.ACKNOWLEDGED:
            self._done(lane.acknowledged(sequence))
            return
        refused = next((message for message in lane.written if message.sequence == sequence), None)
        if refused is None:
            raise FrameError(f"message {sequence} was refused and is not under way")
        refused.num_refused += 1
        if refused.num_refused > MOST_REFUSED:
            self.fail(refused, f"it arrived damaged {refused.num_refused} times")
        lane.rewind(sequence)

    def resume(self, target: Identity, expected: tuple[int, int]) -> None:
        """Go on where the other end is. What an earlier life of it may have had is not sent to this one."""
        self._count.num_connections += 1
        for lane, sequence in zip(self._lanes, expected, strict=True):
            self._done(lane.acknowledged(sequence - 1))
        if self._target not in {None, target}:
            for message in [message for lane in self._lanes for message in lane.waiting if message.num_sent]:
                self.fail(message, "the peer was started anew")
        self._target = target

    def rewind(self) -> None:
        """Have everything wait again that has not been acknowledged: the connection is gone."""
        for lane in self._lanes:
            lane.rewind()

    def fail(self, message: Message, reason: str) -> None:
        """Give up one message among others; its place in the order remains."""
        if not message.skipped:
            lost = Message(message.sequence, message.header, message.body)
            lost.num_sent = message.num_sent
            self._doomed.append((lost, reason))
            message.skip()

    def fail_all(self, reason: str) -> None:
        """Give up all messages."""
        self._doomed += [(message, reason) for lane in self._lanes for message in lane.clear() if not message.skipped]

    def failures(self) -> list[tuple[Message, str]]:
        """Take out the messages that have failed, with their reasons."""
        doomed, self._doomed = self._doomed, []
        sent = [message for message, _ in doomed if message.num_sent]
        self._count.num_failed += len(sent)
        self._count.failed_bytes += sum(message.num_bytes for message in sent)
        self._count.num_unsent += len(doomed) - len(sent)
        return doomed

    def _done(self, messages: list[Message]) -> None:
        now_s = monotonic()
        for message in messages:
            if not message.skipped:
                self._count.num_acknowledged += 1
                self._count.acknowledged_bytes += message.num_bytes
                self.times.add(message.num_bytes, message.given_s, message.began_s, now_s)
