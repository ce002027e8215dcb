"""GPU profiles: what a GPU can do, every number with its source."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from orionbed.scenario import packaged
from orionbed.scenario.fields import (
    FROM_FILE,
    NAME_PATTERN,
    Block,
    ByteRate,
    Count,
    DataSize,
    Duration,
    FlopRate,
    Fraction,
    Listed,
    conflicts,
)
from orionbed.scenario.measurements import MeasuredPieces, MeasurementOrNull
from orionbed.scenario.messages import translate
from orionbed.scenario.problems import ScenarioError
from orionbed.scenario.yaml_file import read_file

_Efficiency = Annotated[Fraction, Field(gt=0)]


class MatmulEfficiency(Block):
    """Share of peak of matrix multiplies whose smallest dimension is about this size."""

    smallest_dimension: Count = Field(description="The smallest of m, n and k.")
    forward: _Efficiency = Field(description="Share of peak in the forward pass.")
    input_gradient: _Efficiency = Field(description="Share of peak when computing the gradient of the input.")
    weight_gradient: _Efficiency = Field(description="Share of peak when computing the gradient of the weights.")


class AttentionEfficiency(Block):
    """Share of peak of fused causal attention, counted in the FLOPs that it needs."""

    forward: _Efficiency = Field(description="Share of peak in the forward pass.")
    backward: _Efficiency = Field(description="Share of peak in the backward pass.")


class GpuProfile(Block):
    """One type of GPU. `memory_bandwidth` is in bytes per second."""

    name: str = Field(pattern=NAME_PATTERN, description="Name of the profile, as in `peers.gpu`.")
    title: str = Field(default="", description="Full name for the report (default empty).")
    peak: Annotated[FlopRate, Field(gt=0)] = Field(description="Dense bf16 matrix-multiply peak, like 312 TFLOP/s.")
    peak_fp32: Annotated[FlopRate, Field(gt=0)] | None = Field(
        default=None, description="Matrix-multiply peak in fp32, like 19.5 TFLOP/s (default null: as `peak`)."
    )
    memory: Annotated[DataSize, Field(gt=0)] = Field(description="Memory, like 80 GB.")
    memory_bandwidth: Annotated[ByteRate, Field(gt=0)] = Field(description="Memory bandwidth, like 2039 GB/s.")
    memory_efficiency: _Efficiency = Field(description="Share of the memory bandwidth that simple kernels reach.")
    launch: Duration = Field(description="Time that starting one kernel takes.")
    matmul: Annotated[tuple[MatmulEfficiency, ...], Listed] = Field(
        min_length=1,
        description="Efficiencies by smallest dimension, rising; in between interpolated in its logarithm.",
    )
    attention: AttentionEfficiency = Field(description="Share of peak of the fused attention kernel.")
    link: Annotated[ByteRate, Field(gt=0)] | None = Field(
        default=None,
        description="Rate to the other GPUs of the node, one direction, like 300 GB/s (default null: not connected).",
    )
    link_efficiency: _Efficiency = Field(
        default=0.75, description="Share of `link` that large collectives reach (default 0.75)."
    )
    link_delay: Duration = Field(
        default=20e-6, description="Time that a collective takes besides moving its bytes (default 20 us)."
    )
    device: Literal["cpu", "cuda"] | None = Field(
        default=None, description="What `orionbed calibrate` measured it on (default null: a profile made by hand)."
    )
    measured: Annotated[tuple[MeasuredPieces, ...], Listed] = Field(
        default=(),
        description="Measured pieces of stages, one entry per shape (default: none). Where a scenario has such a shape "
        "and number format they take the place of everything above.",
    )
    measurement: MeasurementOrNull = Field(
        default=None, description="On what the profile was measured (default null: a profile made by hand)."
    )
    provenance: dict[str, str] = Field(default={}, description="Dotted key -> `kind: source`, as in a scenario.")

    @model_validator(mode="after")
    def _each_shape_once(self) -> Self:
        shapes = [entry.shape for entry in self.measured]
        for index, shape in enumerate(shapes):
            if shape in shapes[:index]:
                text = f"the same shape as measured.{shapes.index(shape)}; remove one"
                raise conflicts([(("measured", index, "shape"), text)])
        return self


def gpu_profile(name: str) -> GpuProfile:
    """The profile of that name in scenarios/gpus, or of a .yaml file. Raises ScenarioError."""
    path, shown = packaged.gpu_file(name)
    tree = read_file(path, shown)
    try:
        return GpuProfile.model_validate(tree.plain(), context=FROM_FILE)
    except ValidationError as error:
        raise ScenarioError(translate(error, tree, GpuProfile)) from None
