"""Epochs against closed forms: service, caches, messages, priorities, losses, staleness."""

import pytest

from orionbed.streams import Streams
from sim.contest.epoch import Epoch
from sim.contest.presence import Presence
from sim.contest.world import draw_world, drifted


def placed(contest, seed=0):
    """Return a miner per layer, the first that serves it."""
    world = draw_world(contest, Streams(seed))
    return [world.miners_of(layer)[0] for layer in range(world.num_layers)]


def test_one_miner_works_without_a_pause(quiet, played) -> None:
    contest = quiet({"miners.count": 1, "miners.layers": {"least": 1, "most": 1}})
    (epoch,) = played(contest).epochs
    assert epoch.time_s == epoch.bound_s == 12 * 3.0


def test_equal_miners_share_the_work(quiet, played) -> None:
    contest = quiet({"miners.count": 4, "miners.layers": {"least": 1, "most": 1}})
    (epoch,) = played(contest, "least-completion").epochs
    assert epoch.time_s == epoch.bound_s == 12 / 4 * 3.0


def test_one_at_a_time_takes_the_round_trip_each_time(quiet, played, fixed) -> None:
    network = {"activation": "1 MB", "bandwidth": "80 Mbps", "latency": "20 ms", "global_latency": "5 ms"}
    contest = quiet(
        {"network": {**network, "overhead": "3 ms"}, "epochs.in_flight": 1, "miners.layers": {"least": 3, "most": 3}}
    )
    (epoch,) = played(contest, fixed(*placed(contest))).epochs
    delay_s = 2 * 0.020 + 0.005 + 0.003
    round_trip_s = 3 * 3.0 + 4 * (0.1 + delay_s)
    # Four connections are opened, each in a round trip of its own.
    assert epoch.time_s == pytest.approx(12 * round_trip_s + 4 * 2 * delay_s, rel=1e-12)
    assert epoch.bound_s == pytest.approx(12 * round_trip_s, rel=1e-12)


@pytest.mark.parametrize("cache", [1, 2, 3])
def test_a_full_cache_stalls_forwards(quiet, played, fixed, cache: int) -> None:
    """Two miners, 1 s forward and 2 s backward: a slot of layer 0 is taken for 6 s at least, a miner for 3 s."""
    contest = quiet({"miners.count": 2, "miners.cache": cache, "epochs.activations": 60})
    (epoch,) = played(contest, fixed(*placed(contest))).epochs
    # One slot: 6 s each. More: 3 s each, and the first way to layer 1 and the last one back.
    expected_s = {1: 60 * 6.0, 3: 60 * 3.0 + 3.0}
    assert epoch.bound_s == pytest.approx(expected_s.get(cache, 183.0), rel=1e-12)
    assert epoch.time_s == pytest.approx(expected_s.get(cache, 198.0), abs=15.0 if cache == 2 else 1e-9)


def test_a_message_to_oneself_is_free(quiet, played, fixed) -> None:
    changes = {"miners.count": 2, "miners.several": {"share": 1.0, "layers": 2}, "network.latency": "10 s"}
    contest = quiet({**changes, "epochs.in_flight": 1})
    miner = placed(contest)[0]
    (epoch,) = played(contest, fixed(miner, miner)).epochs
    assert epoch.time_s == 12 * 2 * 3.0


def test_messages_share_a_link(quiet, played, fixed) -> None:
    """Two messages at once take twice as long as one: the last of four arrives when all have drained."""
    contest = quiet(
        {"miners.count": 2, "miners.forward": "1 us", "network.activation": "1 MB", "network.bandwidth": "8 Mbps",
         "epochs.activations": 4, "epochs.in_flight": 4}
    )  # fmt: skip
    (epoch,) = played(contest, fixed(*placed(contest))).epochs
    # Four forwards leave within microseconds and share a second each; the four gradients come back in the same way.
    assert epoch.time_s == pytest.approx(8.0, abs=0.001)


BLINKING = {"share": 1.0, "drop": 1.0, "join": 1.0}


def test_who_drops_loses_what_it_holds_and_others_give_it_up(quiet, played, fixed) -> None:
    """Every 10 s each miner goes or comes. What it holds is lost, noticed 5 s later and replaced."""
    contest = quiet(
        {"miners.classes": {"blinking": BLINKING}, "miners.count": 1, "miners.layers": {"least": 1, "most": 1},
         "epochs.notice": "5 s", "epochs.staleness": "1000 s", "epochs.in_flight": 2, "epochs.activations": 3}
    )  # fmt: skip
    seed = next(seed for seed in range(20) if here_at_first(contest, seed))
    (epoch,) = played(contest, fixed(0), seed).epochs
    # 0 to 10 s: three are done at 3, 6 and 9 s with backwards first, so the third ends the epoch at 9 s.
    assert (epoch.time_s, epoch.completed, epoch.lost, epoch.flushed) == (9.0, 3, 0, 1)
    contest = contest.model_copy(update={"epochs": contest.epochs.model_copy(update={"activations": 4})})
    (epoch,) = played(contest, fixed(0), seed).epochs
    # At 10 s two are lost; noticed at 15 s, replaced, but nobody is there: lost, until they are sent at 20 s.
    assert (epoch.lost, epoch.completed, epoch.created) == (4, 4, 3 + 4 + 2)
    assert epoch.time_s == 20.0 + 3.0


def here_at_first(contest, seed: int) -> bool:
    return Presence(contest, ("blinking",), Streams(seed)).here[0]


def test_created_is_completed_lost_and_flushed(quiet, played) -> None:
    contest = quiet(
        {"miners.count": 12, "miners.classes": {"weak": {"share": 1.0, "drop": 0.1, "join": 0.4}},
         "epochs.count": 3, "epochs.activations": 40, "epochs.in_flight": 20, "epochs.drift": 0.2}
    )  # fmt: skip
    for router in ("random", "swarm", "least-completion"):
        result = played(contest, router)
        assert sum(epoch.lost for epoch in result.epochs) > 0
        for epoch in result.epochs:
            assert epoch.completed == 40
            assert epoch.created == epoch.completed + epoch.lost + epoch.flushed
            assert 0 <= epoch.flushed < 20
        assert result.calls == sum(epoch.created for epoch in result.epochs)


def test_what_is_told_is_never_older_than_staleness_and_mostly_old(quiet, played, first_known) -> None:
    router = first_known()
    played(quiet({"epochs.staleness": "7 s", "epochs.activations": 50}), router)
    ages = [layer.age_s for request in router.requests for layer in request.layers]
    assert min(ages) >= 0.0
    assert 5.0 < max(ages) <= 7.0
    assert {request.version for request in router.requests} == {1}


def test_a_router_hears_what_became_of_everything(quiet, played, first_known) -> None:
    router = first_known()
    contest = quiet({"miners.classes": {"weak": {"share": 1.0, "drop": 0.05, "join": 0.5}}, "epochs.count": 2})
    result = played(contest, router)
    heard = [number for request in router.requests for number in request.completed + request.lost]
    assert len(heard) == len(set(heard))
    numbers = [request.activation for request in router.requests]
    assert numbers == list(range(sum(epoch.created for epoch in result.epochs)))
    first_of_second = next(request for request in router.requests if request.epoch == 1)
    assert first_of_second.now_s == result.epochs[0].time_s + 30.0
    assert all(not miner.forward_queue and miner.cache_free == 100 for miner in first_of_second.layers[0].miners)


def test_queues_and_caches_are_told(quiet, played, first_known) -> None:
    router = first_known()
    forward = {"dist": "uniform", "low": "200 ms", "high": "2 s"}
    contest = quiet({"epochs.staleness": "1 s", "miners.cache": 2, "miners.forward": forward, "epochs.activations": 60})
    for seed in range(4):
        played(contest, router, seed)
    told = [miner for request in router.requests for layer in request.layers for miner in layer.miners]
    assert {miner.cache_free for miner in told} == {0, 1, 2}
    assert max(miner.forward_queue for miner in told) > 1
    assert max(miner.backward_queue for miner in told) > 0
    for miner in told:
        assert miner.backward_s == 2.0 * miner.forward_s
        assert miner.waiting_s == miner.forward_queue * miner.forward_s + miner.backward_queue * miner.backward_s
        assert (miner.bandwidth_bps, miner.latency_s) == (1e15, 0.0)


def test_the_world_does_not_depend_on_the_router(quiet, played) -> None:
    contest = quiet({"miners.forward": {"dist": "lognormal", "median": "1 s", "sigma": 0.5}, "epochs.drift": 0.3,
                     "epochs.count": 3})  # fmt: skip
    bounds = {tuple(e.bound_s for e in played(contest, name, 3).epochs) for name in ("random", "swarm")}
    assert len(bounds) == 1
    assert len(set(bounds.pop())) == 3


def test_presence_is_what_the_classes_say(quiet) -> None:
    contest = quiet({"miners.classes": {"weak": {"share": 1.0, "drop": 0.02, "join": 0.08}}})
    presence = Presence(contest, ("weak",) * 400, Streams(1))
    shares = []
    for step in range(1, 101):
        presence.advance(step * 100.0)
        shares.append(sum(presence.here) / 400)
    assert sum(shares) / 100 == pytest.approx(0.8, abs=0.01)
    assert all(at_s % 10.0 == 0.0 for at_s in presence.next_s)


def test_who_serves_what(quiet) -> None:
    contest = quiet(
        {"miners.count": 11, "miners.several": {"share": 0.3, "layers": 3}, "miners.layers": {"least": 4, "most": 4}}
    )
    world = draw_world(contest, Streams(0))
    assert sorted(world.width) == [1] * 8 + [3] * 3
    for miner in range(11):
        layers = world.layers_of(miner)
        assert len(layers) == world.width[miner]
        assert all(miner in world.miners_of(layer) for layer in layers)
    assert sum(len(world.miners_of(layer)) for layer in range(4)) == 8 + 9


def test_layers_are_equally_likely_and_classes_as_many_as_said(quiet) -> None:
    classes = {
        name: {"share": share, "drop": 0.0, "join": 1.0} for name, share in (("a", 0.75), ("b", 0.15), ("c", 0.1))
    }
    contest = quiet({"miners.count": 96, "miners.classes": classes, "miners.layers": {"least": 3, "most": 8}})
    worlds = [draw_world(contest, Streams(seed)) for seed in range(60)]
    assert {world.num_layers for world in worlds} == set(range(3, 9))
    assert {tuple(sorted(world.kind)) for world in worlds} == {("a",) * 72 + ("b",) * 14 + ("c",) * 10}


def test_drift_changes_speeds_by_its_width_and_nothing_else(quiet) -> None:
    contest = quiet({"miners.count": 2000, "epochs.drift": 0.15})
    world = draw_world(contest, Streams(0))
    later = drifted(world, contest, Streams(0), 1)
    import numpy as np

    logs = np.log(later.forward_s / world.forward_s)
    assert logs.std() == pytest.approx(0.15, rel=0.06)
    assert np.allclose(later.backward_s / later.forward_s, 2.0)
    assert (later.first, later.width, later.kind) == (world.first, world.width, world.kind)
    assert drifted(world, quiet({"miners.count": 2000}), Streams(0), 1) is world


def test_an_epoch_that_does_not_end_is_given_up(quiet) -> None:
    contest = quiet()
    streams = Streams(0)
    world = draw_world(contest, streams)

    class Nobody:
        def tell(self, *_: object) -> None: ...
        def all_known(self) -> bool:
            return False

    presence = Presence(contest, world.kind, streams)
    epoch = Epoch(contest, world, presence, Nobody(), index=0, start_s=5.0, first_number=0, phases=[0.5, 0.5])  # type: ignore[arg-type]
    assert epoch.run(100.0) is None
    assert (epoch.created, epoch.completed) == (0, 0)
