"""What can be wrong between the groups of peers and other sections, and what groups and single keys say alike."""

from collections.abc import Iterator, Sequence

from orionbed.scenario.fields import Loc
from orionbed.scenario.groups import Group
from orionbed.scenario.layout import Peers
from orionbed.scenario.problems import Issue

_GROUPS: Loc = ("peers", "groups")


def counts(groups: Sequence[Group], wanted: int, layout: str) -> Iterator[Issue]:
    """Peers that are too many or too few, sites that do not add up, names that are taken."""
    total = sum(group.count for group in groups)
    if total != wanted:
        verb = f"add {wanted - total}" if total < wanted else f"remove {total - wanted}"
        yield Issue(_GROUPS, f"add up to {total} peers, but {layout} need {wanted}; {verb}")
    first: dict[str, int] = {}
    for index, group in enumerate(groups):
        on_sites = sum(group.places.values())
        if on_sites != group.count:
            text = f"add up to {on_sites} peers, but the group has {group.count}; make them agree"
            yield Issue((*_GROUPS, index, "sites"), text)
        if first.setdefault(group.name, index) != index:
            text = f"{group.name} is the name of an earlier group (index {first[group.name]}); choose another one"
            yield Issue((*_GROUPS, index, "name"), text)


def gpus(peers: Peers) -> Iterator[tuple[Loc, str]]:
    """The GPU profiles that the peers name, with their keys."""
    if not peers.groups:
        yield ("peers", "gpu"), peers.gpu
    for index, group in enumerate(peers.groups):
        yield (*_GROUPS, index, "gpu"), group.gpu


def places(peers: Peers) -> Iterator[tuple[Loc, str]]:
    """The sites on which there are peers, with their keys."""
    for site, count in peers.sites.items():
        if count:
            yield ("peers", "sites", site), site
    for index, group in enumerate(peers.groups):
        loc = (*_GROUPS, index, "sites")
        for site in group.places:
            yield (loc if isinstance(group.sites, str) else (*loc, site)), site
