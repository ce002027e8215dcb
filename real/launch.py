"""How the processes of a run are started: command lines, environment, which of them live where."""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from orionbed.backends import BackendError
from orionbed.plan import Plan
from orionbed.scenario.emulation import host_and_port


@dataclass(frozen=True, slots=True)
class Layout:
    """Who lives where: rank r on node r // `per_node`; node 0 is the machine of `orionbed run`.

    `host` is where the others find it and `port` the supervisor's; rendezvous is at the port after that.
    """

    num_ranks: int
    num_nodes: int
    host: str
    port: int

    @property
    def per_node(self) -> int:
        """Processes of one machine."""
        return self.num_ranks // self.num_nodes

    def ranks(self, node: int) -> range:
        """Return the ranks that live on a machine."""
        return range(node * self.per_node, (node + 1) * self.per_node)


def layout_of(plan: Plan) -> Layout:
    """Return who lives where: the peers and, behind them, the object store of queue-driven replicas that merge.

    Raises:
        BackendError: the processes cannot be dealt out evenly.

    """
    block = plan.scenario.real
    num_stores = 1 if plan.order is None and not isinstance(plan.scenario.merge, str) else 0
    num_ranks = len(plan.peers) + num_stores
    if num_ranks % block.nodes:
        raise BackendError(
            f"real.nodes {block.nodes} machines cannot share {num_ranks} processes evenly; use a divisor"
        )
    host, port = ("127.0.0.1", 0) if block.listen is None else host_and_port(block.listen)
    return Layout(num_ranks, block.nodes, host, port)


def torchrun(layout: Layout, node: int, job: Path | str, *, restarts: int) -> list[str]:
    """Return the command that starts the processes of a machine through torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(layout.per_node)]
    if layout.num_nodes == 1:
        command += ["--standalone", "--nnodes", "1"]
    else:
        command += ["--nnodes", str(layout.num_nodes), "--node-rank", str(node)]
        command += ["--master-addr", layout.host, "--master-port", str(layout.port + 1)]
    return [*command, "--max-restarts", str(restarts), "--monitor-interval", "0.2", "-m", "real.worker", str(job)]


def worker_command(job: Path | str) -> list[str]:
    """Return the command of a single process, whose rank is in its environment."""
    return [sys.executable, "-m", "real.worker", str(job)]


def environment(plan: Plan) -> dict[str, str]:
    """Return the environment of processes: threads of one core must not be as many as the machine has cores."""
    threads = str(plan.scenario.real.threads)
    return os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


def rank_environment(layout: Layout, rank: int) -> dict[str, str]:
    """Return what torchrun would put into the environment of a rank, for one that is started by itself."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(layout.num_ranks),
        "LOCAL_RANK": str(rank % layout.per_node),
        "LOCAL_WORLD_SIZE": str(layout.per_node),
        "MASTER_ADDR": layout.host,
        "MASTER_PORT": str(layout.port + 1),
    }


def shell_lines(layout: Layout, job: str, *, queue: bool, threads: int, restarts: int) -> list[str]:
    """Return what a user types on each machine, as lines that name the machine and commands that can be pasted."""
    lines = []
    for node in range(layout.num_nodes):
        ranks = layout.ranks(node)
        lines.append(f"# machine {node}: ranks {ranks.start} to {ranks.stop - 1}")
        if not queue:
            typed = ["torchrun", *torchrun(layout, node, job, restarts=restarts)[3:]]
            lines.append(f"OMP_NUM_THREADS={threads} {shlex.join(typed)}")
            continue
        for rank in ranks:
            given = " ".join(f"{name}={value}" for name, value in rank_environment(layout, rank).items())
            lines.append(f"OMP_NUM_THREADS={threads} {given} python -m real.worker {shlex.quote(job)}")
    return lines
