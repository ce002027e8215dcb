"""What all processes of one emulation share: the plan, and everything drawn for it. Made once, in the zygote."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

from emulator.disk import Disk
from emulator.throttle.rates import Rate
from emulator.throttle.shared_clock import SharedClock
from orionbed.emulation import model_shape
from orionbed.faults import ResolvedFault, resolve
from orionbed.fleet.tls import Tls
from orionbed.hops import bytes_per_s_per_bps
from orionbed.plan import Plan, make_plan
from orionbed.scenario import Scenario
from orionbed.training.data import Batches
from orionbed.training.shape import ModelShape
from orionbed.training.text import make_batches


@dataclass(frozen=True, slots=True)
class Job:
    """One emulation. `control` is where the supervisor listens, `token` what opens its door.

    `host` is the address on which peers listen, `tls` how they speak with one another, unless in clear.
    """

    plan: Plan
    seed: int
    shape: ModelShape
    control: tuple[str, int]
    token: str
    faults: tuple[ResolvedFault, ...]
    shared: dict[tuple[str | int, ...], SharedClock] = field(default_factory=dict)
    disks: dict[int, Disk] = field(default_factory=dict)
    host: str = "127.0.0.1"
    tls: Tls | None = None

    @classmethod
    def from_order(cls, order: dict[str, Any]) -> "Job":
        """Return the job of a supervisor's order."""
        scenario = Scenario.model_validate(json.loads(order["scenario"]))
        plan = make_plan(scenario, order["seed"])
        return cls(
            plan=plan,
            seed=order["seed"],
            shape=model_shape(plan),
            control=(order["control"][0], order["control"][1]),
            token=order["token"],
            faults=resolve(plan, order["seed"]),
            host=order.get("host", "127.0.0.1"),
            tls=Tls.from_order(order.get("tls")),
        )

    @property
    def batches(self) -> Batches:
        """What makes the micro-batches of the run: of the numbers that first-stage peers give them."""
        return make_batches(self.plan.scenario.training.data, self.shape, self.seed)

    def scaled(self, payload_scale: float) -> "Job":
        """Return the job with the links and disks that outlive a process, now that it is known how bytes are scaled."""
        disks = {peer: Disk() for peer in self.with_disks()}
        return replace(self, shared=shared_clocks(self.plan, payload_scale), disks=disks)

    def with_disks(self) -> set[int]:
        """Return the peers that keep states on disk: for such a crash, and with churn all those of pipelines."""
        if self.plan.order is not None and not isinstance(self.plan.scenario.churn, str):
            return {peer.index for peer in self.plan.peers}
        crashes = [fault for fault in self.faults if fault.kind == "crash"]
        return {peer for fault in crashes if fault.parameters.get("state") == "disk" for peer in fault.peers}

    def site_clock(self, direction: str, index: int) -> SharedClock | None:
        """Return the clock of the link that a peer's site shares, where it has a limit."""
        return None if index == self.store else self.shared.get((direction, self.plan.peers[index].site))

    def wan_clock(self, source: int, target: int) -> SharedClock | None:
        """Return the clock of the link that two sites share, where it has a limit."""
        return self.shared.get(("wan", self.plan.peers[source].site, self.plan.peers[target].site))

    @property
    def store(self) -> int:
        """Index of the object store, which comes after all peers."""
        return len(self.plan.peers)


def shared_clocks(plan: Plan, payload_scale: float) -> dict[tuple[str | int, ...], SharedClock]:
    """Return a clock in shared memory for every link that several peers share; made before they are forked."""
    network = plan.scenario.network
    factor = bytes_per_s_per_bps(network) / payload_scale
    found: dict[tuple[str | int, ...], SharedClock] = {}
    for direction, bps in (("out", network.site_uplink), ("in", network.site_downlink)):
        if bps is not None:
            found |= {(direction, site): SharedClock(Rate.constant(bps * factor)) for site in plan.site_names}
    if network.wan is not None:
        for one in plan.site_names:
            for other in plan.site_names:
                if one != other:
                    found["wan", one, other] = SharedClock(Rate.constant(network.wan * factor))
    return found
