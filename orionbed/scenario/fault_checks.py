"""What can be wrong between `faults` and the peers they name.

Everything is read from what is written, so that a fault that is not valid still has its names and targets checked.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from orionbed.scenario.fault_fields import EVERYBODY, SELECTOR_KINDS, parts_of, peer_name
from orionbed.scenario.fields import Loc
from orionbed.scenario.messages import problem_at
from orionbed.scenario.problems import Problem, did_you_mean
from orionbed.scenario.tree import Tree

_LISTED_AT_MOST: Final = 12
_NUMBER: Final = re.compile(r"[0-9]{1,12}")
_PEER: Final = re.compile(r"^s([0-9]{1,12})r([0-9]{1,12})$")
_Found = Iterator[tuple[Loc, str]]


def problems(sections: Mapping[str, Any], tree: Tree) -> list[Problem]:
    """Return what is wrong with the faults of `tree` besides the form of each, as far as other sections are valid."""
    written = _written(tree.at("faults"))
    found = [*_repeated(written)]
    if "pipeline" in sections and "peers" in sections:
        known = KnownPeers(sections["pipeline"], sections["peers"])
        for index, fault in enumerate(written):
            found += [((index, *loc), text) for loc, text in _unknown(fault, known)]
    if "faults" in sections:
        found += _healed_before(sections["faults"])
    return [problem_at(tree, ("faults", "list", *loc), text) for loc, text in found]


class KnownPeers:
    """The peers of a scenario, as far as they are known before they are placed on sites.

    Nothing is enumerated unless it is short: a scenario that is wrong may ask for any number of stages.
    """

    def __init__(self, pipeline: Any, peers: Any) -> None:
        self.num_stages: int = pipeline.stages
        self.num_replicas: int = pipeline.replicas
        self.sites: dict[str, int] = peers.counts
        # Sites and groups by name, with their peers.
        self.named: dict[str, dict[str, int]] = {
            "site": self.sites,
            "group": {group.name: group.count for group in peers.groups},
        }

    def complaint(self, selector: str) -> str | None:
        """Say what is wrong with a selector of a valid form, or return None."""
        kind, name = parts_of(selector)
        if kind == EVERYBODY:
            return None
        if kind in self.named:
            known = self.named[kind]
            if name in known:
                return None
            return f"selects nobody: there is no {kind} {name}{did_you_mean(name, list(known), self._there(kind))}"
        if kind == "peer":
            numbers = _PEER.findall(name)
            exists = any(
                self._has("stage", stage)
                and self._has("replica", replica)
                and peer_name(int(stage), int(replica)) == name
                for stage, replica in numbers
            )
        else:
            exists = self._has(kind, name) and str(int(name)) == name
        return None if exists else f"selects nobody: there is no {kind} {name}{self._there(kind)}"

    def _has(self, kind: str, number: str) -> bool:
        return _NUMBER.fullmatch(number) is not None and int(number) < self._count(kind)

    def _count(self, kind: str) -> int:
        counts = {"stage": self.num_stages, "replica": self.num_replicas}
        counts |= {name: len(known) for name, known in self.named.items()}
        return counts.get(kind, self.num_stages * self.num_replicas)

    def _there(self, kind: str) -> str:
        """Say which ones there are."""
        count = self._count(kind)
        if kind == "group" and not count:
            return "; all peers are alike, see peers.groups"
        if kind in self.named:
            names = list(self.named[kind])
        elif count <= _LISTED_AT_MOST:
            names = [self._name(kind, index) for index in range(count)]
        else:
            return f"; they go from {self._name(kind, 0)} to {self._name(kind, count - 1)}"
        return f"; there {'is' if count == 1 else 'are'} {', '.join(names)}"

    def _name(self, kind: str, index: int) -> str:
        return peer_name(*divmod(index, self.num_replicas)) if kind == "peer" else str(index)

    def size(self, selector: str) -> int:
        """Return how many peers a known selector means."""
        kind, name = parts_of(selector)
        if kind in self.named:
            return self.named[kind][name]
        sizes = {"peer": 1, "stage": self.num_replicas, "replica": self.num_stages}
        return sizes.get(kind, self.num_stages * self.num_replicas)


def _written(faults: Tree | None) -> list[Any]:
    data = None if faults is None else faults.plain()
    data = data.get("list") if isinstance(data, dict) else data
    return [item if isinstance(item, dict) else {} for item in data] if isinstance(data, list) else []


def _selectors(fault: Mapping[str, Any]) -> list[tuple[Loc, str]]:
    """Every selector of a valid form, with its keys in the fault."""
    target, groups = fault.get("target"), fault.get("groups")
    found: list[tuple[Loc, Any]] = [
        (("target", "of"), target.get("of")) if isinstance(target, dict) else (("target",), target)
    ]
    if fault.get("kind") != "churn":  # there they are times
        found += [(("from",), fault.get("from")), (("to",), fault.get("to"))]
    for i, group in enumerate(groups if isinstance(groups, list) else ()):
        found += [(("groups", i, j), selector) for j, selector in enumerate(group if isinstance(group, list) else ())]
    return [(loc, text) for loc, text in found if isinstance(text, str) and _is_selector(text)]


def _is_selector(text: str) -> bool:
    kind, name = parts_of(text)
    return text == EVERYBODY or (kind in SELECTOR_KINDS and bool(name))


def _repeated(faults: Sequence[Mapping[str, Any]]) -> _Found:
    first: dict[str, int] = {}
    for index, fault in enumerate(faults):
        name = fault.get("id")
        if isinstance(name, str) and first.setdefault(name, index) != index:
            yield (index, "id"), f"{name} is the name of an earlier fault (index {first[name]}); choose another one"


def _unknown(fault: Mapping[str, Any], known: KnownPeers) -> _Found:
    named = _selectors(fault)
    wrong = [(loc, text) for loc, selector in named if (text := known.complaint(selector)) is not None]
    if wrong:
        yield from wrong
        return
    by_key = {loc[0]: selector for loc, selector in named}
    target, ends = fault.get("target"), (by_key.get("from"), by_key.get("to"))
    pick = target.get("pick") if isinstance(target, dict) else None
    if isinstance(pick, int) and "target" in by_key and pick > (size := known.size(by_key["target"])):
        yield ("target", "pick"), f"{pick} are more than the {size} peers of {by_key['target']}; pick fewer, or all"
    if ends[0] is not None and ends[0] == ends[1] and known.size(ends[0]) == 1:
        yield ("to",), f"is the peer of `from` itself, and no link leads from {ends[0]} to itself; name another one"


def _healed_before(faults: Any) -> _Found:
    heal_at = faults.heal_at
    for index, fault in enumerate(faults.list if heal_at is not None and not heal_at.before_end else ()):
        key, begins = ("from", fault.begins) if fault.kind == "churn" else ("at", fault.at)
        if begins >= heal_at.offset_s:
            yield (index, key), "is not before faults.heal_at, when all is put right; begin earlier, or heal later"
