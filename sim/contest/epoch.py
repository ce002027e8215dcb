"""One epoch: activations go down through the layers and back up until enough have come back."""

from typing import Final

import numpy as np
import simpy.core

from orionbed.contest.refereeing import Referee
from orionbed.contest.schema import Contest
from orionbed.streams import Streams
from sim.clock import Clock
from sim.contest.miner import Activation, ContestMiner, Work
from sim.contest.presence import Presence
from sim.contest.telling import told_rows
from sim.contest.world import World
from sim.links import PeerLinks, Transport
from sim.network import Network

UNBOUNDED: Final = 1e15
"""Bytes of a window that never limits a transfer: the contest's links do that alone."""


class Epoch:
    """Simulates one epoch from `start_s` on; `run` returns its end.

    Its counts are of activations. Messages share the miners' links as in every simulation of this package; each pair of
    miners opens its connection anew in every epoch, which takes a round trip.
    """

    def __init__(
        self,
        contest: Contest,
        world: World,
        presence: Presence,
        referee: Referee,
        *,
        index: int,
        start_s: float,
        first_number: int,
        phases: list[float],
    ) -> None:
        self.created = self.completed = self.lost = 0
        self._contest, self._world, self._presence, self._referee = contest, world, presence, referee
        self._index, self._phases = index, phases
        self._next_number = first_number
        self._in_flight: dict[int, Activation] = {}
        self._news: tuple[list[int], list[int]] = ([], [])
        self._clock = Clock(start_s)
        self._network = _network(contest, world, self._clock)
        self._miners = [ContestMiner(m, world.layers_of(m), contest.miners.cache) for m in range(world.num_miners)]
        self._forward_s, self._backward_s = world.forward_s.tolist(), world.backward_s.tolist()

    @property
    def flushed(self) -> int:
        """Activations that were still on their way when the epoch ended."""
        return sum(activation.state == "flying" for activation in self._in_flight.values())

    def run(self, longest_s: float) -> float | None:
        """Run until the epoch's activations are completed and return when that was, or None after `longest_s`."""
        clock, every_s = self._clock, self._contest.epochs.staleness
        for layer, phase in enumerate(self._phases):
            self._tell(layer)
            clock.call_in(phase * every_s, self._tell_again, layer)
        for miner, at_s in enumerate(self._presence.next_s):
            self._expect(miner, at_s)
        self._create()
        clock.run_to(clock.now + longest_s)
        self._check()
        return clock.now if self.completed == self._contest.epochs.activations else None

    def _check(self) -> None:
        flying = self.flushed
        assert self.created == self.completed + self.lost + flying, "activations went missing"
        assert len(self._in_flight) <= self._contest.epochs.in_flight

    def _tell(self, layer: int) -> None:
        rows = told_rows(self._world, self._presence.here, self._miners, layer)
        self._referee.tell(layer, self._clock.now, rows)

    def _tell_again(self, layer: int) -> None:
        self._tell(layer)
        self._clock.call_in(self._contest.epochs.staleness, self._tell_again, layer)
        self._create()

    def _create(self) -> None:
        """Keep as many activations on their way as there may be; without a known miner in every layer, wait."""
        while len(self._in_flight) < self._contest.epochs.in_flight and self._referee.all_known():
            number = self._next_number
            self._next_number += 1
            completed, lost = self._news
            self._news = ([], [])
            route = self._referee.route(self._clock.now, self._index, number, completed, lost)
            activation = Activation(number, route)
            self._in_flight[number] = activation
            self.created += 1
            self._arrive(("F", activation, 0))

    def _arrive(self, work: Work) -> None:
        """An activation or gradient is where it shall be worked on next."""
        kind, activation, layer = work
        miner = self._miners[activation.route[layer]]
        if activation.given_up:
            return
        if not self._presence.here[miner.index]:
            self._lose(activation)
        elif kind == "F" or activation in miner.held[layer]:
            # A miner that has come back does not know the activations that it held before.
            miner.queue(work)
            self._go_on(miner)

    def _go_on(self, miner: ContestMiner) -> None:
        work = miner.next_work()
        if work is not None:
            seconds = self._forward_s if work[0] == "F" else self._backward_s
            miner.call = self._clock.call_in(seconds[miner.index], self._computed, miner)

    def _computed(self, miner: ContestMiner) -> None:
        kind, activation, layer = miner.end_work()
        if not activation.given_up:
            if kind == "F":
                last = layer == self._world.num_layers - 1
                self._pass_on(miner, ("B", activation, layer) if last else ("F", activation, layer + 1))
            elif layer > 0:
                self._pass_on(miner, ("B", activation, layer - 1))
            else:
                self._complete(activation)
        self._go_on(miner)

    def _pass_on(self, miner: ContestMiner, work: Work) -> None:
        _, activation, layer = work
        target = activation.route[layer]
        if target == miner.index or not self._presence.here[target]:
            self._arrive(work)  # at once: nothing to send, or nobody to send it to
        else:
            self._network.send(miner.index, target, self._contest.network.activation, self._arrive, work)

    def _complete(self, activation: Activation) -> None:
        assert activation.state == "flying", "a lost activation came back"
        activation.state = "completed"
        self.completed += 1
        del self._in_flight[activation.number]
        self._news[0].append(activation.number)
        if self.completed == self._contest.epochs.activations:
            raise simpy.core.StopSimulation(None)
        self._create()

    def _lose(self, activation: Activation) -> None:
        if activation.state == "flying":
            activation.state = "lost"
            self.lost += 1
            self._clock.call_in(self._contest.epochs.notice, self._notice, activation)

    def _notice(self, activation: Activation) -> None:
        """Everybody learns that an activation is lost; another takes its place."""
        activation.given_up = True
        del self._in_flight[activation.number]
        self._news[1].append(activation.number)
        for index in dict.fromkeys(activation.route):
            self._miners[index].give_up(activation)
            if self._presence.here[index]:
                self._go_on(self._miners[index])
        self._create()

    def _expect(self, miner: int, at_s: float) -> None:
        if at_s < np.inf:
            self._clock.call_at(at_s, self._come_or_go, miner)

    def _come_or_go(self, miner: int) -> None:
        self._presence.change(miner)
        if not self._presence.here[miner]:
            doomed = self._miners[miner].drop()
            doomed += [transfer.arg[1] for transfer in self._network.cancel_peer(miner)]
            for activation in doomed:
                self._lose(activation)
        self._expect(miner, self._presence.next_s[miner])


def _network(contest: Contest, world: World, clock: Clock) -> Network:
    """Every miner is a site of its own; the delay between two is all that a message takes beside its bytes."""
    links = contest.network
    one_way_s = links.overhead + links.global_latency + np.add.outer(world.latency_s, world.latency_s)
    transport = Transport(window_bytes=UNBOUNDED, initial_window_bytes=UNBOUNDED, tls=False)
    peers = PeerLinks(world.bandwidth, world.bandwidth, np.arange(world.num_miners), one_way_s)
    return Network(clock, peers, Streams(0), transport=transport)
