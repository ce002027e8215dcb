"""The device that one process of a run computes on: a CPU's cores, or one GPU of the machine."""

import platform
import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orionbed.backends import BackendError
from real.settings import DeviceKind

if TYPE_CHECKING:
    import torch

_STATUS: Final = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Device:
    """One device; `index` counts the GPUs of the machine, `threads` are those that torch computes with on the CPU."""

    kind: DeviceKind
    index: int
    threads: int

    @classmethod
    def choose(cls, kind: DeviceKind, local_rank: int, *, threads: int) -> "Device":
        """Return the device of a process, and make it the one that torch uses.

        With more processes on a machine than GPUs several share one: which one, `local_rank` says in turn.

        Raises:
            BackendError: a GPU is asked for and torch sees none.

        """
        import torch

        torch.set_num_threads(threads)
        if kind == "cpu":
            return cls("cpu", 0, threads)
        if not torch.cuda.is_available():
            raise BackendError("torch sees no GPU here; use real.device cpu, or install torch for CUDA")
        index = local_rank % torch.cuda.device_count()
        torch.cuda.set_device(index)
        return cls("cuda", index, threads)

    @property
    def name(self) -> str:
        """The device as torch names it."""
        return "cpu" if self.kind == "cpu" else f"cuda:{self.index}"

    @property
    def as_torch(self) -> "torch.device":
        """The device as torch's."""
        import torch

        return torch.device(self.name)

    def synchronise(self) -> None:
        """Wait until all that was asked of the device has been computed, and no longer.

        Only the stream that computes: receives are pending on others, and end when somebody sends.
        """
        if self.kind == "cuda":
            import torch

            torch.cuda.current_stream(self.index).synchronize()

    def peak_memory_bytes(self) -> int:
        """Return the most memory that was in use: of a GPU that of tensors, of a CPU all of the process."""
        if self.kind == "cpu":
            return _peak_of_process()
        import torch

        return int(torch.cuda.max_memory_allocated(self.index))

    def describe(self) -> dict[str, Any]:
        """Return name, memory, clocks and versions; clocks of a GPU are those of the machine's first."""
        import torch

        from real.calibration.devices import clocks_of, find_device

        found = find_device(self.kind, self.threads)
        told: dict[str, Any] = {
            "name": found.title,
            "memory_bytes": found.memory_bytes,
            "clocks": clocks_of(found),
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        if self.kind == "cuda":
            told |= {"name": torch.cuda.get_device_name(self.index), "cuda": torch.version.cuda or "unknown"}
        return told


def devices_of(told: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return what a summary says of the devices of a run: the first one in full, and the names of all."""
    found = [device for device in told if device]
    return {"device": found[0] if found else {}, "devices": list(dict.fromkeys(device["name"] for device in found))}


def _peak_of_process() -> int:
    if _STATUS.is_file():
        # What getrusage tells is never less than what the process had that started this one.
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
