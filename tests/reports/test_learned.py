"""What the report says of a training."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports import build, learned
from reports.figures import learned as figure
from reports.run_folder import Run, load

Editor = Callable[[Path, Callable[[dict[str, Any]], object]], Path]


def block() -> dict[str, Any]:
    return {
        "model": {"layers_per_chunk": [1, 1], "hidden": 64, "num_parameters": 1234567, "boundary_bytes": 2048},
        "microbatches": 40,
        "tokens": 40 * 256,
        "tokens_each": 256,
        "tokens_per_s": 5000.0,
        "loss": {
            "first": 5.9,
            "last": 3.1,
            "rolling_width": 4,
            "curve": [[10.0 * (i + 1), 6.0 - 0.05 * i] for i in range(40)],
        },
        "held_out": {
            "loss": 3.2,
            "perplexity": 24.53,
            "bits_per_byte": 4.617,
            "loss_of_one_replica": 3.3,
            "curve": [[20 * 256, 4.0], [40 * 256, 3.2]],
        },
        "staleness": {"mean": 0.53, "largest": 3},
        "merges": {"of_stages": 4, "mean_drift": 0.012, "largest_drift": 0.014},
        "samples": ["To be, or <not> to be"],
    }


@pytest.fixture(name="training")
def _training(run_folder: Path, editor: Editor) -> Path:
    return editor(run_folder, lambda summary: summary.update(backend="train", train=block()))


def test_the_page_of_a_training_has_curve_lines_and_samples(training: Path, tmp_path: Path) -> None:
    page = build([training], tmp_path / "page").read_text()
    assert 'id="training"' in page
    assert 'href="#training"' in page
    assert "To be, or &lt;not&gt; to be" in page
    assert (tmp_path / "page" / "figures" / "loss.png").is_file()
    section = learned.section(load(training))
    assert section is not None
    told = {line.label: f"{line.value}: {line.note}".replace("\u00a0", " ") for line in section["lines"]}
    assert told["held-out text"].startswith("3.200 nats a token: perplexity 24.53; 4.617 bits a byte")
    assert told["merges of stages"] == "4: before them the replicas’ weights lay 1.2 % from their mean, at most 1.4 %"
    assert told["staleness"].startswith("0.53 steps: ")
    assert told["on this machine"] == "5,000 tokens/s: 10,240 tokens in 40 micro-batches, on one thread"


def test_the_figure_has_the_mean_of_the_last_losses(training: Path) -> None:
    plot = figure.draw(load(training))
    assert plot is not None
    assert "5.90 in the first tenth to 3.10 in the last; on held-out text it is 3.20" in plot.reading
    rows = list(csv.DictReader(io.StringIO(plot.csv())))
    losses = [float(row["loss"]) for row in rows]
    for index in (0, 2, 17):
        expected = np.mean(losses[max(0, index - 3) : index + 1])
        assert float(rows[index]["loss_mean_4"]) == pytest.approx(expected, abs=1e-6)
    assert [float(row["tokens"]) for row in rows[:2]] == [256.0, 512.0]


def test_a_training_without_merges_or_losses_leaves_them_out(run_folder: Path, editor: Editor) -> None:
    def change(summary: dict[str, Any]) -> None:
        summary["train"] = block() | {"merges": {"of_stages": 0, "mean_drift": None, "largest_drift": None}}
        summary["train"]["loss"]["curve"] = []

    run: Run = load(editor(run_folder, change))
    assert figure.draw(run) is None
    section = learned.section(run)
    assert section is not None
    assert "merges of stages" not in [line.label for line in section["lines"]]


def test_a_training_that_has_diverged_says_so(run_folder: Path, editor: Editor) -> None:
    def change(summary: dict[str, Any]) -> None:
        summary["train"] = block()
        summary["train"]["loss"]["last"] = summary["train"]["held_out"]["loss"] = None
        for point in summary["train"]["loss"]["curve"][20:]:
            point[1] = None

    plot = figure.draw(load(editor(run_folder, change)))
    assert plot is not None
    assert plot.reading.startswith("The training has diverged: its last losses are no numbers.")
    assert plot.png()


def test_other_runs_say_nothing_of_it(run_folder: Path) -> None:
    assert learned.section(load(run_folder)) is None
    assert figure.draw(load(run_folder)) is None
