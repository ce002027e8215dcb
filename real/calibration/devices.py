"""The device that is measured: its name, its memory, its clocks, and which typed profile is of its kind."""

import os
import platform
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orionbed.backends import BackendError
from orionbed.scenario import GpuProfile, gpu_profile, packaged
from real.settings import DeviceKind

_NEAR: Final = 0.15
_OTHER_BOARDS: Final = ("pcie", "nvl", "max-q", "laptop")
"""Boards with other clocks than those of the typed profiles."""


@dataclass(frozen=True, slots=True)
class FoundDevice:
    """What can be said of a device without timing anything."""

    kind: DeviceKind
    title: str
    memory_bytes: int
    threads: int

    @property
    def name(self) -> str:
        """A name for its profile."""
        words = re.sub(r"\((r|tm)\)", "", self.title.lower())
        slug = re.sub(r"[^a-z0-9.]+", "-", words).strip("-.")
        threads = f"-{self.threads}-thread{'s' if self.threads > 1 else ''}" if self.kind == "cpu" else ""
        return f"measured-{slug}{threads}"


def find_device(kind: DeviceKind, threads: int) -> FoundDevice:
    """Return the device of this kind.

    Raises:
        BackendError: there is none.

    """
    if kind == "cpu":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return FoundDevice("cpu", _cpu_title(), memory, threads)
    import torch

    if not torch.cuda.is_available():
        raise BackendError("no GPU here that torch can use; calibrate with --device cpu, or on another machine")
    found = torch.cuda.get_device_properties(0)
    return FoundDevice("cuda", found.name, found.total_memory, threads)


def _cpu_title() -> str:
    lines = _cpu_lines("model name")
    return lines[0] if lines else platform.processor() or platform.machine()


def _cpu_lines(key: str) -> list[str]:
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(key)]


def clocks_of(device: FoundDevice) -> str:
    """Return the device's clocks in words, a GPU's while it computes; empty where nothing tells them."""
    if device.kind == "cpu":
        mhz = _cpu_lines("cpu MHz")
        return f"{float(mhz[0]):.0f} MHz" if mhz else ""
    asked = "clocks.sm,clocks.mem,temperature.gpu,power.draw,driver_version"
    try:
        with _busy():
            told = subprocess.run(  # noqa: S603
                ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader", "--id=0"],  # noqa: S607
                capture_output=True,
                text=True,
                check=True,
                timeout=20,
            )
    except (OSError, subprocess.SubprocessError):
        return ""
    values = [value.strip() for value in told.stdout.strip().split(",")]
    names = ("SM", "memory", "degrees C", "drawn", "driver")
    return ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=False))


@contextmanager
def _busy() -> Iterator[None]:
    """Keep the GPU multiplying in this block, for idle it turns its clocks down."""
    import torch

    over = threading.Event()

    def multiply() -> None:
        matrix = torch.zeros(4096, 4096, dtype=torch.float16, device="cuda")
        while not over.is_set():
            for _ in range(10):
                matrix @ matrix
            torch.cuda.synchronize()

    worker = threading.Thread(target=multiply, daemon=True)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()


def typed_profile(device: FoundDevice) -> GpuProfile | None:
    """Return the packaged profile whose datasheet is this device's, if there is one."""
    if device.kind == "cpu":
        return None
    words = re.split(r"[^a-z0-9]+", device.title.lower())
    if any(board in device.title.lower() for board in _OTHER_BOARDS):
        return None
    for name in packaged.names("gpus"):
        profile = gpu_profile(name)
        kind = name.split("-")[:-1]
        same_size = abs(profile.memory / device.memory_bytes - 1.0) < _NEAR
        if profile.device is None and set(kind) <= set(words) and same_size:
            return profile
    return None


def matches(profile: GpuProfile) -> bool:
    """Whether a profile is of the GPU of this machine: measured on one of its name, or the typed one of its kind."""
    import torch

    if not torch.cuda.is_available():
        return False
    here = find_device("cuda", 1)
    if profile.measured and profile.measurement is not None:
        return profile.device == "cuda" and profile.measurement.device == here.title
    typed = typed_profile(here)
    return typed is not None and typed.name == profile.name
