"""The packaged contest, and what the page about it says."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from orionbed.contest.baselines import BASELINES
from orionbed.contest.interface import Miner, Request
from orionbed.contest.load import load_contest
from orionbed.contest.running import UserRouter, run_baseline, run_user
from orionbed.contest.scoring import standings

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/how-to/routing-contest.md").read_text("utf-8")
EXAMPLE = "docs/examples/my_router.py"
SEED = 1


def test_the_scores_of_the_page_are_what_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    contest = load_contest("apex-routing")
    results = [run_user(contest, UserRouter(EXAMPLE, "MyRouter"), SEED)]
    results += [run_baseline(contest, name, SEED) for name in BASELINES]
    (heads,) = re.findall(r"^\| router \| score \|(.*)\|$", PAGE, re.MULTILINE)
    assert f"seed {SEED}, {results[0].num_layers} layers" in heads.split(" | ")[SEED]
    rows = {
        row.split(" | ")[0].strip("| `"): row.split(" | ") for row in re.findall(r"^\| `.*s \|$", PAGE, re.MULTILINE)
    }
    for standing in standings(results):
        written = rows[standing.router.removesuffix(":MyRouter")]
        assert float(written[2 + SEED]) == pytest.approx(standing.score, abs=0.00051), standing.router
    assert results[0].fallbacks == 0


@pytest.mark.parametrize("seen", [Miner, Request])
def test_the_page_names_every_attribute(seen: Any) -> None:
    left_out = {"version", "layers"}  # said in the sentence before, or as layers[l]
    assert [name for name in seen.__slots__ if f"`{name}`" not in PAGE and name not in left_out] == []


def test_the_example_moves_miners_to_every_layer() -> None:
    spec = importlib.util.spec_from_file_location("my_router", ROOT / EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from orionbed.contest.interface import Layer, State

    miners = tuple(Miner(m, (m % 4,), 1.0 + m, 3.0 + m, 1e8, 0.01, 0, 0, 5, 0.0) for m in range(40))
    layers = tuple(Layer(tuple(m for m in miners if layer in m.layers), 0.0) for layer in range(4))
    moves = module.MyRouter().rebalance(State(1, 0.0, 0, layers))
    counts = [list(moves.values()).count(layer) for layer in range(4)]
    assert set(moves) == set(range(40))
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] >= 8
