"""Rate and delay of the throttled sockets beside the kernel's token bucket (tbf).

    python -m benchmarks.throttle_accuracy

For each rate one second of messages of a twentieth of a second goes over one connection with a one-way delay of 30 ms.
`rate` is the error of the time between the first and the last delivery as it really was, `delay` by how much real
deliveries came after the time that the link calls for (median and 99th percentile), `CPU` what both ends together spent
per gigabyte. tbf shapes a veth pair between two network namespaces, where it needs root; it adds no delay, so it has no
delay error, and its rate counts 66 bytes of headers per segment, which are taken out here.
"""

import os
import shutil
import subprocess
import sys
from math import inf

import numpy as np

from emulator.throttle.paths import Path
from emulator.throttle.rehearsal import Load, Rehearsal, rehearse

RATES_MBPS = (10, 100, 856, 1322, 2000)
OWD_S = 0.03
MESSAGES = 21
NAMESPACES = ("orionbed-a", "orionbed-b")
GOODPUT = 1448 / 1514

RECEIVER = """
import socket, sys, time
listener = socket.create_server(("10.231.7.2", 5201))
print("ready", flush=True)
connection, _ = listener.accept()
size, count, times, got = int(sys.argv[1]), int(sys.argv[2]), [], 0
while len(times) < count:
    data = connection.recv(1 << 20)
    if not data:
        break
    got += len(data)
    while got >= size * (len(times) + 1):
        times.append(time.monotonic())
print(times[-1] - times[0], flush=True)
"""
SENDER = """
import socket, sys
connection = socket.create_connection(("10.231.7.2", 5201))
connection.sendall(bytes(int(sys.argv[1])))
connection.recv(1)
"""


def ours(mbps: float) -> tuple[float, float, float, float]:
    """Return the error of the rate, delay errors in seconds (median, 99 %), and CPU seconds per gigabyte."""
    rate = mbps * 1e6 / 8.0
    size = int(rate / 20)
    loads = [Load(0, 1, size, count=MESSAGES)]
    report = rehearse(Rehearsal([rate] * 2, [inf] * 2, loads, 30.0, path=Path(OWD_S)))
    real = [arrival.stamp_s + arrival.late_s for arrival in report.arrivals]
    ideal = [OWD_S + size * (i + 1) / rate for i in range(MESSAGES)]
    late = np.abs(np.array(real) - np.array(ideal))
    error = size * (MESSAGES - 1) / (real[-1] - real[0]) / rate - 1.0
    return error, float(np.median(late)), float(np.percentile(late, 99)), report.cpu_s / (size * MESSAGES / 1e9)


def tbf(mbps: float) -> float:
    """Return the error of the rate of tbf between two namespaces."""
    goodput = mbps * 1e6 / 8.0
    size = int(goodput / 20)
    wire_kbit = round(mbps * 1e3 / GOODPUT)
    burst = max(16_000, round(wire_kbit * 1e3 / 8 / 250))
    a, b = NAMESPACES
    shape = f"ip netns exec {a} tc qdisc replace dev va root tbf rate {wire_kbit}kbit burst {burst} latency 50ms"
    subprocess.run(shape.split(), check=True)
    for end in NAMESPACES:
        device = "va" if end == a else "vb"
        offloads = f"ip netns exec {end} ethtool -K {device} tso off gso off gro off"
        if shutil.which("ethtool"):
            subprocess.run(offloads.split(), check=False, capture_output=True)
    receiver = subprocess.Popen(
        ["ip", "netns", "exec", b, sys.executable, "-c", RECEIVER, str(size), str(MESSAGES)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert receiver.stdout is not None
    receiver.stdout.readline()
    subprocess.run(
        ["ip", "netns", "exec", a, sys.executable, "-c", SENDER, str(size * MESSAGES)], check=False, timeout=60.0
    )
    took_s = float(receiver.stdout.readline())
    receiver.wait()
    return size * (MESSAGES - 1) / took_s / goodput - 1.0


def make_namespaces() -> str | None:
    """Set up two namespaces joined by a veth pair; return why that is not possible, or None."""
    if os.geteuid() != 0:
        return "not root"
    if not (shutil.which("ip") and shutil.which("tc")):
        return "ip or tc is not installed"
    a, b = NAMESPACES
    commands = [
        f"ip netns add {a}", f"ip netns add {b}",
        f"ip link add va netns {a} type veth peer name vb netns {b}",
        f"ip -n {a} addr add 10.231.7.1/24 dev va", f"ip -n {b} addr add 10.231.7.2/24 dev vb",
        f"ip -n {a} link set va up", f"ip -n {b} link set vb up",
        f"ip netns exec {a} tc qdisc replace dev va root tbf rate 1mbit burst 16000 latency 50ms",
    ]  # fmt: skip
    for command in commands:
        done = subprocess.run(command.split(), check=False, capture_output=True, text=True)
        if done.returncode:
            remove_namespaces()
            return f"`{command}` failed: {done.stderr.strip()}"
    return None


def remove_namespaces() -> None:
    """Remove what `make_namespaces` made."""
    for name in NAMESPACES:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def main() -> None:
    """Measure and print."""
    missing = make_namespaces()
    try:
        print(f"{'Mbit/s':>7} {'rate':>9} {'delay p50':>10} {'p99':>9} {'CPU s/GB':>9} {'tbf rate':>10}")
        for mbps in RATES_MBPS:
            error, p50_s, p99_s, cpu = ours(mbps)
            rival = "left out" if missing else f"{tbf(mbps):+.2%}"
            print(f"{mbps:>7} {error:>+9.3%} {1e3 * p50_s:>7.2f} ms {1e3 * p99_s:>6.2f} ms {cpu:>9.2f} {rival:>10}")
    finally:
        if missing is None:
            remove_namespaces()
    if missing:
        print(f"\n*** THE COMPARISON WITH tbf WAS LEFT OUT: {missing} ***")


if __name__ == "__main__":
    main()
