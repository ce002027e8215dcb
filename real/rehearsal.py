"""What a run on hardware would be: its processes, their memory, the commands that start them; nothing is started."""

from orionbed.estimate import estimate
from orionbed.plan import Plan
from real.launch import shell_lines
from real.prepared import Prepared, prepare

JOB: str = "JOB.json"


def dry_run(plan: Plan, *, seed: int | None = None) -> list[str]:
    """Return what would be run, line by line.

    Raises:
        BackendError: it cannot be run on hardware.

    """
    the_seed = plan.scenario.run.seed if seed is None else seed
    prepared = prepare(plan, the_seed, lambda _text: None, measure=False)
    block = prepared.plan.scenario.real
    lines = [*_about(prepared), "", *_per_peer(prepared), ""]
    lines += [
        f"`orionbed run` writes {JOB} and starts the processes of this machine; by hand it would be:"
        if prepared.layout.num_nodes == 1
        else f"`orionbed run` writes {JOB} and starts the processes of machine 0; copy the file to the others and run:"
    ]
    threads, restarts = block.threads, block.restarts
    typed = shell_lines(prepared.layout, JOB, queue=prepared.queue, threads=threads, restarts=restarts)
    return lines + [f"  {line}" for line in typed]


def _about(prepared: Prepared) -> list[str]:
    plan, job, layout = prepared.plan, prepared.job, prepared.layout
    shape = job.shape
    machines = "this machine" if layout.num_nodes == 1 else f"{layout.num_nodes} machines"
    return [
        f"{plan.scenario.name}  {layout.num_ranks} processes on {machines}, {job.device}, {job.transport}"
        + (", encrypted" if job.credentials and job.transport == "tcp" else ""),
        f"model      {plan.num_parameters:,} parameters in {shape.dtype}; layers per chunk {list(plan.split)}",
        f"boundary   {shape.boundary_bytes:,} bytes per micro-batch and direction",
        f"peak       {prepared.peak_source}: {plan.peak_flops / plan.num_gpus / 1e12:.4g} TFLOP/s per process",
        f"estimate   {estimate(plan)['estimate_line']}",
    ]


def _per_peer(prepared: Prepared) -> list[str]:
    plan, layout = prepared.plan, prepared.layout
    lines = ["rank  peer    chunks      machine  memory planned"]
    for peer in plan.peers:
        memory = plan.stages[peer.stage].memory
        chunks = ",".join(map(str, plan.chunks_of(peer.stage)))
        node = peer.index // layout.per_node
        lines.append(f"{peer.index:4d}  {peer.name:6s}  {chunks:10s}  {node:7d}  {memory.total_bytes / 1e9:.2f} GB")
    return lines
