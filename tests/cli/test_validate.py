"""`orionbed validate`."""

import json


def test_lines_say_published_predicted_error_source_and_what_was_fitted(orionbed) -> None:
    run = orionbed("validate", "--only", "korthikanti-layer", "--jobs", "1")
    assert run.code == 0, run.out
    assert "source  Korthikanti et al. 2022, arXiv 2205.05198, table 4" in run.out
    assert "fitted  three choices made with this table in view" in run.out
    assert "forward, no recompute" in run.out
    assert "every error within 5%  ok" in run.out


def test_json_and_nothing_else(orionbed) -> None:
    run = orionbed("validate", "--only", "korthikanti-layer", "--json", "--jobs", "1")
    (outcome,) = json.loads(run.out)
    assert outcome["passed"]
    assert outcome["num_cases"] == len(outcome["cases"]) == 10
    assert outcome["cases"][0] == {
        "label": "forward, no recompute",
        "published": 7.7,
        "predicted": outcome["cases"][0]["predicted"],
        "error": outcome["cases"][0]["predicted"] / 7.7 - 1.0,
        "calibration": False,
    }


def test_outside_the_tolerance_it_ends_with_1(orionbed, monkeypatch) -> None:
    from dataclasses import replace

    from orionbed.validation import catalogue

    strict = tuple(replace(s, tolerance=0.001) for s in catalogue.SOURCES if s.name == "korthikanti-layer")
    monkeypatch.setattr(catalogue, "SOURCES", strict)
    run = orionbed("validate", "--jobs", "1", "--summary")
    assert run.code == 1
    assert "FAILED" in run.out


def test_files_are_written(orionbed, tmp_path) -> None:
    page, picture = tmp_path / "accuracy.md", tmp_path / "parity.png"
    options = ("--only", "korthikanti-layer", "--jobs", "1", "--summary")
    run = orionbed("validate", *options, "--document", str(page), "--png", str(picture))
    assert run.code == 0, run.out
    assert page.read_text().startswith("# Accuracy")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_unknown_source_is_named(orionbed) -> None:
    run = orionbed("validate", "--only", "nonsense")
    assert run.code == 2
    assert run.err.startswith("no source is called nonsense; sources are korthikanti-layer")


def test_a_folder_without_tables_is_one_line(orionbed, tmp_path) -> None:
    run = orionbed("validate", "--data", str(tmp_path))
    assert run.code == 2
    assert run.err.count("\n") == 1
