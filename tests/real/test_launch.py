"""What starts the processes of a run, and the file that they are given."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from orionbed.backends import BackendError
from orionbed.fleet.tls import Credentials
from orionbed.plan import make_plan
from orionbed.scenario import Scenario, ScenarioError, apply, load
from real.job import Job
from real.launch import layout_of, rank_environment, shell_lines, torchrun
from real.prepared import prepare
from real.rehearsal import dry_run
from real.settings import as_real, real_shape, refuse

FOUR: dict[str, Any] = {"pipeline.stages": 4, "peers.sites": {"here": 4}}


def scenario(**changes: Any) -> Scenario:
    return apply(load("hardware/small"), {key.replace("__", "."): value for key, value in changes.items()})


def job_of(the_scenario: Scenario, credentials: Credentials | None = None) -> Job:
    plan = make_plan(the_scenario)
    return Job(plan, 7, real_shape(plan, "cpu"), "cpu", "gloo", ("127.0.0.1", 4711), "a secret", credentials)


def test_one_machine_is_started_with_a_rendezvous_of_its_own() -> None:
    command = torchrun(layout_of(make_plan(scenario())), 0, "job.json", restarts=2)
    assert "--standalone" in command
    assert command[command.index("--nproc-per-node") + 1] == "2"
    assert command[command.index("--max-restarts") + 1] == "2"
    assert command[-3:] == ["-m", "real.worker", "job.json"]


def test_several_machines_share_the_ranks_in_blocks_and_meet_beside_the_supervisor() -> None:
    layout = layout_of(make_plan(apply(scenario(), FOUR | {"real.nodes": 2, "real.listen": "10.0.0.1:7777"})))
    assert [list(layout.ranks(node)) for node in range(2)] == [[0, 1], [2, 3]]
    command = torchrun(layout, 1, "job.json", restarts=0)
    assert command[command.index("--node-rank") + 1] == "1"
    assert command[command.index("--master-addr") + 1 :][:3] == ["10.0.0.1", "--master-port", "7778"]


def test_processes_that_cannot_be_dealt_out_are_refused() -> None:
    plan = make_plan(apply(scenario(), FOUR | {"real.nodes": 3, "real.listen": "10.0.0.1:7777"}))
    with pytest.raises(BackendError, match="3 machines cannot share 4 processes evenly"):
        layout_of(plan)


def test_what_a_user_types_names_every_machine_and_no_path_of_this_one() -> None:
    layout = layout_of(make_plan(apply(scenario(), FOUR | {"real.nodes": 2, "real.listen": "10.0.0.1:7777"})))
    lines = shell_lines(layout, "x.job.json", queue=False, threads=1, restarts=0)
    assert [line for line in lines if line.startswith("#")] == [
        "# machine 0: ranks 0 to 1", "# machine 1: ranks 2 to 3",
    ]  # fmt: skip
    assert lines[1].startswith("OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 --nnodes 2 --node-rank 0")
    single = shell_lines(layout, "x.job.json", queue=True, threads=2, restarts=0)
    assert single[4] == (
        "OMP_NUM_THREADS=2 RANK=2 WORLD_SIZE=4 LOCAL_RANK=0 LOCAL_WORLD_SIZE=2 MASTER_ADDR=10.0.0.1 MASTER_PORT=7778 "
        "python -m real.worker x.job.json"
    )


def test_a_process_started_by_itself_finds_what_torchrun_would_tell_it() -> None:
    layout = layout_of(make_plan(scenario()))
    assert rank_environment(layout, 1)["LOCAL_RANK"] == "1"
    assert rank_environment(layout, 1)["WORLD_SIZE"] == "2"


def test_a_job_comes_back_from_its_file_which_nobody_else_can_read(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    written = job_of(scenario(run__seed=3), Credentials("k", "c", "a"))
    written.write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    read = Job.read(path)
    assert (read.plan, read.shape, read.credentials) == (
        make_plan(written.plan.scenario, 7),
        written.shape,
        written.credentials,
    )
    assert (read.seed, read.control, read.token) == (7, ("127.0.0.1", 4711), "a secret")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1}'])
def test_a_file_that_is_no_job_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BackendError, match=r"job\.json is no job"):
        Job.read(path)


def test_a_job_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    job_of(scenario()).write(path)
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"version": "9.9"}), encoding="utf-8")
    with pytest.raises(BackendError, match=r"a job of orionbed 9\.9"):
        Job.read(path)


def test_the_model_keeps_its_size_and_takes_the_format_of_the_device() -> None:
    plan = make_plan(scenario(model__dtype="bf16"))
    assert real_shape(plan, "cuda").dtype == "bfloat16"
    on_cpu = real_shape(plan, "cpu")
    assert (on_cpu.dtype, on_cpu.hidden, on_cpu.layers, on_cpu.tokens) == ("float32", 256, 8, 512)
    assert on_cpu.boundary == plan.scenario.pipeline.boundary
    assert real_shape(make_plan(scenario(real__dtype="float64")), "cuda").dtype == "float64"


def test_the_real_block_shortens_the_run() -> None:
    assert as_real(make_plan(scenario(real__steps=3))).run.tokens == 3 * 8 * 512
    queue = {"pipeline__schedule": {"kind": "queue", "window": 4}, "real__training": 30.0}
    assert as_real(make_plan(scenario(**queue))).run.duration == 30.0
    assert as_real(make_plan(scenario(**queue, merge={"every": 600.0}))).merge.every == 30.0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__block": "gpt"}, "model.block gpt"),
        ({"model__tied_embeddings": True}, "share no weights"),
        ({"model__dtype": "fp16"}, "needs loss scaling"),
        ({"pipeline__boundary": {"kind": "topk", "keep": 16}}, "boundary.kind topk: torch's pipelining sends values"),
        ({"pipeline__boundary": {"kind": "quantize", "bits": 3}}, "rounded to 4 or 8 bits, not to 3"),
        ({"peers__gpus": 2, "peers__gpu_link": 1e11}, "peers.gpus 2"),
        ({"merge": {"every": 60.0}}, "merge needs the queue-driven schedule"),
        ({"churn": {"up": 60.0, "down": 10.0}}, "churn and faults"),
        (
            {"pipeline__schedule": {"kind": "queue"}, "churn": {"windows": [{"at": 1.0, "for": 1.0, "notice": 0.5}]}},
            "churn with notice",
        ),
        (
            {"pipeline__schedule": {"kind": "queue"}, "merge": {"every": 60.0, "algorithm": "ring"}},
            "merge.algorithm: hardware merges by IOTA's butterfly",
        ),
        ({"pipeline__schedule": {"kind": "queue"}, "real__transport": "gloo"}, "queues run over tcp"),
        ({"pipeline__schedule": {"kind": "queue"}, "real__checkpoint": "x"}, "real.checkpoint is for a fixed batch"),
        ({"pipeline__schedule": {"kind": "queue"}, "real__compile": True}, "real.compile is for a fixed batch"),
        (
            {
                "pipeline__schedule": {"kind": "queue"},
                "faults": [{"id": "a", "kind": "link", "at": 1.0, "for": 2.0, "from": "*", "to": "*", "loss": 0.5}],
            },
            "faults of kind link",
        ),
        (
            {
                "pipeline__schedule": {"kind": "queue"},
                "faults": [
                    {
                        "id": "a", "kind": "crash", "at": 1.0, "target": "peer:s01r0",
                        "restart": {"after": 1.0, "state": "disk"},
                    }
                ],
            },
            "restart state disk",
        ),
        ({"sync": {"algorithm": "tree"}, "pipeline__replicas": 2, "peers__sites": {"here": 4}}, "sync: hardware does"),
    ],
)  # fmt: skip
def test_what_hardware_cannot_do_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        refuse(scenario(**changes))


def test_all_reasons_are_told_at_once() -> None:
    with pytest.raises(BackendError) as caught:
        refuse(scenario(model__block="gpt", merge={"every": 60.0}))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"real.nodes": 2}, "needs `listen`"),
        ({"real.transport": "nccl", "real.device": "cpu"}, "nccl is for GPUs"),
        ({"real.listen": "here"}, "is no HOST:PORT"),
        ({"real.steps": 0}, "real.steps"),
        ({"real.compile": "perhaps"}, "real.compile"),
    ],
)
def test_settings_that_make_no_sense_are_errors_of_the_scenario(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        apply(scenario(), settings)


@pytest.mark.parametrize("tls", [True, False])
def test_one_switch_says_whether_connections_are_encrypted(tls: bool) -> None:
    pytest.importorskip("torch")
    plan = make_plan(scenario(network__transport={"tls": tls}, real={"device": "cpu", "transport": "tcp"}))
    assert (prepare(plan, 0, print, measure=False).job.credentials is not None) == tls
    assert any(", encrypted" in line for line in dry_run(plan)) == tls
