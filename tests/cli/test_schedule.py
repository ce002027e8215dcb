"""`orionbed schedule`: what it prints, writes and draws, and what it says of wrong input."""

import json
from typing import Any

import pytest

from orionbed.cli.schedule import schedule
from orionbed.schedule.catalogue import ENTRIES
from orionbed.schedule.classic import one_forward_one_backward
from orionbed.schedule.text import read_csv, to_csv

SIZE = ("--stages", 4, "--microbatches", 8)


def found(orionbed: Any, *arguments: object) -> dict[str, Any]:
    ended = orionbed("schedule", *arguments, "--json")
    assert (ended.code, ended.err) == (0, "")
    return json.loads(ended.out)


def test_lists_numbers_and_picture_of_a_schedule(orionbed) -> None:
    ended = orionbed("schedule", "1f1b", *SIZE)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "1f1b  one forward, one backward in turn; 4 stages, 8 micro-batches"
    assert lines[4].startswith("stage 3  3F0 3B0 3F1 3B1")
    assert lines[1].endswith(" 0B4 0B5 0B6 0B7")
    assert lines[5] == "makespan 33.32 s, bubble 28.0%: first action to last"
    assert lines[7].startswith("memory   4 3 2 1 micro-batches at most")
    assert lines[8] == "hops     16 on the longest path, 20 ms each, 320 ms in all; 2 (p-1)(m/p+1) - 2 = 16"
    pictures = [line.partition("  ")[2] for line in lines[9:13]]
    assert [len(picture) for picture in pictures] == [100] * 4
    assert all(set(picture) == {"F", "B", "."} for picture in pictures)
    assert pictures[0].startswith("FFFFFFFFFFFF...")
    assert pictures[3].startswith(".........FFFBBBBBBFFF")
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", ENTRIES)
def test_every_schedule_of_the_catalogue(orionbed, name: str) -> None:
    one = found(orionbed, name, *SIZE)
    assert one["makespan_s"] >= one["span_s"] > 24.0
    assert one["bubble"] == pytest.approx(1.0 - 24.0 / one["makespan_s"])
    assert len(one["actions"]) == len(one["starts_s"]) == len(one["peak_activations"]) == 4
    assert [len(actions) for actions in one["actions"]] == [len(starts) for starts in one["starts_s"]]


def test_the_help_names_every_schedule(orionbed) -> None:
    words = orionbed("schedule", "--help").out.replace(",", " ").replace(";", " ").split()
    assert set(ENTRIES) <= set(words)
    assert schedule.__doc__


def test_times_are_those_of_a_whole_stage(orionbed) -> None:
    plain = found(orionbed, "1f1b", *SIZE, "--latency", "0s", "--forward", "2 s", "--backward", "3s", "--weight", "1s")
    assert plain["makespan_s"] == pytest.approx((8 + 3) * 6.0)
    folded = found(orionbed, "zb-v", *SIZE, "--latency", "0s", "--forward", "2s", "--backward", "2s", "--weight", "2s")
    assert folded["starts_s"][0][1] == pytest.approx(1.0)
    assert folded["chunks_per_stage"] == 2


@pytest.mark.parametrize(("name", "hops"), [("gpipe", 6), ("1f1b", 16)])
def test_hops_by_formula_are_those_on_the_longest_path(orionbed, name: str, hops: int) -> None:
    one = found(orionbed, name, *SIZE, "--latency", "50ms")
    assert (one["hops_by_formula"], one["hops_on_longest_path"]) == (hops, hops)
    assert one["makespan_s"] == pytest.approx(33.0 + hops * 0.05)


def test_a_formula_that_does_not_hold_is_not_used(orionbed) -> None:
    assert found(orionbed, "1f1b", "--stages", 4, "--microbatches", 9)["hops_by_formula"] is None
    ended = orionbed("schedule", "1f1b", "--stages", 4, "--microbatches", 9)
    assert "holds for whole multiples of the stages" in ended.out
    assert "(p-1)" not in orionbed("schedule", "1f1b", "--stages", 1, "--microbatches", 4).out


def test_messages_queue_for_the_link(orionbed) -> None:
    quick, slow = (found(orionbed, "gpipe", *SIZE, "--transfer", text)["makespan_s"] for text in ("0ms", "2s"))
    assert slow > quick + 6 * 2.0


def test_an_opportunistic_limit_binds(orionbed) -> None:
    free = found(orionbed, "opportunistic", *SIZE, "--split-backward")
    bound = found(orionbed, "opportunistic", *SIZE, "--split-backward", "--memory-limit", 3)
    assert max(bound["peak_activations"]) <= 3.0 < max(free["peak_activations"])
    assert bound["makespan_s"] > free["makespan_s"]


def test_chunks_are_for_interleaving(orionbed) -> None:
    assert found(orionbed, "interleaved-1f1b", *SIZE)["chunks_per_stage"] == 2
    assert found(orionbed, "interleaved-1f1b", *SIZE, "--chunks", 3)["chunks_per_stage"] == 3
    assert found(orionbed, "zb-v", *SIZE, "--chunks", 2)["chunks_per_stage"] == 2


@pytest.mark.parametrize("name", ENTRIES)
def test_a_csv_that_was_written_is_read_as_the_same_order(orionbed, terminal, name: str) -> None:
    made = found(orionbed, name, *SIZE, "--csv", "order.csv")
    assert read_csv(terminal.folder / "order.csv").num_microbatches == 8
    again = found(orionbed, "order.csv", *SIZE)
    for key in ("actions", "starts_s", "makespan_s", "pairs", "stage_of_chunk", "peak_activations"):
        assert again[key] == made[key], key


def test_long_lists_lose_their_middle_except_as_json(orionbed) -> None:
    ended = orionbed("schedule", "gpipe", "--stages", 2, "--microbatches", 64)
    line = ended.out.splitlines()[1]
    assert line.startswith("stage 0  0F0 0F1 ")
    assert " ... " in line
    assert line.endswith(" 0B63")
    assert len(line) <= 110
    assert len(found(orionbed, "gpipe", "--stages", 2, "--microbatches", 64)["actions"][0]) == 128


def test_the_picture_is_a_png(orionbed, terminal) -> None:
    ended = orionbed("schedule", "dualpipe-v", *SIZE, "--png", "order.png")
    assert ended.out.endswith("png      order.png\n")
    assert (terminal.folder / "order.png").read_bytes().startswith(b"\x89PNG")


DEADLOCK = "0B0,0F0\n"
CROSSED = "0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1f1bb", *SIZE], "1f1bb: no such schedule, nor a CSV file; did you mean 1f1b?"),
        (["nosuch", *SIZE], "nosuch: no such schedule, nor a CSV file; there are gpipe, 1f1b, interleaved-1f1b"),
        (["nosuch.csv"], "nosuch.csv: No such file or directory"),
        (["1f1b"], "1f1b needs --stages and --microbatches, such as --stages 4 --microbatches 8"),
        (["1f1b", "--stages", 4], "1f1b needs --stages and --microbatches"),
        (["1f1b", *SIZE, "--chunks", 2], "1f1b has one piece of the model per stage; --chunks is for interleaved-1f1b"),
        (["zb-v", *SIZE, "--chunks", 3], "zb-v has 2 pieces of the model per stage; --chunks is for interleaved-1f1b"),
        (["1f1b", *SIZE, "--memory-limit", 2], "1f1b: --memory-limit and --split-backward are for opportunistic"),
        (["good.csv", "--split-backward"], "good.csv: --memory-limit and --split-backward do not change a file"),
        (["good.csv", "--stages", 3], "good.csv: --stages is 2 in the file, not 3; leave the option out"),
        (["good.csv", "--microbatches", 3], "good.csv: --microbatches is 2 in the file, not 3"),
        (["good.csv", "--chunks", 2], "good.csv: --chunks is 1 in the file, not 2"),
        (["early.csv"], "early.csv: stage 0 lists 0B0 before 0F0"),
        (["crossed.csv"], "deadlock: stage 0 at 0B0, stage 1 at 1F1 wait for one another"),
        (["1f1b", *SIZE, "--forward", "1"], "--forward: 1 has no unit; write one of ns, us, ms, s"),
        (["1f1b", *SIZE, "--latency", "5 MB"], "--latency: 5 MB is an amount of data, not a duration"),
        (["1f1b", *SIZE, "--weight=-1 s"], "--weight: -1 s is negative"),
        (
            ["1f1b", *SIZE, "--forward", "0s", "--backward", "0s", "--weight", "0s"],
            "--forward, --backward and --weight are all nothing",
        ),
        (["1f1b", *SIZE, "--csv", "nowhere/order.csv"], "nowhere/order.csv: No such file or directory"),
    ],
)
def test_wrong_input_is_one_line(orionbed, terminal, arguments: list[object], message: str) -> None:
    for name, text in (("good", to_csv(one_forward_one_backward(2, 2))), ("early", DEADLOCK), ("crossed", CROSSED)):
        (terminal.folder / f"{name}.csv").write_text(text)
    ended = orionbed("schedule", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(message)
    assert ended.err.count("\n") == 1


def test_json_stays_alone_when_files_are_written(orionbed, terminal) -> None:
    found(orionbed, "1f1b", *SIZE, "--csv", "order.csv", "--png", "order.png")
    assert {path.name for path in terminal.folder.iterdir()} >= {"order.csv", "order.png"}
