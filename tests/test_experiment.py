"""An experiment goes through JSON and `key=value` unharmed, and nothing but snn_bp's own types comes out of text."""

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tonic.transforms
from hypothesis import given, settings
from hypothesis import strategies as st
from legal import assert_legal
from runs import tiny

import snn_bp
from snn_bp import (
    ALIF,
    F1,
    IF,
    LI,
    LIF,
    R2,
    TET,
    Accuracy,
    ATan,
    BalancedAccuracy,
    BatchNorm,
    BinaryCrossEntropy,
    Conv,
    CountCrossEntropy,
    CountSquaredError,
    CubaLIF,
    Data,
    Dense,
    Dropout,
    Experiment,
    FirstSpike,
    Flatten,
    MaxCrossEntropy,
    MeanAbsoluteError,
    MeanSquaredPotential,
    MembraneCrossEntropy,
    Patience,
    Pool,
    RateBounds,
    Recurrent,
    SnnError,
    Spiking,
    StepAccuracy,
    Surrogate,
    Tau,
    Train,
    VanRossum,
    VanRossumDistance,
)  # fmt: skip
from snn_bp.neurons import RESETS
from snn_bp.runs.changes import _keys, override, parse
from snn_bp.runs.experiment import CONSTRUCTORS, from_json, to_json
from snn_bp.surrogates import SHAPES

SHARES = st.floats(0, 1)
ABOVE = st.floats(0.01, 100)
DECAYS = SHARES | st.lists(SHARES, min_size=1, max_size=3).map(tuple) | st.builds(Tau, ABOVE)
RESETTING = {"threshold": ABOVE, "reset": st.sampled_from(RESETS), "detach_reset": st.booleans()}
SPIKING = st.one_of(
    st.builds(IF, **RESETTING),
    st.builds(LIF, beta=DECAYS, **RESETTING),
    st.builds(CubaLIF, alpha=DECAYS, beta=DECAYS, **RESETTING),
    st.builds(ALIF, alpha=DECAYS, beta=DECAYS, rho=DECAYS, kappa=ABOVE, **RESETTING),
)
LEARN = st.sampled_from([(), ("threshold",)])
COUNTS = st.integers(1, 9)
SIZES = COUNTS | st.tuples(COUNTS, COUNTS)
LAYERS = st.one_of(
    SPIKING,
    st.builds(LI, beta=DECAYS, alpha=DECAYS),
    st.builds(Dense, COUNTS, bias=st.booleans()),
    st.builds(Conv, COUNTS, SIZES, stride=SIZES, padding=SIZES, dilation=SIZES, groups=COUNTS, bias=st.booleans()),
    st.builds(Pool, COUNTS, kind=st.sampled_from(["sum", "average", "max"]), stride=st.none() | COUNTS),
    st.builds(Flatten),
    st.builds(Dropout, st.floats(0, 0.99)),
    st.builds(BatchNorm, SHARES, ABOVE),
    st.builds(Spiking, SPIKING, learn=LEARN),
    st.builds(Recurrent, SPIKING, learn=LEARN, bias=st.booleans()),
)
CLASS_WEIGHTS = st.none() | st.lists(st.floats(0, 9), min_size=1, max_size=3).map(tuple)
LOSSES = st.one_of(
    st.builds(CountCrossEntropy, SHARES, CLASS_WEIGHTS),
    st.builds(MembraneCrossEntropy, SHARES),
    st.builds(MaxCrossEntropy, class_weights=CLASS_WEIGHTS),
    st.builds(TET, SHARES, st.floats(-9, 9), SHARES, CLASS_WEIGHTS),
    st.builds(MeanSquaredPotential),
    st.builds(BinaryCrossEntropy),
    st.builds(VanRossum, ABOVE | st.builds(Tau, ABOVE)),
    st.builds(CountSquaredError, SHARES, SHARES),
    st.builds(FirstSpike, ABOVE),
)
METRICS = st.one_of(
    st.builds(F1, st.floats(-9, 9)),
    st.builds(VanRossumDistance, ABOVE | st.builds(Tau, ABOVE)),
    *map(st.builds, (Accuracy, StepAccuracy, BalancedAccuracy, MeanAbsoluteError, R2)),
)
SURROGATES = st.builds(Surrogate, st.sampled_from(list(SHAPES)), ABOVE, st.sampled_from(["threshold", "potential"]))
LOWER, UPPER = st.floats(0, 0.5), st.floats(0.5, 1)
BOUNDS = st.builds(RateBounds, LOWER | st.tuples(LOWER, LOWER), UPPER | st.tuples(UPPER, UPPER), ABOVE)
TRANSFORMS = st.lists(
    st.sampled_from(
        [
            tonic.transforms.Denoise(filter_time=10000),
            tonic.transforms.DropEvent(p=0.25),
            tonic.transforms.CenterCrop(sensor_size=(34, 34, 2), size=(20, 20)),
        ]
    ),
    max_size=2,
).map(tuple)
DATA = st.builds(
    Data,
    st.just("digits"),
    step_ms=st.sampled_from([None, 0.3, 10, 52.5]),
    steps=st.none() | COUNTS,
    batch=COUNTS,
    root=st.none() | st.text().filter(lambda text: "\0" not in text),
    downsample=st.sampled_from([1, 2, 17]),
    binary=st.booleans(),
    translate_px=COUNTS,
    validation_fraction=st.floats(0, 0.9),
    split_seed=COUNTS,
    transforms=TRANSFORMS,
)
TRAIN = st.builds(
    Train,
    epochs=COUNTS,
    lr=ABOVE,
    optimizer=st.sampled_from(["adamw", "adam", "sgd"]),
    schedule=st.sampled_from(["constant", "cosine", "step"]),
    clip=st.none() | ABOVE,
    loss=LOSSES,
    metric=st.none() | METRICS,
    surrogate=SURROGATES,
    rates=st.none() | BOUNDS,
    truncate=st.none() | COUNTS,
    autocast=st.sampled_from([None, "bfloat16"]),
)
EXPERIMENTS = st.builds(Experiment, DATA, st.lists(LAYERS, max_size=5).map(tuple), TRAIN, st.integers(0, 2**63))


@given(EXPERIMENTS)
def test_an_experiment_returns_from_json_as_it_was(experiment):
    again = from_json(json.loads(json.dumps(to_json(experiment))))

    assert again == experiment
    assert to_json(again) == to_json(experiment)


@settings(max_examples=300)
@given(st.one_of(LAYERS, LOSSES, METRICS, SURROGATES, BOUNDS))
def test_the_text_of_a_value_is_the_value(value):
    assert parse(repr(value), at="test") == value


def test_every_public_value_has_a_name_in_json():
    public = {name for name in snn_bp.__all__ if is_dataclass(getattr(snn_bp, name))}

    of_calls = {"Dataset", "Search", "Sweep", "Trace", "TensorBoard"}  # given by or to calls; no experiment holds them
    assert public - of_calls <= CONSTRUCTORS.keys()


# Overrides


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("-2", -2), ("3", 3), ("True", True), ("None", None), ("cosine", "cosine"), ("'sgd'", "sgd"),
        ("3,5", (3, 5)), ("(3, 5)", (3, 5)), ("[3]", (3,)), ("", ""), ("/data/x", "/data/x"), ("a/b", "a/b"),
        ("../b", "../b"), ("~/b-c", "~/b-c"), ("ATan(slope=3)", ATan(slope=3)), ("ATan(3)", ATan(3)),
        ("Spiking(LIF(beta=Tau(20)), learn=('beta',))", Spiking(LIF(beta=Tau(20)), learn=("beta",))),
    ],
)  # fmt: skip
def test_text_reads_as_python_writes_it_and_bare_words_as_text(text, value):
    read = parse(text, at="test")

    assert read == value and type(read) is type(value)


def test_an_override_reaches_every_depth_and_says_what_was():
    experiment = tiny()
    changes = ["train.lr=1", "model.1.units=7", "model.3=LIF(beta=0.8)", "train.loss.right=0.5", "seed=4"]

    changed, said = override(replace(experiment, train=Train(loss=CountSquaredError())), changes)

    assert changed.train == Train(lr=1.0, loss=CountSquaredError(right=0.5))
    assert isinstance(changed.train.lr, float)
    assert changed.model[1] == Dense(7) and changed.model[3] == LIF(beta=0.8) and changed.seed == 4
    assert changed.model[:1] + changed.model[4:] == experiment.model[:1] + experiment.model[4:]
    assert said[0] == "train.lr=1 (was 0.002)" and said[1] == "model.1.units=7 (was 12)"


@pytest.mark.parametrize("turned", [False, True])
def test_overrides_that_need_each_other_go_in_any_order(turned):
    experiment = Experiment(
        Data(snn_bp.Folder(".", sensor=(8, 8, 2), step_ms=5, window_ms=50), test_fraction=0.2),
        (Flatten(), Dense(3)),
        Train(),
    )
    changes = ["data.test_groups=('cyd',)", "data.test_fraction=0"]

    changed, said = override(experiment, changes[::-1] if turned else changes)

    assert (changed.data.test_groups, changed.data.test_fraction) == (("cyd",), 0)
    assert sorted(line.partition("=")[0] for line in said) == ["data.test_fraction", "data.test_groups"]
    with pytest.raises(SnnError, match="test_groups"):
        override(experiment, changes[:1])
    with pytest.raises(SnnError, match="test_groups"):  # the last value of a key counts: none waits for another
        override(experiment, [changes[0], "data.batch=3", "data.batch=4", changes[1]])


def test_no_override_changes_nothing():
    assert override(tiny(), []) == (tiny(), [])


def test_a_finer_step_keeps_the_window_and_says_so():
    experiment = tiny()

    finer, said = override(experiment, ["data.step_ms=26"])
    chosen, _ = override(experiment, ["data.step_ms=26", "data.steps=5"])

    assert finer.data.steps == 12 and finer.data.window_us == experiment.data.window_us
    assert said[-1] == "data.steps=12 (keeps the window)"
    assert chosen.data.steps == 5


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("train.lrr=1", "'lr'"), ("trian.lr=1", "'train'"), ("data.step=1", "'step"), ("model.1.unit=3", "'units'"),
        ("model.3.bta=0.5", "'beta'"), ("train.optimizer=adamm", "'adam"), ("train.surrogate=Atan(2)", "'ATan'"),
        ("model.99=Flatten()", "0..6"), ("model.-1=Flatten()", "0..6"), ("model.first=Flatten()", "0..6"),
        ("seed.x=1", "no parts"), ("train.lr", "key=value"), ("=3", "key=value"), ("train.lr=fast", "number"),
        ("train.surrogate=ATan(slop=2)", "slop"), ("model.3=LIF()", "beta"), ("model.3=LIF(beta=2)", "0..1"),
        ("model=3", "model"), ("data=3", "Data"), ("train=3", "Train"), ("seed=-1", "seed"), ("seed=True", "seed"),
        ("data.transforms=3", "transforms"), ("train.lr=-None", "None"), ("train.lr=-'a'", "a"),
        ("train.surrogate=ATan(**{'slope': 3})", "**"), ("train.lr={1: 2}", "number"), ("data.name=digit", "'digits'"),
        ("lr=1e-3", "'train.lr'"), ("lrr=1", "'train.lr'"), ("binary=true", "'data.binary'"),
        ("units=3", "'model.1.units'"),
        ("beta=0.5", "'model.3.beta'"), ("train.slope=3", "'train.surrogate.slope'"), ("xyz=1", "Known: data, model"),
        ("model.²=3", "0..6"), ("model.1" + "0" * 30 + "=3", "0..6"), ("train.lr=1" + "0" * 400, "number"),
        ("train.lr=1j", "number"), ("train.lr=...", "number"), ("train.lr=b'1'", "number"), ("data.root=5", "text"),
        ("data.transforms=...", "transforms"), ("model.1=Dense()", "units"), ("model.1=Dense(1, 2)", "without a name"),
        ("model.1=Dense(3, units=4)", "units"), ("model.1=Spiking(5)", "a neuron, as"), ("model.1=LIF", "a layer, as"),
        ("model.1=Conv(4, 3, groups=0)", "groups=0"), ("model.1=Conv(4, 3, groups=-1)", "groups=-1"),
        ("seed=99999999999999999999", "seed"), ("train.rates=RateBounds(lower=.9, upper=.1)", "not below it"),
        ("model.2.momentum=5", "momentum=5"), ("model.3.beta=-0.1", "0..1"), ("model.3.beta=yes", "number"),
        ("data.step_ms=0", "step_ms"), ("data.step_ms=None2", "step_ms"), ("data.downsample=3", "34x34"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_refused_in_one_line_that_helps(change, told):
    with pytest.raises(SnnError) as refusal:
        override(tiny(), [change])

    assert told in str(refusal.value) and "\n" not in str(refusal.value)


# Nothing but snn_bp's own types

HOSTILE = (
    "open('{0}', 'w')", "__import__('os').system('touch {0}')", "exec(\"open('{0}', 'w')\")", "print('x')",
    "(lambda: open('{0}', 'w'))()", "[open('{0}', 'w') for _ in (1,)]", "Path('{0}').touch()", "SnnError('x')",
    "LIF(beta=open('{0}', 'w'))", "ATan.__globals__['math']", "(1).__class__", "f\"{{open('{0}', 'w')}}\"",
    "LIF(beta=0.5).__class__()", "True if open('{0}', 'w') else 1", "x := open('{0}', 'w')", "Network((), ())",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_text_never_calls_anything_but_our_types(text, tmp_path):
    victim = tmp_path / "victim"

    try:
        value = parse(text.format(victim), at="test")
    except SnnError:
        value = ""

    assert isinstance(value, str) and not victim.exists()


@settings(max_examples=300)
@given(st.text(alphabet="()[]{}.,=-+*/'\"_ \n\\0123459abeflnoprtxLIFATD:", max_size=25))
def test_any_text_gives_plain_values_or_ours_or_a_refusal(text):
    try:
        value = parse(text, at="test")
    except SnnError:
        return

    assert _is_plain(value)


@pytest.mark.parametrize("name", ["open", "os.system", "Network", "Path", "SnnError", "__import__", None, 3, [], {}])
def test_json_constructs_nothing_but_our_types(name):
    with pytest.raises(SnnError):
        from_json({"is": name})


def test_json_names_only_transforms_of_tonic():
    described = to_json(Data("digits"))

    for transform in ({"name": "os.system"}, {"name": "annotations"}, {"name": "np"}, {}, {"name": []}, "x", 3, None):
        with pytest.raises(SnnError):
            from_json(described | {"transforms": [transform]})


LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=3)
NAMES = st.sampled_from(["name", "beta", "units", "data", "model", "train", "lr", "transforms", "step_ms", "slope"])
KINDS = st.sampled_from([*CONSTRUCTORS, "open"]) | LEAVES
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.builds(lambda kind, content: {"is": kind, **content}, KINDS, st.dictionaries(NAMES, inner, max_size=3))
        | st.dictionaries(st.sampled_from(["is", "name"]), inner, max_size=2)
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@given(JSON)
def test_any_json_gives_plain_values_or_ours_or_a_refusal(content):
    try:
        value = from_json(content)
    except SnnError:
        return

    assert _is_plain(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(part) for part in value)
    ours = type(value).__module__.startswith("snn_bp.")
    return ours or value is None or value is ... or isinstance(value, bool | int | float | str | complex | bytes)


# Nonsense

NONSENSE = {
    "epochs": (0, -1, 1.5, True, "3", None, float("nan")),
    "lr": (0, -1e-3, "fast", None, float("nan"), float("inf"), True),
    "optimizer": ("adagrad", None, 3, ("adam",)),
    "momentum": (-0.1, 1.1, "much", None, float("nan")),
    "nesterov": (1, "yes", None),
    "keep": ("worst", None, 1),
    "weight_decay": (-1, 2, "x", None, float("nan")),
    "schedule": ("linear", None, 1),
    "step_epochs": (0, 2.5, None, "x"),
    "step_factor": (0, -1, None, "x", float("inf")),
    "warmup": (-0.1, 1.5, None, "x", float("nan")),
    "clip": (0, -1, "x", float("nan"), True),
    "loss": (None, "CountCrossEntropy", CountCrossEntropy, ATan()),
    "surrogate": (None, "ATan", ATan, CountCrossEntropy()),
    "metric": ("f1", F1, CountCrossEntropy(), 0.5),
    "rates": (0.1, "low", RateBounds, (0.1, 0.2)),
    "truncate": (0, -1, 2.5, "x", True),
    "autocast": ("float16", True, 16),
    "memory": ("none", None, 1, ("low",)),
    "target": ("loihi3", None, 1),
    "freeze_norm": (-0.1, 1.5, None, "x", float("nan")),
    "device": (None, 3, ("cpu",), ""),
    "start": (3, "", "\0", ("runs/a",)),
    "freeze": (3, "all", (-1,), (1.5,), ("1.2",), None),
    "lr_of": (3, "x", None, {0: 0}, {0: -1}, {0: "fast"}, {-1: 0.1}, ((1, 2, 3),), {0: float("nan")}),
    "accumulate": (0, -1, 1.5, None, "x"),
    "average": (1.0, -0.1, "x", True, float("nan")),
    "stop": (3, "early", Patience, CountCrossEntropy()),
    "sampler": ("fair", None, 1),
    "test": ("now", None, True),
}


def test_nonsense_is_known_for_every_field_of_train():
    assert NONSENSE.keys() == {field.name for field in fields(Train)}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in NONSENSE for value in NONSENSE[field]])
def test_train_refuses_nonsense(field, value):
    with pytest.raises(SnnError, match=field):
        Train(**{field: value})


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(SnnError, match="momentum"):
        Train(optimizer="sgd", momentum=0, nesterov=True)


@pytest.mark.parametrize("layer", [3, "Dense(3)", Dense, None, Path("x"), (Dense(3),), CountCrossEntropy()])
def test_an_experiment_refuses_what_is_no_layer(layer):
    with pytest.raises(SnnError, match=r"model\.1"):
        Experiment(Data("digits"), (Flatten(), layer))


@pytest.mark.parametrize(
    "value", [Path("x"), {"a": 1}, 1j, ATan, LIF, (1, object())], ids=lambda value: type(value).__name__
)
def test_a_value_that_json_cannot_hold_is_refused(value):
    with pytest.raises(SnnError, match="cannot be written to JSON"):
        to_json(value)


ODD_TEXTS = (
    "",
    "no",
    "yes",
    "None",
    "nan",
    "inf",
    "-1",
    "0",
    "1e400",
    "1" * 400,
    "1" * 5000,
    "x" * 5000,
    "()",
    "((),)",
    "[[]]",
    "{}",
    "1j",
    "...",
    "b'x'",
    "'\\0'",
    "\0",
    "(1, 'a')",
    "LIF",
    "LIF(beta=0.5)",
    "ATan(3)",
    "Train()",
    "Dense(3)",
    "f()",
    "(" * 500,
    "[" * 300 + "]" * 300,
    "-" * 500 + "1",
    "Dense(" * 100 + "3" + ")" * 100,
    "lambda: 1",
    "\ud800",
    "1 if 1 else 2",
)


def test_any_text_at_any_key_gives_a_legal_experiment_or_a_refusal_in_one_line():
    experiment = replace(tiny(), train=Train(rates=RateBounds(), loss=CountSquaredError()))
    keys = list(_keys(experiment, ""))
    assert {"data", "data.binary", "model.3.beta", "train.surrogate.slope", "train.rates.lower", "seed"} <= set(keys)

    for key in keys:
        for text in ODD_TEXTS:
            try:
                changed, _ = override(experiment, [f"{key}={text}"])
            except SnnError as refusal:
                assert "\n" not in str(refusal)
            else:
                assert_legal(changed)
