"""Frames over one connection in an I/O loop: what has been read is cut into frames, what is sent waits its turn."""

from collections.abc import Callable
from typing import Final

from emulator.throttle.frames import MAX_FRAME_BYTES, Frame, FrameError, parse
from emulator.throttle.poller import Poller
from emulator.throttle.wire import Buffer, Wire

SCRATCH_BYTES: Final = MAX_FRAME_BYTES + 64 * 1024


class Link:
    """A wire that reads and writes frames.

    `received(frame)` is called for each frame, `broken(reason)` once when the connection breaks or carries
    what is no frame; then it is closed. Frames given to `send` leave with the next `flush`, but not before both ends
    have greeted each other. `scratch` is the buffer of the loop's thread.
    """

    def __init__(
        self,
        poller: Poller,
        wire: Wire,
        scratch: memoryview,
        received: Callable[[Frame], None],
        broken: Callable[[str], None],
    ) -> None:
        self._poller = poller
        self._wire = wire
        self._scratch = scratch
        self._received = received
        self._broken = broken
        self._rest = b""
        self._later: list[Buffer] = []
        self._connected = False
        self.greeted = False
        self.closed = False
        poller.add(wire.sock, self._ready, write=True)

    def greet(self, frame: bytes) -> None:
        """Send a frame of the greeting."""
        self._wire.put(frame)
        self.flush()

    def has_greeted(self) -> None:
        """From now on other frames go both ways."""
        self.greeted = True
        self._wire.put(*self._later)
        self._later.clear()
        self.flush()

    def send(self, *buffers: Buffer) -> None:
        """Let the bytes of frames wait for the next `flush`."""
        if self.greeted:
            self._wire.put(*buffers)
        else:
            self._later += buffers

    def flush(self) -> None:
        """Write what can be written now."""
        if self.closed or not self._connected or not self._wire.shaken:
            return
        try:
            self._wire.flush()
        except OSError as error:
            self._break(error.strerror or str(error))
            return
        self._poller.watch_write(self._wire.sock, write=self._wire.wants_write)

    def close(self, *, reset: bool = False) -> None:
        """Close the connection without a word to its owner."""
        if not self.closed:
            self.closed = True
            self._poller.remove(self._wire.sock)
            self._wire.close(reset=reset)
            self._later.clear()

    def _break(self, reason: str) -> None:
        if not self.closed:
            self.close(reset=True)
            self._broken(reason)

    def _ready(self) -> None:
        """The socket can be read or written, or has failed."""
        try:
            if not self._connected:
                self._wire.connected()
                self._connected = True
            if not self._wire.shake_hands():
                self._poller.watch_write(self._wire.sock, write=self._wire.wants_write)
                return
            self._read()
        except OSError as error:
            self._break(error.strerror or str(error))
        except FrameError as error:
            self._break(f"malformed frame: {error}")
        self.flush()

    def _read(self) -> None:
        """Read once (with TLS until nothing is there) and hand on all complete frames."""
        scratch = self._scratch
        while not self.closed:
            begin = len(self._rest)
            scratch[:begin] = self._rest
            num_bytes = self._wire.read_into(scratch[begin:])
            if num_bytes < 0:
                return
            if num_bytes == 0:
                self._break("closed by the other end")
                return
            self._hand_on(begin + num_bytes)
            if not self._wire.encrypted:
                return

    def _hand_on(self, end: int) -> None:
        at = 0
        while True:
            frames, used = parse(self._scratch[at:end], greeted=self.greeted)
            if not frames:
                break
            at += used
            for frame in frames:
                self._received(frame)
                if self.closed:
                    return
        self._rest = bytes(self._scratch[at:end])
