"""The rules of the audit, one function each: they return how much they checked and what they found wrong."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from typing import NamedTuple

from orionbed.fates import Fate, History
from orionbed.faults import ResolvedFault
from orionbed.journal import Entry, fault_of, in_order

Found = tuple[int, list[str]]


class Scope(NamedTuple):
    """What the rules need to know besides the journal."""

    end_s: float
    deadline_s: float
    synced: bool = False
    open_at_end: frozenset[int] | None = None
    samples_per_epoch: int | None = None

    def is_recent(self, at_s: float) -> bool:
        """Whether the run ended before one could expect more to have come of this."""
        return at_s >= self.end_s - self.deadline_s


def everywhere_or_nowhere(history: History, scope: Scope) -> Found:
    """Rule 1: used once on every chunk, in one step where batches are fixed, or dropped; partly only for a reason."""
    wrong = list(history.wrong[1])
    for fate in history.fates.values():
        name, applied = f"micro-batch {fate.microbatch}", fate.applied
        for chunk, uses in applied.items():
            if len(uses) > 1:
                wrong.append(f"{name} was applied {len(uses)} times on chunk {chunk}, in steps {_steps(uses)}")
        if not applied:
            continue
        steps = {use.step for uses in applied.values() for use in uses}
        if history.fixed_batch and len(steps) > 1:
            wrong.append(f"{name} was applied in different steps: {', '.join(map(str, sorted(steps)))}")
        if len(applied) < history.num_chunks:
            text = _partly(history, scope, fate)
            if text:
                wrong.append(f"{name} was applied on chunks {_chunks(applied)} only: {text}")
    return len(history.fates), wrong


def all_accounted_for(history: History, scope: Scope) -> Found:
    """Rule 2: created = applied + dropped + in flight, and a duplicate is used nowhere."""
    wrong = list(history.wrong[2])
    for fate in history.fates.values():
        name, status = f"micro-batch {fate.microbatch}", fate.status(history.num_chunks)
        if not fate.created:
            wrong.append(f"{name} was never created")
        if status == "applied" and fate.dropped is not None:
            wrong.append(f"{name} was applied on all chunks and dropped as well: {fate.dropped}")
        if status == "dropped" and not (fate.dropped or "").strip():
            wrong.append(f"{name} was dropped without a reason")
        if status == "in flight" and not fate.applied:
            text = _vanished(history, scope, fate)
            if text:
                wrong.append(f"{name} was neither applied nor dropped: {text}")
    return len(history.fates), wrong


def divisors(history: History, scope: Scope) -> Found:
    """Rule 3: a step's gradient is divided by the micro-batches in it, over all replicas that share it."""
    groups: dict[tuple[int, ...], list[Entry]] = defaultdict(list)
    said: dict[int, set[str]] = defaultdict(set)
    newest: dict[int, int] = defaultdict(int)
    for fate in history.fates.values():
        for chunk, uses in fate.applied.items():
            for use in uses:
                place = () if scope.synced else (use.peer, use.life)
                groups[chunk, use.step, *place].append(use)
                newest[chunk] = max(newest[chunk], use.step)
                said[use.step].add(use.detail)
    wrong = []
    for (chunk, step, *peer), uses in sorted(groups.items()):
        size = len({use.microbatch for use in uses})
        given = sorted({use.detail for use in uses})
        where = f"step {step} of chunk {chunk}" + (f" (peer {peer[0]})" if peer else "")
        if len(given) > 1:
            wrong.append(f"{where} was divided by {' and by '.join(given)}")
        elif not _is_number(given[0], size) and not (
            # Not all replicas had got as far when the run ended.
            scope.synced
            and step == newest[chunk]
            and {use.replica for use in uses} != history.replicas_of_chunk[chunk]
            and scope.is_recent(min(use.at_s for use in uses))
            and _above(given[0], size)
        ):
            wrong.append(f"{where} had {size} micro-batches, but was divided by {given[0] or 'nothing'}")
    if scope.synced:
        for step, texts in sorted(said.items()):
            if len(texts) > 1:
                wrong.append(f"step {step} was divided by {' and by '.join(sorted(texts))} on different chunks")
    return len(groups), wrong


def equal_replicas(history: History, scope: Scope) -> Found:
    """Rule 4: replicas that agree are equal after a commit; who comes back adopts a committed version first."""
    hashes: dict[tuple[int, ...], set[str]] = defaultdict(set)
    known: dict[tuple[int, int], set[str]] = defaultdict(set)
    complete_s: dict[tuple[int, int], float] = defaultdict(float)
    agree = scope.synced or not history.fixed_batch
    for entry in history.committed:
        version = (entry.chunk, entry.step)
        hashes[version if agree else (*version, entry.replica)].add(entry.detail)
        known[version].add(entry.detail)
        complete_s[version] = max(complete_s[version], entry.at_s)
    wrong = [
        f"version {key[1]} of chunk {key[0]} has {len(texts)} different hashes after the commit"
        for key, texts in sorted(hashes.items())
        if len(texts) > 1
    ]
    checked = len(hashes)
    for peer, rows in history.by_peer.items():
        for returned_s, adopted in _rejoined(rows):
            checked += 1
            if adopted is None:
                wrong.append(f"peer {peer}, back since {returned_s:.6g} s, contributed without adopting a version")
                continue
            version = (adopted.chunk, adopted.step)
            is_known = adopted.detail in known[version] if version in known else adopted.step == 0
            if not is_known:
                wrong.append(f"peer {peer} adopted version {adopted.step} with a hash that was never committed")
            newer = [
                v
                for (chunk, v), at_s in complete_s.items()
                if agree and chunk == adopted.chunk and v > adopted.step and at_s < returned_s
            ]
            if newer:
                wrong.append(
                    f"peer {peer} adopted version {adopted.step} although {max(newer)} was committed before it returned"
                )
    return checked, wrong


def committed_whole(history: History, scope: Scope) -> Found:
    """Rule 5: with a fixed batch, all stages of a replica commit a version or none does."""
    if not history.fixed_batch:
        return 0, []
    got: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
    trails: dict[tuple[int, int], list[Entry]] = defaultdict(list)
    for entry in in_order((*history.committed, *history.adopted)):
        trails[entry.replica, entry.stage].append(entry)
        if entry.event == "committed":
            got[entry.replica, entry.step][entry.stage] = entry.at_s
    wrong = []
    for (replica, version), stages in sorted(got.items()):
        for stage in sorted(history.stages - stages.keys()):
            # It may have adopted this version or a later one instead, or not have got as far when the run ended.
            reached = next((entry for entry in trails[replica, stage] if entry.step >= version), None)
            if reached is None and scope.is_recent(max(stages.values())):
                continue
            if reached is None or reached.event == "committed":
                wrong.append(f"version {version} was committed by replica {replica}, but not by its stage {stage}")
    return len(got), wrong


def samples_once(history: History, scope: Scope) -> Found:
    """Rule 6: every sample is used once per epoch, or again after it was given up."""
    by_sample: dict[str, list[Fate]] = defaultdict(list)
    wrong = []
    for fate in history.fates.values():
        if fate.created > 1:
            wrong.append(f"micro-batch {fate.microbatch} was created {fate.created} times")
        if fate.created:
            by_sample[fate.sample].append(fate)
    total = 0
    kept: dict[str, int] = {}
    for sample, fates in by_sample.items():
        fates.sort(key=lambda fate: fate.created_s)
        kept[sample] = sum(fate.dropped is None and not fate.aborted for fate in fates[:-1]) + 1
        total += kept[sample]
    epochs = 1 if scope.samples_per_epoch is None else -(-total // scope.samples_per_epoch)
    wrong += [f"sample {sample} was used {n} times in {epochs} epochs" for sample, n in kept.items() if n > epochs]
    return len(by_sample), wrong


def recovered(history: History, scope: Scope, faults: Sequence[ResolvedFault]) -> Found:
    """Rule 8, first half: every fault is recovered from, or given up on aloud, within the deadline."""
    wrong, checked = [], 0
    said: dict[str, list[float]] = defaultdict(list)
    for entry in history.endings:
        said[entry.detail].append(entry.at_s)
    for fault in faults:
        due_s = (fault.end_s if isfinite(fault.end_s) else fault.start_s) + scope.deadline_s
        if (not fault.peers and not fault.pairs) or fault.start_s >= scope.end_s:
            continue
        times = [at_s for at_s in said[fault.id] if at_s >= fault.start_s]
        if not times and due_s > scope.end_s:
            continue  # the run was over before it was due
        checked += 1
        if not times:
            wrong.append(f"fault {fault.id}: nobody said by {due_s:.6g} s whether the run had recovered")
        elif min(times) > due_s:
            wrong.append(f"fault {fault.id}: recovered or given up at {min(times):.6g} s, after {due_s:.6g} s")
    ids = {fault.id for fault in faults}
    causes = ((entry.microbatch, fault_of(entry.detail)) for entry in history.dropped)
    named = {(microbatch, fault_id) for microbatch, fault_id in causes if fault_id is not None}
    for microbatch, fault_id in sorted(named):
        if fault_id not in ids:
            wrong.append(f"micro-batch {microbatch} was dropped because of fault {fault_id}, which there is not")
    return checked, wrong


def _partly(history: History, scope: Scope, fate: Fate) -> str:
    """Say why a micro-batch must not be applied on some chunks only, or return nothing when it may."""
    missing = [chunk for chunk in range(history.num_chunks) if chunk not in fate.applied]
    if history.fixed_batch:
        if fate.dropped is not None:
            return f"it was dropped ({fate.dropped}) all the same"
        passed = _passed(history, fate, missing)
        if passed:
            return f"chunk {passed[0]} took that step without it"
    elif fate.status(history.num_chunks) in {"dropped", "lost"}:
        return ""
    # Gradients go from the last chunk to the first, so there is no gap in the way they have come.
    been = fate.backward | fate.applied.keys()
    skipped = [chunk for chunk in missing if chunk not in been and chunk > min(been)]
    if skipped:
        return f"chunk {skipped[0]} was skipped"
    return _vanished(history, scope, fate)


def _passed(history: History, fate: Fate, missing: Iterable[int]) -> list[int]:
    """Chunks that have taken, in the same replica, the step that the micro-batch was part of elsewhere."""
    uses = [use for uses in fate.applied.values() for use in uses]
    step, replica = min(use.step for use in uses), uses[0].replica
    return [chunk for chunk in missing if history.newest.get((replica, chunk), step - 1) >= step]


def _vanished(history: History, scope: Scope, fate: Fate) -> str:
    """Say why a micro-batch without an end cannot be in flight, or return nothing when it may be."""
    missing = {chunk for chunk in range(history.num_chunks) if chunk not in fate.applied}
    for chunk in sorted(missing & fate.left_out.keys()):
        return f"chunk {chunk} took a step without it at {fate.left_out[chunk]:.6g} s"
    if scope.open_at_end is not None:
        return "" if fate.microbatch in scope.open_at_end else "nobody holds it at the end of the run"
    # What waits in accumulators for the next step has got where it should.
    if not missing <= fate.holding and not scope.is_recent(fate.heard_s):
        return f"nothing was heard of it after {fate.heard_s:.6g} s"
    return ""


def _rejoined(rows: Sequence[Entry]) -> Iterator[tuple[float, Entry | None]]:
    """Yield, for each time a peer came back and contributed, when it was back and what it had adopted by then."""
    back_s: float | None = None
    life = 0
    adopted: Entry | None = None
    for entry in rows:
        if entry.event == "returned" or (entry.life > life and entry.event != "crashed"):
            back_s, adopted, life = entry.at_s, None, entry.life
        if entry.event == "adopted":
            adopted = entry
        elif entry.event == "accumulated" and back_s is not None:
            yield back_s, adopted
            back_s = None


def _is_number(text: str, size: int) -> bool:
    try:
        return float(text) == size
    except ValueError:
        return False


def _above(text: str, size: int) -> bool:
    try:
        return float(text) > size
    except ValueError:
        return False


def _chunks(chunks: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(chunks)))


def _steps(uses: Iterable[Entry]) -> str:
    return ", ".join(str(use.step) for use in uses)
