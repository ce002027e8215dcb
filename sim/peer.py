"""One simulated peer: its policy and what it is doing."""

from typing import Literal

from orionbed.account import CAUSE_OF_STATUS, Account
from orionbed.plan import PeerPlan
from orionbed.schedule.actions import Action, Kind
from orionbed.schedule.policy import Policy
from sim.clock import Call

Status = Literal["startup", "training", "merging", "down", "benched", "registering", "kicked", "reconfiguring"]


class SimPeer(Account):
    """State of one peer during a run, and its account. Times are seconds of the run."""

    __slots__ = (
        "action",
        "action_s",
        "durations",
        "held_back",
        "index",
        "is_blocked_source",
        "is_leaving",
        "name",
        "numbering",
        "plan",
        "policy",
        "poll_s",
        "position",
        "replica",
        "running",
        "stage",
        "status",
        "wake",
    )

    def __init__(self, plan: PeerPlan, policy: Policy, durations: dict[int, dict[Kind, float]]) -> None:
        super().__init__()
        self.plan = plan
        self.index = plan.index
        self.name = plan.name
        self.stage = plan.stage
        self.replica = plan.replica
        # Where the peer stands in what is known of its stage; peers that move get a new place.
        self.position = plan.replica
        self.policy = policy
        # Seconds of each kind of operation, by chunk.
        self.durations = durations
        self.held_back: Action | None = None
        # Static schedules number micro-batches per replica; the ledger numbers them per run.
        self.numbering: dict[int, int] | None = None
        self.status: Status = "startup"
        self.action: Action | None = None
        self.action_s = 0.0
        self.running: Call | None = None
        self.wake: Call | None = None
        self.poll_s = 0.0
        self.is_blocked_source = False
        # It knows that it will be taken away, and takes nothing new.
        self.is_leaving = False

    def charge_status(self, until_s: float) -> None:
        """Charge everything since `accounted_s` to the status that the peer, which does not train, has been in."""
        self.charge(CAUSE_OF_STATUS[self.status], until_s)
