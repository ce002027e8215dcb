"""Groups of peers: machines of one kind, where they stand and what links they have."""

from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag

from orionbed.scenario.distributions import Distribution as RateDistribution
from orionbed.scenario.distributions import Lognormal, NumberDist, RateDist
from orionbed.scenario.fields import (
    NAME_PATTERN,
    Block,
    Count,
    DataRate,
    Duration,
    Fraction,
    MoneyPerHour,
    Positive,
)


def _efficiency_tag(value: Any) -> str:
    return "=number" if isinstance(value, int | float) or (isinstance(value, str) and "%" in value) else "=name"


Efficiency = Annotated[
    Annotated[Literal["by-shape"], Tag("=name")] | Annotated[Fraction, Field(gt=0), Tag("=number")],
    Discriminator(_efficiency_tag),
]


def _places_tag(value: Any) -> str:
    return "=name" if isinstance(value, str) else "=counts"


Places = Annotated[
    Annotated[str, Field(min_length=1), Tag("=name")]
    | Annotated[dict[str, Annotated[int, Field(ge=0)]], Field(min_length=1), Tag("=counts")],
    Discriminator(_places_tag),
]


def _links(up_bps: float, down_bps: float) -> tuple[Any, Any]:
    sigma = 0.6
    up, down = (Lognormal[DataRate](dist="lognormal", median=bps, sigma=sigma) for bps in (up_bps, down_bps))
    return up, down


HOME_LINKS: Final = {"home-us-2022": _links(21.6e6, 153.8e6), "home-us-2025": _links(60e6, 302.68e6)}
"""Uplink and downlink of a home, by name.

2022: medians of fixed broadband in the US in June 2022, 21.6 Mbit/s up and 153.8 down (telecompetitor.com on Ookla).
2025: 60 Mbit/s up, Epoch AI's planning figure of December 2025, and the median down of that month, 302.68 Mbit/s (World
Population Review quoting Speedtest). The spread is assumed: lognormals with the means published for 2022, 88.8 and
225.5 Mbit/s, would have a sigma of 1.68 and 0.875, but fibre is the reason for them, and peers that had to pass a speed
test do not have a lower half like that.
"""


class Group(Block):
    """Peers with the same GPU and the same kind of links."""

    name: str = Field(pattern=NAME_PATTERN, description="Its name in the report, and in selectors as group:NAME.")
    count: Count = Field(description="Number of peers; those of all groups add up to stages x replicas.")
    gpu: str = Field(description="Name of a GPU profile, a file in scenarios/gpus without its ending.")
    sites: Places = Field(description="Number of peers on each site, adding up to `count`; or one site for all.")
    speed: NumberDist | None = Field(
        default=None, description="Compute speed factor of each peer, drawn once (default null: as peers.speed)."
    )
    efficiency: Efficiency | None = Field(
        default=None, description="Share of peak inside a stage (default null: as peers.efficiency)."
    )
    kernel_scale: Positive | None = Field(
        default=None, description="Factor on the speed of all kernels (default null: as peers.kernel_scale)."
    )
    overhead: Duration | None = Field(
        default=None, description="Host time of every operation (default null: as peers.overhead)."
    )
    links: Literal["home-us-2022", "home-us-2025"] | None = Field(
        default=None,
        description="Links as those of homes: home-us-2022 (median 154 Mbps down, 22 up) or home-us-2025 (303 and 60); "
        "`uplink` and `downlink` come before it (default null: as in `network`).",
    )
    uplink: RateDist | None = Field(
        default=None, description="Upload rate of a peer (default null: as `links`, or network.uplink)."
    )
    downlink: RateDist | None = Field(
        default=None, description="Download rate of a peer (default null: as `links`, or network.downlink)."
    )
    correlation: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        default=None,
        description="Correlation of the logarithms of a peer's up and down rate (default null: network.correlation).",
    )
    natted: Fraction | None = Field(
        default=None, description="Share of its peers that are behind a NAT (default null: as network.nat.natted)."
    )
    price: MoneyPerHour | None = Field(
        default=None, description="Price of one of its GPUs, like $0.34/h (default null: cost.gpu_hour)."
    )

    @property
    def own_links(self) -> tuple[RateDistribution | None, RateDistribution | None]:
        """Upload and download rate where the group has its own: as given, or as `links` says."""
        up, down = HOME_LINKS[self.links] if self.links is not None else (None, None)
        return self.uplink or up, self.downlink or down

    def with_links_scaled(self, factor: float) -> "Group":
        """Return the group with its own links so many times as fast."""
        up, down = (link and link.scaled(factor) for link in self.own_links)
        return self.model_copy(update={"links": None, "uplink": up, "downlink": down})

    @property
    def places(self) -> dict[str, int]:
        """Number of peers on each site, sites without any left out."""
        if isinstance(self.sites, str):
            return {self.sites: self.count}
        return {site: count for site, count in self.sites.items() if count}
