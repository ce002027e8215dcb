"""Tables as lines of text."""

from orionbed.aligned import aligned


def test_names_begin_alike_and_numbers_end_alike() -> None:
    rows = [("peer", "adds", ""), ("s00r0", "7", "faster"), ("s1", "12", "slower")]
    assert aligned(rows, left=(0, 2), indent="  ") == [
        "  peer   adds",
        "  s00r0     7  faster",
        "  s1       12  slower",
    ]
