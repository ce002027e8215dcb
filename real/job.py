"""What every process of a run is given: a file that only its owner may read, for it holds the run's secrets."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from orionbed.backends import BackendError
from orionbed.fleet.tls import Credentials
from orionbed.plan import Plan, make_plan
from orionbed.runs import version
from orionbed.scenario import Scenario
from orionbed.training.data import Batches
from orionbed.training.shape import ModelShape
from orionbed.training.text import make_batches
from real.settings import DeviceKind, real_shape

Transport = Literal["nccl", "gloo", "tcp"]
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Job:
    """One run. `control` is where the supervisor listens, `token` what opens its door.

    `credentials` are those of all processes of the run; none where nothing is encrypted. `device` and `transport` are
    what the settings `auto` have become.
    """

    plan: Plan
    seed: int
    shape: ModelShape
    device: DeviceKind
    transport: Transport
    control: tuple[str, int]
    token: str
    credentials: Credentials | None = None

    @property
    def batches(self) -> Batches:
        """What makes the micro-batches of the run: of the numbers that first-stage peers give them."""
        return make_batches(self.plan.scenario.training.data, self.shape, self.seed)

    def write(self, path: Path) -> None:
        """Write the job as a file that nobody else can read."""
        told: dict[str, Any] = {
            "format": _FORMAT,
            "version": version(),
            "scenario": json.loads(self.plan.scenario.model_dump_json()),
            "seed": self.seed,
            "device": self.device,
            "transport": self.transport,
            "control": list(self.control),
            "token": self.token,
            "credentials": None
            if self.credentials is None
            else [self.credentials.key, self.credentials.certificate, self.credentials.authority],
        }
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(told, file)

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Return the job of a file.

        Raises:
            BackendError: it is none, or of another version of orionbed.

        """
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if (told["format"], told["version"]) != (_FORMAT, version()):
                raise BackendError(
                    f"{path} is a job of orionbed {told['version']}, this is {version()}: use the same on all machines"
                )
            scenario = Scenario.model_validate(told["scenario"])
            credentials = None if told["credentials"] is None else Credentials(*told["credentials"])
            control = (str(told["control"][0]), int(told["control"][1]))
            plan = make_plan(scenario, told["seed"])
            return cls(
                plan, told["seed"], real_shape(plan, told["device"]), told["device"], told["transport"], control,
                told["token"], credentials,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise BackendError(f"{path} is no job of orionbed: {error}") from None
