"""What each field of each value of an experiment may hold, written down by hand, and a valid example of each value.

An oracle of its own: it does not read the annotations that the package checks itself by.
"""

import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from torch import nn

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
    Blend,
    ChannelJitter,
    Conv,
    ConvTranspose,
    CountCrossEntropy,
    CountSquaredError,
    CubaLIF,
    Current,
    CutMix,
    Data,
    Delay,
    DelayedDense,
    Delta,
    Dense,
    Dropout,
    EventDrop,
    Experiment,
    FirstSpike,
    Fixed,
    Flatten,
    Flip,
    Folder,
    Latency,
    LayerNorm,
    MaxCrossEntropy,
    MeanAbsoluteError,
    MeanSquaredPotential,
    MembraneCrossEntropy,
    Module,
    NoiseEvents,
    Parallel,
    Patience,
    Pool,
    Rate,
    RateBounds,
    Recurrent,
    Repeat,
    Residual,
    SpatialJitter,
    Spiking,
    Start,
    StepAccuracy,
    Surrogate,
    Targets,
    Tau,
    TemporalConv,
    TimeCrop,
    TimeJitter,
    Train,
    Unflatten,
    Upsample,
    VanRossum,
    VanRossumDistance,
)  # fmt: skip
from snn_bp.data import TonicSet
from snn_bp.data.formats import FORMATS
from snn_bp.data.tonic_sets import SETS
from snn_bp.model.targets import KINDS
from snn_bp.neurons import LIBRARY
from snn_bp.surrogates import SHAPES

NEURONS = (IF, LIF, CubaLIF, ALIF, LI, *LIBRARY)
ENCODERS = (Current, Delta, Rate, Latency, Repeat)
AUGMENTATIONS = (
    Flip, EventDrop, TimeJitter, ChannelJitter, SpatialJitter, TimeCrop, NoiseEvents, CutMix, Blend,
)  # fmt: skip
LOSSES = (
    CountCrossEntropy,
    MembraneCrossEntropy,
    MaxCrossEntropy,
    CountSquaredError,
    FirstSpike,
    TET,
    MeanSquaredPotential,
    BinaryCrossEntropy,
    VanRossum,
)
METRICS = (Accuracy, StepAccuracy, BalancedAccuracy, F1, MeanAbsoluteError, R2, VanRossumDistance)
LAYERS = (
    *NEURONS, Dense, Conv, Pool, Flatten, Dropout, Delay, BatchNorm, Spiking, Recurrent, LayerNorm,
    ConvTranspose, Upsample, Unflatten, TemporalConv, DelayedDense, Module, Residual,
    Parallel,
)  # fmt: skip


def whole(low: int, high: int = 2**31 - 1) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def number(low: float = -math.inf, high: float = 3.4e38, *, above: float = -math.inf) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and low <= value <= high and value > above


def each(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """One, or a tuple of such, nested as deep as wanted."""
    return lambda value: all(map(each(fits), value)) if type(value) is tuple else fits(value)


def some(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def one(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds


def word(*known: str) -> Callable[[Any], bool]:
    return lambda value: type(value) is str and (value in known or not known)


def flag(value: Any) -> bool:
    return type(value) is bool


def words(value: Any) -> bool:
    return type(value) is tuple and all(map(word(), value))


def path(value: Any) -> bool:
    return type(value) is str and "\0" not in value


def layer_keys(value: Any) -> bool:
    return type(value) is tuple and all(
        (type(key) is int and key >= 0) or (type(key) is str and all(map(str.isdigit, key.split(".")))) for key in value
    )


def camera(value: Any) -> bool:
    return type(value) is tuple and len(value) == 3 and all(map(whole(1, 2**16), value)) and value[1] > 1


def decay(value: Any) -> bool:
    return type(value) is Tau or each(number(0, 1))(value)


COUNT, SHARE, POSITIVE = whole(1), number(0, 1), number(above=0)
RESETTING = {
    "threshold": each(POSITIVE), "detach_reset": flag,
    "reset": word("subtract", "subtract_before_leak", "zero", "zero_all", "none"),
}  # fmt: skip
LEARNING = {
    "neuron": one(*NEURONS), "learn": lambda value: type(value) is tuple and all(map(word(), value)),
    "per": word("neuron", "channel", "layer"),
}  # fmt: skip
ROW = lambda value: type(value) is tuple and all(type(each) in LAYERS for each in value)  # noqa: E731
CONSTRAINED = {
    "density": some(number(above=0, high=1)), "sign": some(word("positive", "negative", "dale")), "excitatory": SHARE,
}  # fmt: skip
SMOOTHED = {
    "smoothing": SHARE,
    "class_weights": some(lambda value: type(value) is tuple and all(map(number(0), value))),
}
LEGAL: dict[type, dict[str, Callable[[Any], bool]]] = {
    Tau: {"ms": POSITIVE},
    IF: RESETTING,
    LIF: RESETTING | {"beta": decay},
    CubaLIF: RESETTING | {"alpha": decay, "beta": decay},
    ALIF: RESETTING | {"alpha": decay, "beta": decay, "rho": decay, "kappa": each(number(0))},
    LI: {"alpha": decay, "beta": decay},
    Surrogate: {"shape": word(*SHAPES), "slope": POSITIVE, "per": word("threshold", "potential")},
    Dense: {"units": COUNT, "bias": flag} | CONSTRAINED,
    Conv: {
        "channels": COUNT, "kernel": each(COUNT), "stride": each(COUNT), "padding": each(whole(0)),
        "dilation": each(COUNT), "groups": COUNT, "bias": flag,
    },
    Pool: {"size": COUNT, "kind": word("sum", "average", "max"), "stride": some(COUNT)},
    Flatten: {},
    Dropout: {"p": number(0, 0.99)},
    Delay: {"steps": each(number(0)), "learn": flag, "max_steps": COUNT},
    BatchNorm: {"momentum": SHARE, "scale": POSITIVE},
    Spiking: LEARNING,
    Recurrent: LEARNING | {"bias": flag} | CONSTRAINED,
    LayerNorm: {"scale": POSITIVE},
    ConvTranspose: {
        "channels": COUNT, "kernel": each(COUNT), "stride": each(COUNT), "padding": each(whole(0)),
        "output_padding": each(whole(0)), "bias": flag,
    },
    Upsample: {"factor": COUNT},
    Unflatten: {"shape": lambda value: type(value) is tuple and all(map(COUNT, value))},
    TemporalConv: {
        "channels": COUNT, "steps": COUNT, "kernel": each(COUNT), "stride": each(COUNT), "padding": each(whole(0)),
        "dilation": COUNT, "groups": COUNT, "bias": flag,
    },
    Module: {
        "kind": lambda value: isinstance(value, type) and issubclass(value, nn.Module),
        "args": lambda value: type(value) is tuple, "over": word("rows", "time"), "stateful": flag,
        "options": lambda value: type(value) is tuple and all(len(pair) == 2 and word()(pair[0]) for pair in value),
    },
    Residual: {
        "layers": lambda value: ROW(value) and len(value) > 0, "combine": word("add", "and", "iand"), "shortcut": ROW,
    },
    Parallel: {
        "rows": lambda value: type(value) is tuple and len(value) > 1 and all(map(ROW, value)),
        "combine": word("concat", "add"),
    },
    DelayedDense: {"units": COUNT, "max_steps": COUNT, "spread": some(number(0.5)), "bias": flag},
    CountCrossEntropy: SMOOTHED,
    MembraneCrossEntropy: SMOOTHED,
    MaxCrossEntropy: SMOOTHED,
    TET: {"weight": SHARE, "mean": number()} | SMOOTHED,
    MeanSquaredPotential: {},
    BinaryCrossEntropy: {},
    **{kind: {} for kind in (Accuracy, StepAccuracy, BalancedAccuracy, MeanAbsoluteError, R2)},
    F1: {"threshold": number()},
    VanRossumDistance: {"tau": lambda value: POSITIVE(value) or type(value) is Tau},
    VanRossum: {"tau": lambda value: POSITIVE(value) or type(value) is Tau},
    CountSquaredError: {"right": SHARE, "wrong": SHARE},
    FirstSpike: {"scale": POSITIVE} | SMOOTHED,
    RateBounds: {"lower": each(SHARE), "upper": each(SHARE), "strength": number(0)},
    Data: {
        "name": word("digits", "nmnist", "dvs_gesture", "shd"), "step_ms": number(0.001, 1e6), "steps": COUNT,
        "batch": COUNT, "root": some(path), "sensor": lambda value: value is None, "downsample": COUNT,
        "binary": flag, "translate_px": whole(0), "rotate_deg": number(0, 180), "validation_fraction": number(0, 0.9),
        "split_seed": whole(0, 2**64 - 1), "transforms": lambda value: type(value) is tuple,
        "source": lambda value: value is None, "encoder": some(one(*ENCODERS)), "split_by": word("recording", "group"),
        "test_groups": words, "test_fraction": number(0, 0.9), "folds": some(whole(2)), "fold": whole(0),
        "augment": lambda value: type(value) is tuple and all(map(one(*AUGMENTATIONS), value)),
    },
    Folder: {
        "root": path, "sensor": camera, "table": some(path), "suffix": some(word(*FORMATS)),
        "columns": some(lambda value: type(value) is str and sorted(value) == list("ptxy")),
        "unit": some(word("us", "ms", "s")), "entry": some(word()), "sort": flag, "start": word("first event", "clock"),
        "masked": flag, "step_ms": some(POSITIVE), "window_ms": some(POSITIVE),
    },
    TonicSet: {"name": word(*SETS), "root": some(path)},
    Targets: {"kind": word(*KINDS), "names": lambda value: words(value) and len(value) > 0},
    Current: {},
    Delta: {"threshold": POSITIVE},
    Rate: {"steps": COUNT, "largest": POSITIVE},
    Latency: {"steps": COUNT, "largest": POSITIVE},
    Repeat: {"steps": COUNT},
    Flip: {"p": SHARE, "classes": lambda value: type(value) is tuple and all(map(words, value))},
    EventDrop: {"fraction": number(above=0, high=1), "by": word("any", "events", "time", "area")},
    TimeJitter: {"ms": number(0.001, 1e6)},
    ChannelJitter: {"channels": number(0.14, 65_536)},
    SpatialJitter: {"px": number(0.14, 65_536)},
    TimeCrop: {"ms": some(number(0.001, 1e6))},
    NoiseEvents: {"hz": number(above=0, high=100_000)},
    CutMix: {"p": SHARE, "classes": word("same", "any")},
    Blend: {"p": SHARE, "classes": word("same", "any")},
    Train: {
        "epochs": COUNT, "lr": POSITIVE, "optimizer": word("adamw", "adam", "sgd"), "momentum": SHARE, "nesterov": flag,
        "weight_decay": SHARE, "schedule": word("constant", "cosine", "step"), "step_epochs": COUNT,
        "step_factor": POSITIVE, "warmup": SHARE, "clip": some(POSITIVE), "loss": one(*LOSSES),
        "surrogate": one(Surrogate), "metric": some(one(*METRICS)), "rates": some(one(RateBounds)),
        "truncate": some(COUNT),
        "keep": word("best", "last"), "autocast": some(word("bfloat16")), "memory": word("full", "low"),
        "target": lambda value: type(value) is Fixed or word("float", "loihi", "fpga", "xylo")(value),
        "freeze_norm": SHARE,
        "device": lambda value: type(value) is str and value.partition(":")[0].isalpha(),
        "start": some(one(Start)), "freeze": layer_keys, "accumulate": COUNT, "average": some(number(0, 0.999999)),
        "lr_of": lambda value: (
            type(value) is tuple and all(len(pair) == 2 and layer_keys(pair[:1]) and pair[1] > 0 for pair in value)
        ),
        "stop": some(one(Patience)), "sampler": word("shuffled", "balanced"), "test": word("at end", "never"),
    },
    Fixed: {
        "weight_bits": whole(4, 8), "state_bits": whole(12, 24), "decay": word("shift", "multiply"),
        "fraction_bits": some(whole(0, 20)),
    },
    Start: {"run": path, "checkpoint": word("best", "last"), "but": layer_keys},
    Patience: {"epochs": COUNT, "margin": number(0)},
    Experiment: {
        "data": one(Data), "model": lambda value: type(value) is tuple and all(map(one(*LAYERS), value)),
        "train": one(Train), "seed": whole(0, 2**64 - 1),
    },
}  # fmt: skip

RANGES = {
    "decay": decay, "fraction": each(SHARE), "positive": each(POSITIVE), "from 0": each(number(0)),
    "any": each(number(-3.4e38)),
}  # fmt: skip
for kind in LIBRARY:  # whose docstrings say what they are; each parameter's range is tested with its kind
    LEGAL[kind] = {name: RANGES[within] for name, within in kind.kind.ranges.items()}
    LEGAL[kind] |= {name: (lambda value, known=known: value in known) for name, known in kind.kind.choices.items()}

NEURON = LIF(beta=0.9)
EXAMPLES: dict[type, dict[str, Any]] = {kind: {} for kind in LEGAL} | {
    Tau: {"ms": 20},
    Start: {"run": "runs/a"},
    LIF: {"beta": 0.9},
    CubaLIF: {"alpha": 0.5, "beta": Tau(20)},
    ALIF: {"beta": (0.8, 0.9), "rho": 0.9, "kappa": 0.1},
    LI: {"beta": 0.9},
    Surrogate: {"shape": "ATan", "slope": 2.0},
    Dense: {"units": 10},
    Conv: {"channels": 4, "kernel": (3, 3)},
    Pool: {"size": 2},
    Spiking: {"neuron": NEURON, "learn": ("beta",)},
    ConvTranspose: {"channels": 4, "kernel": (3, 3)},
    Upsample: {"factor": 2},
    Unflatten: {"shape": (2, 3)},
    TemporalConv: {"channels": 4, "steps": 3},
    DelayedDense: {"units": 4},
    Module: {"kind": nn.LayerNorm, "args": (6,), "options": (("elementwise_affine", False),)},
    Residual: {"layers": (Dense(4),)},
    Parallel: {"rows": ((Dense(4),), ())},
    Recurrent: {"neuron": NEURON},
    Data: {"name": "digits"},
    Folder: {"root": "/data/lab", "sensor": (346, 260, 2)},
    TonicSet: {"name": "SHD"},
    Targets: {"kind": "class", "names": ("left", "right")},
    Delta: {"threshold": 0.1},
    Rate: {"steps": 5},
    Latency: {"steps": 5},
    Repeat: {"steps": 5},
    EventDrop: {"fraction": 0.3},
    TimeJitter: {"ms": 2},
    ChannelJitter: {"channels": 20},
    SpatialJitter: {"px": 1},
    NoiseEvents: {"hz": 1},
    Experiment: {"data": Data("digits"), "model": (Dense(10), NEURON), "train": Train(surrogate=ATan())},
}


def assert_legal(value: Any) -> None:
    """Raise where a field of a value, or of a value within it, holds what it may not."""
    if isinstance(value, tuple):
        for part in value:
            assert_legal(part)
    elif is_dataclass(value) and not isinstance(value, type):
        assert type(value) in LEGAL, f"{value!r} is no value of an experiment"
        for field in fields(value):
            found = getattr(value, field.name)
            assert LEGAL[type(value)][field.name](found), f"{type(value).__name__}.{field.name} = {found!r}"
            if field.name != "transforms":
                assert_legal(found)
