"""Every source keeps its tolerance, and docs/accuracy.md says what it says today."""

import os
from pathlib import Path

import pytest

from orionbed.validation.case import Case, Source, judge
from orionbed.validation.catalogue import SOURCES
from orionbed.validation.data import data_sources
from orionbed.validation.document import HEAD, Outcome, case_row, document
from orionbed.validation.facts import DataError
from orionbed.validation.running import run_sources

ROOT = Path(__file__).resolve().parents[3]
TABLES = Path(os.environ.get("ORIONBED_TABLES", ROOT.parent / "shared" / "reference" / "data" / "published"))
PAGE = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("source", [source for source in SOURCES if not source.brief], ids=lambda source: source.name)
def test_a_source_keeps_its_tolerance_and_its_page(source: Source) -> None:
    (outcome,) = run_sources([source], jobs=1)
    assert outcome.verdict.passed, outcome.verdict
    ours = document([outcome]).removeprefix(HEAD)
    overview, section = ours.split("## ", 1)
    told = [line for line in overview.splitlines() if line.startswith("| [")]
    assert all(line in PAGE.splitlines() for line in told), f"{told}: run orionbed validate --document docs/accuracy.md"
    assert section in PAGE, "run orionbed validate --document docs/accuracy.md"


@pytest.mark.slow
@pytest.mark.parametrize("source", [source for source in SOURCES if source.brief], ids=lambda source: source.name)
def test_cases_of_a_long_source_are_those_of_its_page(source: Source) -> None:
    assert source.brief is not None
    cases, rows = source.brief(), rows_of(source.name)
    assert cases
    assert [case_row(case) for case in cases if case_row(case) not in rows] == []


def rows_of(name: str) -> list[str]:
    """Return the rows of a source's table on the page."""
    (section,) = [part for part in PAGE.split("\n## ")[1:] if part.startswith(f"{name}\n")]
    return [line for line in section.splitlines() if line.startswith("| ")][2:]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_the_page_met_what_is_asked(source: Source) -> None:
    # As printed, to a tenth of a per cent: for sources of which not all cases are computed here.
    printed = [row.split(" | ")[-1].removesuffix(" |") for row in rows_of(source.name)]
    errors = [abs(float(error.removesuffix("%"))) / 100.0 for error in printed if error != "set"]
    asked = {"mean": sum(errors) / len(errors), "each": max(errors), "shown": 0.0}[source.rule]
    assert asked <= source.tolerance + 0.0005
    (overview,) = [line for line in PAGE.splitlines() if f"](#{source.name}) |" in line]
    cells = [cell.strip() for cell in overview.split(" | ")]
    assert cells[1] == str(len(errors))
    assert float(cells[2].removesuffix("%")) / 100.0 == pytest.approx(sum(errors) / len(errors), abs=0.001)
    assert float(cells[3].removesuffix("%")) / 100.0 == pytest.approx(max(errors), abs=0.0005)


def test_the_page_has_every_source_and_no_other() -> None:
    assert PAGE.startswith(HEAD)
    assert [line.removeprefix("## ") for line in PAGE.splitlines() if line.startswith("## ")] == [
        source.name for source in SOURCES
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["vtrain-ground-truth-multi", "dtfm-pipeline-over-shaped-network-fp32"])
def test_the_larger_tables_keep_their_tolerance(name: str, tmp_path: Path) -> None:
    if not TABLES.is_dir():
        pytest.skip(
            f"the larger tables are not at {TABLES}: this check was NOT made; set ORIONBED_TABLES to their folder"
        )
    file = f"{name.replace('-', '_')}.csv"
    table = (TABLES / file).read_text(encoding="utf-8").splitlines(keepends=True)
    head = 1 + next(number for number, line in enumerate(table) if not line.startswith("#"))
    every = 4 if name.startswith("vtrain") else 1  # the others are set on some of their rows, and take no time
    (tmp_path / file).write_text("".join(table[:head] + table[head::every]), encoding="utf-8")
    (source,) = data_sources(tmp_path)
    (outcome,) = run_sources([source], jobs=1)
    assert outcome.verdict.passed, outcome.verdict


def case(published: float, predicted: float, *, calibration: bool = False, group: str = "") -> Case:
    return Case("case", published, predicted, group=group, calibration=calibration)


def source(rule: str, tolerance: float, *, ranked: bool = False) -> Source:
    return Source("s", "t", "c", "u", list, rule, tolerance, ranked)  # type: ignore[arg-type]


def test_errors_are_ours_against_the_published_figure_and_calibration_counts_for_nothing() -> None:
    verdict = judge(source("mean", 0.06), [case(10.0, 11.0), case(10.0, 9.8), case(1.0, 5.0, calibration=True)])
    assert verdict.num_cases == 2
    assert verdict.mean_error == pytest.approx(0.06)
    assert verdict.worst_error == pytest.approx(0.1)
    assert verdict.bias == pytest.approx(0.04)
    assert verdict.passed
    assert not judge(source("each", 0.06), [case(10.0, 11.0), case(10.0, 9.8)]).passed


def test_the_order_counts_within_a_cell_and_ties_do_not() -> None:
    right = [case(1.0, 2.0, group="a"), case(2.0, 3.0, group="a"), case(9.0, 0.5, group="b")]
    tie = [*right, case(2.0, 2.5, group="a")]
    wrong = [*right, case(3.0, 1.0, group="a")]
    assert judge(source("shown", 0.0, ranked=True), right).passed
    assert judge(source("shown", 0.0, ranked=True), tie).passed
    verdict = judge(source("shown", 0.0, ranked=True), wrong)
    assert not verdict.passed
    assert len(verdict.misranked) == 2


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds none of the tables vtrain_ground_truth_multi"):
        data_sources(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        data_sources(tmp_path / "nowhere")
    (tmp_path / "vtrain_ground_truth_multi.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column parameters_b, iteration_time_ms"):
        data_sources(tmp_path)


def test_rows_of_a_table_are_run_with_their_own_names(tmp_path: Path) -> None:
    head = (
        "parameters_b,num_gpus,global_batch,micro_batch,hidden_size,attention_heads,num_layers,sequence_length,"
        "tensor_parallelism,data_parallelism,pipeline_parallelism,iteration_time_ms"
    )
    (tmp_path / "vtrain_ground_truth_multi.csv").write_text(
        f"# source\n{head}\n3.6,64,512,8,3072,32,30,2048,2,32,1,4000\n"
    )
    (found,) = data_sources(tmp_path)
    (row,) = found.run()
    assert row.published == 4000
    assert 2000 < row.predicted < 8000
    assert isinstance(run_sources([found], 1)[0], Outcome)
