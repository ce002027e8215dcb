"""The scenario: one YAML file in, one frozen, validated object out; everything in SI."""

from orionbed.scenario.change import apply
from orionbed.scenario.distributions import Distribution
from orionbed.scenario.drawing import draw
from orionbed.scenario.gpu import GpuProfile, gpu_profile
from orionbed.scenario.load import load
from orionbed.scenario.problems import Place, Problem, ScenarioError
from orionbed.scenario.provenance import assumptions
from orionbed.scenario.render import json_schema, to_yaml
from orionbed.scenario.schema import Scenario

__all__ = [
    "Distribution",
    "GpuProfile",
    "Place",
    "Problem",
    "Scenario",
    "ScenarioError",
    "apply",
    "assumptions",
    "draw",
    "gpu_profile",
    "json_schema",
    "load",
    "to_yaml",
]
