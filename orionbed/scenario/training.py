"""Section `training`: what is learned from what, and how; the simulator, which computes nothing, leaves it alone."""

from typing import Annotated, Final, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from orionbed.scenario.fields import Block, Count, NotNegative, Positive, conflicts

NAMED_TEXTS: Final = ("sample", "bytes")
"""What stands where a path may: the text that comes with orionbed, and the tokenizer that needs no file."""
BYTE_TOKENS: Final = 257
"""Tokens of the tokenizer `bytes`: 256, and the one between documents."""


def _momentum_tag(value: object) -> str:
    return "=name" if isinstance(value, str) else "=number"


Momentum = Annotated[
    Annotated[Literal["auto"], Tag("=name")] | Annotated[NotNegative, Field(lt=1), Tag("=number")],
    Discriminator(_momentum_tag),
]


class InnerOptimizer(Block):
    """The inner optimizer, which every peer runs on its own piece of the model."""

    kind: Literal["adamw", "nadam", "muon", "sgd"] = Field(
        default="adamw",
        description="adamw (default), nadam, muon (matrices of the blocks; adamw elsewhere) or sgd.",
    )
    learning_rate: Positive = Field(default=1e-3, description="Its learning rate (default 0.001).")
    warm_up: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Steps over which the rate grows linearly to its value (default 0)."
    )
    momentum: Momentum = Field(
        default="auto",
        description="Its first momentum, or `auto` (default): adamw 0.9, muon's matrices 0.95, sgd none, nadam the "
        "earlier a stage the more, 0.9 + 0.09 (K - 1 - p) / K at stage p of K.",
    )
    weight_decay: NotNegative = Field(
        default=0.01, description="Decoupled weight decay; sgd has none (default 0.01; IOTA's code 0.1)."
    )
    clip: Positive | None = Field(
        default=None,
        description="Largest norm of the whole model's gradient; a stage has the share sqrt(its parameters / all) of "
        "it for itself (default null: not clipped; IOTA's code 1.0).",
    )


class SyntheticData(Block):
    """A Markov chain, which a small model learns in a few dozen steps."""

    kind: Literal["synthetic"] = Field(description="synthetic: a Markov chain over the vocabulary.")


class _Text(Block):
    """What all sources of text have in common."""

    tokenizer: str = Field(
        default="bytes",
        description="`bytes` (default: a token is a byte, 256 in all and one between documents), or the path of a "
        "tokenizer.json.",
    )
    held_out: Annotated[NotNegative, Field(lt=1)] = Field(
        default=0.05, description="Share of the text that is kept for evaluation (default 0.05)."
    )


class FileData(_Text):
    """Text files: one, or all of a folder."""

    kind: Literal["text"] = Field(description="text: a text file, or all .txt and .md files of a folder.")
    path: str = Field(
        default="sample",
        description="Path of the file or folder, from the scenario's folder; `sample` (default) is a text that comes "
        "with orionbed.",
    )


class ParquetData(_Text):
    """Parquet files: one, or all of a folder."""

    kind: Literal["parquet"] = Field(description="parquet: a Parquet file, or all of a folder, a document per row.")
    path: str = Field(description="Path of the file or folder, from the scenario's folder.")
    column: str = Field(default="text", description="The column with the text (default text).")


class HubData(_Text):
    """A dataset of the Hugging Face hub, streamed."""

    kind: Literal["hub"] = Field(description="hub: a dataset that the `datasets` library streams.")
    name: str = Field(
        default="HuggingFaceFW/fineweb-edu-score-2",
        description="Its name (default HuggingFaceFW/fineweb-edu-score-2, Orion's).",
    )
    subset: str | None = Field(default=None, description="Its subset or configuration (default null: its default).")
    split: str = Field(default="train", description="Its split (default train).")
    column: str = Field(default="text", description="The column with the text (default text).")


Data = Annotated[SyntheticData | FileData | ParquetData | HubData, Field(discriminator="kind")]


class Training(Block):
    """What is learned from what, and how, wherever something is really computed."""

    model: Literal["stand-in", "own"] = Field(
        default="stand-in",
        description="With `orionbed train`: the scaled-down model of the `emulator` block (`stand-in`, default), or "
        "the scenario's `own`, with its own batch.",
    )
    microbatches: Count | None = Field(
        default=None,
        description="With `orionbed train`: micro-batches that are applied before the run ends (default null: as "
        "`run` says).",
    )
    optimizer: InnerOptimizer = Field(default=InnerOptimizer(), description="The inner optimizer.")
    data: Data = Field(default=SyntheticData(kind="synthetic"), description="What is learned from.")
    evaluate_every: Count | None = Field(
        default=None,
        description="Micro-batches applied between two evaluations on held-out text (default null: at the end alone).",
    )
    evaluation_microbatches: Count = Field(default=8, description="Micro-batches of one evaluation (default 8).")
    samples: Annotated[int, Field(ge=0)] = Field(
        default=3, description="Pieces of text that the trained model writes at the end (default 3)."
    )
    sample_tokens: Count = Field(default=160, description="Tokens of each of them (default 160).")
    checkpoint_every: Count | None = Field(
        default=500,
        description="With `orionbed train`: micro-batches learned from between two checkpoints, from which a training "
        "that was broken off goes on (default 500; null: none are written).",
    )
    keys: str | None = Field(
        default=None,
        description="With `orionbed train`: folder of private keys to sign checkpoints with, one called writer or one "
        "alone among them, and to refuse others' (default null: they are not signed).",
    )
    rolling: Count = Field(default=50, description="Micro-batches of the loss curve's rolling mean (default 50).")

    @model_validator(mode="after")
    def _signs_something(self) -> Self:
        if self.keys is not None and self.checkpoint_every is None:
            raise conflicts([(("keys",), "is for signing checkpoints; give `checkpoint_every`, when they are written")])
        return self
