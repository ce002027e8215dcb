"""Which micro-batch has which sequences: each once in an epoch, none that is held out, whoever asks when."""

from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed.scenario.training import FileData, ParquetData
from orionbed.training.text import TextError, samples
from orionbed.training.text.held_out import HeldOut
from orionbed.training.text.samples import Cut, Samples

SEQUENCE = 8


def counted(path: Path, num_sequences: int) -> FileData:
    """A text whose sequences are the numbers from 0, in eight digits each, and one token more for the last target."""
    path.write_text("".join(f"{number:08d}" for number in range(num_sequences)))
    return FileData(kind="text", path=str(path), held_out=0.2)


def numbers(batch: Any) -> list[int]:
    """The sequences of a micro-batch; targets are checked to be the tokens that follow."""
    tokens, targets = batch
    assert tokens[:, 1:].tolist() == targets[:, :-1].tolist()
    found = [int(bytes(row)) for row in tokens.tolist()]
    following = [48 if number + 1 < 10_000_000 else 49 for number in found]  # the first digit of the next number
    assert all(last in {first, 256} for last, first in zip(targets[:, -1].tolist(), following, strict=True))
    return found


@given(
    num_sequences=st.integers(12, 400),
    sequences=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.05, 0.2, 0.5]),
    seed=st.integers(0, 3),
)
@settings(max_examples=25, deadline=None)
def test_an_epoch_has_every_sequence_once_and_none_that_is_held_out(
    tmp_path_factory: pytest.TempPathFactory, num_sequences: int, sequences: int, share: float, seed: int
) -> None:
    path = tmp_path_factory.mktemp("text") / "a.txt"
    data = counted(path, num_sequences).model_copy(update={"held_out": share})
    text = Samples(data, Cut(sequences, SEQUENCE, 257), seed)
    per_epoch = text.per_epoch
    assert per_epoch is not None
    held = set()
    if num_sequences * Fraction(share).limit_denominator(100) >= 1:
        held = {number for batch in range(num_sequences) for number in numbers(text.held_out(batch))}
    assert num_sequences * share - 16 <= len(held) <= num_sequences * share
    for epoch in range(2):
        found = [n for batch in range(per_epoch) for n in numbers(text(epoch * per_epoch + batch))]
        assert len(set(found)) == len(found) == per_epoch * sequences
        assert not held & set(found)
        assert num_sequences - len(held) - len(found) < sequences  # what is left over is less than a micro-batch
    assert [text.sample(n) for n in (0, per_epoch - 1, per_epoch)] == ["0/0", f"0/{per_epoch - 1}", "1/0"]


def test_a_micro_batch_depends_on_its_number_alone_and_epochs_are_shuffled_anew(tmp_path: Path) -> None:
    data, cut = counted(tmp_path / "a.txt", 200), Cut(2, SEQUENCE, 257)
    one, other = Samples(data, cut, 1), Samples(data, cut, 1)
    assert one.per_epoch == 84  # without two runs of 16
    batches = [numbers(one(n)) for n in range(168)]
    assert [numbers(other(n)) for n in reversed(range(168))] == batches[::-1]
    assert batches[:84] != batches[84:]
    assert sorted(chain(*batches[:84])) == sorted(chain(*batches[84:]))
    assert numbers(Samples(data, cut, 2)(0)) != batches[0]
    assert numbers(one(-1))  # a warm-up gets something


@given(share=st.fractions(Fraction(1, 100), Fraction(9, 10), max_denominator=100), run=st.integers(1, 16))
def test_ranks_number_what_is_held_out_and_what_is_not(share: Fraction, run: int) -> None:
    rule = HeldOut(share, run)
    held = [rule.held_out(rank) for rank in range(rule.num_held_out(300))]
    trained = [rule.training(rank) for rank in range(300 - rule.num_held_out(300))]
    assert sorted(held + trained) == list(range(300))
    assert held == sorted(held)
    assert trained == sorted(trained)


# ---------------------------------------------------------------- streams


def parquet_of(path: Path, documents: list[str | None]) -> ParquetData:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.table({"text": documents}), path, row_group_size=16)
    return ParquetData(kind="parquet", path=str(path), held_out=0.25)


def test_a_stream_is_read_as_far_as_needed_and_shuffled_by_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "BLOCK", 8)
    monkeypatch.setattr("orionbed.training.text.tokens.AT_ONCE", 64)
    # With its separator each document is a sequence.
    data = parquet_of(tmp_path / "a.parquet", [f"{number:07d}" for number in range(1000)])
    text = Samples(data, Cut(2, SEQUENCE, 257), 0)

    def drawn(number: int) -> list[int]:
        tokens, targets = text(number)
        assert tokens[:, -1].tolist() == [256, 256]
        assert targets[:, -1].tolist() == [48, 48]
        return [int(bytes(row[:-1])) for row in tokens.tolist()]

    first = [drawn(number) for number in range(4)]
    assert sorted(chain(*first)) == list(range(8)) != [*chain(*first)]
    assert text.per_epoch is None
    assert text._row.num_tokens < 30 * SEQUENCE
    assert text.sample(500) == "1/121"  # behind the end: it is read to it, and the next epoch begins
    # The last document has no token behind its separator. Of 62 runs of 16 sequences 15 are held out, and 7 are left.
    assert text.per_epoch == (999 - 15 * 16) // 2
    found = [one for number in range(379) for one in drawn(379 + number)]
    held = {int(bytes(row[:-1])) for n in range(120) for row in text.held_out(n)[0].tolist()}
    assert len(set(found)) == len(found) == 758
    assert len(held) == 240
    assert not held & set(found)
    assert [drawn(number) for number in range(4)] == first  # what is kept can be had again


# ---------------------------------------------------------------- what is wrong with a text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no text in it"),
        ("short", "6 tokens, which are less than one micro-batch of 2 x 8 tokens"),
    ],
)
def test_a_text_that_is_too_short_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(TextError, match=rf"training.data.path: .*a.txt .*{message}"):
        Samples(FileData(kind="text", path=str(tmp_path / "a.txt")), Cut(2, SEQUENCE, 257), 0)


def test_nothing_held_out_and_a_small_vocabulary_are_refused(tmp_path: Path) -> None:
    data = counted(tmp_path / "a.txt", 12)
    with pytest.raises(TextError, match=r"257 tokens, more than the model's vocab of 256"):
        Samples(data, Cut(2, SEQUENCE, 256), 0)
    with pytest.raises(TextError, match=r"held_out: is 0"):
        Samples(data.model_copy(update={"held_out": 0.0}), Cut(2, SEQUENCE, 257), 0).held_out(0)
    with pytest.raises(TextError, match=r"12 sequences of 8 tokens are too few"):
        Samples(data.model_copy(update={"held_out": 0.05}), Cut(2, SEQUENCE, 257), 0).held_out(0)
