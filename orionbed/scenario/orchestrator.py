"""Section `orchestrator`, and the blocks `retry`, `store` and `knowledge` of the queue-driven schedule."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from orionbed.scenario.fields import Block, Count, DataSize, Duration, Fraction, conflicts, none_or

_Some = Annotated[Duration, Field(gt=0)]


class Retry(Block):
    """What happens to a send that fails, and how many a peer has under way at once."""

    backoff: Duration = Field(
        default=0.0, description="Pause before a failed send is tried again; doubles each time (default 0 s: none)."
    )
    backoff_cap: Duration = Field(default=5.0, description="The pause never grows beyond this (default 5 s).")
    push_timeout: _Some | None = Field(
        default=None, description="A send that takes longer has failed (default null: it may take for ever)."
    )
    drop_after: _Some | None = Field(
        default=None,
        description="A micro-batch is given up at a failure so long after its forward (default null: never for that).",
    )
    backward: bool = Field(
        default=False,
        description="Whether a gradient is sent again too, to the same peer (default false: lost when nobody answers).",
    )
    concurrent: Count | None = Field(
        default=None, description="Sends that a peer has under way at once; others wait (default null: no limit)."
    )


class Store(Block):
    """How boundary tensors go through the object store, where `via` says so."""

    request: Duration = Field(
        default=0.05, description="A request to the orchestrator for a presigned address (default 50 ms)."
    )
    poll_every: _Some = Field(
        default=0.51, description="How often a receiver asks for new tensors (default 0.51 s; each at its own phase)."
    )
    timeout: _Some = Field(default=100.0, description="A download that takes longer has failed (default 100 s).")


class BridgeBlock(Block):
    """Peers write their state to a registry now and then, and poll it."""

    poll_every: _Some = Field(default=2.0, description="How often peers read the registry (default 2 s).")
    keep_alive_every: _Some = Field(default=5.0, description="How often a peer writes its state (default 5 s).")
    evict_after: _Some = Field(
        default=300.0, description="A peer that has written nothing for so long is taken out (default 300 s)."
    )
    delay: Duration = Field(
        default=0.05, description="Time from a write until a poll can see it, polling apart (default 50 ms)."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.evict_after <= self.keep_alive_every + self.poll_every + self.delay:
            text = "must be longer than keep_alive_every, poll_every and delay together, or peers that live are evicted"
            raise conflicts([(("evict_after",), f"{text}; raise it")])
        return self


Knowledge = Annotated[
    Annotated[Literal["broadcast"], Tag("=none")] | Annotated[BridgeBlock, Tag("=block")], Discriminator(none_or)
]


class Kick(Block):
    """Who is sent away at the end of an epoch, by how many backward passes they did in it."""

    model_config: ClassVar[ConfigDict] = ConfigDict(serialize_by_alias=True)  # `for` is a word of Python

    policy: Literal["bottom-n", "threshold"] = Field(
        description="`bottom-n`: the `number` peers with the lowest score; `threshold`: all whose score is less than "
        "`below` of the median. The last peer of a stage always stays."
    )
    number: Count = Field(default=1, description="Peers kicked each epoch by `bottom-n` (default 1).")
    below: Annotated[Fraction, Field(gt=0)] = Field(
        default=0.5, description="Share of the median score below which `threshold` kicks (default 0.5)."
    )
    lasts: _Some | None = Field(
        default=None, alias="for", description="How long a kicked peer stays away (default null: for good)."
    )


class Trigger(Block):
    """Ends a training phase when most peers have done enough."""

    share: Annotated[Fraction, Field(gt=0)] = Field(
        default=0.8, description="Share of the peers in training that must have done enough (default 0.8)."
    )
    backwards: Count = Field(default=10, description="Backward passes in the epoch that are enough (default 10).")
    check_every: _Some = Field(default=5.0, description="How often the orchestrator counts (default 5 s).")


KickOrNone = Annotated[
    Annotated[Literal["none"], Tag("=none")] | Annotated[Kick, Tag("=block")], Discriminator(none_or)
]
TriggerOrTime = Annotated[
    Annotated[Literal["time"], Tag("=none")] | Annotated[Trigger, Tag("=block")], Discriminator(none_or)
]


class Orchestrator(Block):
    """Who joins, when epochs end, and who has to leave; for the queue-driven schedule with merges."""

    request: Duration = Field(default=0.05, description="One request to the orchestrator (default 50 ms).")
    speed_test: DataSize = Field(
        default=1e8,
        description="Bytes that a peer moves to the store, and back, to register (default 100 MB).",
    )
    failure: Annotated[Fraction, Field(lt=1)] = Field(
        default=0.0, description="Share of registrations that fail and are tried again (default 0)."
    )
    assign: Literal["own", "poorest", "by-speed"] = Field(
        default="own",
        description="The stage of a peer that comes back: its `own` (default), the `poorest` in peers, or `by-speed`: "
        "the fastest of those who join goes to the slowest stage.",
    )
    warm_up: Annotated[int, Field(ge=0)] = Field(
        default=2,
        description="Epochs in which the updates of a peer that has come back are discarded (default 2).",
    )
    share_optimizer_state: bool = Field(
        default=False,
        description="Whether a peer that comes back fetches another's bf16 optimizer state through the store instead "
        "of warming up (default false).",
    )
    backoff: Duration = Field(
        default=5.0,
        description="Wait before the second registration in a row after evictions or failures; doubles (default 5 s).",
    )
    backoff_cap: Duration = Field(default=300.0, description="That wait never grows beyond this (default 5 min).")
    backoff_jitter: Fraction = Field(default=0.1, description="By how much it varies either way (default 0.1).")
    kick: KickOrNone = Field(default="none", description="Who is sent away at the end of an epoch, or none (default).")
    trigger: TriggerOrTime = Field(
        default="time",
        description="What ends a training phase: `time` (default; after `merge.every`), or a block instead of that.",
    )
    timeout: _Some = Field(default=3 * 3600.0, description="Longest training phase with a trigger (default 3 h).")


OrchestratorOrNone = Annotated[
    Annotated[Literal["none"], Tag("=none")] | Annotated[Orchestrator, Tag("=block")], Discriminator(none_or)
]
