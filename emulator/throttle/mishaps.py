"""What chance does to chunks: jitter, spikes, losses, flipped bytes."""

from emulator.throttle.outgoing import Chunk
from emulator.throttle.paths import Path
from orionbed.streams import Block, Streams


class Mishaps:
    """Draws for one peer, from the streams `throttle/...` of a seed and a name; nothing is drawn for what is off."""

    def __init__(self, seed: int, name: str) -> None:
        streams = Streams(seed)
        self._jitter = streams.get(f"throttle/jitter/{name}")
        self._spike = streams.get(f"throttle/spike/{name}")
        self._loss = Block(streams.get(f"throttle/loss/{name}").random)
        self._corruption = Block(streams.get(f"throttle/corruption/{name}").random)
        self._place = streams.get(f"throttle/corrupted-byte/{name}")

    def extra_delay_s(self, chunk: Chunk, path: Path) -> float:
        """Return the extra delay of a chunk: jitter, drawn once per message, and a retransmission, drawn per chunk."""
        message = chunk.message
        if chunk.offset == 0 and not chunk.repeated and (path.jitter_sd_s > 0.0 or path.spike_probability > 0.0):
            extra_s = self._jitter.normal(0.0, path.jitter_sd_s)
            if self._spike.random() < path.spike_probability:
                extra_s += path.spike_median_s * self._spike.lognormal(0.0, path.spike_sigma)
            message.extra_delay_s = max(float(extra_s), -0.5 * path.owd_s)
        if path.loss > 0.0 and next(self._loss) < path.loss:
            return message.extra_delay_s + path.retransmission_s
        return message.extra_delay_s

    def corrupts(self, probability: float) -> bool:
        """Return whether a chunk is corrupted."""
        return probability > 0.0 and next(self._corruption) < probability

    def flipped(self, chunk: memoryview) -> bytes:
        """Return the bytes of a chunk with one of them changed."""
        damaged = bytearray(chunk)
        damaged[int(self._place.integers(len(damaged)))] ^= 1 << int(self._place.integers(8))
        return bytes(damaged)
