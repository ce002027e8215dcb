"""All validation sources that ship with orionbed."""

from functools import partial
from typing import Final

from orionbed.validation import crosspipe, dtfm, internet, korthikanti, megatron, zero_bubble
from orionbed.validation.case import Source

_A100 = "matrix-multiply efficiencies of the A100 profile, measured by others"
_ELSEWHERE = "nothing on these; the three choices of korthikanti-layer"
_KORTHIKANTI = "Korthikanti et al. 2022, arXiv 2205.05198"
_DTFM = "Yuan et al., NeurIPS 2022, arXiv 2206.01288, notes of DS3Lab/Decentralized_FM_alpha"

SOURCES: Final = (
    Source(
        "korthikanti-layer", "One layer of a 22B GPT on 8 A100s", f"{_KORTHIKANTI}, table 4", "ms",
        korthikanti.layer_times, "each", 0.05,
        fitted="three choices made with this table in view, from a worst error of 6 %: LayerNorm's backward passes "
        "three times over memory, gradients add up within their multiply, batched multiplies compute and load in turn",
        assumed=_A100,
    ),
    Source(
        "korthikanti-memory", "Activation memory of GPT models", f"{_KORTHIKANTI}, figures 1 and 7", "GiB, %",
        korthikanti.activation_memory, "each", 0.05, rivals=(("Calculon, activations", "2 to 7 % mean"),),
    ),
    Source(
        "korthikanti-steps", "Whole steps of GPT models, 22B to 1T", f"{_KORTHIKANTI}, table 5", "s",
        megatron.korthikanti_steps, "mean", 0.05, fitted=_ELSEWHERE, assumed=_A100,
        rivals=(("Calculon", "3.65 % mean, 8.87 % worst"), ("SimuMax, full recompute", "4.0 % mean")),
    ),
    Source(
        "megatron-sc21", "Megatron-LM weak scaling, 1.7B to 1T on up to 3072 A100s",
        "Narayanan et al., SC 2021, arXiv 2104.04473, table 1", "TFLOP/s per GPU", megatron.sc21, "mean", 0.08,
        fitted=_ELSEWHERE,
        assumed="micro-batch and interleaved pieces are not published: the fastest that fit are taken; network cards "
        "reach 80 %", rivals=(("Calculon, one piece", "10.4 % mean, always too fast"),),
        brief=partial(megatron.sc21, most_billions=400.0),
    ),
    Source(
        "vtrain-sample", "Megatron-DeepSpeed on 64 to 512 A100s, every ninth run",
        "Bang et al., MICRO 2024, arXiv 2312.12391, public data", "ms", megatron.vtrain, "mean", 0.10,
        fitted=_ELSEWHERE,
        assumed="network cards reach 80 %; a boundary tensor crosses once per tensor-parallel group",
        rivals=(("vTrain, 116 runs", "14.7 %"), ("Calculon, 103 runs", "12.9 %, with logits added 10.8 %"),
                ("one formula with four constants fitted to the runs", "9.9 %")),
    ),
    Source(
        "zero-bubble", "Four schedules on 8 to 32 A100s", "Qi et al., ICLR 2024, arXiv 2401.10241, table 4",
        "samples per GPU and s", zero_bubble.throughput, "each", 0.08, ranked=True,
        fitted="0.6 ms of host time per operation, one number for all 48; stage times are the authors' (table 6)",
        rivals=(("the stage times alone, 1F1B only", "6.3 % mean, always too fast"),),
    ),
    Source(
        "dtfm-messages", "Single messages over shaped networks", _DTFM, "ms", dtfm.messages, "each", 0.06,
        fitted="two numbers for all 40: connections start again with 128 KiB per socket, and Gloo's window is 2.8 MiB",
        assumed="NCCL's 16 sockets on AWS and jumbo frames",
    ),
    Source(
        "dtfm-pipelines", "Pipelines of V100s over shaped networks", _DTFM, "s", dtfm.pipelines, "mean", 0.06,
        fitted="one compute constant per group, on its all but unshaped row (marked); the transport is that of the "
        "single messages", rivals=(
            ("event model with FIFO links, 44 rows", "8.8 %, with link times x 1.15 5.8 %"),
            ("closed form of the MIRI simulator", "11.3 %"), ("event model with blocking sends", "42 %")),
    ),
    Source(
        "crosspipe-2dc", "Three schedules over two datacentres",
        "Chen et al., USENIX ATC 2025, arXiv 2507.00217, table 5",
        "s per micro-batch", crosspipe.two_datacentres, "each", 0.12, ranked=True,
        fitted="the halves of the backward, on ZB-H1 and ZB-V without delay (marked)",
        assumed="the emulation's messages are synchronous, which the paper does not say: asynchronous ones would be up "
        "to a third too fast", rivals=(("event model with asynchronous messages", "0 to -16 % on 1F1B and ZB-H1"),),
    ),
    *internet.SOURCES,
)  # fmt: skip
