"""The scenario: one file, all sections."""

import json
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from orionbed.scenario.churn import ChurnOrNone
from orionbed.scenario.emulation import Emulator
from orionbed.scenario.faults import Faults, FaultsOrList
from orionbed.scenario.fields import NAME_PATTERN, Block, Listed
from orionbed.scenario.hardware import Real
from orionbed.scenario.layout import Batch, Model, Peers, Pipeline
from orionbed.scenario.merging import MergeOrNone
from orionbed.scenario.network import Network
from orionbed.scenario.orchestrator import OrchestratorOrNone
from orionbed.scenario.recovery import Recovery
from orionbed.scenario.sections import Cost, Datacenter, Published, Report, Run, SyncOrNone
from orionbed.scenario.training import Training


class Scenario(Block):
    """A complete, validated scenario; all quantities in SI, data rates in bit/s."""

    name: str = Field(
        pattern=NAME_PATTERN, description="Short name of letters, digits and dashes; runs are named after it."
    )
    title: str = Field(default="", description="One line for the report's head (default empty).")
    model: Model = Field(description="What is trained.")
    batch: Batch = Field(description="One micro-batch.")
    pipeline: Pipeline = Field(description="Stages, replicas, boundary and schedule.")
    peers: Peers = Field(description="The machines.")
    network: Network = Field(description="Everything between the peers.")
    merge: MergeOrNone = Field(default="none", description="Averaging of the replicas of a stage, or none (default).")
    sync: SyncOrNone = Field(
        default="none",
        description="How replicas agree on gradients with a fixed batch per step, or none (default).",
    )
    churn: ChurnOrNone = Field(default="none", description="How peers leave and come back, or none (default).")
    recovery: Recovery = Field(
        default=Recovery(), description="What becomes of the micro-batches in flight when a peer is lost."
    )
    orchestrator: OrchestratorOrNone = Field(
        default="none", description="Who joins, when epochs end and who has to leave, or none (default)."
    )
    faults: FaultsOrList = Field(
        default=Faults(), description="Faults to inject, for the backends that can: a list, or a block (default none)."
    )
    datacenter: Datacenter = Field(description="The baseline for relative speed.")
    cost: Cost = Field(description="Prices.")
    run: Run = Field(description="How long, how random, and what is kept.")
    report: Report = Field(default=Report(), description="What the report computes besides the run.")
    published: Annotated[tuple[Published, ...], Listed] = Field(
        default=(), description="Published numbers that the run is compared with."
    )
    provenance: dict[str, str] = Field(
        default={},
        description="Dotted key -> `kind: source`, kind being published, code, derived, assumed or fitted; "
        "a key covers everything below it, and the most specific one counts.",
    )
    uncertain: dict[str, Any] = Field(
        default={}, description="Dotted key -> the distribution that `run --samples` draws it from, or {choice: [...]}."
    )
    training: Training = Field(
        default=Training(), description="What is learned from what, and how, wherever something is really computed."
    )
    emulator: Emulator = Field(default=Emulator(), description="Settings of the emulator backend.")
    real: Real = Field(default=Real(), description="Settings of the real backend.")

    def __reduce__(self) -> tuple[Callable[[str], "Scenario"], tuple[str]]:
        """Travel to other processes as JSON: the classes of distributions are made on the fly and cannot be pickled."""
        return _revive, (self.model_dump_json(),)


def _revive(text: str) -> Scenario:
    return Scenario.model_validate(json.loads(text))
