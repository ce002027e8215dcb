"""The strict YAML 1.2 reader."""

import json
import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed.scenario import Place, ScenarioError
from orionbed.scenario.yaml_file import MAX_DEPTH, read_file, read_text, resolve


def plain(text):
    return read_text(text, "t.yaml").plain()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("12:30", "12:30"),
        ("190:20:30", "190:20:30"),
        ("2026-06-01", "2026-06-01"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1e", "1e"),
        ("+", "+"),
        (".", "."),
        ("0", 0),
        ("-7", -7),
        ("+7", 7),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("0o8", "0o8"),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("1.1e9", 1.1e9),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0.5", -0.5),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("856 Mbps", "856 Mbps"),
        ("$1.25", "$1.25"),
        ('"1"', "1"),
        ("'true'", "true"),
        ("1f1b", "1f1b"),
    ],
)
def test_plain_words(text, value):
    found = plain(f"key: {text}\n")["key"]
    assert found == value
    assert type(found) is type(value)


def test_nan():
    assert math.isnan(plain("a: .nan")["a"])


@settings(deadline=None)
@given(st.integers())
def test_integers(number):
    assert plain(f"a: {number}") == {"a": number}
    assert plain(f"a: [0x{abs(number):x}, 0o{abs(number):o}]") == {"a": [abs(number)] * 2}


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats(number):
    assert plain(f"a: {number!r}") == {"a": number}


@settings(deadline=None)
@given(st.decimals(-1000, 1000, places=3), st.integers(-20, 20), st.sampled_from("eE"))
def test_numbers_with_exponents(mantissa, exponent, letter):
    assert resolve(f"{mantissa}{letter}{exponent}") == float(f"{mantissa}e{exponent}")


@settings(deadline=None)
@given(st.text(alphabet="0123456789abcdefox.+-eE_:", min_size=1, max_size=8))
def test_what_is_no_number_stays_text(text):
    value = resolve(text)
    if isinstance(value, str):
        assert value == text
    else:
        assert value == (int(text, 0) if text.startswith(("0x", "0o")) else float(text))


@settings(deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text("ab: #'\n\"yesno1.-", max_size=6),
        lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inside, max_size=3),
        max_leaves=10,
    )
)
def test_json_is_yaml(data):
    assert plain(json.dumps({"a": data}).replace("Infinity", ".inf")) == {"a": data}


def test_places():
    tree = read_text("a: 1\nb:\n  c: [x, {d: y}]\n", "t.yaml")
    assert tree.at("a").place == Place("t.yaml", 1, 4)
    assert tree.at("a").key_place == Place("t.yaml", 1, 1)
    assert tree.at("b", "c").place == Place("t.yaml", 3, 6)
    assert tree.at("b", "c").value[1].at("d").place == Place("t.yaml", 3, 14)
    assert tree.at("b", "x") is None


def test_anchors_and_aliases():
    assert plain("a: &x {k: 1}\nb: *x\nc: [*x, *x]") == {"a": {"k": 1}, "b": {"k": 1}, "c": [{"k": 1}, {"k": 1}]}
    tree = read_text("a: &x 1\nb: *x", "t.yaml")
    assert tree.at("b").place == Place("t.yaml", 2, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "t.yaml:3:1: a: the key is there twice, first on line 1; remove one"),
        ("a: {b: 1, b: 2}", "t.yaml:1:11: a.b: the key is there twice"),
        ("a: {<<: {b: 1}}", "t.yaml:1:5: a.<<: merge keys are not YAML 1.2"),
        ("a: !!int '3'", "t.yaml:1:4: a: tag !!int is not supported; write the plain value"),
        ("a: !secret x", "t.yaml:1:4: a: tag !secret is not supported"),
        ("a: !!python/object:os.system x", "is not supported"),
        ("a: &x [*x]", "t.yaml:1:8: a.0: alias *x stands inside its own anchor; remove it"),
        ("a: *x", "t.yaml:1:4: a: alias *x has no anchor"),
        ("a: 1\n--- \nb: 2", "t.yaml:2:1: a second document starts here"),
        ("[a]: 1", "a key must be a plain word"),
        ("a:\n\t- b", "indent with spaces, not tabs"),
        ("a: {b: 1", "not valid YAML"),
        ("a: 'b", "not valid YAML"),
        ("a: b: c", "put text with a colon into quotes"),
        ("a: %b", "put text that starts with % into quotes"),
        ("a: " + "9" * 5000, "t.yaml:1:4: a: the number has too many digits; write it like 1e9"),
        ("a: " + "[" * (MAX_DEPTH + 1), f"nested more than {MAX_DEPTH} levels deep"),
        ("a: " + "{a: " * 3000, "nested more than"),
    ],
)
def test_refused(text, said):
    with pytest.raises(ScenarioError) as error:
        read_text(text, "t.yaml")
    assert said in str(error.value)


def test_all_duplicates_are_named_at_once():
    with pytest.raises(ScenarioError) as error:
        read_text("a: 1\na: 2\nb: 1\nb: 2", "t.yaml")
    assert [problem.place.line for problem in error.value.problems] == [2, 4]


def test_a_billion_laughs_are_not_laughed():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(ScenarioError, match="aliases that repeat aliases are refused"):
        read_text("\n".join(lines), "t.yaml")


def test_keys_are_text():
    assert plain("1: a\ntrue: b\n'c d': e\nnull: f\n1.5: g") == {
        "1": "a",
        "true": "b",
        "c d": "e",
        "null": "f",
        "1.5": "g",
    }


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_bytes("\ufeffa: 1\r\nb: ä\r\n".encode())
    assert read_file(path).plain() == {"a": 1, "b": "ä"}


def test_the_slow_parser_reads_the_same(monkeypatch):
    text = "a: 1 # x\nb: [1e-3, {c: 'd', e: no}]\nf: |\n  g\n  h\n"
    fast = read_text(text, "t.yaml")
    monkeypatch.setattr("orionbed.scenario.yaml_file._LOADER", yaml.SafeLoader)
    assert read_text(text, "t.yaml") == fast
