"""To and from snnTorch: networks that spike alike and learn alike, or a refusal that says what has no equal.

snnTorch 1.0.0 computes a `Leaky` as we do an `LIF`, a `Synaptic` as a `CubaLIF`, `RLeaky` and `RSynaptic` as those
two within `Recurrent`, in single precision. Its equations were read from its source; the tests step its own loop.
"""

import copy
import inspect
import math
from collections.abc import Callable
from functools import partial, singledispatch
from typing import Any, Literal, cast

import snntorch as snn
import torch
from snntorch import surrogate as theirs
from torch import nn

from snn_bp.chip.network import OnChip
from snn_bp.errors import SnnError
from snn_bp.kernels.around import is_untouched
from snn_bp.model.blocks import blocks, role_of
from snn_bp.model.constrained import ConstrainedLinear
from snn_bp.model.exact import check_whole, why_strange
from snn_bp.model.layers import BatchNorm, Conv, Dense, Dropout, Flatten, Layer, Pool, Recurrent, Shape, Spiking
from snn_bp.model.modules import DropoutOverTime, Neurons, SumPool
from snn_bp.model.network import Network
from snn_bp.neurons import IF, LI, LIF, CubaLIF, Reset, coefficients, has_adaptation, has_current, is_spiking
from snn_bp.surrogates import Surrogate

THEIRS: dict[tuple[bool, bool], Any] = {  # with a synaptic current, recurrent
    (False, False): snn.Leaky,
    (True, False): snn.Synaptic,
    (False, True): snn.RLeaky,
    (True, True): snn.RSynaptic,
}
SPIKING = tuple(THEIRS.values())
RECURRENT = (snn.RLeaky, snn.RSynaptic)
LIKE_THEIRS = (IF, LIF, CubaLIF, LI)  # our neurons that have an equal there

# their class, reset_mechanism, reset_delay -> our reset, detach_reset. A delayed reset is detached. One that is not
# delayed leaves exactly 0, so the next step's own reset finds nothing: "zero", with gradients through the spike.
RESETS: dict[tuple[type, str, bool], tuple[Reset, bool]] = {
    **{(kind, "subtract", True): ("subtract", True) for kind in SPIKING},
    **{(kind, "none", delay): ("none", True) for kind in SPIKING for delay in (True, False)},
    (snn.Leaky, "zero", True): ("zero", True),
    (snn.Synaptic, "zero", True): ("zero_all", True),
    (snn.RLeaky, "zero", True): ("zero_all", True),
    (snn.RSynaptic, "zero", True): ("zero_all", True),
    (snn.Leaky, "zero", False): ("zero", False),
    (snn.Synaptic, "zero", False): ("zero", False),
    (snn.RLeaky, "zero", False): ("zero", False),
}
del RESETS[snn.RSynaptic, "none", False]  # raises TypeError in snnTorch 1.0.0, as its other resets do
STATE_FUNCTIONS = {"_base_sub": "subtract", "_base_zero": "zero", "_base_int": "none"}  # what a step really runs

# our shape -> their maker and the name of its slope
SURROGATES: dict[str, tuple[Callable, str | None]] = {
    "ATan": (theirs.atan, "alpha"),
    "FastSigmoid": (theirs.fast_sigmoid, "slope"),
    "Sigmoid": (theirs.sigmoid, "slope"),
    "StraightThrough": (theirs.straight_through_estimator, None),
}

TWICE = ", which above twice the threshold takes it off once more in the next step,"
TOUCHED = "has hooks, a forward or weights put in place of its own, which a copy would lose. Take them off first."
IN_TRAINING = "In training snnTorch's loop sees one step at a time, ours all steps. Call .eval() on the network first."


def from_snntorch(net: nn.Sequential, input_shape: Shape) -> Network:
    """The `Network` that computes what stepping `net` over time does, from rest, with a copy of its weights.

    `input_shape` is that of one step of one sample. A recurrent layer equals snnTorch's up to the order of a sum, a
    learned parameter up to the rounding of the function that keeps it in its range; all else is exact. A neuron that
    cannot fire (threshold inf, reset "none") becomes an `LI`, whose output is snnTorch's `mem`. Batch norm and
    dropout are taken in evaluation only.
    """
    if not isinstance(net, nn.Sequential) or len(net) == 0 or type(net).forward is not nn.Sequential.forward:
        raise SnnError(
            f"from_snntorch: it takes an nn.Sequential of layers, found {type(net).__name__}. List them in one."
        )
    _check_own(net, _name)
    if not is_untouched(net):
        raise SnnError(f"from_snntorch: the network {TOUCHED}")
    layers, surrogates = [], {}
    for index, module in enumerate(net):
        try:
            _check_single(module)
            if not all(is_untouched(part) for part in module.modules()):
                raise SnnError(f"it {TOUCHED}")
            if type(module) not in SPIKING:
                layers.append(_plain(module))
                continue
            layers.append(_spiking(module, last=index == len(net) - 1))
            if is_spiking(getattr(layers[-1], "neuron", layers[-1])):
                surrogates[_surrogate(module.spike_grad)] = index
        except SnnError as cause:
            raise SnnError(f"{_name(index, module)}: {cause}") from cause
    if len(surrogates) > 1:
        found = ", ".join(f"{surrogate} in layer {index}" for surrogate, index in surrogates.items())
        raise SnnError(
            f"from_snntorch: a Network has one surrogate, found {found}. Give every neuron the same spike_grad."
        )
    network = Network(tuple(layers), input_shape, surrogate=next(iter(surrogates), None))
    for index, (module, layer) in enumerate(zip(net, network.layers, strict=True)):
        try:
            if type(module) in SPIKING:
                _check_shared(module, network.shapes[index])
            if role_of(layer) != "neurons":
                _copy(module, layer)
            elif layer.recurrence is not None:
                _copy(cast(nn.Module, module.recurrent), cast(nn.Module, layer.recurrence))
        except (RuntimeError, SnnError) as cause:
            raise SnnError(f"{_name(index, module)}: {cause}") from cause
    device = next(iter(net.state_dict().values()), torch.empty(0)).device
    return network.train(net.training).to(device)


def to_snntorch(network: Network) -> nn.Sequential:
    """The `nn.Sequential` of snnTorch neurons that spikes and learns as `network` does, with a copy of its weights.

    Neurons hold their state (`init_hidden=True`). From rest, one step after the other:

        snntorch.utils.reset(net)
        out = torch.stack([net(x_t) for x_t in x])

    Behind an `LI`, which may stand last only, `net(x_t)[-1]` is the potential.
    """
    modules = []
    if type(network) is OnChip:
        raise SnnError(
            "to_snntorch: this network computes in a chip's integers, snnTorch in floats. Give network.floats."
        )
    check_whole("to_snntorch", network, Network)
    blocks(network, "to_snntorch")  # which refuses joints
    _check_own(network.layers, lambda index, _: f"to_snntorch: {network.name(index)}")
    for index, (layer, shape) in enumerate(zip(network.layers, network.shapes, strict=True)):
        try:
            if (why := why_strange(layer)) is not None:
                raise SnnError(f"it {why}")
            _check_single(layer)
            modules.append(_theirs(layer, shape, network.surrogate, index == len(network.layers) - 1))
        except SnnError as cause:
            raise SnnError(f"to_snntorch: {network.name(index)}: {cause}") from cause
    return nn.Sequential(*modules).train(network.training)


def _plain(module: nn.Module) -> Layer:
    """The layer that builds a module without state."""
    if type(module) not in PLAIN:
        known = ", ".join(kind.__name__ for kind in (*SPIKING, *PLAIN) if kind is not SumPool)
        raise SnnError(f"it has no equal here. Known: {known}.")
    options, layer = PLAIN[type(module)]
    for option, values in options.items():
        if getattr(module, option) not in values:
            hint = IN_TRAINING if option == "training" else f"{option}={values[0]!r} would work."
            raise SnnError(f"{option}={getattr(module, option)!r} has no equal here. {hint}")
    return layer(module)


def _conv(module: Any) -> Layer:
    if isinstance(module.padding, str):
        raise SnnError(f"padding={module.padding!r} has no equal here. Give it as numbers.")
    options = {name: getattr(module, name) for name in ("stride", "padding", "dilation", "groups")}
    return Conv(module.out_channels, module.kernel_size, bias=module.bias is not None, **options)


def _pool(module: Any, kind: Literal["average", "max"]) -> Layer:
    return Pool(_side(module.kernel_size), stride=_side(module.stride), kind=kind)


def _batch_norm(module: Any) -> Layer:
    if module.momentum is None:
        raise SnnError("momentum=None has no equal here. momentum=0.1 would work.")
    return BatchNorm(momentum=module.momentum)


POOL_OPTIONS = {"padding": (0, (0,), (0, 0)), "ceil_mode": (False,)}
MAX_POOL_OPTIONS = {**POOL_OPTIONS, "dilation": (1, (1, 1)), "return_indices": (False,)}
NORM_OPTIONS = {"eps": (1e-5,), "affine": (True,), "track_running_stats": (True,), "training": (False,)}
# a module without state -> the values that ours have for its options, and the layer that builds it
PLAIN: dict[type, tuple[dict[str, tuple], Callable[[Any], Layer]]] = {
    nn.Linear: ({}, lambda module: Dense(module.out_features, bias=module.bias is not None)),
    **dict.fromkeys((nn.Conv1d, nn.Conv2d), ({"padding_mode": ("zeros",)}, _conv)),
    nn.AvgPool1d: (POOL_OPTIONS, partial(_pool, kind="average")),
    nn.AvgPool2d: ({**POOL_OPTIONS, "divisor_override": (None,)}, partial(_pool, kind="average")),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d), (MAX_POOL_OPTIONS, partial(_pool, kind="max"))),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d), (NORM_OPTIONS, _batch_norm)),
    nn.Flatten: ({"start_dim": (1,), "end_dim": (-1,)}, lambda module: Flatten()),
    nn.Dropout: ({"training": (False,)}, lambda module: Dropout(module.p)),
    SumPool: ({}, lambda module: Pool(module.size, stride=module.stride, kind="sum")),
}


def _spiking(module: Any, *, last: bool) -> Layer:
    """Our neuron for one of theirs."""
    step = getattr(module.state_function, "__name__", "")
    own = {name for name in vars(module) if callable(getattr(type(module), name, None))}
    if own or getattr(module.state_function, "__func__", None) is not getattr(type(module), step, 0):
        raise SnnError(f"it {TOUCHED}")
    reset = STATE_FUNCTIONS[step]
    if snn.SpikingNeuron.reset_dict[reset] != int(module.reset_mechanism_val):
        raise SnnError(
            f"it was built with reset_mechanism={reset!r} and that is what it runs, but it was set to another one "
            "later. Build it with the one you mean."
        )
    ours_reset = RESETS.get((type(module), reset, bool(module.reset_delay)))
    recurrent = type(module) in RECURRENT
    refused = {
        f"reset_mechanism={reset!r} with reset_delay=False{TWICE * (reset == 'subtract')}": (
            ours_reset is None, "reset_delay=True",
        ),
        "inhibition=True": (module.inhibition, "inhibition=False"),
        "state_quant": (bool(module.state_quant), "state_quant=False"),
        "surrogate_disable=True": (module.surrogate_disable, "a spike_grad, atan() for one,"),
        "a graded_spikes_factor": (
            isinstance(module.graded_spikes_factor, nn.Parameter) or bool((module.graded_spikes_factor != 1).any()),
            "a factor of 1, with the weights behind it scaled,",
        ),
        "output=True in front of another layer": (module.output and not last, "output=False"),
        "recurrence other than nn.Linear": (
            recurrent and type(module.recurrent) is not nn.Linear, "all_to_all=True with linear_features="
        ),
    }  # fmt: skip
    for what, (found, works) in refused.items():
        if found:
            raise SnnError(f"{what} has no equal here. {works} would work.")
    assert ours_reset is not None
    names = ("alpha", "beta") if hasattr(module, "alpha") else ("beta",)
    decays = {name: getattr(module, name).detach().double() for name in names}
    learn = tuple(name for name in (*names, "threshold") if isinstance(getattr(module, name), nn.Parameter))
    if last and reset == "none" and not recurrent and bool(torch.isinf(module.threshold).all()):
        neuron = LI(**decays)
    else:
        kind = CubaLIF if "alpha" in decays else LIF
        threshold = module.threshold.detach().double()
        neuron = kind(**decays, threshold=threshold, reset=ours_reset[0], detach_reset=ours_reset[1])
    if recurrent:
        return Recurrent(neuron, learn=learn, bias=module.recurrent.bias is not None)
    return Spiking(neuron, learn=learn) if learn else neuron


def _surrogate(function: Any) -> Surrogate:
    """Our surrogate for one of theirs, a function closed over its slope."""
    for shape, (maker, parameter) in SURROGATES.items():
        if getattr(function, "__code__", None) is maker().__code__:
            slope = inspect.getclosurevars(function).nonlocals[parameter] if parameter else 1.0
            return Surrogate(shape, float(slope), per="potential")
    known = ", ".join(maker.__name__ for maker, _ in SURROGATES.values())
    found = getattr(function, "__qualname__", repr(function)).split(".")[0]
    raise SnnError(f"spike_grad {found!r} has no equal here. Those of snntorch.surrogate that have: {known}.")


def _check_shared(module: Any, shape: Shape) -> None:
    for name in ("alpha", "beta", "threshold"):
        value = getattr(module, name, None)
        if isinstance(value, nn.Parameter) and value.numel() != math.prod(shape):
            raise SnnError(
                f"learn_{name}=True with {value.numel()} values for {math.prod(shape)} neurons has no equal here: ours "
                f"learns one for each. {name}=torch.full({tuple(shape)}, value) would work."
            )


@singledispatch
def _theirs(layer: nn.Module, shape: Shape, surrogate: Surrogate, last: bool) -> nn.Module:
    """Their module for a layer of ours."""
    _plain(layer)
    return copy.deepcopy(layer)


@_theirs.register(ConstrainedLinear)
@_theirs.register(nn.LayerNorm)
@_theirs.register(nn.ConvTranspose1d)
@_theirs.register(nn.ConvTranspose2d)
@_theirs.register(nn.Upsample)
@_theirs.register(nn.Unflatten)
def _as_it_is(layer: nn.Module, shape: Shape, surrogate: Surrogate, last: bool) -> nn.Module:
    """The module itself, which sees a step as theirs do; `from_snntorch` has no layer for it."""
    return copy.deepcopy(layer)


@_theirs.register
def _their_dropout(layer: DropoutOverTime, shape: Shape, surrogate: Surrogate, last: bool) -> nn.Module:
    return _theirs(nn.Dropout(layer.p).train(layer.training), shape, surrogate, last)


@_theirs.register
def _their_neurons(layer: Neurons, shape: Shape, surrogate: Surrogate, last: bool) -> nn.Module:
    neurons, neuron = layer, layer.neuron
    if type(neuron) not in LIKE_THEIRS:
        known = ", ".join(kind.__name__ for kind in LIKE_THEIRS)
        why = " no adaptive threshold" if has_adaptation(neuron) else f" no {type(neuron).__name__}"
        raise SnnError(f"snnTorch has{why}. {known} would work.")
    kind = THEIRS[has_current(neuron), layer.recurrence is not None]
    values = {**coefficients(neuron), **neurons.parameters_now()}
    values = {name: torch.as_tensor(value, dtype=torch.float32).detach().clone() for name, value in values.items()}
    options: dict[str, Any] = {name: values[name] for name in (("alpha", "beta") if has_current(neuron) else ("beta",))}
    options |= {f"learn_{'threshold' if symbol == 'theta' else symbol}": True for symbol in neurons.learned}
    if layer.recurrence is not None:
        options["linear_features"] = shape[0]
    if not is_spiking(neuron):
        if not last:
            raise SnnError("snnTorch hands on spikes only, so an LI may stand last. LIF would work here.")
        return kind(**options, threshold=math.inf, reset_mechanism="none", init_hidden=True, output=True)
    unit = "theta" not in neurons.learned and bool((values["theta"] == 1).all())
    spike_grad = _their_surrogate(surrogate, unit_threshold=unit)
    module = kind(
        **options, **_their_reset(kind, neuron), threshold=values["theta"], spike_grad=spike_grad, init_hidden=True
    )
    if layer.recurrence is not None:
        module.recurrent = copy.deepcopy(layer.recurrence)  # theirs always has a bias
    return module


def _their_reset(kind: type, neuron: Any) -> dict[str, Any]:
    for (their_kind, mechanism, delay), (reset, detach) in RESETS.items():
        if their_kind is kind and reset == neuron.reset and (detach == neuron.detach_reset or reset == "none"):
            return {"reset_mechanism": mechanism, "reset_delay": delay}
    known = dict.fromkeys(
        f"reset={reset!r}" + (f", detach_reset={detach}" if reset != "none" else "")
        for (their_kind, *_), (reset, detach) in RESETS.items() if their_kind is kind
    )  # fmt: skip
    raise SnnError(
        f"snn.{kind.__name__} has no reset={neuron.reset!r} with detach_reset={neuron.detach_reset}. "
        f"These would work: {'; '.join(known)}."
    )


def _their_surrogate(surrogate: Surrogate, *, unit_threshold: bool) -> Callable:
    if surrogate.shape not in SURROGATES:
        raise SnnError(f"{surrogate} has no equal in snnTorch. Those that have: {', '.join(SURROGATES)}.")
    if surrogate.per == "threshold" and not unit_threshold:
        raise SnnError(
            f"{surrogate} counts per unit of threshold, snnTorch per unit of potential, and the threshold is not 1. "
            f"{surrogate.shape}(slope={surrogate.slope}, per='potential') would work."
        )
    maker, parameter = SURROGATES[surrogate.shape]
    return maker(**{parameter: surrogate.slope}) if parameter else maker()


def _copy(source: nn.Module, target: nn.Module) -> None:
    target.load_state_dict(source.state_dict())
    for given, parameter in zip(source.parameters(), target.parameters(), strict=True):
        parameter.requires_grad_(given.requires_grad)


def _check_single(module: nn.Module) -> None:
    """snnTorch's spikes are always single precision."""
    for name, value in module.state_dict().items():
        if value.is_floating_point() and value.dtype != torch.float32:
            raise SnnError(
                f"{name} is {value.dtype}, snnTorch spikes in torch.float32. Call .float() on the network first."
            )


def _check_own(modules: nn.Sequential | nn.ModuleList, name: Callable[[int, nn.Module], str]) -> None:
    """Raise where two layers share weights or a state: the copy would have them twice, and they would part."""
    first: dict[int, int] = {}
    for index, module in enumerate(modules):
        shared = [first[id(weight)] for weight in module.parameters() if id(weight) in first]
        if shared:
            raise SnnError(
                f"{name(index, module)}: it shares weights with layer {shared[0]}, and the copy would have them twice. "
                "Give each layer its own, copy.deepcopy(layer) for one."
            )
        if type(module) in SPIKING and id(module) in first:
            raise SnnError(
                f"{name(index, module)}: it is the same neurons as layer {first[id(module)]} and goes on from their "
                "state, and the copy would have two. Give each layer its own, copy.deepcopy(layer) for one."
            )
        first |= dict.fromkeys(map(id, (module, *module.parameters())), index)


def _name(index: int, module: nn.Module) -> str:
    return f"from_snntorch: layer {index} ({type(module).__name__})"


def _side(size: int | tuple[int, ...]) -> int:
    """The side of a square window."""
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1:
        raise SnnError(f"a window of {size} has no equal here. A square one would work.")
    return sides.pop()
