"""Actions a peer can take, and their text form."""

import re
from typing import Final, Literal, NamedTuple, cast

Kind = Literal["F", "B", "I", "W", "STEP"]
"""What an action computes.

F is forward, B the whole backward, I its input-gradient half and W its weight-gradient half; at the last stage of a
queue-driven pipeline B is forward, loss and backward in one go. STEP is the local optimizer step. Plain strings,
because they are dictionary keys in the simulator's innermost loop.
"""

KINDS: Final[tuple[Kind, ...]] = ("F", "B", "I", "W", "STEP")


class Action(NamedTuple):
    """One operation of one peer: `kind` on micro-batch `microbatch` for the piece `chunk` of the model.

    Chunks are numbered along the model. Where every stage holds one piece, the chunk is the stage.
    """

    kind: Kind
    chunk: int
    microbatch: int

    def __str__(self) -> str:
        return f"{self.chunk}{self.kind}{'' if self.kind == 'STEP' else self.microbatch}"


_PATTERN = re.compile(r"^(\d+)(F|B|I|W|STEP)(\d*)$")


def parse_action(text: str) -> Action:
    """Read an action such as `0F3` or `2B11`, the form PyTorch's pipelining runtime uses.

    Raises:
        ValueError: the text is no action.

    """
    match = _PATTERN.match(text.strip())
    if match is None or (match[2] == "STEP") == bool(match[3]):
        raise ValueError(f"'{text}' is no action; write chunk, kind and micro-batch, such as 0F3, 0B3, 1I0 or 1W0")
    return Action(cast(Kind, match[2]), int(match[1]), int(match[3] or -1))
