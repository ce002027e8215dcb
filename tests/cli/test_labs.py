"""`orionbed merge-lab` and `orionbed deadlines`."""

import json


def test_the_merging_lab_prints_a_row_per_point_and_draws(orionbed, terminal) -> None:
    arguments = ("--algorithms", "ring,streaming-diloco", "--intervals", "1min", "--failures", "0,0.5", "--merges", "1")
    ended = orionbed("merge-lab", "tiny.yaml", *arguments, "--json", "--png", "m.png", "--jobs", "1")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert [(row["algorithm"], row["every_s"], row["failure"]) for row in found["rows"]] == [
        ("ring", 60.0, 0.0), ("ring", 60.0, 0.5), ("streaming-diloco", 60.0, 0.0), ("streaming-diloco", 60.0, 0.5),
    ]  # fmt: skip
    calm, silent, streaming, _ = found["rows"]
    assert calm["covered"] == streaming["covered"] == 1.0
    assert calm["failures"] == 0 < silent["failures"]
    assert calm["duty"] < streaming["duty"] == 1.0
    assert "not in this table" in found["caution"]
    assert (terminal.scenario.parent / "m.png").read_bytes()[:4] == b"\x89PNG"


def test_the_deadline_lab_prints_every_rule(orionbed, terminal) -> None:
    ended = orionbed("deadlines", "tiny.yaml", "--merges", "1", "--png", "d.png")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0].split()[:2] == ["arrivals", "rule"]
    assert {line.split()[0] for line in lines[1:]} == {"simulated", "lognormal", "churny"}
    assert {line.split()[1] for line in lines[1:]} == {"all", "fixed", "mad", "quorum-grace", "relaxing-quorum"}
    assert (terminal.scenario.parent / "d.png").read_bytes()[:4] == b"\x89PNG"


def test_what_the_labs_cannot_do_is_said(orionbed) -> None:
    for arguments, message in (
        (("merge-lab", "tiny.yaml", "--algorithms", "rign"), "no way to merge is called rign; there are butterfly"),
        (("merge-lab", "tiny.yaml", "--intervals", "15"), "--intervals: '15'"),
        (("merge-lab", "tiny.yaml", "--failures", "2"), "--failures: must be numbers from 0 to 1"),
        (("merge-lab", "tiny.yaml", "--set", "merge=none"), "has no merges between queues"),
        (("deadlines", "tiny.yaml", "--set", "merge=none"), "has no merges to wait for"),
        (("deadlines", "tiny.yaml", "--set", "merge={every: 2 min, algorithm: gossip}"), "it has no barrier"),
        (("deadlines", "tiny.yaml", "--only", "patience"), "--only: no rule is called patience"),
    ):
        ended = orionbed(*arguments)
        assert ended.code == 2, arguments
        assert message in ended.err
