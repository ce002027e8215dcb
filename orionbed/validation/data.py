"""The larger tables of a user's folder, which are other people's data and do not ship with orionbed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from orionbed.validation import collectives, crosspipe, dtfm, megatron
from orionbed.validation.case import Case, Source
from orionbed.validation.catalogue import SOURCES
from orionbed.validation.facts import DataError, Row, read_table

_RENAMED: Final = {
    "parameters_b": "billions", "hidden_size": "hidden", "num_layers": "layers", "attention_heads": "heads",
    "tensor_parallelism": "tensor", "data_parallelism": "data", "pipeline_parallelism": "pipeline",
    "iteration_time_ms": "step_ms", "t_lat": "delay", "t_bw": "occupancy", "num_microbatches": "microbatches",
    "num_dc": "datacentres", "1F1B": "s_1f1b", "ZBH1": "s_zb_h1", "ZBV": "s_zb_v",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Table:
    """A file of the folder, what it must have, and which shipped source it is the whole of."""

    file: str
    columns: tuple[str, ...]
    cases: Callable[[list[Row]], list[Case]]
    like: str
    asked: bool = True
    but: str = ""


def _named(cases: Callable[[list[Row]], list[Case]], rows: list[Row]) -> list[Case]:
    return cases([{_RENAMED.get(key, key): value for key, value in row.items()} for row in rows])


def _pipelines(rows: list[Row]) -> list[Case]:
    alone = [row for row in rows if row["dp"] == 1]
    return dtfm.pipeline_cases([row | {"gbps": row["bandwidth_gbps"], "step_s": row["iter_time_s"]} for row in alone])


def _crosspipe(rows: list[Row]) -> list[Case]:
    return _named(crosspipe.cases_of, [row for row in rows if row["1F1B"] != ""])


_TABLES: Final = (
    _Table(
        "vtrain_ground_truth_multi.csv", ("parameters_b", "iteration_time_ms"),
        partial(_named, megatron.vtrain_cases), "vtrain-sample",
    ),
    _Table(
        "dtfm_pipeline_over_shaped_network_fp32.csv", ("iter_time_s", "dp", "precision"), _pipelines, "dtfm-pipelines",
        but=" without replicas",
    ),
    _Table(
        "dtfm_pipeline_over_shaped_network.csv", ("iter_time_s", "dp", "precision"), _pipelines, "dtfm-pipelines",
        asked=False, but=" without replicas",
    ),
    _Table("crosspipe_table5_2dc.csv", ("t_lat", "1F1B"), _crosspipe, "crosspipe-2dc"),
    _Table("crosspipe_table6_4dc.csv", ("t_lat", "1F1B"), _crosspipe, "crosspipe-2dc", asked=False),
    _Table(
        "dtfm_allreduce_times.csv", ("nodes", "nccl_128MB_ms"), collectives.all_reduce, "dtfm-messages", asked=False,
    ),
    _Table(
        "dtfm_gradient_sync_times.csv", ("algorithm", "time_s"), collectives.gradient_sync, "dtfm-messages",
        asked=False, but=" but those of the central server, whose algorithm there is another one",
    ),
)  # fmt: skip


def data_sources(folder: Path) -> list[Source]:
    """Return a source for each known table in `folder`.

    Raises:
        DataError: it is no folder, holds none of the tables, or one that is not what its name says.

    """
    known = ", ".join(table.file for table in _TABLES)
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder; give one that holds any of {known}")
    found = [table for table in _TABLES if (folder / table.file).is_file()]
    if not found:
        raise DataError(f"{folder}: holds none of the tables {known}")
    return [_source(table, read_table(folder / table.file, table.columns)) for table in found]


def _source(table: _Table, rows: list[Row]) -> Source:
    like = next(source for source in SOURCES if source.name == table.like)
    name = table.file.removesuffix(".csv").replace("_", "-")
    unit = {"dtfm-allreduce-times": "ms", "dtfm-gradient-sync-times": "s"}.get(name, like.unit)
    title = f"{table.file}, every row{table.but}"
    return replace(
        like, name=name, title=title, run=partial(table.cases, rows), unit=unit,
        rule=like.rule if table.asked else "shown", ranked=like.ranked and table.asked,
    )  # fmt: skip
