"""Lists in which messages would be taken for one another are found."""

from real.static.message_order import in_same_order

FOLDED = (0, 1, 1, 0)


def test_ascending_sends_and_receives_agree() -> None:
    lists = {0: ["0F0", "0SEND_F0", "0F1", "0SEND_F1", "0RECV_B0"], 1: ["1RECV_F0", "1F0", "1RECV_F1", "1SEND_B0"]}
    assert in_same_order(lists, (0, 1))


def test_a_receive_before_its_turn_is_found() -> None:
    lists = {0: ["0SEND_F0", "0SEND_F1"], 1: ["1RECV_F1", "1RECV_F0"]}
    assert not in_same_order(lists, (0, 1))


def test_both_directions_of_a_fold_share_one_pair_of_stages() -> None:
    sends = ["0SEND_F1", "3SEND_B0"]
    assert in_same_order({0: sends, 1: ["1RECV_F1", "2RECV_B0"]}, FOLDED)
    assert not in_same_order({0: sends, 1: ["2RECV_B0", "1RECV_F1"]}, FOLDED)


def test_a_message_that_nobody_takes_is_found() -> None:
    assert not in_same_order({0: ["0SEND_F0"], 1: []}, (0, 1))


def test_what_is_no_message_does_not_count() -> None:
    assert in_same_order({0: ["0F0", "(0F3;3B1)OVERLAP_F_B", "0UNSHARD", "0REDUCE_GRAD"], 1: ["1W0"]}, FOLDED)
