"""`orionbed schedule`: one step of a pipeline schedule, timed and drawn, without a scenario."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orionbed.cli.ending import InputError
from orionbed.cli.options import JsonOption

if TYPE_CHECKING:
    from orionbed.schedule.order import Order
    from orionbed.schedule.timing import Hops, Timed, Times


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line says; None where it says nothing. Seconds are those of a whole stage and micro-batch."""

    name: str
    stages: int | None
    microbatches: int | None
    chunks: int | None
    seconds: tuple[float, float, float]
    hops: "Hops"
    memory_limit: int | None
    split_backward: bool

    def times(self, num_stages: int, chunks: int) -> "Times":
        """Times of chunks that share a stage's evenly."""
        from orionbed.schedule.timing import equal_times

        return equal_times(num_stages * chunks, *(seconds / chunks for seconds in self.seconds))


def schedule(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="gpipe, 1f1b, interleaved-1f1b, zb-h1, zb-h2, zb-1p, zb-2p, zb-v, dualpipe-v or opportunistic; or the "
            "path of a CSV in the form of PyTorch's pipelining runtime.",
        ),
    ],
    *,
    stages: Annotated[int | None, typer.Option(metavar="P", min=1, help="Pipeline stages; a CSV has its own.")] = None,
    microbatches: Annotated[
        int | None, typer.Option(metavar="M", min=1, help="Micro-batches of the step; a CSV has its own.")
    ] = None,
    chunks: Annotated[
        int | None, typer.Option(metavar="V", min=1, help="Pieces of the model per stage, for interleaved-1f1b (2).")
    ] = None,
    forward: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="Forward of one micro-batch through one stage, all its chunks; each chunk takes 1/V."
        ),
    ] = "1s",
    backward: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Its input gradient, the half of the backward that the stage before waits for, likewise. A whole "
            "backward takes --backward and --weight together.",
        ),
    ] = "1s",
    weight: Annotated[str, typer.Option(metavar="TIME", help="Its weight gradient, the other half, likewise.")] = "1s",
    latency: Annotated[str, typer.Option(metavar="TIME", help="Delay of a message from stage to stage.")] = "20ms",
    transfer: Annotated[
        str, typer.Option(metavar="TIME", help="Time that a message occupies the link before that; others queue.")
    ] = "0ms",
    memory_limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Micro-batches a stage may hold, for opportunistic (all)."),
    ] = None,
    split_backward: Annotated[
        bool, typer.Option("--split-backward", help="Let opportunistic do the two halves of backwards apart.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the order as PyTorch's CSV.")] = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the Gantt chart into a PNG.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Time one optimizer step of a pipeline schedule: its lists, its bubble, its memory, its hops and its picture."""
    from orionbed.schedule.critical import hops_on_longest_path
    from orionbed.schedule.timing import Hops, time_order

    hops = Hops(delay_s=_duration("--latency", latency), transfer_s=_duration("--transfer", transfer))
    seconds = _seconds(forward, backward, weight)
    asked = _Asked(name, stages, microbatches, chunks, seconds, hops, memory_limit, split_backward)
    title, order = _order(asked)
    timed = time_order(order, asked.times(order.num_stages, order.chunks_per_stage), hops)
    found = _found(name, title, timed, hops, hops_on_longest_path(order, timed.times, hops))
    written = _write_files(timed, found, csv, png)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for line in [*_lines(found, timed), *written]:
        typer.echo(line)


def _seconds(forward: str, backward: str, weight: str) -> tuple[float, float, float]:
    seconds = _duration("--forward", forward), _duration("--backward", backward), _duration("--weight", weight)
    if not sum(seconds):
        raise InputError("--forward, --backward and --weight are all nothing; let something take time")
    return seconds


def _duration(option: str, text: str) -> float:
    from orionbed.quantity import DURATION, QuantityError, parse

    try:
        seconds = parse(text, DURATION)
    except QuantityError as error:
        raise InputError(f"{option}: {error}") from None
    if seconds < 0.0:
        raise InputError(f"{option}: {text} is negative; time runs forward")
    return seconds


def _order(asked: _Asked) -> tuple[str, "Order"]:
    """Return what the schedule is in words, and its order."""
    from orionbed.schedule.catalogue import ENTRIES

    if asked.name in ENTRIES:
        return ENTRIES[asked.name].title, _made(asked)
    if asked.name.endswith(".csv") or Path(asked.name).is_file():
        return "the order that the file lists", _read(asked)
    from orionbed.scenario.problems import did_you_mean

    hint = did_you_mean(asked.name, list(ENTRIES), f"; there are {', '.join(ENTRIES)}")
    raise InputError(f"{asked.name}: no such schedule, nor a CSV file{hint}")


def _made(asked: _Asked) -> "Order":
    from orionbed.schedule.catalogue import ENTRIES, Wanted, chunks_of

    if asked.stages is None or asked.microbatches is None:
        raise InputError(f"{asked.name} needs --stages and --microbatches, such as --stages 4 --microbatches 8")
    chunks = chunks_of(asked.name, asked.chunks or 2)
    if asked.chunks not in {None, chunks}:
        held = "one piece" if chunks == 1 else f"{chunks} pieces"
        raise InputError(f"{asked.name} has {held} of the model per stage; --chunks is for interleaved-1f1b")
    if asked.name != "opportunistic":
        _refuse_limits(asked, "are for opportunistic")
    return ENTRIES[asked.name].make(
        Wanted(
            asked.stages,
            asked.microbatches,
            asked.times(asked.stages, chunks),
            asked.hops,
            chunks=chunks,
            limit=asked.memory_limit,
            splits=asked.split_backward,
        )
    )


def _read(asked: _Asked) -> "Order":
    from orionbed.schedule.text import read_csv

    order = read_csv(Path(asked.name))
    for option, wanted, has in (
        ("--stages", asked.stages, order.num_stages),
        ("--microbatches", asked.microbatches, order.num_microbatches),
        ("--chunks", asked.chunks, order.chunks_per_stage),
    ):
        if wanted not in {None, has}:
            raise InputError(f"{asked.name}: {option} is {has} in the file, not {wanted}; leave the option out")
    _refuse_limits(asked, "do not change a file")
    return order


def _refuse_limits(asked: _Asked, why: str) -> None:
    if asked.memory_limit is not None or asked.split_backward:
        raise InputError(f"{asked.name}: --memory-limit and --split-backward {why}; leave them out")


def _found(name: str, title: str, timed: "Timed", hops: "Hops", num_hops: int) -> dict[str, Any]:
    """Return everything about an order, as --json prints it."""
    from orionbed.schedule.critical import FORMULAS, hops_by_formula
    from orionbed.schedule.timing import peak_activations

    order = timed.order
    return {
        "name": name,
        "title": title,
        "num_stages": order.num_stages,
        "num_microbatches": order.num_microbatches,
        "chunks_per_stage": order.chunks_per_stage,
        "stage_of_chunk": list(order.stage_of),
        "latency_s": hops.delay_s,
        "transfer_s": hops.transfer_s,
        "makespan_s": timed.makespan_s,
        "span_s": timed.span_s,
        "bubble": timed.bubble(),
        "bubble_of_span": timed.bubble(timed.span_s),
        "peak_activations": peak_activations(order),
        "hops_on_longest_path": num_hops,
        "hops_by_formula": hops_by_formula(name, order.num_stages, order.num_microbatches),
        "formula": FORMULAS.get(name) if order.num_stages > 1 else None,
        "actions": [[str(action) for action in actions] for actions in order.lists],
        "starts_s": [list(starts) for starts in timed.starts_s],
        "pairs": sorted(str(action) for action in order.pairs),
    }


def _write_files(timed: "Timed", found: dict[str, Any], csv: Path | None, png: Path | None) -> list[str]:
    """Write what was asked for, and return a line per file."""
    lines = []
    if csv is not None:
        from orionbed.schedule.text import to_csv

        csv.write_text(to_csv(timed.order), encoding="utf-8")
        lines.append(f"csv      {csv}")
    if png is not None:
        from reports.figures.order import draw

        png.write_bytes(draw(timed, f"{found['name']}: {found['title']}").png())
        lines.append(f"png      {png}")
    return lines


def _lines(found: dict[str, Any], timed: "Timed") -> list[str]:
    from orionbed.schedule.picture import WIDTH, gantt_lines, list_lines

    stages, microbatches = _counted(found["num_stages"], "stage"), _counted(found["num_microbatches"], "micro-batch")
    pieces = "" if found["chunks_per_stage"] == 1 else f", {found['chunks_per_stage']} pieces of the model per stage"
    makespan, span = _seconds_text(found["makespan_s"]), _seconds_text(found["span_s"])
    peaks = _peaks_text(found["peak_activations"])
    column = _seconds_text(found["makespan_s"] / WIDTH)
    return [
        f"{found['name']}  {found['title']}; {stages}, {microbatches}{pieces}",
        *list_lines(timed),
        f"makespan {makespan}, bubble {found['bubble']:.1%}: first action to last",
        f"span     {span}, bubble {found['bubble_of_span']:.1%}: the same of the longest stage",
        f"memory   {peaks} micro-batches at most, by stage; weight gradients need half",
        f"hops     {_hops_text(found)}",
        *gantt_lines(timed),
        f"         {WIDTH} columns of {column}; F forward, B backward, I input and W weight gradient, . idle",
    ]


def _hops_text(found: dict[str, Any]) -> str:
    """Say what messages cost the step."""
    num_hops, delay_s = found["hops_on_longest_path"], found["latency_s"]
    text = f"{num_hops} on the longest path, {_seconds_text(delay_s)} each, {_seconds_text(num_hops * delay_s)} in all"
    if found["formula"] is None:
        return text
    if found["hops_by_formula"] is None:
        return f"{text}; {found['formula']} holds for whole multiples of the stages"
    return f"{text}; {found['formula']} = {found['hops_by_formula']}"


def _peaks_text(peaks: list[float]) -> str:
    from orionbed.schedule.picture import WIDTH, shortened

    return shortened([f"{peak:.4g}" for peak in peaks], WIDTH // 2)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}{'es' if what.endswith('ch') else 's'}"


def _seconds_text(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}" if seconds < 1e4 else f"{seconds:,.0f} s"
    return f"{seconds * 1e6:.4g} us" if seconds else "0 s"
