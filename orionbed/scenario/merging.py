"""Section `merge`: how and when the peers of a stage average their weights, and whom they wait for."""

from typing import Annotated, Final, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from orionbed.scenario.fields import Block, Count, Duration, Fraction, Loc, NotNegative, conflicts, none_or

_Some = Annotated[Duration, Field(gt=0)]
Algorithm = Literal["butterfly", "ring", "tree", "central-ps", "sharded-ps", "gossip", "grouped", "gather"]
GATED: Final = ("butterfly", "gather")
"""Algorithms whose steps everybody takes together, through the object store, when a gate opens."""
SPARSE: Final = ("gather", "gossip")
"""Algorithms that pass contributions on as they are, so that those may be sparse."""


class PlainCodec(Block):
    """Numbers as the weights have them."""

    kind: Literal["none"] = Field(description="none: as wide as the weights, 16 bits in bf16.")


class _Coded(Block):
    encode: Duration = Field(
        default=0.0, description="Time to encode a stage's contribution (default 0 s; a fragment takes its share)."
    )
    decode: Duration = Field(
        default=0.0, description="Time to decode what a merge brought (default 0 s; a fragment takes its share)."
    )


class Int8Codec(_Coded):
    """Eight bits per parameter."""

    kind: Literal["int8"] = Field(description="int8: 8 bits per parameter; scales are not counted.")


class SparseCodec(_Coded):
    """The largest values of each chunk, with their places (SparseLoCo)."""

    kind: Literal["sparse"] = Field(description="sparse: the largest values of each chunk, with their places.")
    keep: Count = Field(default=64, description="Values kept of each chunk (default 64, SparseLoCo).")
    chunk: Annotated[int, Field(ge=2)] = Field(default=4096, description="Values of a chunk (default 4096).")
    bits: Annotated[int, Field(ge=1, le=32)] = Field(default=2, description="Bits of a value kept (default 2).")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.keep > self.chunk:
            raise conflicts([(("keep",), f"{self.keep} of a chunk of {self.chunk}; keep at most {self.chunk}")])
        return self


class SpartaCodec(_Coded):
    """A random share of the parameters, the same one at all peers (SPARTA)."""

    kind: Literal["sparta"] = Field(description="sparta: a random share of the parameters, drawn alike everywhere.")
    share: Annotated[Fraction, Field(gt=0)] = Field(
        default=0.0005, description="Share of the parameters in one exchange (default 0.05 %; SPARTA: 0.05 to 0.5 %)."
    )


Codec = Annotated[PlainCodec | Int8Codec | SparseCodec | SpartaCodec, Field(discriminator="kind")]


class RelaxingQuorum(Block):
    """All peers at first, then ever fewer: `merge.quorum_relax`, `quorum_every` and `quorum_floor`."""

    kind: Literal["relaxing-quorum"] = Field(description="relaxing-quorum: the share waited for falls with time.")


class Everybody(Block):
    """All peers, at most for `merge.timeout`."""

    kind: Literal["all"] = Field(description="all: everybody, at most for `merge.timeout`.")


class FixedDeadline(Block):
    """Whoever is through in a fixed time."""

    kind: Literal["fixed"] = Field(description="fixed: whoever is through in time.")
    wait: _Some = Field(default=120.0, description="How long to wait (default 2 min).")


class MadDeadline(Block):
    """The median of those who are through, and a multiple of how far they lie apart."""

    kind: Literal["mad"] = Field(description="mad: median + k x median absolute deviation of those who are through.")
    k: NotNegative = Field(default=5.0, description="Median absolute deviations beyond the median (default 5).")
    after: Annotated[Fraction, Field(gt=0)] = Field(
        default=0.5, description="Share of the peers that must be through before it counts (default 0.5)."
    )


class GraceDeadline(Block):
    """A quorum, and some time for the others when it is there."""

    kind: Literal["quorum-grace"] = Field(description="quorum-grace: a quorum, then some time for the rest.")
    quorum: Annotated[Fraction, Field(gt=0)] = Field(default=0.8, description="Share of the peers (default 0.8).")
    grace: Duration = Field(default=30.0, description="Time for the others after that (default 30 s).")


Deadline = Annotated[
    RelaxingQuorum | Everybody | FixedDeadline | MadDeadline | GraceDeadline, Field(discriminator="kind")
]


class Merge(Block):
    """Periodic averaging of the replicas of each stage."""

    algorithm: Algorithm = Field(
        default="butterfly",
        description="butterfly (default): pairs average slices; ring, tree, central-ps, sharded-ps: an all-reduce; "
        "gossip: with one random peer; grouped: in groups, in rounds; gather: everybody fetches from all.",
    )
    every: _Some = Field(description="Training time between two merges.")
    via: Literal["auto", "object-storage", "peers"] = Field(
        default="auto",
        description="object-storage or peers: which way the bytes go; auto (default): through the store for butterfly "
        "and gather, from peer to peer for the rest.",
    )
    partitions: Literal["2026", "pairs"] = Field(
        default="2026",
        description="Slices of the butterfly: 2026 (default) makes two per peer and gives each to a random pair; pairs "
        "makes one for every pair.",
    )
    group_size: Annotated[int, Field(ge=2)] = Field(
        default=4, description="Peers of a group, for grouped: the side of the grid (default 4)."
    )
    rounds: Count | None = Field(
        default=None, description="Rounds of grouped averaging (default null: one per dimension of the grid)."
    )
    codec: Codec = Field(default=PlainCodec(kind="none"), description="How contributions are written (default: plain).")
    outer: Literal["nesterov", "none"] = Field(
        default="nesterov",
        description="Outer optimizer: nesterov (default) steps along the mean pseudo-gradient with a momentum, which "
        "in the butterfly travels with the slices; none takes the mean of the weights.",
    )
    fragments: Count = Field(
        default=1, description="Parts of a stage that are merged in turn, every/fragments apart (default 1)."
    )
    overlap: bool = Field(
        default=False, description="Whether training goes on meanwhile (default false: it stops for all)."
    )
    flush: bool = Field(
        default=True,
        description="Whether a merge that stops training throws away what is in flight (default true, as IOTA does).",
    )
    deadline: Deadline | None = Field(
        default=None,
        description="Whom a merge waits for (default null: relaxing-quorum for butterfly and gather, all for the "
        "rest).",
    )
    quorum_relax: Fraction = Field(
        default=0.01, description="By how much the share of peers waited for falls per `quorum_every` (default 0.01)."
    )
    quorum_every: _Some = Field(default=6.0, description="How often the quorum is relaxed (default 6 s).")
    quorum_floor: Fraction = Field(default=0.3, description="The quorum never falls below this share (default 0.3).")
    compute: Duration = Field(default=10.0, description="Time a peer takes to average its slices (default 10 s).")
    timeout: _Some = Field(default=3 * 3600.0, description="Longest wait for each phase of a merge (default 3 h).")
    failure: Fraction = Field(
        default=0.0, description="Chance that a peer falls silent in a merge, or in a retry of it (default 0)."
    )
    failure_timeout: Duration = Field(
        default=120.0,
        description="How long peers wait for one that is silent (default 2 min); where a gate opens, that decides.",
    )
    coverage_floor: Fraction | None = Field(
        default=None,
        description="Share of a stage's slices below which a butterfly is refused and tried again (default null: none "
        "is; IOTA's code: 0.9).",
    )
    attempts: Count = Field(
        default=3, description="Tries of a merge, after which a stage's peers keep their own weights (default 3)."
    )

    @property
    def between(self) -> float:
        """Seconds of training between the starts of two merges, each of one fragment."""
        return self.every / self.fragments

    @property
    def through_storage(self) -> bool:
        """Whether the bytes go through the object store."""
        return self.algorithm in GATED if self.via == "auto" else self.via == "object-storage"

    @property
    def gate(self) -> Deadline:
        """Whom a merge waits for, the default resolved."""
        if self.deadline is not None:
            return self.deadline
        gated = self.algorithm in GATED and self.through_storage
        return RelaxingQuorum(kind="relaxing-quorum") if gated else Everybody(kind="all")

    @property
    def only_simulated(self) -> list[str]:
        """Keys with values that the simulator alone knows what to do with; others run the butterfly as it is."""
        usual = Merge(every=self.every)
        names = ("algorithm", "codec", "fragments", "overlap", "flush", "failure", "coverage_floor")
        found = [name for name in names if getattr(self, name) != getattr(usual, name)]
        return [*found, *(["deadline"] if self.gate.kind != "relaxing-quorum" and not found else [])]

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems: list[tuple[Loc, str]] = []
        if self.algorithm == "gossip" and self.deadline is not None:
            problems.append((("deadline",), "gossip has no barrier at which anybody waits; write null"))
        if self.algorithm == "butterfly" and self.via == "peers":
            text = "the butterfly goes through the store; from peer to peer its sum is algorithm: sharded-ps"
            problems.append((("via",), text))
        if self.codec.kind == "sparse" and self.algorithm not in SPARSE:
            text = f"sparse contributions cannot be summed on their way by {self.algorithm}; use gather or gossip"
            problems.append((("codec", "kind"), text))
        if self.overlap and self.algorithm == "butterfly":
            text = "the butterfly stops training, as IOTA does; overlap sharded-ps, ring, gather or another one"
            problems.append((("overlap",), text))
        if problems:
            raise conflicts(problems)
        return self


MergeOrNone = Annotated[
    Annotated[Literal["none"], Tag("=none")] | Annotated[Merge, Tag("=block")], Discriminator(none_or)
]
