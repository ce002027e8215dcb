"""GPT models on A100s against what was published about them, with one set of constants and no fit per row.

- Table 4: Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", arXiv 2205.05198:
  one layer of the 22B model (hidden 6144, 64 heads, sequence 2048, micro-batch 4, tensor parallel 8), milliseconds.
- Activation memory: figures 1 and 7 of the same paper, as digitised by the authors of Calculon
  (github.com/calculon-ai/calculon, command llm-validation); models and layouts of table 3.
- Parameters: Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM",
  SC '21, arXiv 2104.04473, equation 2 and table 1 (sequence 2048, vocabulary 51200).
"""

from typing import NamedTuple

import pytest

from orionbed import model as arithmetic
from orionbed.compute import CostModel
from orionbed.scenario import gpu_profile
from orionbed.scenario.layout import Model

SEQUENCE = 2048
VOCAB = 51200


def gpt(layers: int, hidden: int, heads: int) -> Model:
    return Model(
        layers=layers, hidden=hidden, ffn=4 * hidden, heads=heads, kv_heads=heads, vocab=VOCAB, tied_embeddings=True,
        dtype="fp16", block="gpt", positions=SEQUENCE, attention="unfused",
    )  # fmt: skip


class LayerTime(NamedTuple):
    name: str
    sequence_parallel: bool
    recompute: str
    forward_ms: float
    backward_ms: float


LAYER_TIMES = [
    LayerTime("baseline, no recompute", False, "none", 7.7, 11.9),
    LayerTime("sequence parallelism", True, "none", 7.2, 11.8),
    LayerTime("baseline with recompute", False, "full", 7.7, 19.5),
    LayerTime("selective recompute", False, "selective", 7.7, 13.2),
    LayerTime("selective and sequence", True, "selective", 7.2, 13.1),
]


@pytest.mark.parametrize("row", LAYER_TIMES, ids=lambda row: row.name)
def test_one_layer_of_22b_takes_what_was_measured_within_5_percent(row: LayerTime) -> None:
    tokens = 4 * SEQUENCE
    costs = CostModel(gpu_profile("a100-80gb"), gpus=8, sequence_parallel=row.sequence_parallel)
    model = gpt(48, 6144, 64)
    layer = costs.layer(model, tokens, SEQUENCE)
    again_s = {
        "none": 0.0,
        "selective": costs.attention_core(model, tokens, SEQUENCE).forward_s,
        "full": layer.forward_s,
    }
    assert 1e3 * layer.forward_s == pytest.approx(row.forward_ms, rel=0.05)
    assert 1e3 * (layer.backward_s + again_s[row.recompute]) == pytest.approx(row.backward_ms, rel=0.05)


class Memory(NamedTuple):
    """GiB of activations on the first stage, and percent of the first figure for four other policies."""

    name: str
    layers: int
    hidden: int
    heads: int
    micro_batch: int
    stages: int
    chunks: int
    plain_gib: float
    sequence_selective_gib: float
    sequence_percent: float
    selective_percent: float
    sequence_selective_percent: float
    full_percent: float


MEMORIES = [
    Memory("22B", 48, 6144, 64, 4, 1, 1, 59.25, 9.5625, 66.84, 49.42, 16.18, 7.64),
    Memory("175B", 96, 12288, 96, 1, 8, 3, 66.84375, 12.3515625, 62.04, 56.53, 18.49, 8.71),
    Memory("530B", 105, 20480, 128, 1, 35, 3, 114.0234375, 23.076171875, 58.31, 62.04, 20.27, 9.42),
    Memory("1T", 128, 25600, 160, 1, 64, 1, 131.25, 26.5625, 58.31, 62.04, 20.27, 9.42),
]


@pytest.mark.parametrize("row", MEMORIES, ids=lambda row: row.name)
def test_activations_of_the_first_stage_take_what_was_published_within_5_percent(row: Memory) -> None:
    tokens = row.micro_batch * SEQUENCE
    model = gpt(row.layers, row.hidden, row.heads)
    # 1F1B keeps as many micro-batches as there are stages; with interleaved chunks 1 + (p - 1) / (p v) times as many.
    interleaved = 1 + (row.stages - 1) / (row.stages * row.chunks) if row.chunks > 1 else 1.0
    kept_layers = row.layers * interleaved

    def gib(*, sequence_parallel: bool = False, selective: bool = False) -> float:
        layer = arithmetic.layer_activation_bytes(
            model, tokens, sequence=SEQUENCE, gpus=8, sequence_parallel=sequence_parallel, selective=selective
        )
        return kept_layers * layer / 2**30

    assert gib() == pytest.approx(row.plain_gib, rel=0.05)
    assert gib(sequence_parallel=True, selective=True) == pytest.approx(row.sequence_selective_gib, rel=0.05)
    assert 100 * gib(sequence_parallel=True) / gib() == pytest.approx(row.sequence_percent, rel=0.05)
    assert 100 * gib(selective=True) / gib() == pytest.approx(row.selective_percent, rel=0.05)
    both = gib(sequence_parallel=True, selective=True)
    assert 100 * both / gib() == pytest.approx(row.sequence_selective_percent, rel=0.05)
    full = kept_layers * arithmetic.boundary_bytes(tokens, row.hidden, "fp16", None) / 2**30
    assert 100 * full / gib() == pytest.approx(row.full_percent, rel=0.05)


class Size(NamedTuple):
    billions: str
    heads: int
    hidden: int
    layers: int


SIZES = [
    Size("1.7", 24, 2304, 24),
    Size("3.6", 32, 3072, 30),
    Size("7.5", 32, 4096, 36),
    Size("18.4", 48, 6144, 40),
    Size("39.1", 64, 8192, 48),
    Size("76.1", 80, 10240, 60),
    Size("145.6", 96, 12288, 80),
    Size("310.1", 128, 16384, 96),
    Size("529.6", 128, 20480, 105),
    Size("1008.0", 160, 25600, 128),
]


@pytest.mark.parametrize("row", SIZES, ids=lambda row: row.billions)
def test_sizes_agree_with_the_table_to_its_last_digit_and_with_the_equation(row: Size) -> None:
    parameters = arithmetic.num_parameters(gpt(row.layers, row.hidden, row.heads))
    assert f"{parameters / 1e9:.1f}" == row.billions
    layers, hidden = row.layers, row.hidden
    equation = 12 * layers * hidden**2 * (1 + 13 / (12 * hidden) + (VOCAB + SEQUENCE) / (12 * layers * hidden))
    # The equation leaves out the final LayerNorm.
    assert parameters - 2 * hidden == pytest.approx(equation, rel=1e-12)


def test_gpt_3_has_as_many_parameters_as_the_equation_says() -> None:
    parameters = arithmetic.num_parameters(gpt(96, 12288, 96))
    assert parameters == 96 * (12 * 12288**2 + 13 * 12288) + (51200 + 2048) * 12288 + 2 * 12288
    assert f"{parameters / 1e9:.1f}" == "174.6"
