"""Whether two processes send and receive in the same order: transports match the k-th receive with the k-th message."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

_MESSAGE: Final = re.compile(r"^(\d+)(SEND|RECV)_(F|B)(\d+)$")

Message = tuple[str, int, int]
"""What a message is (F or B), the chunk that it is for, the micro-batch."""


def in_same_order(lists: Mapping[int, Iterable[object]], stage_of: Sequence[int]) -> bool:
    """Whether every stage receives from every other in the order in which that one sends.

    `lists` are those of the stages as torch lowers them, each action in its text form, such as `0SEND_F3`. Where chunks
    go round or back, activations and gradients of several chunks travel between the same two stages, all of one size:
    received in another order than sent, they would be taken for one another, and nobody would notice.
    """
    sent: dict[tuple[int, int], list[Message]] = defaultdict(list)
    received: dict[tuple[int, int], list[Message]] = defaultdict(list)
    for stage, actions in lists.items():
        for action in actions:
            found = _MESSAGE.match(str(action))
            if found is None:
                continue
            chunk, kind, microbatch = int(found[1]), found[3], int(found[4])
            forth = 1 if kind == "F" else -1
            if found[2] == "SEND":
                sent[stage, stage_of[chunk + forth]].append((kind, chunk + forth, microbatch))
            else:
                received[stage_of[chunk - forth], stage].append((kind, chunk, microbatch))
    return sent == received
