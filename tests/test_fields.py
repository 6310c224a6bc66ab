"""Every field of every value is checked when the value is made: by Python, by JSON and by overrides alike."""

import json
import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from legal import EXAMPLES, LEGAL, assert_legal

from snn_bp import (
    LI,
    LIF,
    ATan,
    BatchNorm,
    Conv,
    CountCrossEntropy,
    Data,
    Delay,
    Dense,
    Experiment,
    Flatten,
    Network,
    RateBounds,
    Recurrent,
    SnnError,
    Spiking,
    Tau,
    Train,
)
from snn_bp.errors import check_choice, check_number
from snn_bp.instruments import check_gradients
from snn_bp.instruments.landscape import loss_slice
from snn_bp.instruments.online import eprop, objective
from snn_bp.model.start import start_alive
from snn_bp.runs.changes import override
from snn_bp.runs.experiment import CONSTRUCTORS, from_json, to_json
from snn_bp.surrogates import SHAPES


class OwnDense(Dense):
    pass


ODD = (
    None, True, False, np.True_, "", "text", "false", "1", "nan", "\0", b"1", 1j, ..., math.nan, math.inf, -math.inf,
    -1, -0.5, 0, 0.5, 1.5, 3, 10**30, -(10**30), 10**400, 1e300, 5e-324, np.float64("nan"), np.float32(0.5),
    np.int64(3), np.int64(-3), 10**5000,
    [], (), [1], (0.5, math.nan), (1, "2"), [None], [True], [[1], [1, 2]], {}, {"a": 1}, {1}, object(),
    np.array([1, 2]), np.array(["a"]), np.array([[1.0], [math.nan]]), np.array([]), np.array(True), torch.tensor(0.5),
    torch.tensor([True]), torch.zeros(2, device="meta"), torch.ones(1, requires_grad=True), LIF, ATan, LIF(beta=0.9),
    LI(beta=0.9), Tau(20), ATan(), Train(), Data("digits"), OwnDense(3), lambda: 1, range(3),
)  # fmt: skip

KINDS = [kind for kind in CONSTRUCTORS.values() if isinstance(kind, type)]
FIELDS = [(kind, field.name) for kind in KINDS for field in fields(kind)]


def test_the_table_of_what_is_legal_knows_every_field():
    known = {kind: set(legal) for kind, legal in LEGAL.items()}

    assert known == {kind: {field.name for field in fields(kind)} for kind in KINDS}
    for kind, given in EXAMPLES.items():
        assert_legal(kind(**given))


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_a_field_takes_what_is_legal_and_refuses_the_rest_in_one_line(kind, field):
    refused = 0

    for odd in ODD:
        try:
            value = kind(**EXAMPLES[kind] | {field: odd})
        except SnnError as refusal:
            refused += 1
            assert "\n" not in str(refusal) and len(str(refusal)) < 600
            assert field in str(refusal) or kind.__name__ in str(refusal), f"{refusal} does not say where"
            continue
        if field == "transforms":
            continue  # any callable of the user's; what JSON says of them is tested with the transforms
        assert_legal(value)
        again = from_json(json.loads(json.dumps(to_json(value), allow_nan=False)))
        assert again == value

    assert refused > len(ODD) / 2


@pytest.mark.parametrize("name", SHAPES)
def test_the_functions_of_the_surrogates_refuse_what_a_surrogate_refuses(name):
    for odd in ODD:
        try:
            assert_legal(CONSTRUCTORS[name](odd))
        except SnnError as refusal:
            assert "slope" in str(refusal)
        with pytest.raises(SnnError, match="per"):
            CONSTRUCTORS[name](2.0, per=odd)


NUMBERS = [
    (kind, field, getattr(kind(**EXAMPLES[kind]), field))
    for kind, field in FIELDS
    if type(getattr(kind(**EXAMPLES[kind]), field)) in (int, float, bool)
]


@pytest.mark.parametrize(("kind", "field", "number"), NUMBERS, ids=lambda part: getattr(part, "__name__", str(part)))
def test_a_number_of_numpy_becomes_the_one_of_python(kind, field, number):
    theirs = {int: np.int64, float: np.float64, bool: np.bool_}[type(number)](number)

    value = kind(**EXAMPLES[kind] | {field: theirs})

    assert value == kind(**EXAMPLES[kind] | {field: number})
    assert type(getattr(value, field)) is type(number)
    assert json.loads(json.dumps(to_json(value))) == to_json(value)


# Truth values in words

YES, NO = ("true", "yes", "on", "1", "True", "YES", "On"), ("false", "no", "off", "0", "False", "NO", "Off")
EXPERIMENT = Experiment(
    Data("digits"),
    (Flatten(), Dense(8), Recurrent(LIF(beta=0.9)), Delay(2.0), Dense(10), Spiking(LIF(beta=0.9))),
)
FLAGS = (
    "data.binary", "train.nesterov", "model.1.bias", "model.2.bias", "model.2.neuron.detach_reset", "model.3.learn",
)  # fmt: skip


def part(value: Any, key: str) -> Any:
    for name in key.split("."):
        value = value[int(name)] if name.isdigit() else getattr(value, name)
    return value


@pytest.mark.parametrize("key", FLAGS)
def test_an_override_reads_yes_and_no_where_a_truth_value_belongs(key):
    for word in (*YES, *NO):
        changed, said = override(EXPERIMENT, [f"{key}={word}"])

        assert part(changed, key) is (word in YES)
        assert said == [f"{key}={word in YES} (was {part(EXPERIMENT, key)})"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Dense(7, bias=no)", Dense(7, bias=False)),
        ("Dense(7, bias='off')", Dense(7, bias=False)),
        ("Dense(7, bias=0)", Dense(7, bias=False)),
        ("Delay(2, learn=YES)", Delay(2, learn=True)),
        ("Spiking(LIF(beta=0.9, detach_reset=false))", Spiking(LIF(beta=0.9, detach_reset=False))),
    ],
)
def test_words_are_read_within_the_text_of_a_value_too(text, value):
    assert override(EXPERIMENT, [f"model.4={text}"])[0].model[4] == value


@pytest.mark.parametrize("word", ("flase", "nope", "2", "None", "''", "1.0", "(0,)", "tru e"))
@pytest.mark.parametrize("key", FLAGS)
def test_any_other_word_is_refused_where_a_truth_value_belongs(key, word):
    with pytest.raises(SnnError, match=f"{key.rpartition('.')[2]}=.*True or False"):
        override(EXPERIMENT, [f"{key}={word}"])


def test_a_misspelt_truth_value_is_answered_with_the_nearest():
    with pytest.raises(SnnError, match="Did you mean 'false'"):
        override(EXPERIMENT, ["data.binary=flase"])


@pytest.mark.parametrize(("word", "value"), [("no", False), ("TRUE", True), (0, False), (1, True), ("0", False)])
def test_json_reads_words_where_a_truth_value_belongs(word, value):
    assert from_json({"is": "Dense", "units": 3, "bias": word}) == Dense(3, bias=value)


def test_python_is_told_which_truth_value_a_word_means():
    with pytest.raises(SnnError, match=r"Dense\(bias='no'\): it should be True or False. Write False."):
        Dense(3, bias="no")  # type: ignore[arg-type]


def test_words_are_text_where_text_belongs():
    changed, _ = override(EXPERIMENT, ["data.root=off"])

    assert changed.data.root == "off"


def test_words_are_no_numbers():
    for change in ("train.epochs=yes", "train.epochs=True", "data.batch=on", "seed=true", "model.1.units=True"):
        with pytest.raises(SnnError, match="integer"):
            override(EXPERIMENT, [change])


# What no annotation says


@pytest.mark.parametrize(
    "bounds",
    [
        {"lower": 0.9, "upper": 0.1},
        {"lower": (0.1, 0.9), "upper": (0.5, 0.5)},
        {"lower": (0.1, 0.6), "upper": 0.5},
        {"lower": 0.6, "upper": (0.7, 0.5)},
        {"lower": (0.1, 0.2), "upper": (0.5, 0.6, 0.7)},
    ],
    ids=str,
)
def test_a_lower_bound_lies_below_its_upper_one(bounds):
    with pytest.raises(SnnError, match=r"RateBounds\(lower=.*not below it"):
        RateBounds(**bounds)


@pytest.mark.parametrize("seed", (-1, 2**64, 99999999999999999999, 1.0, True, "0", None))
def test_a_seed_is_one_that_torch_and_numpy_take(seed):
    with pytest.raises(SnnError, match="seed"):
        Experiment(Data("digits"), (Dense(10),), seed=seed)
    with pytest.raises(SnnError, match="split_seed"):
        Data("digits", split_seed=seed)


def test_the_largest_seed_builds_a_network():
    experiment = Experiment(Data("digits"), (Dense(10), LIF(beta=0.9)), seed=2**64 - 1)

    assert torch.equal(experiment.network((5,)).layers[0].weight, experiment.network((5,)).layers[0].weight)


@pytest.mark.parametrize(
    "delay",
    [
        {"steps": 1.5}, {"steps": 63}, {"steps": (1, 2.5)}, {"steps": 0, "learn": True}, {"steps": 62, "learn": True},
        {"steps": 5, "max_steps": 4}, {"steps": 5.0, "max_steps": 5, "learn": True},
    ],
    ids=str,
)  # fmt: skip
def test_a_delay_that_cannot_be_is_refused_when_it_is_made(delay):
    with pytest.raises(SnnError, match=r"Delay\(steps="):
        Delay(**delay)


def test_a_subclass_of_a_value_is_refused_by_name():
    class Leaky(LIF):
        pass

    for make in (
        lambda: Spiking(Leaky(beta=0.9)),
        lambda: Experiment(Data("digits"), (OwnDense(3),)),
        lambda: Train(surrogate=type("ATan", (type(ATan()),), {})("ATan", 2.0)),
        lambda: Experiment(type("Data", (Data,), {})("digits"), (Dense(3),)),
    ):
        with pytest.raises(SnnError, match="is a class of its own on top of"):
            make()


def test_a_class_that_was_not_called_is_answered_with_the_call():
    for make, told in (
        (lambda: Train(surrogate=ATan), r"ATan\(...\)"),  # type: ignore[arg-type]
        (lambda: Spiking(LIF), r"LIF\(...\)"),  # type: ignore[arg-type]
        (lambda: Experiment(Data("digits"), (Flatten,)), r"Flatten\(...\)"),  # type: ignore[arg-type]
    ):
        with pytest.raises(SnnError, match=told):
            make()


def test_a_long_value_is_shown_in_short():
    with pytest.raises(SnnError) as refusal:
        Conv(4, tuple(range(100_000)))

    assert len(str(refusal.value)) < 300


def test_zero_is_no_stride_and_no_scale():
    for make in (lambda: Conv(4, 3, stride=0), lambda: BatchNorm(scale=0), lambda: Conv(4, 3, groups=0)):
        with pytest.raises(SnnError, match=r"from 1 up|above 0"):
            make()


# Arguments of functions

NETWORK = Network((Dense(4), LIF(beta=0.9)), (3,))
BATCH = (torch.ones(5, 2, 3), torch.tensor([0, 1]), CountCrossEntropy())


@pytest.mark.parametrize("seed", (-1, 2**64, 0.5, True, "0", None))
def test_every_seed_is_one_that_torch_and_numpy_take(seed):
    for call in (
        lambda: Network((Dense(4), LIF(beta=0.9)), (3,), seed=seed),
        lambda: loss_slice(NETWORK, *BATCH, seed=seed),
        lambda: eprop(NETWORK, *BATCH, seed=seed),
        lambda: check_gradients(NETWORK, *BATCH[:2], seed=seed),
    ):
        with pytest.raises(SnnError, match=r"seed=.*integer in 0"):
            call()


@pytest.mark.parametrize("flag", ("no", "false", 1, 0, None))
def test_text_is_no_truth_value_of_a_function_either(flag, tmp_path):
    with pytest.raises(SnnError, match=r"smoothed=.*True or False"):
        loss_slice(NETWORK, *BATCH, smoothed=flag)


@pytest.mark.parametrize("spread", (0, -1, math.nan, math.inf, "1", True))
def test_a_start_has_a_spread_above_zero(spread):
    with pytest.raises(SnnError, match=r"spread=.*above 0"):
        start_alive(NETWORK, BATCH[0], spread=spread)


def test_a_rule_that_learns_online_refuses_a_loss_on_top_of_ours_and_an_unknown_error():
    own = type("Own", (CountCrossEntropy,), {})

    with pytest.raises(SnnError, match=r"has no error of its own|depends on when"):
        eprop(NETWORK, *BATCH[:2], own())
    with pytest.raises(SnnError, match="Did you mean 'total'"):
        objective(torch.zeros(5, 2, 4), BATCH[1], BATCH[2], "totl")  # type: ignore[arg-type]


def test_a_number_is_finite_and_no_truth_value():
    for value in (math.inf, math.nan, 10**400, 10**5000, True, "3", None):
        with pytest.raises(SnnError, match=r"price=.*a number from 0 up"):
            check_number("price", value, low=0)


@pytest.mark.parametrize("value", (np.int64(3), np.float32(0.5), 3, 0.5))
def test_a_number_of_numpy_is_a_number(value):
    check_number("price", value, low=0)
    check_number("count", np.uint8(3), integer=True, low=1)


def test_a_choice_of_another_type_is_refused():
    for value in (np.array(["sgd", "sgd"]), ["sgd"], {}, 10**5000, None):
        with pytest.raises(SnnError, match="is not known"):
            check_choice("optimizer", value, ("sgd",))
