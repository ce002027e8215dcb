"""Schedules as text: the CSV form of PyTorch's pipelining runtime, one row per stage, one action per cell."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from orionbed.schedule.actions import Action, parse_action
from orionbed.schedule.order import Order, ScheduleError, check_order, make_order

_PAIR = re.compile(r"^\(([^;()]+);([^;()]+)\)OVERLAP_F_B$")
# What PyTorch adds when it lowers a schedule: messages, sharding, reduction. Here these follow by themselves.
_ADDED = re.compile(r"^\d+(SEND_F|RECV_F|SEND_B|RECV_B|UNSHARD|RESHARD|REDUCE_GRAD)\d*$")


def to_csv(order: Order) -> str:
    """Return the CSV text of an order; `read_csv` and PyTorch's schedule runtime (`compute_only`) read it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(_cells(actions, order) for actions in order.lists)
    return text.getvalue()


def _cells(actions: tuple[Action, ...], order: Order) -> Iterator[str]:
    position = 0
    while position < len(actions):
        action = actions[position]
        if action in order.pairs:
            yield f"({action};{actions[position + 1]})OVERLAP_F_B"
            position += 2
        else:
            yield str(action)
            position += 1


def read_csv(path: Path) -> Order:
    """Read a schedule from a CSV file.

    Which stage holds which chunk follows from the actions. Empty cells are skipped, and so is what PyTorch adds when it
    lowers a schedule (sends, receives, sharding).

    Raises:
        ScheduleError: it is none; the message begins with file, line and, where there is one, cell.
        OSError: it cannot be read.

    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ScheduleError(f"{path}: is not UTF-8 text: {error}") from None
    lists: list[list[Action]] = []
    pairs: list[Action] = []
    for line, row in enumerate(csv.reader(io.StringIO(text)), 1):
        if not any(cell.strip() for cell in row):
            continue
        lists.append([])
        for column, cell in enumerate(row, 1):
            try:
                lists[-1] += _parse(cell.strip(), pairs)
            except ValueError as error:
                raise ScheduleError(f"{path}:{line}: cell {column}: {error}") from None
    try:
        order = make_order(lists, _stage_of(lists), pairs)
        check_order(order)
    except ScheduleError as error:
        raise ScheduleError(f"{path}: {error}") from None
    return order


def _parse(cell: str, pairs: list[Action]) -> list[Action]:
    if not cell or _ADDED.match(cell):
        return []
    match = _PAIR.match(cell)
    if match is None:
        return [parse_action(cell)]
    forward, backward = parse_action(match[1]), parse_action(match[2])
    if (forward.kind, backward.kind) != ("F", "B"):
        raise ValueError(f"'{cell}': a pair is a forward and a whole backward, such as (0F3;7B1)OVERLAP_F_B")
    pairs.append(forward)
    return [forward, backward]


def _stage_of(lists: list[list[Action]]) -> list[int]:
    stage_of: dict[int, int] = {}
    for stage, actions in enumerate(lists):
        for action in actions:
            if stage_of.setdefault(action.chunk, stage) != stage:
                text = f"chunk {action.chunk} is worked on by stages {stage_of[action.chunk]} and {stage}"
                raise ScheduleError(f"{text}; a chunk belongs to one stage")
    if not stage_of:
        raise ScheduleError("the schedule has no actions")
    missing = set(range(max(stage_of) + 1)) - stage_of.keys()
    if missing:
        raise ScheduleError(f"nobody works on chunk {min(missing)}; chunks are numbered from 0 without gaps")
    found = [stage_of[chunk] for chunk in range(len(stage_of))]
    if len(set(map(found.count, range(len(lists))))) > 1:
        raise ScheduleError("stages hold different numbers of chunks; give each as many")
    return found
