"""Section `churn`: who is away when. Its parts may be combined; a peer is away while any of them says so.

All times count from the end of the start-up, when the peers begin to train. What the parts mean for each peer is
settled by `orionbed.absences`, the same for every backend.
"""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, model_validator

from orionbed.scenario.churn_presets import PresetName, preset
from orionbed.scenario.distributions import DurationDist
from orionbed.scenario.fault_fields import Selector, SignedDuration
from orionbed.scenario.fields import (
    FROM_FILE,
    Block,
    Duration,
    Fraction,
    Listed,
    MoneyPerHour,
    NotNegative,
    Positive,
    conflicts,
    none_or,
)

if TYPE_CHECKING:
    from orionbed.scenario.distributions import Distribution

DAY_S = 86400.0

_Some = Annotated[Duration, Field(gt=0)]
_Chance = Annotated[Fraction, Field(gt=0)]
_Of = "Of whom: peer:s03r1, stage:5, replica:0, site:ohio or * (default *)."
_Share = "How many of them, drawn once with the seed (default 100 %)."


class Flapping(Block):
    """Some peers connect, fail and return, again and again."""

    who: Selector = Field(default="*", description=_Of)
    share: _Chance = Field(default=1.0, description=_Share)
    up: DurationDist = Field(description="How long such a peer stays.")
    down: DurationDist = Field(description="How long it is away.")


class Bulk(Block):
    """Several peers are lost at the same instant, and return together."""

    of: Literal["site", "replica", "stage", "group", "all"] = Field(
        default="site",
        description="Whose peers are lost together: of a site (default), replica, stage, peers.groups, or all.",
    )
    rate_per_hour: Positive = Field(description="Losses per hour and such group.")
    mean_size: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="Mean number of peers lost, geometric from 1 on, at most the group (default null)."
    )
    share: _Chance | None = Field(
        default=None, description="Share of the group that is lost, instead of `mean_size` (default null: all of it)."
    )
    down: DurationDist = Field(description="How long they are away; one draw for all that were lost together.")
    notice: Duration = Field(
        default=0.0, description="So long before, the peers know and take nothing new, like 120 s (default 0 s)."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mean_size is not None and self.share is not None:
            raise conflicts([(("share",), "cannot be given with `mean_size`; keep one of the two")])
        return self


class Window(Block):
    """Maintenance: peers are taken away at set times, all at once or one after the other."""

    model_config: ClassVar[ConfigDict] = ConfigDict(serialize_by_alias=True)  # `for` is a word of Python

    at: Duration = Field(description="When it begins.")
    lasts: _Some = Field(alias="for", description="How long each peer is away.")
    every: _Some | None = Field(default=None, description="Time from one to the next (default null: only once).")
    who: Selector = Field(default="*", description=_Of)
    stagger: Duration = Field(
        default=0.0, description="Each peer leaves so much after the one before, a rolling restart (default 0 s)."
    )
    notice: Duration = Field(
        default=0.0, description="So long before, each peer knows and takes nothing new, like 120 s (default 0 s)."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.every is not None and self.lasts >= self.every:
            raise conflicts([(("for",), "is not shorter than `every`, so that nobody would ever be back; shorten it")])
        return self


class Liquid(Block):
    """Peers that go where they are paid more: away while the market's price for them is above what they are paid here.

    The logarithm of the price is a first-order autoregressive process, the same for all peers.
    """

    who: Selector = Field(default="*", description=_Of)
    share: _Chance = Field(default=1.0, description=_Share)
    pay: MoneyPerHour | None = Field(
        default=None, description="What each of their GPUs is paid here, like $1.25/h (default null: cost.gpu_hour)."
    )
    market: Annotated[MoneyPerHour, Field(gt=0)] = Field(
        description="Median price of such a GPU elsewhere, like $1.10/h."
    )
    sigma: NotNegative = Field(
        default=0.3, description="Standard deviation of the natural logarithm of that price (default 0.3)."
    )
    reverts_in: _Some = Field(
        default=6 * 3600.0, description="Time in which a deviation of the price falls to 37 % (default 6 h)."
    )
    spread: NotNegative = Field(
        default=0.1,
        description="How much peers differ in what they earn elsewhere: sigma of a factor per peer (default 0.1).",
    )
    repriced_every: _Some = Field(default=600.0, description="How often they look at the price (default 10 min).")


class Diurnal(Block):
    """Peers at home: there between two hours of the day, local time."""

    who: Selector = Field(default="*", description=_Of)
    available_from: Duration = Field(description="Local time at which a peer comes, like 22 h.")
    available_until: Duration = Field(description="Local time at which it leaves; an earlier one is on the next day.")
    jitter: Duration = Field(
        default=0.0, description="Each time is early or late by up to this, every day anew for each peer (default 0 s)."
    )
    attendance: _Chance = Field(default=1.0, description="Share of the days on which a peer comes (default 100 %).")
    starts_at: Duration = Field(default=0.0, description="UTC time of day at which training begins (default 0 h).")
    utc_offset: dict[str, SignedDuration] = Field(
        default={}, description="Site -> its local time less UTC, like -5 h; sites that are not named have 0 h."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        wrong: list[tuple[tuple[str | int, ...], str]] = [
            ((name,), "is not a time of day; write 0 h to 24 h")
            for name in ("available_from", "available_until", "starts_at")
            if getattr(self, name) > DAY_S
        ]
        if not wrong and self.there_s in {0.0, DAY_S}:
            wrong = [(("available_until",), "leaves no time of day away, or none there; choose another one")]
        elif not wrong and 2.0 * self.jitter >= min(self.there_s, DAY_S - self.there_s):
            wrong = [(("jitter",), "is half or more of the time there, or of the time away; lower it")]
        if wrong:
            raise conflicts(wrong)
        return self

    @property
    def there_s(self) -> float:
        """Seconds of a day between coming and leaving."""
        return (self.available_until - self.available_from) % DAY_S


class Churn(Block):
    """Peers leave and come back."""

    preset: PresetName | None = Field(
        default=None,
        description="Ready-made `up` and `down`; one of them beside it goes first (default null).",
    )
    up: DurationDist | None = Field(
        default=None, description="How long a peer stays before it leaves (default null: as `preset`, or for ever)."
    )
    down: DurationDist | None = Field(default=None, description="How long it is then away (default null: as `preset`).")
    flapping: Flapping | None = Field(
        default=None, description="Peers that connect, fail and return (default null: none)."
    )
    bulk: Bulk | None = Field(default=None, description="Peers that are lost together (default null: none).")
    trace: str | None = Field(
        default=None, description="CSV file with the columns t,peer,state: who leaves and comes when (default null)."
    )
    windows: Annotated[tuple[Window, ...], Listed] = Field(
        default=(), description="Maintenance windows and rolling restarts (default none)."
    )
    liquid: Liquid | None = Field(
        default=None, description="Peers that leave for better-paid work (default null: none)."
    )
    diurnal: Diurnal | None = Field(default=None, description="Peers that keep hours of the day (default null: none).")

    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = ("preset", "up", "down", "flapping", "bulk", "trace", "windows", "liquid", "diurnal")
        if not any(getattr(self, name) for name in parts):
            raise conflicts([((), "says nothing; give `up` and `down`, a `preset` or another part, or write none")])
        if self.preset is not None and self.up is not None and self.down is not None:
            text = "says nothing beside both `up` and `down`; set the whole block, like churn={preset: NAME}"
            raise conflicts([(("preset",), text)])
        if self.preset is None and (self.up is None) != (self.down is None):
            has, lacks = ("up", "down") if self.down is None else ("down", "up")
            raise conflicts([((has,), f"needs `{lacks}` beside it; give both, or a `preset`")])
        return self

    @property
    def lifetimes(self) -> "tuple[Distribution, Distribution] | None":
        """The distributions of how long peers stay and are away, given or of the preset; None without."""
        if self.preset is None:
            return None if self.up is None or self.down is None else (self.up, self.down)
        ready = preset(self.preset)
        return self.up or _distribution(ready.up), self.down or _distribution(ready.down)

    @property
    def gives_notice(self) -> bool:
        """Whether peers may know beforehand that they will be taken away."""
        return (self.bulk is not None and self.bulk.notice > 0.0) or any(window.notice for window in self.windows)

    @property
    def sources(self) -> dict[str, str]:
        """Keys below `churn` whose source is known without `provenance`."""
        return {} if self.preset is None else {"preset": preset(self.preset).source}


def _distribution(written: Any) -> "Distribution":
    adapter: TypeAdapter[Any] = TypeAdapter(DurationDist)
    return cast("Distribution", adapter.validate_python(dict(written), context=FROM_FILE))


ChurnOrNone = Annotated[
    Annotated[Literal["none"], Tag("=none")] | Annotated[Churn, Tag("=block")], Discriminator(none_or)
]
