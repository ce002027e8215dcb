"""What a run says of the life of its peers: how they joined and left, what they knew, and how their sends fared."""

from typing import Any, Final

from orionbed.warn import warning
from sim.engine import Engine
from sim.orchestrator import Orchestrator

_ABSENT_SHARE: Final = 0.01
_DISCARDED_SHARE: Final = 0.01


def life_block(engine: Engine, orchestrator: Orchestrator | None) -> dict[str, Any]:
    """Return the summary's `orchestrator` block; empty for a scenario that asks for nothing of it."""
    if orchestrator is None and engine.sending is None and not engine.status.measures:
        return {}
    return {
        **({} if orchestrator is None else orchestrator.summary()),
        **engine.status.summary(),
        **({} if engine.sending is None else engine.sending.summary()),
    }


def other_store_bytes(engine: Engine, orchestrator: Orchestrator | None) -> tuple[float, float]:
    """Return the bytes that the store has taken in, and that were read, for neither first weights nor merges."""
    moved = [(0.0, 0.0)]
    if orchestrator is not None:
        moved.append(orchestrator.traffic.moved())
    if engine.sending is not None:
        moved.append(engine.sending.traffic.moved())
    return sum(up for up, _ in moved), sum(down for _, down in moved)


def life_warnings(block: dict[str, Any], num_created: int, num_backwards: int) -> list[dict[str, str]]:
    """Return what a reader should check; of so many micro-batches and backward passes of single peers."""
    found = []
    absent = block.get("forwards_to_absent", 0)
    if absent > _ABSENT_SHARE * max(1, num_created):
        found.append(
            warning(
                "absent-peers",
                f"{absent} forwards were sent to peers that were gone; each waited for the connection to time out",
                "let peers know sooner: pipeline.schedule.knowledge.evict_after, or a shorter connect_timeout",
            )
        )
    discarded = block.get("updates_discarded", 0)
    if discarded > _DISCARDED_SHARE * max(1, num_backwards):
        found.append(
            warning(
                "warm-up",
                f"the updates of {discarded / num_backwards:.1%} of all backward passes were discarded, since their "
                "peers were warming up, although their micro-batches count as applied",
                "set orchestrator.share_optimizer_state, or shorten epochs or orchestrator.warm_up",
            )
        )
    if block.get("training_timeouts"):
        found.append(
            warning(
                "phase-timeout",
                f"{block['training_timeouts']} training phases ended by orchestrator.timeout: no trigger was met",
                "lower orchestrator.trigger.share or .backwards, or use trigger: time",
            )
        )
    return found
