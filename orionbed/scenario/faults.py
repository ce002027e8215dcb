"""Section `faults`: what goes wrong in a run, to whom and when; times are seconds of the run.

`faults` is a list of faults, or a block with a seed and a time of healing beside the `list`. Peers are selected by
`peer:s03r1`, `stage:5`, `replica:0`, `site:ohio` (counted from 0) or `*`; there is no `tag:`, because the peers of a
scenario carry none. Who is meant in the end is settled by `orionbed.faults.resolve`.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, Tag, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from orionbed.scenario.distributions import DurationDist
from orionbed.scenario.fault_fields import (
    DelayChange,
    PickNumber,
    RateChange,
    RunInstant,
    Selector,
    SignedDuration,
)
from orionbed.scenario.fields import (
    NAME_PATTERN,
    Block,
    Count,
    Duration,
    Fraction,
    Listed,
    Positive,
    conflicts,
    describe,
    none_or,
    unsuitable,
)

_Some = Annotated[Duration, Field(gt=0)]
_Chance = Annotated[Fraction, Field(gt=0)]


class Pick(Block):
    """Some of the peers that a selector means, drawn with the seed of the faults."""

    pick: PickNumber = Field(description="How many: one, all, a number, or a percentage (rounded, at least one).")
    of: Selector = Field(description="Of whom: peer:s03r1, stage:5, replica:0, site:ohio or *.")


def _target_tag(value: Any) -> str:
    return "=block" if isinstance(value, dict | Pick) else "=name"


Target = Annotated[Annotated[Selector, Tag("=name")] | Annotated[Pick, Tag("=block")], Discriminator(_target_tag)]


class Restart(Block):
    """How a crashed peer comes back."""

    after: DurationDist = Field(description="How long it is away.")
    state: Literal["lost", "disk"] = Field(
        default="lost", description="`lost` (default): it comes back empty; `disk`: with its last committed state."
    )


RestartOrNone = Annotated[
    Annotated[Literal["none"], Tag("=none")] | Annotated[Restart, Tag("=block")], Discriminator(none_or)
]


class _Fault(Block):
    """What all faults have. Keys that are words of Python have another name in Python, the key being their alias."""

    model_config: ClassVar[ConfigDict] = ConfigDict(serialize_by_alias=True)

    id: str = Field(pattern=NAME_PATTERN, description="Its name in journal and report; no two faults share one.")


class _Timed(_Fault):
    """A fault that begins at one time and lasts."""

    at: Duration = Field(description="When it begins.")
    lasts: _Some | None = Field(
        default=None, alias="for", description="How long it lasts (default null: until `heal_at`, or to the end)."
    )


class _Between(_Timed):
    """A fault of the connections from some peers to others."""

    senders: Selector = Field(alias="from", description="Whose sending it hits, like site:oregon.")
    receivers: Selector = Field(alias="to", description="On the way to whom, like site:virginia.")


class CrashFault(_Fault):
    """A peer's process is killed; what it had not sent or not received is destroyed."""

    kind: Literal["crash"] = Field(description="crash: the process is killed.")
    at: Duration = Field(description="When it is killed.")
    target: Target = Field(description="Whom it hits: a selector, or {pick: one, of: a selector}.")
    restart: RestartOrNone = Field(default="none", description="How it comes back, or none (default: at `heal_at`).")


class PauseFault(_Timed):
    """A peer's process is stopped and later goes on as if nothing had been."""

    kind: Literal["pause"] = Field(description="pause: the process is stopped for a while.")
    target: Target = Field(description="Whom it hits: a selector, or {pick: one, of: a selector}.")


class SlowFault(_Timed):
    """A peer computes more slowly."""

    kind: Literal["slow"] = Field(description="slow: the peer computes more slowly.")
    target: Target = Field(description="Whom it hits: a selector, or {pick: one, of: a selector}.")
    compute_factor: Positive = Field(description="Factor of the time an operation takes; 3 is three times as long.")


class LinkFault(_Between):
    """Links get worse, in one direction."""

    kind: Literal["link"] = Field(description="link: links get worse.")
    capacity: RateChange | None = Field(
        default=None,
        description="Rate from one peer to the other: `0.1x` of what it was, or a rate (default null: unchanged).",
    )
    owd: DelayChange | None = Field(
        default=None, description="One-way delay: `+20 ms` more, or a duration (default null: unchanged)."
    )
    jitter_sd: _Some | None = Field(
        default=None, description="Standard deviation of jitter that is added (default null: none)."
    )
    loss: _Chance | None = Field(default=None, description="Share of packets lost in addition (default null: none).")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.capacity is None and self.owd is None and self.jitter_sd is None and self.loss is None:
            raise conflicts([((), "changes nothing; give capacity, owd, jitter_sd or loss")])
        return self


class PartitionFault(_Timed):
    """Groups of peers cannot reach one another."""

    kind: Literal["partition"] = Field(description="partition: groups of peers cannot reach one another.")
    groups: Annotated[
        tuple[Annotated[tuple[Selector, ...], Listed, Field(min_length=1)], ...], Listed, Field(min_length=1)
    ] = Field(description="Two or more lists of selectors; who is in several is in the first (so `*` is the rest).")
    direction: Literal["to", "from", "both"] = Field(
        default="both",
        description="`to`: nothing gets from a group to later ones; `from`: nothing gets back; `both` (default).",
    )
    mode: Literal["blackhole", "reset"] = Field(
        default="blackhole",
        description="`blackhole` (default): connections stay and carry nothing; `reset`: both ends get an error.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.groups) < 2:
            raise conflicts([(("groups",), 'is one group only; add the others, like ["*"] for everybody else')])
        return self


class CorruptFault(_Between):
    """Bytes are changed above TCP, where its checksum does not see them."""

    kind: Literal["corrupt"] = Field(description="corrupt: bytes are changed on the way.")
    per_chunk: _Chance = Field(description="Share of chunks that get a changed byte.")


class ClockFault(_Timed):
    """A peer's clock is wrong, as the application sees it; the machine's own is left alone."""

    kind: Literal["clock"] = Field(description="clock: the peer's clock is wrong.")
    target: Target = Field(description="Whom it hits: a selector, or {pick: one, of: a selector}.")
    offset: SignedDuration = Field(default=0.0, description="How far it jumps, like +500 ms or -2 s (default 0 s).")
    drift_ppm: float = Field(default=0.0, description="Millionths of a second it gains per second (default 0).")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.offset and not self.drift_ppm:
            raise conflicts([((), "changes nothing; give offset or drift_ppm")])
        return self


class FlapFault(_Between):
    """Links go down and up again and again."""

    kind: Literal["flap"] = Field(description="flap: links go down and up again and again.")
    lasts: _Some = Field(alias="for", description="How long it lasts.")
    period: _Some = Field(description="Time from one going down to the next; it begins with one.")
    duty: Annotated[float, Field(gt=0, lt=1)] = Field(description="Share of each period that the links are down.")


class ChurnFault(_Fault):
    """Peers crash at random, each on its own."""

    kind: Literal["churn"] = Field(description="churn: peers crash at random.")
    begins: Duration = Field(default=0.0, alias="from", description="When it begins (default 0 s).")
    ends: _Some = Field(alias="to", description="When the last peer may crash.")
    rate_per_peer_hour: Positive = Field(description="Crashes per hour of a peer that is up.")
    restart: RestartOrNone = Field(
        default="none", description="How they come back, `after` being drawn anew, or none (default: at `heal_at`)."
    )
    max_down: Count | None = Field(
        default=None, description="Peers away at the same time because of it, at most (default null: no limit)."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.ends <= self.begins:
            raise conflicts([(("to",), "is not after `from`; both are times of the run")])
        return self


Fault = Annotated[
    CrashFault
    | PauseFault
    | SlowFault
    | LinkFault
    | PartitionFault
    | CorruptFault
    | ClockFault
    | FlapFault
    | ChurnFault,
    Field(discriminator="kind"),
]


class Faults(Block):
    """Faults to inject, for the backends that can."""

    seed: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Seed of their draws (default null: that of the run)."
    )
    list: Annotated[tuple[Fault, ...], Listed] = Field(default=(), description="The faults.")
    heal_at: RunInstant | None = Field(
        default=None,
        description="When whatever is still wrong is put right: a time of the run, or like end-60s (default null: "
        "never).",
    )


class OrList:
    """Annotation of Faults: a plain list is the block with only `list`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Turn a list into the block."""
        return core_schema.no_info_before_validator_function(self._to_block, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The list, or the block."""
        block = handler(schema)
        listed = handler.resolve_ref_schema(block)["properties"]["list"]
        return {"oneOf": [{"type": "array", "items": listed["items"]}, block]}

    @staticmethod
    def _to_block(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return {"list": value}
        if not isinstance(value, dict | Faults):
            raise unsuitable(f"must be a list of faults like [{{id: k1, ...}}], or a block, not {describe(value)}")
        return value


FaultsOrList = Annotated[Faults, OrList()]
