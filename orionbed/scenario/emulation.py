"""Section `emulator`: what is scaled down there, which clock it runs on, and how long."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from orionbed.scenario.fields import Block, Count, Duration, Loc, Positive, conflicts, unsuitable

_ADDRESS: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:\[\]/]+)):(\d{1,5})")


def _auto_tag(value: object) -> str:
    return "=name" if isinstance(value, str) else "=number"


def host_and_port(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`, where an IPv6 address stands in brackets. ValueError: it is neither."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found[3]) < 65536:
        raise ValueError(f"{text!r} is no HOST:PORT, like 10.0.0.1:7777 or [fd00::1]:7777")
    return found[1] or found[2], int(found[3])


def an_address(text: str) -> str:
    """Check that a setting is HOST:PORT."""
    try:
        host_and_port(text)
    except ValueError as error:
        raise unsuitable(str(error)) from None
    return text


def _even(width: int) -> int:
    if width % 2:
        raise unsuitable(f"{width} is odd, and rotary positions turn pairs of values; write an even number")
    return width


AutoOrNumber = Annotated[
    Annotated[Literal["auto"], Tag("=name")] | Annotated[Positive, Tag("=number")], Discriminator(_auto_tag)
]


class Emulator(Block):
    """The scaled-down model that the emulator trains, its clock, and the length of its runs."""

    clock: Literal["paced", "virtual", "cpu"] = Field(
        default="paced",
        description="What time is: `paced` (default) holds the plan's times against the machine's clock; `virtual` "
        "waits for nothing, `cpu` likewise with measured processor times; both for fixed batches.",
    )
    layers: Count | None = Field(
        default=None, description="Layers of the scaled-down model (default null: one for each piece of the model)."
    )
    width: Annotated[int, Field(ge=8), AfterValidator(_even)] = Field(
        default=256, description="Its width, an even number (default 256)."
    )
    tokens: Annotated[int, Field(ge=2)] = Field(
        default=64, description="Tokens of a sequence of its micro-batches (default 64)."
    )
    sequences: Count = Field(default=1, description="Sequences of its micro-batches (default 1).")
    vocab: Annotated[int, Field(ge=8)] = Field(
        default=256, description="Its vocabulary with synthetic data (default 256); with text it is the tokenizer's."
    )
    dtype: Literal["float32", "float64"] = Field(
        default="float32", description="Number format of its weights and activations (default float32)."
    )
    time_dilation: AutoOrNumber = Field(
        default="auto",
        description="Seconds of this machine per second of the run, with `paced`; below 1 a run is faster than the "
        "real one (default auto: as small as the measured work of all peers allows).",
    )
    payload_scale: AutoOrNumber = Field(
        default="auto",
        description="Factor that bytes, rates and windows are divided by, so that transfers take their true time "
        "(default auto: from the size of the scaled-down tensors and what the machine can move).",
    )
    training: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None,
        description="Length of a training phase, instead of merge.every; without merges of the whole run "
        "(default null: as the scenario says).",
    )
    merges: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Training phases with merges that the run lasts (default null: to its end)."
    )
    reference: bool = Field(
        default=False,
        description="Whether one process trains on the same micro-batches afterwards, to hold the weights against it "
        "(default false); queue-driven, or with a fixed batch without merges.",
    )
    lateness_limit: Annotated[Duration, Field(gt=0)] = Field(
        default=0.050,
        description="The run is void when one in a hundred operations or messages is later than this, in seconds of "
        "this machine (default 50 ms).",
    )
    recovery_deadline: Annotated[Duration, Field(gt=0)] = Field(
        default=600.0,
        description="A run that has not got over a fault after so much time of it is given up (default 10 min).",
    )
    listen: Annotated[str, AfterValidator(an_address)] | None = Field(
        default=None,
        description="Where to listen for peers on other hosts, as address and port like 0.0.0.0:7777 (default null: "
        "all peers run on this machine).",
    )
    encrypt: bool = Field(
        default=False,
        description="With clock paced, whether peers of this machine really use TLS 1.3 among themselves, which costs "
        "processor time (default false); between machines they always do.",
    )
    remote_slots: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="How many peers run on hosts that join with `orionbed peer`; they are waited for before the run "
        "starts (default 0).",
    )
    key: str | None = Field(
        default=None,
        description="File with the supervisor's private key, which it shows to hosts that join (default null: none).",
    )
    trusted: str | None = Field(
        default=None,
        description="File or folder with the public keys of hosts that may join (default null: whoever has the token).",
    )
    join_timeout: Annotated[Duration, Field(gt=0)] = Field(
        default=600.0, description="Longest wait for these hosts, in time of this machine (default 10 min)."
    )

    @model_validator(mode="after")
    def _can_be_joined(self) -> Self:
        problems: list[tuple[Loc, str]] = []
        if self.remote_slots and self.listen is None:
            problems.append((("remote_slots",), "needs `listen`, where other hosts join, like 0.0.0.0:7777"))
        if self.remote_slots and self.clock != "paced":
            problems.append((("remote_slots",), "needs clock paced: the other clocks are for one machine"))
        if self.listen is None:
            useless = [key for key in ("key", "trusted") if getattr(self, key) is not None]
            problems += [((key,), "is for hosts that join; give `listen`, like 0.0.0.0:7777") for key in useless]
        if self.encrypt and self.clock != "paced":
            problems.append((("encrypt",), "needs clock paced: with the other clocks no time passes for it"))
        if problems:
            raise conflicts(problems)
        return self
