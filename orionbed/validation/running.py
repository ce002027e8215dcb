"""Runs validation sources, on several cores if there are."""

from collections.abc import Callable, Sequence

from orionbed.processes import in_processes
from orionbed.validation.case import Case, Source, judge
from orionbed.validation.document import Outcome


def run_sources(sources: Sequence[Source], jobs: int, progress: Callable[[int], None] | None = None) -> list[Outcome]:
    """Run and judge sources, with several jobs each in a process of its own; `progress` hears how many are done."""
    if jobs == 1:
        found = []
        for count, source in enumerate(sources, 1):
            found.append(source.run())
            if progress is not None:
                progress(count)
    else:
        found = in_processes(_cases, [(source,) for source in sources], jobs, progress)
    return [Outcome(source, tuple(cases), judge(source, cases)) for source, cases in zip(sources, found, strict=True)]


def _cases(source: Source) -> list[Case]:
    return source.run()
