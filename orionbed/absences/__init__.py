"""Who is away when: from the `churn` of a scenario to every peer's absences, the same for every backend."""

from orionbed.absences.absence import LIFETIME, Absence
from orionbed.absences.away import Absences

__all__ = ["LIFETIME", "Absence", "Absences"]
