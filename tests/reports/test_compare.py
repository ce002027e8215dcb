import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports import Difference, compare


@pytest.fixture
def summary(bare_folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bare_folder / "summary.json").read_text())
    return content


def copy_of(summary: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(summary))
    return content


def test_quantities_and_causes_stand_side_by_side(summary: dict[str, Any]) -> None:
    other = copy_of(summary)
    other["mfu"]["wall_clock"] += 0.03
    other["waterfall"][0]["fraction"] += 0.03
    other["waterfall"][1]["fraction"] -= 0.02
    rows = {row.quantity: row for row in compare(summary, other)}
    row = rows["mfu.wall_clock"]
    assert row.difference == pytest.approx(0.03)
    assert row.relative == pytest.approx(0.03 / summary["mfu"]["wall_clock"])
    assert row.label == "MFU, by the wall clock"
    assert row.printed()[2] == "+3.0\u00a0points"
    causes = [name for name in rows if name.startswith("waterfall.")]
    assert causes[:2] == ["waterfall.useful", "waterfall.kernel"]
    assert len(causes) == len(summary["waterfall"])
    total = sum(rows[name].difference or 0.0 for name in causes)
    assert total == pytest.approx(0.01)


def test_a_cause_that_one_waterfall_lacks_has_no_share_in_it(summary: dict[str, Any]) -> None:
    other = copy_of(summary)
    dropped = other["waterfall"].pop()
    rows = {row.quantity: row for row in compare(summary, other)}
    assert rows[f"waterfall.{dropped['cause']}"].b == 0.0
    assert rows[f"waterfall.{dropped['cause']}"].difference == pytest.approx(-dropped["fraction"])


def test_what_one_run_lacks_has_no_difference(summary: dict[str, Any]) -> None:
    other = copy_of(summary)
    del other["datacenter"], other["cost"]
    rows = {row.quantity: row for row in compare(summary, other)}
    row = rows["datacenter.relative_speed"]
    assert (row.b, row.difference, row.relative) == (None, None, None)
    assert row.printed()[1:] == ("–", "–")
    del summary["cost"]
    assert "cost.total_usd" not in {row.quantity for row in compare(summary, other)}


def test_rows_are_plain_data(summary: dict[str, Any]) -> None:
    for row in compare(summary, summary):
        assert json.loads(json.dumps(row.as_dict()))["difference"] in (0.0, None)
    assert Difference("x", 0.0, 1.0).relative is None


def test_a_difference_of_rounding_prints_as_none() -> None:
    assert Difference("cost.usd_per_million_tokens", 2.12, 2.12 + 1e-9).printed()[2] == "±$0"


def test_another_schema_is_refused(summary: dict[str, Any]) -> None:
    other = copy_of(summary) | {"schema_version": 2}
    with pytest.raises(ValueError, match="schema_version 1 in the first and 2 in the second; run the older one again"):
        compare(summary, other)


def test_several_runs_make_one_page(tmp_path: Path, maker: Callable[..., Path]) -> None:
    from reports import build

    runs = [maker(tmp_path / f"run-{n}", optional=False, hours=hours) for n, hours in ((1, 3.0), (2, 4.0), (3, 5.0))]
    page = build(runs, tmp_path / "out").read_text()
    assert "3 runs compared" in page
    assert page.index("Side by side") < page.index("this model trains at")
    assert page.count("this model trains at") == 3
    for number in (1, 2, 3):
        assert f'id="run{number}-waterfall"' in page
        assert (tmp_path / "out" / "figures" / f"run{number}-waterfall.svg").is_file()
