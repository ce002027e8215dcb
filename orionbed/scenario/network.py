"""Section `network`: links, delays, how they vary, the transport over them and the object store."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, PlainSerializer, Tag, ValidationInfo, WithJsonSchema

from orionbed import quantity
from orionbed.quantity import QuantityError
from orionbed.scenario.distributions import DurationDist, Lognormal, RateDist
from orionbed.scenario.fields import (
    FROM_FILE,
    Block,
    Count,
    DataRate,
    DataSize,
    Duration,
    Fraction,
    Measures,
    describe,
    none_or,
    unsuitable,
)

VARIABILITIES = ("constant", "shaped", "cloud", "shared", "bad")


def _delay(value: Any, info: ValidationInfo) -> Any:
    """The name of a table stays text, a duration becomes seconds."""
    if isinstance(value, str) and not re.fullmatch(r"[a-z][a-z0-9-]*", value):
        try:
            return quantity.parse(value, quantity.DURATION)
        except QuantityError as error:
            raise unsuitable(str(error)) from None
    if isinstance(value, str):
        return value
    if info.context == FROM_FILE or isinstance(value, bool) or not isinstance(value, int | float):
        raise unsuitable(f"must be a delay table like us-metros or a duration like 20 ms, not {describe(value)}")
    return float(value)


Delay = Annotated[
    str | float,
    BeforeValidator(_delay),
    PlainSerializer(lambda v: v if isinstance(v, str) else quantity.show(v, quantity.DURATION), when_used="json"),
    WithJsonSchema({"type": "string"}),
    Measures(Duration),
]


class Jitter(Block):
    """Random extra delay of single messages."""

    sd: Duration = Field(default=0.00025, description="Standard deviation of the ordinary jitter (default 250 us).")
    spike_probability: Fraction = Field(default=1e-3, description="Share of messages hit by a spike (default 0.001).")
    spike: DurationDist = Field(
        default=Lognormal[Duration](dist="lognormal", median=0.020, sigma=1.0),
        description="Length of a spike (default lognormal, median 20 ms, sigma 1).",
    )


JitterOrNone = Annotated[
    Annotated[Literal["none"], Tag("=none")] | Annotated[Jitter, Tag("=block")], Discriminator(none_or)
]


class Transport(Block):
    """How a message gets over a link."""

    streams: Count = Field(default=1, description="Parallel TCP streams per message (default 1).")
    window: Annotated[DataSize, Field(gt=0)] = Field(
        default=4 * 1024**2, description="Send window of one stream (default 4 MiB)."
    )
    initial_window: Annotated[DataSize, Field(gt=0)] = Field(
        default=14480.0, description="Window that a stream starts slowly with (default 14480 B, ten segments)."
    )
    keep_warm: bool = Field(default=True, description="Whether connections stay open between messages (default true).")
    slow_start_after_idle: bool = Field(
        default=False, description="Whether a connection that idled starts slowly again (default false)."
    )
    loss: Fraction = Field(default=0.0, description="Share of packets lost (default 0).")
    congestion: Literal["cubic", "reno", "bbr"] = Field(
        default="cubic", description="Congestion control: cubic (default), reno or bbr."
    )
    synchronous: bool = Field(
        default=False,
        description="Whether a peer sends one message at a time, each until it has arrived, and takes none from a peer "
        "that it is sending to (default false: messages are asynchronous); for schedules with a fixed batch.",
    )
    tls: bool = Field(
        default=True,
        description="Whether connections use TLS 1.3 (default true): simulated, a round trip more to open one; on "
        "hardware, with tcp, it is real. The emulator: see emulator.encrypt.",
    )
    cipher_rate: Annotated[DataRate, Field(gt=0)] | None = Field(
        default=None,
        description="With tls, what a core encrypts or decrypts; counts it for each connection, and 22 B per record of "
        "16 KiB (default null: not counted).",
    )


class Storage(Block):
    """The object store that merges go through."""

    delay: Duration = Field(default=0.015, description="One-way delay between a peer and the store (default 15 ms).")
    streams: Count = Field(default=16, description="Parallel connections of one transfer (default 16).")
    rate: Annotated[DataRate, Field(gt=0)] | None = Field(
        default=None,
        description="Rate of the store for all peers together, each way (default null: unlimited).",
    )


class Relay(Block):
    """Where two peers meet that cannot reach each other directly."""

    rate: Annotated[DataRate, Field(gt=0)] = Field(
        default=100e6, description="What one connection over a relay carries (default 100 Mbps, assumed)."
    )
    delay: Duration = Field(
        default=0.020,
        description="One-way delay of a message besides its ways to the relay and from it (default 20 ms, assumed).",
    )
    site: str | None = Field(
        default=None, description="The site where the relay stands (default null: on the direct way between the two)."
    )
    capacity: Annotated[DataRate, Field(gt=0)] | None = Field(
        default=None, description="Rate of the relay for all connections together (default null: unlimited)."
    )


class Nat(Block):
    """Peers behind a NAT: two of them reach each other directly only if they can punch a hole through both."""

    natted: Fraction = Field(default=0.0, description="Share of the peers that are behind a NAT (default 0).")
    punch: Fraction = Field(
        default=0.70,
        description="Share of the pairs of such peers that reach each other directly (default 0.70, arXiv 2510.27500); "
        "the others send over the relay.",
    )
    relay: Relay = Field(default=Relay(), description="What those pairs send over.")


_OptionalRate = Annotated[DataRate, Field(gt=0)] | None


class Network(Block):
    """Everything between the peers."""

    uplink: RateDist = Field(description="Upload rate of a peer, drawn once per peer.")
    downlink: RateDist = Field(description="Download rate of a peer, drawn once per peer.")
    correlation: Annotated[float, Field(ge=-1, le=1)] = Field(
        default=0.5, description="Correlation of the logarithms of a peer's up and down rate (default 0.5)."
    )
    rate_is: Literal["goodput", "l2"] = Field(
        default="goodput",
        description="Whether rates are what applications get (`goodput`, default) or include headers (`l2`).",
    )
    delay: Delay = Field(
        default="us-metros",
        description="One-way delay: a table of scenarios/delays (default us-metros), or one value like 20 ms.",
    )
    delay_inside: Duration | None = Field(
        default=None,
        description="One-way delay between two peers of one site (default null: as the table or `delay` says).",
    )
    jitter: JitterOrNone = Field(default=Jitter(), description="Random extra delay of messages, or none.")
    variability: str = Field(
        default="constant",
        description="How link rates vary: constant (default), shaped, cloud, shared, bad, or a CSV trace file.",
    )
    transport: Transport = Field(default=Transport(), description="Streams, windows and congestion control.")
    site_uplink: _OptionalRate = Field(
        default=None, description="Upload rate shared by all peers of a site (default null: unlimited)."
    )
    site_downlink: _OptionalRate = Field(
        default=None, description="Download rate shared by all peers of a site (default null: unlimited)."
    )
    wan: _OptionalRate = Field(
        default=None,
        description="Rate shared by all traffic from one site to another (default null: unlimited).",
    )
    storage: Storage = Field(default=Storage(), description="The object store that merges go through.")
    nat: Nat = Field(default=Nat(), description="Peers behind a NAT, and the relay between them.")
