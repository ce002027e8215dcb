"""Zero-bubble schedules with one piece of the model per stage (Qi et al., arXiv 2401.10241): ZB-H1 and ZB-H2.

The backward is split: the input gradient (I) is what the stage before waits for, the weight gradient (W) fills gaps.
"""

from orionbed.schedule.actions import Action
from orionbed.schedule.order import Order, make_order, one_each


def zb_h1(num_stages: int, num_microbatches: int) -> Order:
    """ZB-H1: 1F1B's warm-up; on stage i (from 0) weight gradients lag i input gradients behind.

    Peak activations on stage i: (num_stages-i) M_B + i M_W, never more than 1F1B's on the first stage.
    """
    return _handcrafted(num_stages, num_microbatches, warm_up=[num_stages - i for i in range(num_stages)], lag=1)


def zb_h2(num_stages: int, num_microbatches: int) -> Order:
    """ZB-H2: the warm-up fills the pipeline twice, so that no stage waits for its first backward.

    Peak activations on stage i: (2(num_stages-i)-1) M_B + 2i M_W, at most (2 num_stages - 1) M_B.
    """
    return _handcrafted(
        num_stages, num_microbatches, warm_up=[2 * (num_stages - i) - 1 for i in range(num_stages)], lag=2
    )


def _handcrafted(num_stages: int, num_microbatches: int, *, warm_up: list[int], lag: int) -> Order:
    lists = []
    for stage in range(num_stages):
        first = min(warm_up[stage], num_microbatches)
        actions = [Action("F", stage, m) for m in range(first)]
        for m in range(num_microbatches):
            actions.append(Action("I", stage, m))
            if m - lag * stage >= 0:
                actions.append(Action("W", stage, m - lag * stage))
            if first + m < num_microbatches:
                actions.append(Action("F", stage, first + m))
        actions += [Action("W", stage, m) for m in range(max(0, num_microbatches - lag * stage), num_microbatches)]
        lists.append(actions)
    return make_order(lists, one_each(num_stages))
