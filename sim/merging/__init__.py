"""Merges: the peers of each stage average their weights, through the object store or from peer to peer."""

from sim.merging.gate import Process, succeed
from sim.merging.running import Merging

__all__ = ["Merging", "Process", "succeed"]
