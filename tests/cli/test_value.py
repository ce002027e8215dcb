"""`orionbed value`."""

import json

SHORT = ("--horizon", "40 s", "--jobs", 1)


def test_a_table_of_peers(orionbed) -> None:
    ended = orionbed("value", "tiny.yaml", *SHORT, "--seeds", 2)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0] == "merges come every 2 min: within 40 s there is none"
    assert lines[1].startswith("tiny with all peers: ")
    assert lines[4].split()[0] == "peer"
    assert {line.split()[0] for line in lines[5:9]} == {"s00r0", "s00r1", "s01r0", "s01r1"}
    assert all("$1.25" in line for line in lines[5:9])


def test_json_and_a_figure(orionbed, terminal) -> None:
    ended = orionbed("value", "tiny.yaml", *SHORT, "--seeds", 1, "--peers", "s01r1, s00r0", "--json", "--png", "v.png")
    assert ended.code == 0, ended.err
    result = json.loads(ended.out)
    assert (result["scenario"], result["by"], result["seeds"], result["horizon_s"]) == ("tiny", "peer", [0], 40.0)
    assert [one["name"] for one in result["values"]] == ["s00r0", "s01r1"]
    assert {one["verdict"] for one in result["values"]} == {"one seed: no interval"}
    assert (terminal.folder / "v.png").read_bytes().startswith(b"\x89PNG")


def test_whole_sites(orionbed) -> None:
    ended = orionbed("value", "tiny.yaml", *SHORT, "--seeds", 1, "--by", "site")
    assert "virginia (2 peers)" in ended.out
    assert "nothing is trained without it" in ended.out


def test_what_cannot_be_valued_is_said(orionbed) -> None:
    def refused(*arguments: object) -> str:
        ended = orionbed("value", "tiny.yaml", *arguments)
        assert ended.code == 2
        return ended.err

    assert refused("--peers", "s00r7") == "no peer is called s00r7; did you mean s00r1?\n"
    assert refused("--by", "continent") == "--by continent is unknown; use peer, replica or site\n"
    assert refused("--horizon", "3").startswith("--horizon 3 has no unit; write one of")
    assert refused("--horizon", "0 s").startswith("--horizon must be longer than nothing")
    fixed = refused("--set", "pipeline.schedule={kind: 1f1b, microbatches: 4}", "--set", "merge=none")
    assert fixed.startswith("pipeline.schedule.kind is 1f1b: with a fixed batch per step a replica that lacks one peer")
