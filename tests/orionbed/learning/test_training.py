"""Trainings of a few dozen micro-batches: simulated, played, evaluated, broken off and gone on with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from orionbed import backends
from orionbed.checkpoints import CheckpointError, newest, positions, verify, write
from orionbed.keys import Key, KeysError, Trusted
from orionbed.learning.api import Learned, Playing, train
from orionbed.learning.curve import Curve
from orionbed.learning.planning import plan_training
from orionbed.scenario import Scenario, apply, load
from orionbed.training.text import TextError

SIMULATE = backends.load("sim").run
Make = Callable[..., Scenario]


class EnoughError(Exception):
    """Somebody has seen enough."""


@pytest.fixture(name="tiny", scope="module")
def _tiny() -> Make:
    """Two stages of two peers that learn from 40 micro-batches; keys of the scenario with `__` for a dot."""
    pytest.importorskip("torch")
    common: dict[str, Any] = {
        "pipeline.stages": 2,
        "pipeline.replicas": 2,
        "peers.sites": {"virginia": 4},
        "merge": {"every": 8.0, "compute": 1.0},
        "churn": "none",
        "uncertain": {},
        "report": {"uplinks": []},
        "emulator": {"width": 32, "tokens": 8, "sequences": 2, "vocab": 32},
        "training": {
            "microbatches": 40,
            "optimizer": {"learning_rate": 1e-2},
            "evaluate_every": 15,
            "evaluation_microbatches": 2,
            "samples": 2,
            "sample_tokens": 6,
            "checkpoint_every": 10,
        },
    }

    def make(**changes: Any) -> Scenario:
        return apply(load("minimal"), common | {key.replace("__", "."): value for key, value in changes.items()})

    return make


def until(count: int) -> Callable[[Playing], None]:
    """Return a progress callback that breaks a training off after so many micro-batches."""

    def progress(state: Playing) -> None:
        if state.microbatches >= count:
            raise EnoughError

    return progress


def told(learned: Learned) -> dict[str, Any]:
    """What a training says of itself, but for the time that it took."""
    return {key: value for key, value in learned.summary["train"].items() if key not in {"training_s", "tokens_per_s"}}


def test_a_training_learns_and_says_what_of(tiny: Make) -> None:
    learned = train(tiny(), seed=0, simulate=SIMULATE)
    block = learned.summary["train"]
    assert learned.summary["backend"] == "train"
    assert block["microbatches"] == len(learned.curve) == learned.result.ledger.applied == 40
    assert block["tokens"] == learned.curve[-1].tokens == 40 * 16
    assert [point.microbatches for point in learned.held_out] == [15, 30, 40]
    assert learned.held_out[-1].loss < learned.held_out[0].loss < 4.5
    assert block["loss"]["last"] < block["loss"]["first"]
    assert block["merges"]["of_stages"] > 0
    assert block["merges"]["largest_drift"] > 0.0
    assert block["staleness"]["largest"] > 0
    assert block["steps"]["total"] == sum(block["steps"]["per_stage"]) > 0
    assert [len(text.split()) for text in learned.samples] == [8 + 6] * 2
    assert [point.at_s for point in learned.curve] == sorted(point.at_s for point in learned.curve)
    assert told(train(tiny(), seed=0, simulate=SIMULATE)) == told(learned)
    assert told(train(tiny(), seed=1, simulate=SIMULATE)) != told(learned)


def test_a_text_that_nothing_can_be_evaluated_on_is_refused_before_anything_is_done(tiny: Make) -> None:
    def simulate(*_: object, **__: object) -> None:
        raise AssertionError("it should not come to that")

    text = {"kind": "text", "held_out": 0.0}
    with pytest.raises(TextError, match=r"training\.data\.held_out: is 0"):
        train(tiny(training__data=text), seed=0, simulate=simulate)


def test_an_own_model_that_cannot_be_trained_is_refused(tiny: Make) -> None:
    own: dict[str, Any] = {"training__model": "own"}
    with pytest.raises(backends.BackendError, match=r"training\.model own: fp16 is not trained in"):
        plan_training(tiny(**own, model__dtype="fp16"), 0)
    odd = {"model__hidden": 189, "model__heads": 9, "model__kv_heads": 9}
    with pytest.raises(backends.BackendError, match=r"training\.model own: hidden 189 must be an even multiple"):
        plan_training(tiny(**own, **odd), 0)


FIXED = {"pipeline__schedule": {"kind": "1f1b", "microbatches": 4, "recompute": "none"}, "pipeline__replicas": 1}


def test_the_last_evaluation_is_of_the_last_weights(tiny: Make) -> None:
    short = {"training__microbatches": None, "run__tokens": None, "run__duration": 20.0}
    often, once = (
        train(tiny(**short, training__evaluate_every=every), seed=0, simulate=SIMULATE) for every in (1, None)
    )
    assert [point.microbatches for point in often.held_out] == list(range(1, len(often.curve) + 1))
    assert often.held_out[-1] == once.held_out[-1]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pipeline__boundary": {"kind": "quantize", "bits": 4}, "merge": "none"},
        {**FIXED, "merge": "none", "peers__sites": {"virginia": 2}},
    ],
    ids=["merges", "residuals", "quiet moments"],
)
def test_what_was_broken_off_goes_on_to_the_same_bits(tiny: Make, changes: dict[str, Any], tmp_path: Path) -> None:
    scenario = tiny(**changes)
    whole = train(scenario, seed=0, simulate=SIMULATE)
    said: list[str] = []
    for count in (17, 36):
        with pytest.raises(EnoughError):
            train(scenario, seed=0, simulate=SIMULATE, folder=tmp_path, progress=until(count))
        assert len(list(tmp_path.iterdir())) == 1
    resumed = train(scenario, seed=0, simulate=SIMULATE, folder=tmp_path, say=said.append)
    assert any(line.startswith("goes on after") for line in said)
    assert told(resumed) == told(whole)
    assert (resumed.curve, resumed.held_out, resumed.samples) == (whole.curve, whole.held_out, whole.samples)


def test_another_run_does_not_go_on_from_there(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(EnoughError):
        train(tiny(), seed=0, simulate=SIMULATE, folder=tmp_path, progress=until(15))
    other = tiny(training__rolling=7)
    said: list[str] = []
    train(other, seed=0, simulate=SIMULATE, folder=tmp_path, say=said.append)
    assert not any(line.startswith("goes on") for line in said)


def test_what_another_run_has_kept_later_hides_nothing(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(EnoughError):
        train(tiny(), seed=0, simulate=SIMULATE, folder=tmp_path, progress=until(15))
    write(tmp_path, {"run": {"x": b"theirs"}}, {"position": 10**6})
    assert len(positions(tmp_path)) == 2
    said: list[str] = []
    with pytest.raises(EnoughError):
        train(tiny(), seed=0, simulate=SIMULATE, folder=tmp_path, progress=until(16), say=said.append)
    assert any(line.startswith("goes on after 10 ") for line in said), said
    assert len(positions(tmp_path)) == 1


def test_a_training_that_diverges_is_kept_and_told_too(tiny: Make, tmp_path: Path) -> None:
    scenario = tiny(training__optimizer={"kind": "sgd", "learning_rate": 1e12}, training__microbatches=30)
    with pytest.raises(EnoughError):
        train(scenario, seed=0, simulate=SIMULATE, folder=tmp_path, progress=until(26))
    learned = train(scenario, seed=0, simulate=SIMULATE, folder=tmp_path)
    assert learned.summary["train"]["loss"]["last"] is None
    json.dumps(learned.summary, allow_nan=False)


def test_without_recompute_nothing_is_kept_while_passes_are_under_way(tiny: Make, tmp_path: Path) -> None:
    said: list[str] = []
    scenario = tiny(pipeline__schedule__recompute="none", merge="none", training__microbatches=12)
    train(scenario, seed=0, simulate=SIMULATE, folder=tmp_path, say=said.append)
    assert any("no state is kept" in line for line in said)


def test_the_rolling_mean_is_that_of_the_last_losses() -> None:
    curve = Curve(tokens_each=10, width=3)
    curve.extend([(4, 1.0, 1.0), (2, 2.0, 2.0), (7, 3.0, 6.0), (1, 4.0, 4.0)])
    assert [point.rolling for point in curve.points] == [1.0, 1.5, 3.0, 4.0]
    assert [point.tokens for point in curve.points] == [10, 20, 30, 40]
    assert curve.ends() == (1.0, 4.0)


@pytest.mark.parametrize("width", [1, 2, 7, 20, 50])
def test_the_rolling_mean_is_that_of_all_losses_while_there_are_few(width: int) -> None:
    curve, losses = Curve(tokens_each=1, width=width), [float(number * number % 17) for number in range(30)]
    curve.extend([(number, 0.0, loss) for number, loss in enumerate(losses)])
    assert [point.rolling for point in curve.points] == [
        fmean(losses[max(0, end - width) : end]) for end in range(1, len(losses) + 1)
    ]


def test_what_cannot_be_played_is_refused(tiny: Make) -> None:
    sync = {"algorithm": "ring", "compute": 0.1, "overlap": True}
    with pytest.raises(backends.BackendError, match=r"sync.overlap"):
        train(tiny(**FIXED, sync=sync, merge="none", peers__sites={"virginia": 2}), seed=0, simulate=SIMULATE)


def test_a_signed_one_goes_on_with_its_own_keys_alone(tiny: Make, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        for name in ("s00r0", "writer"):
            Key.new(name).write(folder)
    kept = tmp_path / "kept"
    with pytest.raises(EnoughError):
        train(tiny(training__keys=str(mine)), seed=0, simulate=SIMULATE, folder=kept, progress=until(15))
    last = newest(kept)
    assert last is not None
    assert verify(last, Trusted.read(mine)) == []
    shutil.rmtree(mine)
    theirs.rename(mine)
    with pytest.raises(CheckpointError, match=r"run\.shard: signed with a foreign key, of writer"):
        train(tiny(training__keys=str(mine)), seed=0, simulate=SIMULATE, folder=kept)
    with pytest.raises(KeysError, match="nowhere"):  # before anything is simulated
        train(tiny(training__keys=str(tmp_path / "nowhere")), seed=0, simulate=None, folder=kept)  # type: ignore[arg-type]
