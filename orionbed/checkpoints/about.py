"""What a checkpoint is of: which scenario, seed and position."""

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orionbed.scenario import Scenario


def about_run(scenario: "Scenario", seed: int, position: int, **more: Any) -> dict[str, Any]:
    """Return what stands in the manifests of a run; `more` is plain JSON.

    `scenario_sha256` is that of the resolved scenario with its seed taken as 0, as YAML text.
    """
    from orionbed.runs import version, with_seed
    from orionbed.scenario import to_yaml

    digest = hashlib.sha256(to_yaml(with_seed(scenario, 0)).encode()).hexdigest()
    told = {"orionbed": version(), "scenario": scenario.name, "scenario_sha256": digest, "seed": seed}
    return told | {"position": position} | more
