"""The audit passes honest journals of both kinds of schedule, and catches every way of losing or doubling work."""

import random
from math import inf

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orionbed.audit import NOT_CHECKED, audit
from orionbed.faults import ResolvedFault
from orionbed.journal import Entry, fault_of, from_json, in_order, reason_of, to_json

CHUNKS = 4
DEADLINE_S = 30.0
BYTES = {"bytes_sent": 100, "bytes_delivered": 70, "bytes_in_flight": 10, "bytes_destroyed": 20}


class Writer:
    """A journal being written; peers are (stage, replica), one chunk per stage."""

    def __init__(self, seed, num_replicas):
        self.random = random.Random(seed)
        self.num_replicas = num_replicas
        self.now_s = 0.0
        self.entries = []
        self.life = dict.fromkeys(range(CHUNKS * num_replicas), 0)
        self.created = 0
        self.samples = 0
        self.faults = []

    def peer(self, stage, replica):
        return stage * self.num_replicas + replica

    def write(self, event, stage, replica, microbatch=-1, attempt=0, step=-1, detail="", chunk=None, *, later=True):
        self.now_s += self.random.random() * 0.1 * later
        peer = self.peer(stage, replica)
        chunk = stage if chunk is None else chunk
        row = (self.now_s, event, peer, self.life[peer], stage, replica, chunk, microbatch, attempt, step, detail)
        self.entries.append(Entry(*row))

    def create(self, replica, sample=None, step=-1):
        number, self.created = self.created, self.created + 1
        if sample is None:
            sample, self.samples = f"sample {self.samples}", self.samples + 1
        self.write("created", 0, replica, number, step=step, detail=sample)
        return number, sample

    def crash(self, stage, replica):
        """Crash a peer by a fault that is recovered from 5 s after it; return its id."""
        name = f"k{len(self.faults)}"
        peer = self.peer(stage, replica)
        self.write("crashed", stage, replica, detail=name)
        self.faults.append(ResolvedFault(name, "crash", self.now_s, self.now_s + 4.0, peers=(peer,)))
        return name

    def come_back(self, stage, replica, version, text):
        self.now_s += 4.0
        self.life[self.peer(stage, replica)] += 1
        self.write("returned", stage, replica)
        self.write("adopted", stage, replica, step=version, detail=text)
        self.entries.append(Entry(self.now_s, "recovered", -1, detail=self.faults[-1].id))


class FixedWriter(Writer):
    """Steps of a fixed batch whose gradients the replicas share."""

    def begin(self, step, again, batch):
        """The micro-batches of a step: those that were given up before, then new ones."""
        made = []
        for replica in range(self.num_replicas):
            for _ in range(batch):
                number, sample = again[replica].pop() if again[replica] else (None, None)
                made.append((replica, *(self.create(replica, sample, step) if number is None else (number, sample))))
        return made

    def pipeline(self, step, made, reached):
        for replica, number, _ in made:
            for chunk in range(CHUNKS):
                self.write("forward", chunk, replica, number, step=step)
            for chunk in reversed(range(CHUNKS - reached, CHUNKS)):
                self.write("backward", chunk, replica, number, step=step)
                self.write("accumulated", chunk, replica, number, step=step)

    def commit(self, step, made, cut):
        peers = [(stage, replica) for stage in range(CHUNKS) for replica in range(self.num_replicas)]
        self.random.shuffle(peers)
        for stage, replica in peers[: len(peers) - int(cut * len(peers))]:
            self.write("committed", stage, replica, step=step, detail=f"hash {stage} {step}")
            for r, number, _ in made:
                if r == replica:
                    self.write("applied", stage, replica, number, step=step, detail=str(len(made)), later=False)

    def give_up(self, step, made, again, *, crashes):
        stage, lost = self.random.randrange(CHUNKS), self.random.randrange(self.num_replicas)
        cause = f" [fault {self.crash(stage, lost)}]" if crashes else ""
        for s in range(CHUNKS):
            for replica in range(self.num_replicas):
                if not crashes or (s, replica) != (stage, lost):
                    self.write("aborted", s, replica, step=step, chunk=-1)
        for replica, number, sample in made:
            if self.random.random() < 0.5:
                self.write("retried", 0, replica, number, attempt=1)
                again[replica].append((number, sample))
                continue
            self.write("dropped", 0, replica, number, detail=f"step given up{cause}")
            if self.random.random() < 0.5:
                again[replica].append((None, sample))
        if crashes:
            self.come_back(stage, lost, step - 1, f"hash {stage} {step - 1}" if step > 1 else "initial")


def fixed_journal(seed, *, num_replicas=2, num_steps=8, batch=3, trouble=0.5, cut=0.0):
    """A run of a static schedule; some steps are given up, because a peer crashed or not."""
    w = FixedWriter(seed, num_replicas)
    again = [[] for _ in range(num_replicas)]
    step = 1
    while step <= num_steps:
        made = w.begin(step, again, batch)
        if w.random.random() < trouble:
            w.pipeline(step, made, w.random.randrange(CHUNKS))
            w.give_up(step, made, again, crashes=w.random.random() < 0.5)
        else:
            w.pipeline(step, made, CHUNKS)
            w.commit(step, made, cut if step == num_steps else 0.0)
            step += 1
    return w


class QueueWriter(Writer):
    """Micro-batches that find their way, and peers that step, crash, come back and merge on their own."""

    def __init__(self, seed, num_replicas):
        super().__init__(seed, num_replicas)
        self.held = {peer: [] for peer in self.life}
        self.steps = dict.fromkeys(self.held, 0)
        self.version = 0

    def through(self, trouble, every):
        """Send a micro-batch forth and back."""
        way = [self.random.randrange(self.num_replicas) for _ in range(CHUNKS)]
        number, _ = self.create(way[0])
        for stage, replica in enumerate(way):
            if stage and self.random.random() < trouble:
                self.write("retried", stage - 1, way[stage - 1], number, attempt=1)
            self.write("forward", stage, replica, number, step=self.steps[self.peer(stage, replica)])
        stuck = self.random.randrange(CHUNKS) if self.random.random() < trouble else -1
        for stage in reversed(range(CHUNKS)):
            peer = self.peer(stage, way[stage])
            if stage == stuck:
                if self.random.random() < 0.5:
                    self.write("refused", stage, way[stage], number, detail="not held")
                self.write("dropped", stage, way[stage], number, detail="slot expired")
                return
            self.write("backward", stage, way[stage], number)
            self.write("accumulated", stage, way[stage], number, step=self.steps[peer])
            self.held[peer].append(number)
            if len(self.held[peer]) == every:
                self.step(stage, way[stage])

    def step(self, stage, replica):
        peer = self.peer(stage, replica)
        numbers, self.held[peer] = self.held[peer], []
        self.steps[peer] += bool(numbers)
        for i, number in enumerate(numbers):
            self.write("applied", stage, replica, number, step=self.steps[peer], detail=str(len(numbers)), later=not i)

    def merge(self):
        self.version += 1
        places = [(stage, replica) for stage in range(CHUNKS) for replica in range(self.num_replicas)]
        for stage, replica in places:
            self.step(stage, replica)
        for stage, replica in places:
            text = f"merged {stage} {self.version}"
            self.write("committed", stage, replica, step=self.version, detail=text)

    def lose(self):
        """Crash a peer with the gradients it holds, and let it come back."""
        stage, replica = self.random.randrange(CHUNKS), self.random.randrange(self.num_replicas)
        self.crash(stage, replica)
        self.held[self.peer(stage, replica)].clear()
        self.steps[self.peer(stage, replica)] = 0
        text = f"merged {stage} {self.version}" if self.version else "initial"
        self.come_back(stage, replica, self.version, text)


def queue_journal(seed, *, num_replicas=2, num_microbatches=60, every=3, trouble=0.15):
    """A run of the queue-driven schedule with merges."""
    w = QueueWriter(seed, num_replicas)
    for count in range(num_microbatches):
        w.through(trouble, every)
        merges = count % 15 == 14
        if merges:
            w.merge()
        if w.random.random() < (0.7 if merges else trouble / 3):
            w.lose()
    return w


def audited(w, entries=None, **more):
    entries = w.entries if entries is None else entries
    fixed = more.pop("fixed_batch")
    settings_ = {
        "num_chunks": CHUNKS, "end_s": w.now_s + 0.1, "recovery_deadline_s": DEADLINE_S, "faults": w.faults,
        "synced": fixed, **BYTES, **more,
    }  # fmt: skip
    return audit(entries, fixed_batch=fixed, **settings_)


KINDS = {True: fixed_journal, False: queue_journal}


def violations(found):
    return {rule.rule: rule.violations for rule in found.rules if rule.violations}


# ------------------------------------------------------------------ honest journals


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.integers(1, 3))
def test_honest_journals_pass(seed, fixed, num_replicas):
    w = KINDS[fixed](seed, num_replicas=num_replicas)
    found = audited(w, fixed_batch=fixed)
    assert violations(found) == {}
    assert found.ok
    counts = found.counts
    assert counts["created"] == w.created
    assert counts["created"] == sum(counts[key] for key in ("applied", "dropped", "lost", "in_flight"))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_peers_in_the_journal_is_no_matter(seed, fixed, shuffle):
    w = KINDS[fixed](seed)
    by_peer = {}
    for entry in w.entries:
        by_peer.setdefault(entry.peer, []).append(entry)
    peers = list(by_peer)
    shuffle.shuffle(peers)
    found = audited(w, [entry for peer in peers for entry in by_peer[peer]], fixed_batch=fixed)
    assert found == audited(w, fixed_batch=fixed)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.99))
def test_a_run_may_end_in_the_middle_of_a_step(seed, cut):
    w = fixed_journal(seed, num_steps=4, cut=cut)
    assert violations(audited(w, fixed_batch=True)) == {}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_a_run_may_end_at_any_time(seed, fixed):
    w = KINDS[fixed](seed)
    end_s = w.now_s * random.Random(seed).random()
    entries = [entry for entry in w.entries if entry.at_s <= end_s]
    assert violations(audited(w, entries, fixed_batch=fixed, end_s=end_s)) == {}


def test_what_happens_in_these_journals():
    """The generators would prove little if nothing went wrong in them."""
    fixed, queue = audited(fixed_journal(1), fixed_batch=True), audited(queue_journal(4), fixed_batch=False)
    assert fixed.counts["dropped"] > 5
    assert fixed.counts["retried"] > 5
    assert fixed.counts["applied"] == 8 * 6
    assert fixed.counts["partial"] == 0
    assert queue.counts["dropped"] > 3
    assert queue.counts["refused"] > 0
    assert queue.counts["retried"] > 3
    assert queue.counts["partial"] > 0
    assert [rule.checked > 0 for rule in fixed.rules] == [True] * 6 + [False, True]
    assert [rule.checked > 0 for rule in queue.rules] == [True] * 4 + [False, True, False, True]
    assert fixed.rules[6].note == NOT_CHECKED
    assert any(audited(queue_journal(s), fixed_batch=False).counts["lost"] for s in range(20))


# ------------------------------------------------------------------ mutations


def applied_everywhere(entries):
    """Micro-batches that are applied on all chunks, early enough for the silence after them to count."""
    count = {}
    for entry in entries:
        if entry.event == "applied":
            count[entry.microbatch] = count.get(entry.microbatch, 0) + 1
    return [number for number, times in count.items() if times == CHUNKS]


def without(entries, drops):
    return [entry for entry in entries if not drops(entry)]


seeds = st.integers(0, 10**5)
choices = st.integers(0, 10**5)
mutations = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@mutations
@given(seeds, st.booleans(), choices, st.sampled_from([("applied",), ("applied", "accumulated")]))
def test_one_dropped_silently(seed, fixed, choice, events):
    w = KINDS[fixed](seed)
    candidates = applied_everywhere(w.entries)
    if not fixed and "accumulated" in events:  # nobody has even said that a gradient came: only silence tells
        candidates = [n for n in candidates if last_of(w.entries, n) < w.now_s - DEADLINE_S - 1.0]
    if not candidates:
        return
    victim = candidates[choice % len(candidates)]
    mutated = without(w.entries, lambda e: e.microbatch == victim and e.event in events)
    assert 2 in violations(audited(w, mutated, fixed_batch=fixed))


def last_of(entries, number):
    return max(entry.at_s for entry in entries if entry.microbatch == number)


@mutations
@given(seeds, choices)
def test_a_drop_that_is_not_listed(seed, choice):
    w = queue_journal(seed)
    dropped = [e.microbatch for e in w.entries if e.event == "dropped" and e.at_s < w.now_s - DEADLINE_S - 1.0]
    if dropped:
        victim = dropped[choice % len(dropped)]
        found = audited(
            w, without(w.entries, lambda e: (e.microbatch, e.event) == (victim, "dropped")), fixed_batch=False
        )
        assert set(found.broken) & {1, 2}


@mutations
@given(seeds, st.booleans(), choices, st.booleans())
def test_one_applied_twice(seed, fixed, choice, accumulated_too):
    w = KINDS[fixed](seed)
    uses = [e for e in w.entries if e.event == "applied"]
    use = uses[choice % len(uses)]
    more = [use._replace(at_s=use.at_s + 1e-6, event="accumulated")] if accumulated_too else []
    found = audited(w, [*w.entries, *more, use._replace(at_s=use.at_s + 2e-6)], fixed_batch=fixed)
    assert 1 in found.broken
    assert any(f"micro-batch {use.microbatch} was applied 2 times" in text for text in violations(found)[1])
    assert (2 in found.broken) == accumulated_too


@mutations
@given(seeds, st.booleans(), choices, st.integers(1, CHUNKS - 1), st.booleans())
def test_one_stage_skipped(seed, fixed, choice, chunk, all_of_it):
    w = KINDS[fixed](seed)
    events = {"applied", "accumulated", "backward"} if all_of_it else {"applied"}
    candidates = applied_everywhere(w.entries)
    victim = candidates[choice % len(candidates)]
    gone = [e for e in w.entries if e.microbatch == victim and e.chunk == chunk and e.event in events]
    assert 1 in audited(w, [e for e in w.entries if e not in gone], fixed_batch=fixed).broken


@mutations
@given(seeds, st.booleans(), choices, st.sampled_from(["1.5", "", "replicas", "0"]))
def test_a_wrong_divisor(seed, fixed, choice, text):
    w = KINDS[fixed](seed)
    uses = [i for i, e in enumerate(w.entries) if e.event == "applied"]
    index = uses[choice % len(uses)]
    mutated = list(w.entries)
    mutated[index] = mutated[index]._replace(detail=text)
    found = audited(w, mutated, fixed_batch=fixed)
    assert found.broken == [3]
    step = [(e.chunk, e.step, fixed or (e.peer, e.life)) for e in w.entries]
    whole = [
        e._replace(detail="7") if e.event == "applied" and key == step[index] else e
        for e, key in zip(w.entries, step, strict=True)
    ]
    assert audited(w, whole, fixed_batch=fixed).broken == [3]


def journals_with_a_return(fixed):
    for seed in range(40):
        w = KINDS[fixed](seed)
        back = [i for i, e in enumerate(w.entries) if e.event == "adopted" and e.step > 1]
        used = {(e.peer, e.life) for e in w.entries if e.event == "accumulated"}
        back = [i for i in back if (w.entries[i].peer, w.entries[i].life) in used]
        if back:
            yield w, back[0]


@pytest.mark.parametrize("fixed", [True, False])
def test_a_stale_replica_rejoins(fixed):
    tried = 0
    for w, index in journals_with_a_return(fixed):
        adopted = w.entries[index]
        old = next(e for e in w.entries if e.event == "committed" and (e.chunk, e.step) == (adopted.chunk, 1))
        for mutated in (
            None,
            adopted._replace(detail="something else"),
            adopted._replace(step=1, detail=old.detail),
            adopted._replace(step=1),
        ):
            entries = w.entries[:index] + ([] if mutated is None else [mutated]) + w.entries[index + 1 :]
            assert 4 in audited(w, entries, fixed_batch=fixed).broken, mutated
        tried += 1
    assert tried > 5


@pytest.mark.parametrize("fixed", [True, False])
def test_replicas_that_differ_after_a_commit(fixed):
    w = KINDS[fixed](3)
    index = next(i for i, e in enumerate(w.entries) if e.event == "committed")
    mutated = [*w.entries]
    mutated[index] = mutated[index]._replace(detail="other")
    assert 4 in audited(w, mutated, fixed_batch=fixed).broken


@pytest.mark.parametrize("seed", range(5))
def test_a_version_that_one_stage_does_not_commit(seed):
    w = fixed_journal(seed)
    gone = next(e for e in w.entries if e.event == "committed" and e.step == 3)
    found = audited(w, without(w.entries, lambda e: e is gone), fixed_batch=True)
    assert found.broken == [5]
    said = f"version 3 was committed by replica {gone.replica}, but not by its stage {gone.stage}"
    assert violations(found)[5] == [said]


def test_a_step_that_is_given_up_after_it_was_used_must_be_taken_back_by_all():
    w = fixed_journal(0, trouble=0.0, num_steps=3)
    late = w.now_s + 0.05
    rows = [Entry(late, "aborted", w.peer(s, 0), 0, s, 0, -1, -1, 0, 3) for s in range(CHUNKS)]
    numbers = {e.microbatch for e in w.entries if e.event == "applied" and e.step == 3 and e.replica == 0}
    drops = [Entry(late, "dropped", 0, 0, 0, 0, 0, number, 0, 3, "step given up") for number in numbers]
    assert audited(w, [*w.entries, *rows, *drops], fixed_batch=True, synced=False).broken == [3]  # divided by both
    assert audited(w, [*w.entries, *rows, *drops], fixed_batch=True).counts["dropped"] == 3
    found = audited(w, [*w.entries, *rows[1:], *drops], fixed_batch=True)
    assert 1 in found.broken


# ------------------------------------------------------------------ samples, duplicates, faults, bytes, reference


def entry(at_s, event, microbatch=-1, chunk=0, detail="", **more):
    row = {"peer": chunk, "stage": chunk, "replica": 0, "chunk": chunk, "microbatch": microbatch, "detail": detail}
    return Entry(at_s, event, **{**row, **more})


def through(number, at_s, sample, num_chunks=1):
    """A micro-batch that is applied on all chunks, a step for itself."""
    rows = [entry(at_s, "created", number, detail=sample)]
    for chunk in reversed(range(num_chunks)):
        rows += [
            entry(at_s + 0.1, "accumulated", number, chunk, step=number),
            entry(at_s + 0.2, "applied", number, chunk, "1", step=number),
        ]
    return rows


def small(entries, **more):
    given = {"num_chunks": 1, "fixed_batch": False, "end_s": 10.0, "recovery_deadline_s": 5.0, **BYTES, **more}
    return audit(entries, **given)


def test_samples_come_once_per_epoch():
    twice = [*through(0, 1.0, "a"), *through(1, 2.0, "b"), *through(2, 3.0, "a")]
    assert violations(small(twice)) == {6: ["sample a was used 2 times in 1 epochs"]}
    assert small(twice, samples_per_epoch=2).ok
    again = [*twice, *through(3, 4.0, "a")]
    assert violations(small(again, samples_per_epoch=2)) == {6: ["sample a was used 3 times in 2 epochs"]}


def test_samples_come_again_after_they_were_given_up():
    dropped = [entry(1.0, "created", 0, detail="a"), entry(1.5, "dropped", 0, detail="slot expired")]
    assert small([*dropped, *through(1, 2.0, "a")]).ok
    assert small([entry(1.0, "created", 0, detail="a"), *through(1, 2.0, "a")], end_s=3.0).broken == [6]


def test_a_microbatch_is_created_once():
    assert 6 in small([*through(0, 1.0, "a"), entry(2.0, "created", 0, detail="a")]).broken
    assert violations(small(through(0, 1.0, "a")[1:])) == {2: ["micro-batch 0 was never created"]}


def test_late_duplicates_are_refused():
    rows = through(0, 1.0, "a")
    found = small([*rows, entry(2.0, "refused", 0)])
    assert found.ok
    assert found.counts["refused"] == 1
    [text] = violations(small([*rows, entry(2.0, "accumulated", 0)]))[2]
    assert (
        text == "micro-batch 0 on chunk 0 (peer 0, 2 s) was accumulated after it had been applied; it should be refused"
    )


def test_applied_and_dropped_as_well():
    rows = through(0, 1.0, "a")
    assert 2 in small([*rows, entry(1.05, "dropped", 0, detail="slot expired")]).broken
    assert small([*rows, entry(1.05, "dropped", 0, detail="peer lost"), entry(1.06, "retried", 0, attempt=1)]).ok
    assert 2 in small([entry(1.0, "created", 0), entry(1.1, "dropped", 0)]).broken


def test_in_flight_at_the_end_is_what_somebody_holds():
    rows = [entry(8.0, "created", 0, detail="a")]
    assert small(rows).ok
    assert small(rows).counts["in_flight"] == 1
    assert small(rows, open_at_end={0}).ok
    assert "nobody holds it" in violations(small(rows, open_at_end=()))[2][0]
    assert "nothing was heard of it after 8 s" in violations(small(rows, end_s=14.0))[2][0]


def test_lost_with_a_crashed_peer():
    rows = through(0, 1.0, "a", num_chunks=2)
    rows = [e for e in rows if (e.event, e.chunk) != ("applied", 0)]
    rows += [entry(2.0, "crashed"), *[e._replace(replica=1) for e in through(1, 3.0, "b", num_chunks=2)]]
    rows = [e._replace(peer=e.peer + 2) if e.microbatch == 1 else e for e in rows]
    found = small(rows, num_chunks=2, end_s=50.0)
    assert found.ok
    assert (found.counts["lost"], found.counts["partial"]) == (1, 1)


K1 = ResolvedFault("k1", "crash", 1.0, 3.0, peers=(0,))


@pytest.mark.parametrize(
    ("rows", "end_s", "broken"),
    [
        ([(4.0, "recovered", "k1")], 10.0, []),
        ([(7.9, "gave_up", "k1")], 10.0, []),
        ([(8.5, "recovered", "k1")], 10.0, [8]),
        ([(4.0, "recovered", "k2")], 10.0, [8]),
        ([], 10.0, [8]),
        ([], 7.0, []),  # not due when the run ended
        ([], 0.5, []),  # never happened
    ],
)
def test_faults_end_in_recovery(rows, end_s, broken):
    entries = [Entry(at_s, event, -1, detail=name) for at_s, event, name in rows]
    assert small(entries, faults=[K1], end_s=end_s).broken == broken


def test_faults_without_an_end_are_due_after_their_start_and_those_that_hit_nobody_never():
    forever = ResolvedFault("k1", "crash", 1.0, inf, peers=(0,))
    assert small([], faults=[forever]).broken == [8]
    assert small([Entry(5.9, "recovered", -1, detail="k1")], faults=[forever]).ok
    assert small([], faults=[ResolvedFault("k1", "crash", 1.0, 1.0)]).ok


def test_drops_name_faults_that_there_are():
    rows = [entry(1.0, "created", 0), entry(1.5, "dropped", 0, detail="peer lost [fault k1]")]
    assert small([*rows, Entry(4.0, "recovered", -1, detail="k1")], faults=[K1]).ok
    assert violations(small(rows))[8] == ["micro-batch 0 was dropped because of fault k1, which there is not"]
    assert (reason_of(rows[1].detail), fault_of(rows[1].detail)) == ("peer lost", "k1")
    assert (reason_of("slot expired"), fault_of("slot expired")) == ("slot expired", None)


@pytest.mark.parametrize("key", list(BYTES))
def test_every_byte_is_somewhere(key):
    assert small([]).ok
    [text] = violations(small([], **{key: BYTES[key] + 1}))[8]
    assert text.startswith("1 bytes are missing" if key == "bytes_sent" else "1 bytes came from nowhere")


@pytest.mark.parametrize(
    ("difference", "broken"), [(None, []), (0.0, []), (1e-6, []), (1e-4, [7]), (float("nan"), [7])]
)
def test_the_replay_of_the_final_parameters(difference, broken):
    found = small([], reference_difference=difference)
    assert found.broken == broken
    assert found.rules[6].note == (NOT_CHECKED if difference is None else "")
    assert small([], reference_difference=1e-4, tolerance=1e-3).ok


def test_the_report_gets_plain_data():
    found = small(through(0, 1.0, "a")).as_json()
    assert found["ok"] is True
    assert [rule["rule"] for rule in found["rules"]] == list(range(1, 9))
    assert found["counts"]["applied"] == 1
    assert set(found["rules"][0]) == {"rule", "text", "checked", "violations", "note"}


# ------------------------------------------------------------------ the journal itself


@given(
    st.lists(
        st.builds(
            Entry, st.floats(0, 1e9), st.sampled_from(["created", "applied"]), *[st.integers(-1, 9)] * 8, st.text()
        )
    )
)
def test_journals_come_back_from_json(entries):
    assert from_json(to_json(entries)) == entries


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3", "entry 0 is not an array"),
        ("[[1]]", "entry 0 is not an array of 12 values"),
        ('[[1,"x",0,0,0,0,0,0,0,0,3,-1]]', "entry 0 has values of the wrong type: detail"),
        ('[["1","x",0,0,0,0,0,0,0,true,"",-1]]', "entry 0 has values of the wrong type: at_s, step"),
    ],
)
def test_what_is_no_journal(text, said):
    with pytest.raises(ValueError, match=said):
        from_json(text)


def test_entries_at_one_time_stay_in_order():
    rows = [Entry(2.0, "created", 1), Entry(1.0, "created", 2), Entry(2.0, "forward", 1), Entry(1.0, "forward", 2)]
    assert in_order(rows) == [rows[1], rows[3], rows[0], rows[2]]
