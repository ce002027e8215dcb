"""Speed of making and timing pipeline schedules beside PyTorch's own.

    python -m benchmarks.schedule_speed

PyTorch's pipelining runtime can simulate a schedule, in unit steps, to find deadlocks and draw it
(`_simulate_comms_compute`); ours times the same lists with durations and hops. Both play interleaved 1F1B and ZB-V of
the same shape in one run. The lower bound walks the same lists once and adds up times, which no timing can do without.
"""

import time
from collections.abc import Callable
from functools import partial

from orionbed.schedule.catalogue import ENTRIES, Wanted
from orionbed.schedule.order import Order
from orionbed.schedule.timing import Hops, Times, equal_times, time_order

SHAPES = ((8, 32), (16, 64))
NAMES = ("interleaved-1f1b", "zb-v")


def seconds(work: Callable[[], object]) -> float:
    """Seconds of the quickest of five calls."""
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def walk(order: Order, times: Times) -> float:
    """Add up what the lists take, without any dependency."""
    longest = 0.0
    for actions in order.lists:
        busy = 0.0
        for action in actions:
            busy += times.of(action)
        longest = max(longest, busy)
    return longest


def torch_simulation(order: Order) -> Callable[[], object]:
    """Return PyTorch's simulation of the same lists, messages added by PyTorch's own lowering."""
    from torch.distributed.pipelining import schedules

    lists = {
        stage: [schedules._Action.from_str(str(action)) for action in actions]
        for stage, actions in enumerate(order.lists)
    }
    stage_of = order.stage_of.__getitem__
    lowered = schedules._add_send_recv(lists, stage_of, order.num_chunks)
    return lambda: schedules._simulate_comms_compute(lowered, stage_of, order.num_chunks)


def main() -> None:
    """Print microseconds per action."""
    head = ("actions", "walk", "ours", "of walk", "PyTorch", "of ours")
    print(f"{'microseconds per action':<28}" + " ".join(f"{name:>8}" for name in head))
    for name in NAMES:
        for stages, microbatches in SHAPES:
            times = equal_times(2 * stages, 1.0, 1.0, 1.0)
            order = ENTRIES[name].make(Wanted(stages, microbatches, times))
            count = sum(map(len, order.lists))
            bound = seconds(partial(walk, order, times)) / count
            ours = seconds(partial(time_order, order, times, Hops(0.1))) / count
            rival = seconds(torch_simulation(order)) / count
            label = f"{name}, {stages} x {microbatches}"
            figures = (f"{bound * 1e6:.2f}", f"{ours * 1e6:.2f}", f"{ours / bound:.1f}x", f"{rival * 1e6:.1f}")
            row = (f"{count:,}", *figures, f"{rival / ours:.0f}x")
            print(f"{label:<28}" + " ".join(f"{cell:>8}" for cell in row))
    times = equal_times(32, 1.0, 1.0, 1.0)
    wanted = Wanted(32, 256, times, Hops(0.04))
    print(f"\nsearch for zb-2p, 32 stages x 256 micro-batches: {seconds(lambda: ENTRIES['zb-2p'].make(wanted)):.2f} s")


if __name__ == "__main__":
    main()
