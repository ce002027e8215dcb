"""How a peer gets in: a request to the orchestrator and a speed test, again after a pause if that fails."""

from collections.abc import Callable
from typing import Any

import simpy

from orionbed.orchestration import reset_wait_s
from orionbed.scenario.orchestrator import Orchestrator as Block
from sim.engine import Engine
from sim.merging import Process, succeed
from sim.peer import SimPeer
from sim.store_traffic import StoreTraffic


class Registering:
    """Registers peers and remembers how fast each was, up and down, in bytes per second.

    Registrations in a row that follow an eviction or a failure wait longer and longer: 0, 5, 10, 20 s, and so on.
    """

    def __init__(self, engine: Engine, block: Block, traffic: StoreTraffic) -> None:
        num_peers = len(engine.peers)
        self._engine = engine
        self._block = block
        self._traffic = traffic
        self._random = engine.streams.get("orchestrator/registration")
        self._lives = [0] * num_peers
        self.resets = [0] * num_peers
        self.rates: list[tuple[float, float] | None] = [None] * num_peers
        self.num_registered = self.num_failed = self.num_waits = 0
        self.waited_s = 0.0

    def begin(self, peer: SimPeer, done: Callable[[SimPeer], object]) -> simpy.Event:
        """Start to register `peer`, whose status stays as it is; call `done(peer)` once, if it is in.

        A peer that leaves, or begins anew, meanwhile is forgotten. The event happens when `done` has been called.
        """
        self._lives[peer.index] += 1
        event = self._engine.clock.event()
        self._engine.clock.process(self._register(peer, self._lives[peer.index], done, event))
        return event

    def _register(self, peer: SimPeer, life: int, done: Callable[[SimPeer], object], event: simpy.Event) -> Process:
        engine, block, index, status = self._engine, self._block, peer.index, peer.status

        def is_gone() -> bool:
            return self._lives[index] != life or peer.status != status

        while True:
            draw, luck = self._random.random(2).tolist()
            wait_s = reset_wait_s(self.resets[index], block.backoff, block.backoff_cap, block.backoff_jitter, draw)
            if wait_s > 0.0:
                self.num_waits += 1
                self.waited_s += wait_s
            yield engine.clock.timeout(wait_s + block.request)
            if is_gone():
                return
            if block.speed_test > 0.0:
                yield from self._test_speed(index)
                if is_gone():
                    return
            if luck >= block.failure:
                break
            self.num_failed += 1
            self.resets[index] += 1
        self.num_registered += 1
        done(peer)
        event.succeed()

    def _test_speed(self, index: int) -> Process:
        """Move the test's bytes both ways; the peer's links as they are now say how long that takes."""
        took_s = []
        for move in (self._traffic.up, self._traffic.down):
            started_s = self._engine.clock.now
            moved = self._engine.clock.event()
            move(index, self._block.speed_test, succeed, moved)
            yield moved  # never, when the peer is lost
            took_s.append(self._engine.clock.now - started_s)
        self.rates[index] = (self._block.speed_test / took_s[0], self._block.speed_test / took_s[1])

    def summary(self) -> dict[str, Any]:
        """Return the summary's part about registrations."""
        return {
            "registrations": self.num_registered,
            "failed_registrations": self.num_failed,
            "backoffs": self.num_waits,
            "backoff_s": self.waited_s,
        }
