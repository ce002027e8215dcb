"""What can be wrong between `churn` and the peers it names."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orionbed.scenario.fault_checks import KnownPeers
from orionbed.scenario.fields import Loc
from orionbed.scenario.problems import Issue, did_you_mean


def check(sections: Mapping[str, Any]) -> Iterator[Issue]:
    """Yield what is wrong with `churn`; `pipeline` and `peers` must be valid."""
    churn = sections["churn"]
    if isinstance(churn, str):
        return
    known = KnownPeers(sections["pipeline"], sections["peers"])
    parts: list[tuple[Loc, Any]] = [((name,), getattr(churn, name)) for name in ("flapping", "liquid", "diurnal")]
    parts += [(("windows", index), window) for index, window in enumerate(churn.windows)]
    for loc, part in parts:
        complaint = None if part is None else known.complaint(part.who)
        if complaint is not None:
            yield Issue(("churn", *loc, "who"), complaint)
    if churn.diurnal is not None:
        for site in churn.diurnal.utc_offset:
            if site not in known.sites:
                hint = did_you_mean(site, list(known.sites), f"; sites are {', '.join(known.sites)}")
                yield Issue(("churn", "diurnal", "utc_offset", site), f"no peer is at {site}{hint}", at_key=True)
    if churn.bulk is not None and churn.bulk.of == "group" and not sections["peers"].groups:
        yield Issue(("churn", "bulk", "of"), "is group, but there are no peers.groups; choose another")
    told: list[Loc] = [("bulk",)] if churn.bulk is not None and churn.bulk.notice else []
    told += [("windows", index) for index, window in enumerate(churn.windows) if window.notice]
    if sections["pipeline"].schedule.kind != "queue":
        text = "is for the queue-driven schedule; with a fixed batch whoever leaves ends the step; write 0 s"
        yield from (Issue(("churn", *loc, "notice"), text) for loc in told)
    if churn.flapping is not None and not churn.flapping.up.positive:
        yield Issue(("churn", "flapping", "up"), "must always be greater than 0; raise its lowest value")
    if churn.trace is not None:
        yield from _trace(churn.trace, known)


def _trace(path: str, known: KnownPeers) -> Iterator[Issue]:
    from orionbed.absences.recorded import read_churn_trace

    loc = ("churn", "trace")
    try:
        trace = read_churn_trace(Path(path))
    except OSError as error:
        yield Issue(loc, f"cannot be read: {error.strerror}; give the path of a CSV with the columns t,peer,state")
        return
    except (UnicodeDecodeError, ValueError) as error:
        yield Issue(loc, f"is not a churn trace: {error}")
        return
    for name in trace:
        complaint = known.complaint(f"peer:{name}")
        if complaint is not None:
            yield Issue(loc, f"{path}: {name} {complaint}")
            return
