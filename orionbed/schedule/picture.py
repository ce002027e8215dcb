"""Orders as lines of text: lists of actions, shortened where they are long, and a Gantt chart of letters."""

from bisect import bisect_right
from collections.abc import Sequence

from orionbed.schedule.timing import Timed

WIDTH = 100
IDLE = "."


def list_lines(timed: Timed, width: int = WIDTH) -> list[str]:
    """Return one line per stage with its actions; a list that is longer than `width` loses its middle."""
    names = _stage_names(timed.order.num_stages)
    return [
        f"{name}  {shortened([str(action) for action in actions], width)}"
        for name, actions in zip(names, timed.order.lists, strict=True)
    ]


def shortened(words: Sequence[str], width: int) -> str:
    """Return the words in a line of at most `width`, if need be with `...` for those in the middle."""
    whole = " ".join(words)
    if len(whole) <= width:
        return whole
    first, last, room = 0, 0, width - len("...")
    while True:
        word = words[first] if first <= last else words[-1 - last]
        room -= len(word) + 1
        if room < 0:
            break
        first, last = (first + 1, last) if first <= last else (first, last + 1)
    return " ".join([*words[:first], "...", *words[len(words) - last :]])


def gantt_lines(timed: Timed, width: int = WIDTH) -> list[str]:
    """Return one line per stage: what it does in the middle of each of `width` equal parts of the makespan."""
    column_s = timed.makespan_s / width
    lines = []
    for name, stage in zip(_stage_names(timed.order.num_stages), range(timed.order.num_stages), strict=True):
        starts, actions = timed.starts_s[stage], timed.order.lists[stage]
        letters = []
        for column in range(width):
            at_s = (column + 0.5) * column_s
            position = bisect_right(starts, at_s) - 1
            busy = position >= 0 and at_s < starts[position] + timed.times.of(actions[position])
            letters.append(str(actions[position].kind) if busy else IDLE)
        lines.append(f"{name}  {''.join(letters)}")
    return lines


def _stage_names(num_stages: int) -> list[str]:
    digits = len(str(num_stages - 1))
    return [f"stage {stage:>{digits}}" for stage in range(num_stages)]
