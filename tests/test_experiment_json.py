"""A changed experiment file gives one refusal that names the place, or an experiment in which every field is legal."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import tonic.transforms
from legal import assert_legal

from snn_bp import (
    ALIF,
    LI,
    LIF,
    BatchNorm,
    Conv,
    CountSquaredError,
    CubaLIF,
    Data,
    Delay,
    Dense,
    Dropout,
    EventDrop,
    Experiment,
    Flatten,
    Pool,
    RateBounds,
    Recurrent,
    SnnError,
    Spiking,
    Tau,
    TimeJitter,
    Train,
)  # fmt: skip
from snn_bp.runs.experiment import from_json, from_json_text, to_json
from snn_bp.runs.records import read_experiment

EXPERIMENT = Experiment(
    Data(
        "digits", step_ms=10, root="somewhere", rotate_deg=5.0, augment=(EventDrop(0.3), TimeJitter(2)),
        transforms=(
            tonic.transforms.Denoise(filter_time=10000),
            tonic.transforms.Compose([tonic.transforms.DropEvent(p=0.25), tonic.transforms.TimeJitter(std=3.0)]),
        ),
    ),
    (
        Conv(4, (3, 3), padding=1), BatchNorm(), Spiking(ALIF(beta=(0.8, 0.9), rho=0.9, kappa=0.1), learn=("beta",)),
        Pool(2, kind="max"), Flatten(), Dropout(0.2), Dense(10), Recurrent(LIF(beta=Tau(20)), bias=True), Delay(3),
        CubaLIF(alpha=0.5, beta=0.9), LI(beta=0.9),
    ),
    Train(loss=CountSquaredError(), rates=RateBounds(lower=(0.1, 0.2), upper=0.9)),
    seed=3,
)  # fmt: skip
CONTENT = to_json(EXPERIMENT)
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2.5, 10**30, -1e300, "", "no", "ja", "0.5", "\0", "\ud800", [], {}, [[]], [1, "a"],
    [None] * 3, {"is": "Dense"}, {"is": "Dense", "units": 3}, {"is": "LIF", "beta": 2}, {"is": "open"}, {"is": []},
    {"is": "Flatten", "x": 1}, {"name": "Denoise"}, {"name": "Compose", "transforms": 3}, {"beta": 0.9},
)  # fmt: skip
CHANGES = ("replace", "remove", "add", "misspell", "wrap", "nest", "double", "literal", "duplicate")


def places(content: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every part of a JSON value, its own left out."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, part in items:
        yield (*path, name)
        yield from places(part, (*path, name))


PLACES = list(places(CONTENT))


def changed(change: str, path: tuple, odd: Any) -> str:
    """The text of the experiment's JSON, changed at one place."""
    content = json.loads(json.dumps(CONTENT))
    parent = content
    for name in path[:-1]:
        parent = parent[name]
    last = path[-1]
    if change == "replace":
        parent[last] = odd
    elif change == "remove":
        del parent[last]
    elif change == "add" and isinstance(parent, dict):
        parent["surplus"] = odd
    elif change == "misspell" and isinstance(parent, dict):
        parent[f"{last}x"] = parent.pop(last)
    elif change == "wrap":
        parent[last] = [parent[last]]
    elif change == "double":
        parent[last] = [parent[last], parent[last]]
    elif change == "nest":
        for _ in range(3000):
            parent[last] = [parent[last]]
        return _text(content)
    elif change == "literal":
        parent[last] = "literal"
        return json.dumps(content).replace('"literal"', "NaN", 1)
    elif change == "duplicate" and isinstance(parent, dict):
        parent["literal"] = 0
        return json.dumps(content).replace('"literal": 0', f'"{last}": 0', 1)
    return json.dumps(content)


def _text(content: Any) -> str:
    """As `json.dumps`, however deep lists of one lie within each other."""
    if isinstance(content, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {_text(part)}" for name, part in content.items()) + "}"
    depth = 0
    while isinstance(content, list) and len(content) == 1:
        content, depth = content[0], depth + 1
    inner = f"[{', '.join(map(_text, content))}]" if isinstance(content, list) else None
    return "[" * depth + (inner or (_text(content) if isinstance(content, dict) else json.dumps(content))) + "]" * depth


def mutations(*, seed: int, count: int) -> list[tuple[str, tuple, Any]]:
    """Each change at each place with one odd value, and `count` more with values drawn at random."""
    draw = random.Random(seed)
    drawn = [("replace", draw.choice(PLACES), draw.choice(ODD)) for _ in range(count)]
    return [(change, path, draw.choice(ODD)) for change in CHANGES for path in PLACES] + drawn


def test_the_unchanged_text_is_the_experiment():
    assert to_json(from_json_text(json.dumps(CONTENT))) == CONTENT  # tonic's Compose does not compare
    assert_legal(EXPERIMENT)


@pytest.mark.slow
def test_a_changed_file_gives_a_legal_experiment_or_one_refusal_that_names_the_place():
    refused = 0

    for change, path, odd in mutations(seed=0, count=600):
        try:
            experiment = from_json_text(changed(change, path, odd))
        except SnnError as refusal:
            refused += 1
            said = str(refusal)
            assert "\n" not in said and len(said) < 1000
            names = [str(name) for name in path] + ["surplus"] * (change == "add")
            assert any(name in said for name in names) or change in ("nest", "literal"), f"{change} {path}: {said}"
            continue
        except RecursionError:
            pytest.fail(f"{change} at {path}: nested too deep")
        if type(experiment) is Experiment:
            assert_legal(experiment)
            content = to_json(experiment)
            assert to_json(from_json(json.loads(json.dumps(content, allow_nan=False)))) == content
        else:
            assert path == ("is",) or not isinstance(odd, dict), f"{change} at {path} gave {experiment!r}"

    assert refused > 800


@pytest.mark.parametrize(
    ("path", "odd", "told"),
    [
        (("train", "lr"), "fast", r"train: Train\(lr='fast'\)"),
        (("train", "lr"), -1, r"train: Train\(lr=-1\): it should be a number above 0"),
        (("data", "binary"), "flase", r"data: Data\(binary='flase'\).*Did you mean 'false'"),
        (("model", 2, "neuron", "rho"), 2, r"model\.2\.neuron: ALIF\(rho=2\)"),
        (("model", 7, "neuron", "beta", "ms"), None, r"model\.7\.neuron\.beta: Tau\(ms=None\)"),
        (("model", 6), {"is": "Dense", "unit": 10}, r"model\.6: Dense: there is no 'unit'. Did you mean 'units'"),
        (("model", 6), {"is": "Dens", "units": 10}, r"model\.6: \"is\": 'Dens' is not a type.*'Dense'"),
        (("model", 3), None, r"Experiment\(model\.3=None\): it should be a layer"),
        (("data", "transforms", 0, "filter_time"), "x", r"data: transform Denoise: filter_time='x'"),
        (("data", "transforms", 1, "transforms", 0, "p"), None, r"data: transform DropEvent: p=None"),
        (("data", "transforms", 1, "transforms"), 3, r"data: transform Compose"),
        (("seed",), 99999999999999999999, r"seed=99999999999999999999\): it should be an integer in 0"),
    ],
    ids=str,
)
def test_a_refusal_says_where_in_the_file_and_what_would_work(path, odd, told):
    with pytest.raises(SnnError, match=told):
        from_json_text(changed("replace", path, odd))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"is": "Dense", "units": 3, "units": 4}', "the key 'units' stands twice"),
        ('{"is": "Tau", "ms": NaN}', "holds NaN"),
        ('{"is": "Tau", "ms": -Infinity}', "holds -Infinity"),
        ('{"is": "Tau", "ms": 1e999}', r"Tau\(ms=inf\)"),
        ('{"is": "Tau", "ms": ' + "1" * 5000 + "}", "not JSON"),
        ('{"is": "Tau", "ms": ' + "1" * 400 + "}", r"Tau\(ms="),
        ("[" * 100_000, "nested too deep"),
        ("[" * 300 + "]" * 300, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ("", "not JSON"),
        ("{", "not JSON"),
        ("\ufeff{}", "not JSON"),
    ],
    ids=lambda part: part[:40],
)
def test_text_that_is_not_strict_json_is_refused(text, told):
    with pytest.raises(SnnError, match=told) as refusal:
        from_json_text(text)

    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[]", b"3", b'{"is": "Tau", "ms": 3}', b'{"is": "Tau", "ms": NaN}'])
def test_a_file_that_holds_no_experiment_is_refused_by_its_name(content, tmp_path):
    file = tmp_path / "experiment.json"
    file.write_bytes(content)

    with pytest.raises(SnnError, match=r"experiment\.json: it"):
        read_experiment(file)


def test_a_class_of_anothers_with_our_name_is_not_written_as_ours():
    for parent, given in ((LIF, {"beta": 0.9}), (Dense, {"units": 3}), (Data, {"name": "digits"}), (Tau, {"ms": 3})):
        another = type(parent.__name__, (parent,), {"__module__": "mine"})

        with pytest.raises(SnnError, match=rf"{parent.__name__} is another's \(mine\)"):
            to_json(another(**given))
