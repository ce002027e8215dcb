"""Checks between sections. Each looks only at sections that are valid, so that one mistake does not hide another."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from orionbed.scenario import churn_checks, group_checks, packaged
from orionbed.scenario.fields import Loc
from orionbed.scenario.keys import all_keys, look_up
from orionbed.scenario.network import VARIABILITIES
from orionbed.scenario.problems import Issue, ScenarioError, did_you_mean, listed
from orionbed.scenario.recovery import FOR_FIXED_BATCH
from orionbed.scenario.schedules import NarrowBoundary, QuantizeBoundary, TopKBoundary
from orionbed.scenario.schema import Scenario
from orionbed.scenario.training import BYTE_TOKENS, NAMED_TEXTS, SyntheticData

PROVENANCE_KINDS: Final = ("published", "code", "derived", "assumed", "fitted")
_BITS: Final = {"bf16": 16, "fp16": 16, "fp32": 32}
_BY_NEIGHBOURS: Final = {"neighbour", "skip-stage"}
# Sections that have no numbers of their own to give a source for or to vary.
_NOT_ADDRESSED: Final = {"provenance", "uncertain"}
_RELAY_SITE: Final[Loc] = ("network", "nat", "relay", "site")
Sections = Mapping[str, Any]


def check(sections: Sections) -> Iterator[Issue]:
    """Everything that is wrong between the (valid) sections."""
    for needs, rule in _RULES:
        if all(name in sections for name in needs):
            yield from rule(sections)


def _split(sections: Sections) -> Iterator[Issue]:
    layers, pipeline = sections["model"].layers, sections["pipeline"]
    split, loc = pipeline.split, ("pipeline", "split")
    per_stage = _chunks_per_stage(pipeline.schedule)
    if per_stage is None:
        return  # a schedule file that cannot be read; said elsewhere
    pieces, of, each = pipeline.stages * per_stage, "stages", "stage"
    if per_stage > 1:
        of, each = f"pieces ({per_stage} on each of {pipeline.stages} stages)", "piece"
    if isinstance(split, str):
        if split == "by-speed" and per_stage > 1:
            text = f"deals layers to stages of one piece, but these have {per_stage}; write balanced or a list"
            yield Issue(loc, text)
        if pieces > layers:
            yield Issue(("pipeline", "stages"), f"{pieces} {of} for {layers} layers; give every {each} a layer")
        return
    if len(split) != pieces:
        yield Issue(loc, f"has {len(split)} entries for {pieces} {of}; give one number of layers per {each}")
    if sum(split) != layers:
        difference = layers - sum(split)
        verb = "add" if difference > 0 else "remove"
        yield Issue(loc, f"adds up to {sum(split)} layers, but the model has {layers}; {verb} {abs(difference)}")


def _chunks_per_stage(schedule: Any) -> int | None:
    from orionbed.schedule.build import chunks_per_stage

    try:
        return chunks_per_stage(schedule)
    except (OSError, ValueError):
        return None


def _schedule_file(sections: Sections) -> Iterator[Issue]:
    pipeline = sections["pipeline"]
    schedule, loc = pipeline.schedule, ("pipeline", "schedule", "file")
    if schedule.kind != "csv":
        return
    from orionbed.schedule.text import read_csv

    try:
        order = read_csv(Path(schedule.file))
    except OSError as error:
        yield Issue(loc, f"cannot be read: {error.strerror}; give the path of a CSV")
        return
    except ValueError as error:
        yield Issue(loc, f"is no schedule: {error}")
        return
    if order.num_stages != pipeline.stages:
        yield Issue(loc, f"lists {order.num_stages} stages, but pipeline.stages is {pipeline.stages}; make them agree")


def _queue_or_not(sections: Sections) -> Iterator[Issue]:
    """Keys that one kind of schedule alone has a use for."""
    is_queue = sections["pipeline"].schedule.kind == "queue"
    peers = sections["peers"]
    if is_queue and sections["network"].transport.synchronous:
        text = "is for schedules with a fixed batch per step; a queue-driven one never waits for a send; write false"
        yield Issue(("network", "transport", "synchronous"), text)
    if not is_queue and peers.rebalance_every is not None:
        yield Issue(("peers", "rebalance_every"), "is for the queue-driven schedule; write null")
    if not is_queue and peers.rejoin != "own":
        yield Issue(("peers", "rejoin"), f"{peers.rejoin!r} is for the queue-driven schedule; write own")


def _recovery(sections: Sections) -> Iterator[Issue]:
    policy, schedule = sections["recovery"].in_flight, sections["pipeline"].schedule
    if schedule.kind != "queue" and policy not in FOR_FIXED_BATCH:
        text = f"{policy} needs the queue-driven schedule; with a fixed batch write {listed(FOR_FIXED_BATCH)}"
        yield Issue(("recovery", "in_flight"), text)
    if schedule.kind == "queue" and policy != "drop":
        retry = schedule.retry
        if schedule.via != "p2p" or retry.backward or retry.push_timeout is not None or retry.concurrent is not None:
            text = (
                f"{policy} needs plain pushes: pipeline.schedule.via p2p, and of retry neither backward, push_timeout"
            )
            yield Issue(("recovery", "in_flight"), f"{text} nor concurrent; or write drop")
    merge = sections.get("merge", "none")
    if policy != "drop" and not isinstance(merge, str) and not merge.flush:
        text = f"{policy} needs merges that flush the pipeline; write merge.flush: true, or drop"
        yield Issue(("recovery", "in_flight"), text)
    if policy == "local-steps" and not isinstance(merge, str) and merge.overlap:
        text = "local-steps needs merges that stop the training; write merge.overlap: false, or another policy"
        yield Issue(("recovery", "in_flight"), text)
    if policy in _BY_NEIGHBOURS and sections["pipeline"].stages < 2:
        yield Issue(("recovery", "in_flight"), f"{policy} needs a stage before the lost one; use two stages or more")


def _orchestrator(sections: Sections) -> Iterator[Issue]:
    """An orchestrator has epochs, peers that it may bench, and the last word on who goes where."""
    if isinstance(sections["orchestrator"], str):
        return
    loc = ("orchestrator",)
    if sections["pipeline"].schedule.kind != "queue":
        yield Issue(loc, "is for the queue-driven schedule; use kind queue, or write orchestrator: none", at_key=True)
    if isinstance(sections["merge"], str):
        yield Issue(loc, "has epochs, which end with a merge; give merge a block, or write none", at_key=True)
    if sections["peers"].rejoin != "own":
        yield Issue(("peers", "rejoin"), "is decided by orchestrator.assign here; write own and set that instead")


def _sync(sections: Sections) -> Iterator[Issue]:
    sync, schedule = sections["sync"], sections["pipeline"].schedule
    if sync != "none" and schedule.kind == "queue":
        text = "needs a schedule with a fixed batch per step; a queue-driven one averages by `merge`; write sync: none"
        yield Issue(("sync",), text, at_key=True)


def _merge(sections: Sections) -> Iterator[Issue]:
    merge = sections["merge"]
    if isinstance(merge, str):
        return
    is_queue = sections["pipeline"].schedule.kind == "queue"
    if merge.overlap and not is_queue:
        text = "is for the queue-driven schedule; with a fixed batch use sync: {every: ..., overlap: true}"
        yield Issue(("merge", "overlap"), text)
    if not merge.flush and not is_queue:
        yield Issue(("merge", "flush"), "false is for the queue-driven schedule; with a fixed batch write true")
    if merge.overlap and not isinstance(sections["orchestrator"], str):
        text = "leaves an orchestrator no epochs: training never stops; write overlap: false, or orchestrator: none"
        yield Issue(("merge", "overlap"), text)


def _boundary(sections: Sections) -> Iterator[Issue]:
    model, boundary = sections["model"], sections["pipeline"].boundary
    loc = ("pipeline", "boundary")
    if isinstance(boundary, NarrowBoundary) and boundary.width >= model.hidden:
        yield Issue((*loc, "width"), f"must be less than model.hidden, {model.hidden}; or use kind none")
    if isinstance(boundary, TopKBoundary) and boundary.keep >= model.hidden:
        yield Issue((*loc, "keep"), f"must be less than model.hidden, {model.hidden}; or use kind none")
    if isinstance(boundary, QuantizeBoundary) and boundary.bits >= _BITS[model.dtype]:
        yield Issue(
            (*loc, "bits"), f"must be less than the {_BITS[model.dtype]} bits of {model.dtype}; or use kind none"
        )


def _sites(sections: Sections) -> Iterator[Issue]:
    pipeline, peers = sections["pipeline"], sections["peers"]
    wanted = pipeline.stages * pipeline.replicas
    if peers.groups:
        yield from group_checks.counts(peers.groups, wanted, f"{pipeline.stages} stages x {pipeline.replicas} replicas")
        return
    total = sum(peers.sites.values())
    if total != wanted:
        text = f"{pipeline.stages} stages x {pipeline.replicas} replicas need {wanted}"
        verb = f"add {wanted - total}" if total < wanted else f"remove {total - wanted}"
        yield Issue(("peers", "sites"), f"add up to {total} peers, but {text}; {verb} (0 empties an inherited site)")


def _names(sections: Sections) -> Iterator[Issue]:
    for loc, gpu in group_checks.gpus(sections["peers"]):
        if gpu not in packaged.names("gpus") and not (gpu.endswith(".yaml") and Path(gpu).is_file()):
            yield Issue(loc, packaged.unknown_gpu(gpu))


def _gpus(sections: Sections) -> Iterator[Issue]:
    peers = sections["peers"]
    if next(_names(sections), None) is not None:
        return
    from orionbed.scenario.gpu import gpu_profile

    for loc, name in group_checks.gpus(peers):
        try:
            profile = gpu_profile(name)
        except ScenarioError as error:
            yield Issue(loc, f"is a GPU profile with mistakes: {error.problems[0]}")
            continue
        if peers.gpus > 1 and peers.gpu_link is None and profile.link is None:
            text = f"{peers.gpus} GPUs, but the profile {profile.name} has no `link` between them; give peers.gpu_link"
            yield Issue(("peers", "gpus"), text)


def _heads(sections: Sections) -> Iterator[Issue]:
    heads, gpus = sections["model"].heads, sections["peers"].gpus
    if heads % gpus:
        text = f"{gpus} GPUs do not divide {heads} attention heads; choose a divisor of {heads}"
        yield Issue(("peers", "gpus"), text)


def _measured(sections: Sections) -> Iterator[Issue]:
    measured, pipeline = sections["peers"].measured, sections["pipeline"]
    per_stage = _chunks_per_stage(pipeline.schedule)
    if measured is None or per_stage is None:
        return
    pieces = pipeline.stages * per_stage
    each = "stage" if per_stage == 1 else f"piece, {per_stage} on each of {pipeline.stages} stages"
    for name in type(measured).model_fields:
        times = getattr(measured, name)
        if isinstance(times, tuple) and len(times) != pieces:
            text = f"has {len(times)} entries for {pieces} pieces of the model"
            text += f"; give one time per {each}, or one for a whole stage"
            yield Issue(("peers", "measured", name), text)


def _network(sections: Sections) -> Iterator[Issue]:
    network = sections["network"]
    tables = packaged.names("delays", ".csv")
    if isinstance(network.delay, str) and network.delay not in tables:
        hint = did_you_mean(network.delay, tables, f"; tables are {', '.join(tables)}, or give one duration like 20 ms")
        yield Issue(("network", "delay"), f"no delay table {network.delay!r}{hint}")
    kind = network.variability
    if kind not in VARIABILITIES and not Path(kind).is_file():
        hint = did_you_mean(kind, VARIABILITIES, f"; write {listed(VARIABILITIES)}, or the path of a CSV trace")
        yield Issue(("network", "variability"), f"neither a known process nor a file: {kind!r}{hint}")
    elif kind not in VARIABILITIES:
        from orionbed.bandwidth_trace import read_trace

        try:
            read_trace(Path(kind))
        except (OSError, UnicodeDecodeError, ValueError) as error:
            yield Issue(("network", "variability"), f"is not a bandwidth trace: {error}")


def _places(sections: Sections) -> Iterator[Issue]:
    table = sections["network"].delay
    if isinstance(table, str) and table in packaged.names("delays", ".csv"):
        known = packaged.delay_sites(table)
        relay = sections["network"].nat.relay.site
        named = [*group_checks.places(sections["peers"]), *([(_RELAY_SITE, relay)] if relay is not None else [])]
        for loc, site in named:
            if site not in known:
                hint = did_you_mean(site, known, f"; it has {', '.join(known)}; or give network.delay one value")
                yield Issue(loc, f"is not in the delay table {table}{hint}", at_key=loc[-1] == site)


def _positive(sections: Sections) -> Iterator[Issue]:
    for key in ("peers.speed", "network.uplink", "network.downlink", "churn.up"):
        section, _, name = key.partition(".")
        distribution = getattr(sections.get(section), name, None)
        if distribution is not None and not distribution.positive:
            yield Issue((section, name), "must always be greater than 0; raise its lowest value")
    for index, group in enumerate(sections["peers"].groups if "peers" in sections else ()):
        for name in ("speed", "uplink", "downlink"):
            distribution = getattr(group, name)
            if distribution is not None and not distribution.positive:
                loc = ("peers", "groups", index, name)
                yield Issue(loc, "must always be greater than 0; raise its lowest value")


def _text(sections: Sections) -> Iterator[Issue]:
    """What of a text can be seen without reading it."""
    training, loc = sections["training"], ("training", "data")
    data = training.data
    if isinstance(data, SyntheticData):
        return
    for key in ("path", "tokenizer"):
        path = getattr(data, key, None)
        if path is not None and path not in NAMED_TEXTS and not Path(path).exists():
            yield Issue((*loc, key), f"there is no {path}; give a path, from the scenario's folder")
    if training.model == "own" and data.tokenizer == "bytes" and sections["model"].vocab < BYTE_TOKENS:
        text = f"must be at least {BYTE_TOKENS}, the tokens of training.data.tokenizer bytes; or use model: stand-in"
        yield Issue(("model", "vocab"), text)


def _published(sections: Sections) -> Iterator[Issue]:
    seen: set[str] = set()
    for index, entry in enumerate(sections["published"]):
        if entry.kind == "reading":
            continue
        if entry.quantity in seen:
            text = f"{entry.quantity} is published twice; keep one, or make the other one kind: reading"
            yield Issue(("published", index, "quantity"), text)
        seen.add(entry.quantity)


def _provenance(sections: Sections) -> Iterator[Issue]:
    published = [entry.quantity for entry in sections.get("published", ())]
    for key, text in sections["provenance"].items():
        yield from _existing(sections, "provenance", key)
        kind, colon, source = (part.strip() for part in text.partition(":"))
        loc = ("provenance", key)
        if not colon or not source:
            yield Issue(loc, f"must be `kind: source` with a kind of {listed(PROVENANCE_KINDS)}, not {text!r}")
        elif kind not in PROVENANCE_KINDS:
            hint = did_you_mean(kind, PROVENANCE_KINDS)
            yield Issue(loc, f"kind must be {listed(PROVENANCE_KINDS)}, not {kind!r}{hint}")
        elif kind == "fitted" and "published" in sections:
            match = re.fullmatch(r"(\S+)\s*=\s*([^;]+);\s*(.+)", source, re.DOTALL)
            if match is None:
                yield Issue(loc, "a fitted number must read `fitted: QUANTITY = VALUE; how`")
            elif match[1] not in published:
                hint = did_you_mean(match[1], published)
                yield Issue(loc, f"fitted to {match[1]}, which `published` does not list{hint or '; list it there'}")


def _uncertain(sections: Sections) -> Iterator[Issue]:
    for key in sections["uncertain"]:
        yield from _existing(sections, "uncertain", key)


def _existing(sections: Sections, where: str, key: str) -> Iterator[Issue]:
    """Complain about a dotted key that leads nowhere, unless its section is invalid anyway."""
    section = key.partition(".")[0]
    known = [name for name in Scenario.model_fields if name not in _NOT_ADDRESSED]
    if section not in known:
        everything = [key for name in sections if name in known for key in (name, *all_keys(sections[name], name))]
        hint = did_you_mean(key, everything, f"; sections are {', '.join(known)}")
        yield Issue((where, key), f"the scenario has no key {key}{hint}", at_key=True)
    elif section in sections:
        try:
            look_up(sections, key)
        except KeyError as error:
            inside = [name for name in all_keys(sections[section], section) if name.count(".") <= key.count(".")]
            hint = did_you_mean(key, inside, "; check the spelling, or remove it")
            yield Issue((where, key), f"the scenario has no key {key} ({error.args[0]} not found){hint}", at_key=True)


_RULES: Final[tuple[tuple[tuple[str, ...], Callable[[Sections], Iterator[Issue]]], ...]] = (
    (("model", "pipeline"), _split),
    (("pipeline",), _schedule_file),
    (("pipeline", "sync"), _sync),
    (("pipeline", "merge", "orchestrator"), _merge),
    (("orchestrator", "pipeline", "merge", "peers"), _orchestrator),
    (("pipeline", "peers", "network"), _queue_or_not),
    (("pipeline", "recovery"), _recovery),
    (("model", "pipeline"), _boundary),
    (("pipeline", "peers"), _sites),
    (("peers",), _names),
    (("peers",), _gpus),
    (("model", "peers"), _heads),
    (("pipeline", "peers"), _measured),
    (("network",), _network),
    (("peers", "network"), _places),
    ((), _positive),
    (("pipeline", "peers", "churn"), churn_checks.check),
    (("model", "training"), _text),
    (("published",), _published),
    (("provenance",), _provenance),
    (("uncertain",), _uncertain),
)
