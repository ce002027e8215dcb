"""The policy that a scenario asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sim.recovery.bypass import Neighbour, SkipStage
from sim.recovery.dropping import Recovery
from sim.recovery.iteration import Iteration
from sim.recovery.resend import Resend
from sim.recovery.splice import Replicas, Splice
from sim.recovery.telling import LocalSteps, NotCounted, Rebuild

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sim.engine import Engine

_POLICIES: Final[Mapping[str, type[Recovery]]] = {
    "drop": Recovery,
    "resend": Resend,
    "splice": Splice,
    "neighbour": Neighbour,
    "replicas": Replicas,
    "iteration": Iteration,
    "skip-stage": SkipStage,
    "rebuild": Rebuild,
    "local-steps": LocalSteps,
    "not-counted": NotCounted,
}


def make_recovery(engine: Engine) -> Recovery:
    """Return the policy of the engine's scenario."""
    return _POLICIES[engine.plan.scenario.recovery.in_flight](engine)
