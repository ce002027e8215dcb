"""The script of a run: what every peer did with real weights, in an order in which it can be done again.

The simulator writes it as it goes, and the journal of an emulation can be read as one. Whoever plays it on real
tensors, all peers in one process, gets the weights that the run would have had, or did have. Lines of all peers are in
one order that respects causes: what a line needs was made by lines before it.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

DOES: Final = {
    "F": "the chunk's forward of a micro-batch, with the weights of this moment, on what `source` made of it last for "
    "the nearest chunk before; source -1: on its own tokens. A forward that is done again takes the place of the first",
    "B": "the chunk's whole backward, again with the weights of this moment, on the gradient that `source` made last "
    "for the nearest chunk behind; source -1: from the loss. It is accumulated. At a queue-driven last stage, where no "
    "F comes before, forward and loss are done in one go with it, and `source` made the activation",
    "I": "the half of a backward that gives the gradient of the input",
    "W": "the other half, which is accumulated",
    "UNUSED": "the micro-batch's gradient, accumulated by the line before of this peer, is taken out again: its stage "
    "has used it in an earlier attempt",
    "STEP": "an optimizer step with the mean of what was accumulated since the last one, `number` micro-batches; with "
    "none it does nothing",
    "SUM": "all peers of `others` add up their accumulated gradients, and their next step divides by all of them",
    "FORGET": "the peer drops what it keeps of a micro-batch; what was accumulated stays",
    "RESET": "the peer drops what it keeps of all micro-batches, and what was accumulated",
    "UNDO": "the step under way is given up: like RESET, and the weights are those after the peer's last STEP but "
    "`number` of them",
    "MERGE": "the peers of `others`, whose work since the last merge is `works`, merge their weights, and `takers` "
    "have the result, but keep their optimizer's memory; `part` of `parts` slices of the stage that has `chunk`; with "
    "an outer optimizer the merge is `number`, with -1 it is the plain mean. Without `others` nobody merges the slice: "
    "takers have it as the last merge left it",
    "ADOPT": "the peer, new or back or moved to the stage that has `chunk`, begins anew with the weights as `source` "
    "has them at this moment (itself: that it left with); source -1: as the last merge left them, or the first "
    "weights. `with_state`: with the optimizer's memory of `source`, else with none. With `others` its weights are "
    "rebuilt: the mean of theirs, who are of the stages beside it, as far as they are alike, the rest from `source`",
}
"""What each kind of line means. Peers that are away still hold the weights that they left with."""


class Line(NamedTuple):
    """One line. `peer` is the index of the peer in the plan, `microbatch` unique in the run; -1 where none is meant.

    A micro-batch that is begun again keeps its number. In MERGE and ADOPT `chunk` is the first that the stage has.
    """

    at_s: float
    does: str
    peer: int
    chunk: int = -1
    microbatch: int = -1
    source: int = -1
    number: int = -1
    others: tuple[int, ...] = ()
    works: tuple[int, ...] = ()
    takers: tuple[int, ...] = ()
    part: int = 0
    parts: int = 1
    with_state: bool = False


Write = Callable[[Line], object]
"""Takes down a line."""
