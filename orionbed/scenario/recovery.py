"""Section `recovery`: what becomes of the micro-batches in flight when a peer is lost."""

from typing import Annotated, Final, Literal

from pydantic import Field

from orionbed.scenario.fields import Block, Duration, NotNegative

InFlight = Literal[
    "drop",
    "resend",
    "splice",
    "neighbour",
    "replicas",
    "iteration",
    "skip-stage",
    "rebuild",
    "local-steps",
    "not-counted",
]
FOR_FIXED_BATCH: Final = ("drop", "iteration", "not-counted")
"""What can be done where a replica has a fixed batch per step."""


class Recovery(Block):
    """What the others do about the micro-batches of a peer that is lost."""

    in_flight: InFlight = Field(
        default="drop",
        description="Drop what a lost peer holds (`drop`, default), or resend, splice, neighbour, replicas, iteration, "
        "skip-stage, rebuild, local-steps, not-counted: see docs/how-to/in-flight-work.md.",
    )
    detect: Duration = Field(
        default=5.0,
        description="Time until its neighbours know that a peer is lost, with `resend`, `splice`, `neighbour`, "
        "`replicas` and `skip-stage` (default 5 s).",
    )
    reconfigure: Duration = Field(
        default=60.0, description="Pause of every peer after a loss, with `iteration` (default 60 s)."
    )
    redundant: Annotated[NotNegative, Field(le=1)] = Field(
        default=1.0,
        description="Share of the next stage's forward that a peer computes besides its own, with `neighbour`; the "
        "rest hides in bubbles (default 1).",
    )
