"""The schema: JSON Schema, descriptions, and what importing it costs."""

import subprocess
import sys

import jsonschema
import pytest
from pydantic import ValidationError

from orionbed.scenario import GpuProfile, Scenario, json_schema, load, to_yaml
from orionbed.scenario.fields import Block
from orionbed.scenario.keys import field_type, members
from orionbed.scenario.layout import Model
from orionbed.scenario.merging import Merge
from orionbed.scenario.packaged import FOLDER, scenarios
from orionbed.scenario.sections import Run
from orionbed.scenario.yaml_file import read_file, read_text


@pytest.fixture(scope="module")
def validator():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", scenarios())
def test_packaged_scenarios_follow_the_json_schema(validator, name):
    validator.validate(read_file(FOLDER / f"{name}.yaml").plain())
    validator.validate(read_text(to_yaml(load(name)), name).plain())


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        ("name", "My Run"),
        ("model", {"layers": 3}),
        ("batch", {"sequence": 1, "sequences": "2"}),
        ("zzz", 1),
        ("merge", "nothing"),
        ("merge", {"every": 57}),
        ("merge", {"every": "57 minutes"}),
        ("churn", {"up": {"dist": "lognorm"}, "down": "1 min"}),
        ("cost", {"gpu_hour": "1.25", "egress_per_gb": "$0.09"}),
        ("run", {"seed": 1.5}),
        ("published", [{"quantity": "mfu.in_phase"}]),
    ],
)
def test_wrong_scenarios_do_not(validator, section, wrong):
    data = {**read_file(FOLDER / "minimal.yaml").plain(), section: wrong}
    assert not validator.is_valid(data)


def test_a_file_that_extends_may_leave_things_out(validator):
    validator.validate({"extends": "minimal", "network": {"uplink": {"sigma": 0.1}}, "model": {"layers": 3}})
    assert not validator.is_valid({"extends": "minimal", "model": {"layer": 3}})
    assert not validator.is_valid({"name": "x"})


def blocks(kind, seen):
    for one in members(kind):
        if isinstance(one, type) and issubclass(one, Block) and one not in seen:
            seen.add(one)
            for field in one.model_fields.values():
                blocks(field_type(field), seen)
        for inner in getattr(one, "__args__", ()):
            blocks(inner, seen)
    return seen


FIELDS = [
    pytest.param(field, id=f"{block.__name__}.{name}")
    for block in sorted(blocks(Scenario, set()) | blocks(GpuProfile, set()), key=lambda block: block.__name__)
    for name, field in block.model_fields.items()
]


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_says_what_it_is(field):
    text = field.description
    assert text
    assert text.endswith(".")
    assert len(text) < 200
    given = field.is_required() or isinstance(field.default, Block) or field.default in ({}, ())
    assert given or "default" in text or text.startswith(("constant:", "The 90th", "Standard deviation of the natural"))


def test_blocks_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        load("minimal").run.seed = 3


def test_code_builds_blocks_with_si_numbers():
    assert Merge(every=3600.0).every == 3600.0
    assert Run(duration=60.0).duration == 60.0
    with pytest.raises(ValidationError, match="3 heads do not divide hidden 8"):
        Model(layers=1, hidden=8, ffn=8, heads=3, kv_heads=3, vocab=8)


@pytest.mark.parametrize("written", [0.308, "30.8 %", "30.8%"])
def test_fractions_may_be_percentages(written):
    assert load("minimal", [f"datacenter.published={{a: {{mfu: {written}, source: s}}}}"]).datacenter.published[
        "a"
    ].mfu == pytest.approx(0.308, abs=1e-15)


def test_import_is_light():
    code = (
        "import sys, time, yaml, pydantic.types, pydantic.json_schema; start = time.process_time()\n"
        "import orionbed.scenario\n"
        "print(time.process_time() - start, *({'torch', 'matplotlib', 'pandas', 'numpy', 'simpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert len(out) == 1, f"imports {out[1:]}"
    assert float(out[0]) < 0.3
