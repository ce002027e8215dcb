"""The folder of a training: that of a simulated run, and beside it what was learned."""

from pathlib import Path

from orionbed.learning.api import Learned
from orionbed.learning.curve import HeldOut, Point
from orionbed.runs import write_json
from orionbed.scenario import Scenario, to_yaml
from orionbed.tables import write_csv, write_tables

RULE = "-" * 40


def write_training(learned: Learned, scenario: Scenario, given: bytes | None, folder: Path) -> None:
    """Write the files of a training but manifest and page; `given` is the scenario's file as it was."""
    if given is not None:
        (folder / "scenario.yaml").write_bytes(given)
    (folder / "resolved.yaml").write_text(to_yaml(scenario), encoding="utf-8")
    write_tables(learned.result, folder)
    write_csv(folder / "loss.csv", [point._asdict() for point in learned.curve], Point._fields)
    write_csv(folder / "held_out.csv", [each._asdict() for each in learned.held_out], HeldOut._fields)
    (folder / "samples.txt").write_text(f"\n{RULE}\n".join(learned.samples) + "\n", encoding="utf-8")
    write_json(folder / "summary.json", learned.summary)
    write_json(folder / "warnings.json", learned.summary["warnings"])
