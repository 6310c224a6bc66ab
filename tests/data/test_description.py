"""`Data`: what is left out becomes explicit, and what cannot be meant is refused."""

import json
from dataclasses import asdict

import pytest

from snn_bp.data import Data
from snn_bp.errors import SnnError


@pytest.mark.parametrize(
    ("name", "step_ms", "steps"), [("digits", 10, 31), ("nmnist", 10, 31), ("dvs_gesture", 75, 20), ("shd", 10, 100)]
)
def test_defaults_are_explicit_afterwards(name, step_ms, steps):
    assert (Data(name).step_ms, Data(name).steps) == (step_ms, steps)


def test_steps_cover_the_usual_window():
    assert Data("digits", step_ms=7).steps == 45  # 44 would end at 308 of 310 ms


def test_a_description_comes_back_from_json():
    data = Data("shd", step_ms=0.3, translate_px=2, root="somewhere")

    again = Data(**json.loads(json.dumps(asdict(data))))

    assert again == data and again.step_us == 300


@pytest.mark.parametrize(
    ("asked", "works"),
    [
        ({"name": "nmist"}, "'nmnist'"),
        ({"step_ms": 0}, "microseconds"),
        ({"step_ms": -1}, "microseconds"),
        ({"step_ms": float("nan")}, "microseconds"),
        ({"step_ms": "10"}, "microseconds"),
        ({"step_ms": 1 / 3}, "step_ms=0.333"),
        ({"steps": 0}, "from 1 up"),
        ({"steps": 2.5}, "integer"),
        ({"batch": 0}, "from 1 up"),
        ({"downsample": 4}, "1, 2, 17, 34"),
        ({"translate_px": -1}, "from 0 up"),
        ({"validation_fraction": 1.0}, "fraction"),
        ({"split_seed": -1}, "in 0..18446744073709551615"),
        ({"transforms": ["Denoise"]}, "Denoise(filter_time=10000)"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_with_what_would_work(asked, works):
    with pytest.raises(SnnError) as error:
        Data(**{"name": "digits"} | asked)

    assert works in str(error.value)
