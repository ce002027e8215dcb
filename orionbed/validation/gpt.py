"""GPT models on clusters of A100s: what SC'21, Korthikanti et al. and vTrain have in common."""

from dataclasses import dataclass, replace
from typing import Any

from orionbed.scenario import Scenario
from orionbed.validation.bench import bare_scenario

GPUS_PER_NODE = 8
NIC_EFFICIENCY = 0.8
"""Share of a node's network rate that NCCL reaches; assumed, the same for all."""


@dataclass(frozen=True, slots=True)
class GptRun:
    """One configuration of Megatron-LM: `nic_bytes_per_s` is what one node's cards carry together."""

    hidden: int
    layers: int
    heads: int
    tensor: int
    pipeline: int
    data: int
    global_batch: int
    micro_batch: int
    nic_bytes_per_s: float
    chunks: int = 1
    recompute: str = "full"
    sequence_parallel: bool = False
    overlap_collectives: bool = True
    sequence: int = 2048
    vocab: int = 51200

    @property
    def num_microbatches(self) -> int:
        """Micro-batches of one pipeline in one step."""
        return self.global_batch // (self.data * self.micro_batch)

    def alone(self) -> "GptRun":
        """Return one pipeline of this run, without the others."""
        return replace(self, data=1, global_batch=self.global_batch // self.data)

    def scenario(self) -> Scenario:
        """Return the scenario of this run."""
        schedule: dict[str, Any] = {"kind": "1f1b", "microbatches": self.num_microbatches, "recompute": self.recompute}
        if self.chunks > 1:
            schedule |= {"kind": "interleaved-1f1b", "chunks": self.chunks}
        pieces = self.pipeline * self.chunks
        changes: dict[str, Any] = {
            "model": {
                "layers": self.layers, "hidden": self.hidden, "ffn": 4 * self.hidden, "heads": self.heads,
                "kv_heads": self.heads, "vocab": self.vocab, "positions": self.sequence, "block": "gpt",
                "attention": "unfused", "tied_embeddings": True, "dtype": "fp16",
                "optimizer": {"name": "adam", "state_bytes_per_parameter": 18},
            },
            "batch": {"sequence": self.sequence, "sequences": self.micro_batch},
            "pipeline.stages": self.pipeline,
            "pipeline.replicas": self.data,
            "pipeline.split": _even(self.layers, pieces),
            "pipeline.schedule": schedule,
            "peers.gpu": "a100-80gb",
            "peers.gpus": self.tensor,
            "peers.sequence_parallel": self.sequence_parallel,
            "peers.overlap_collectives": self.overlap_collectives,
            "network.delay": 5e-6,
            "sync": {"algorithm": "ring", "bits": 16} if self.data > 1 else "none",
        } | self._network()  # fmt: skip
        return bare_scenario(changes)

    def _network(self) -> dict[str, Any]:
        """Nodes are sites that share their cards; a peer larger than a node has the cards of all its nodes."""
        num_peers = self.pipeline * self.data
        per_node = max(1, GPUS_PER_NODE // self.tensor)
        nodes_per_peer = max(1, self.tensor // GPUS_PER_NODE)
        sizes = [min(per_node, num_peers - first) for first in range(0, num_peers, per_node)]
        cards_bps = 8.0 * self.nic_bytes_per_s * NIC_EFFICIENCY * nodes_per_peer
        network: dict[str, Any] = {
            "peers.sites": {f"node-{index}": size for index, size in enumerate(sizes)},
            "peers.placement": "packed",
        }
        if nodes_per_peer > 1:
            # The rings inside such a peer cross every node's cards once, all of them together.
            network["peers.gpu_link"] = self.nic_bytes_per_s
        if per_node == 1:
            return network | {"network.uplink": cards_bps, "network.downlink": cards_bps}
        inside_bps = 8.0 * 300e9 * 0.77 * self.tensor
        network |= {"network.uplink": inside_bps, "network.downlink": inside_bps}
        return network | {"network.site_uplink": cards_bps, "network.site_downlink": cards_bps}


def _even(layers: int, pieces: int) -> list[int]:
    """Layers of each piece, as equal as can be."""
    return [layers * (piece + 1) // pieces - layers * piece // pieces for piece in range(pieces)]
