"""All that there is of checkpoints at a path: one, the folder of a run's, or parts that processes have kept."""

from dataclasses import dataclass, field
from pathlib import Path

from orionbed.checkpoints.errors import NoCheckpointError
from orionbed.checkpoints.folders import MANIFEST, folders_in
from orionbed.checkpoints.parts import examine_parts, has_parts, missing_processes
from orionbed.checkpoints.verifying import Examined, examine
from orionbed.keys import Trusted


@dataclass(frozen=True, slots=True)
class Survey:
    """Every manifest that was found, and what is wrong or to be said beyond what each is told of."""

    found: list[Examined]
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing is wrong anywhere."""
        return not self.problems and not any(each.problems for each in self.found)


def survey(path: Path, trusted: Trusted | None = None) -> Survey:
    """Examine all checkpoints at a path.

    Raises:
        NoCheckpointError: there are none.

    """
    if (path / MANIFEST).is_symlink() or (path / MANIFEST).exists():
        return Survey([examine(path, trusted)])
    if has_parts(path):
        versions, problems = examine_parts(path, trusted)
        missing = {version: missing_processes(parts) for version, parts in versions.items()}
        remarks = [f"version {version}: {', '.join(names)} missing" for version, names in missing.items() if names]
        return Survey([each for parts in versions.values() for each in parts], problems, [] if problems else remarks)
    whole = Survey([])
    for folder in folders_in(path):
        try:
            whole.found.append(examine(folder, trusted))
        except NoCheckpointError as error:
            whole.problems.append(str(error))
    if not whole.found and not whole.problems:
        raise NoCheckpointError(f"{path}: no checkpoint there: neither {MANIFEST} nor folders that have one")
    return whole
