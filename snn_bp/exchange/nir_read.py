"""NIR files as networks: our own come back bit for bit, those of other libraries where our neurons can say the same.

An Euler step of a neuron is v <- beta v + g x with beta = 1 - step / tau and the gain g = step / tau * r (of CubaLIF
that of both stages). The gain goes into the weights before the neuron; where no weights take it, into the threshold.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snn_bp.errors import SnnError, as_path
from snn_bp.exchange.nir_file import CONTRACT, MOST_NEURONS, MOST_PRODUCTS, NO_STEP, NirFile, chain_of, open_nir
from snn_bp.exchange.nir_gain import by_channel, rows, scaled
from snn_bp.exchange.nir_kernel import as_it_was
from snn_bp.exchange.nir_node import NEURONS, Node
from snn_bp.exchange.nir_step import spikes_by_step
from snn_bp.exchange.nir_values import decay_of, load, off_by, shape_of, simple
from snn_bp.model.layers import Conv, Delay, Dense, Flatten, Layer, Pool, Recurrent, Shape
from snn_bp.model.network import Network
from snn_bp.neurons import IF, LI, LIF, CubaLIF, Neuron

FIELDS = {
    "I": {"r"},
    "IF": {"r", "v_threshold", "v_reset"},
    "LI": {"tau", "r", "v_leak"},
    "LIF": {"tau", "r", "v_leak", "v_threshold", "v_reset"},
    "CubaLI": {"tau_syn", "tau_mem", "r", "v_leak", "w_in"},
    "CubaLIF": {"tau_syn", "tau_mem", "r", "v_leak", "w_in", "v_threshold", "v_reset"},
}
MOST_MOVED = 9  # units in the last place by which nir_ties moves a threshold, at most
ROUNDING = 2.0**-21  # of a gain, the product of up to four rounded numbers: this near to 1, it is 1


def read_nir(path: Path | str, *, step_s: float | None = None) -> Network:
    """The network in a NIR file, in evaluation mode.

    `step_s` is the length of a time step in seconds; a file that snn_bp wrote has its own, and without both the error
    says at which steps the layers fire. A leak and a reset to one and the same value shift the threshold by it, from
    rest there; the bias of a recurrence is there from the first step, as in snnTorch; a batch axis of one in the
    shapes is taken off. What our neurons cannot say is refused with the node's name: other leaks and resets, branches,
    unknown nodes, and leaky neurons from before NIR 1.0.6, where a spike took the threshold off.
    """
    file = open_nir(path := as_path("read_nir: path", path))
    try:
        with np.errstate(all="ignore"):  # what is beyond a number's range is refused where it ends up
            if file.contract is None and step_s is None:
                raise SnnError(NO_STEP + spikes_by_step(file, lambda step: _Reading(file, step).network()))
            return _Reading(file, file.step(step_s)).network()
    except SnnError as cause:
        raise SnnError(f"{path}: {cause}") from cause


class _Reading:
    """The chain of a file, node by node, as layers with their weights."""

    def __init__(self, file: NirFile, step: float) -> None:
        self.file, self.step = file, step
        self.model: list[Layer] = []
        self.weights: list[dict[str, np.ndarray]] = []  # of each layer; double precision until all gains are in
        self.off: list[dict[str, np.ndarray]] = []  # bits that the rounded weights are off
        self.shape: Shape = ()
        self.gain: np.ndarray | float = 1.0  # of a Scale, still to be put somewhere
        self.synapse: int | None = None  # the last one, no neurons since
        self.between: list[tuple[str, Shape]] = []

    def network(self) -> Network:
        """The network with its weights."""
        chain, loops = chain_of(self.file)
        first, last = self.file.nodes[chain[0]], self.file.nodes[chain[-1]]
        input_shape = self.shape = shape_of(first)
        for name in chain[1:-1]:
            node = self.file.nodes[name]
            reads = self._reader(node, loops.get(name))
            reads(node)
            if not self.shape or np.prod(self.shape, dtype=float) > MOST_NEURONS:
                raise node.refuse(f"it gives {list(self.shape)}, between 1 and {MOST_NEURONS} values are read.")
        if shape_of(last) != self.shape:
            raise last.refuse(f"its shape is {list(shape_of(last))}, what reaches it has {list(self.shape)}.")
        self._settle(last)
        if not self.model:
            raise SnnError("it has no nodes but its input and output.")
        network = Network(tuple(self.model), input_shape)
        with torch.no_grad():
            for layer, arrays, off in zip(network.layers, self.weights, self.off, strict=True):
                load(layer, arrays, off)
        return network.eval()

    def _reader(self, node: Node, loop: str | None) -> Callable[[Node], None]:
        stateless = {
            "Linear": self._dense, "Affine": self._dense, "Conv1d": self._conv, "Conv2d": self._conv,
            "SumPool2d": self._pool, "AvgPool2d": self._pool, "Flatten": self._flatten, "Delay": self._delay,
            "Scale": self._scale, "Threshold": self._threshold,
        }  # fmt: skip
        if node.kind in NEURONS:
            return lambda node: self._neurons(node, loop)
        if node.kind not in stateless:
            raise node.refuse(f"snn_bp has no such layer. Known: {', '.join((*stateless, *NEURONS))}.")
        return stateless[node.kind]

    def _add(self, layer: Layer, weights: dict[str, np.ndarray] | None = None, node: Node | None = None) -> None:
        self.model.append(layer)
        self.weights.append(weights or {})
        self.off.append({} if node is None else off_by(node, self.weights[-1]))

    def _dense(self, node: Node) -> None:
        weight = node.numbers("weight")
        bias = node.numbers("bias") if node.kind == "Affine" else None
        if (
            weight.ndim != 2
            or (weight.shape[1],) != self.shape
            or (bias is not None and bias.shape != weight.shape[:1])
        ):
            raise node.refuse(f"its weight has the shape {list(weight.shape)}, its input {list(self.shape)}.")
        weight = weight * self._take_gain(self.shape)
        self._synapse(Dense(len(weight), bias=bias is not None), weight, bias, node)
        self.shape = (len(weight),)

    def _conv(self, node: Node) -> None:
        weight, bias, space = node.numbers("weight"), node.numbers("bias"), int(node.kind[4])
        groups, was = node.whole("groups", 1)[0], self._kernel(node)
        if weight.ndim != 2 + space or len(self.shape) != 1 + space or bias.shape != weight.shape[:1]:
            raise node.refuse(f"its weight has the shape {list(weight.shape)}, its input {list(self.shape)}.")
        if groups < 1 or weight.shape[1] * groups != self.shape[0] or len(weight) % groups:
            raise node.refuse(f"its {groups} groups do not fit {self.shape[0]} channels in and {len(weight)} out.")
        given = node.fields.get("input_shape")
        if given is not None and node.whole("input_shape", space) != self.shape[1:]:
            raise node.refuse(f"its input_shape is not that of its input, {list(self.shape[1:])}.")
        kernel, stride, dilation = weight.shape[2:], node.whole("stride", space), node.whole("dilation", space)
        spans = [step * (size - 1) + 1 for size, step in zip(kernel, dilation, strict=True)]
        padding = self._padding(node, spans, stride)
        if min(*stride, *dilation) < 1:
            raise node.refuse("its stride and dilation should be 1 or more.")
        out = tuple(
            (length + 2 * pad - span) // step + 1
            for length, pad, span, step in zip(self.shape[1:], padding, spans, stride, strict=True)
        )
        padded = np.prod([length + 2 * pad for length, pad in zip(self.shape[1:], padding, strict=True)], dtype=float)
        if (
            min(out) < 1
            or self.shape[0] * padded > MOST_NEURONS
            or weight.size * np.prod(out, dtype=float) > MOST_PRODUCTS
        ):
            raise node.refuse(f"it gives {list(out)} from {list(self.shape[1:])}; that is nothing, or too much.")
        channels = by_channel(self._take_gain(self.shape))
        if channels is None:
            raise node.refuse("a Scale before it differs within a channel; no kernel says that.")
        factors = channels.reshape(groups, 1, weight.shape[1], *[1] * space)
        weight = (weight.reshape(groups, -1, *weight.shape[1:]) * factors).reshape(weight.shape)
        off = node.metadata.get(f"{CONTRACT}_weight_off")
        if was is not None:  # written square and without groups
            groups, kernel, padding = was
            weight = self._own(node, weight, groups, kernel)
            if off is not None and off.shape == node.numbers("weight").shape:
                off = self._own(node, off, groups, kernel)
                node = replace(node, metadata={**node.metadata, f"{CONTRACT}_weight_off": off})
        has_bias = bool(bias.any())
        layer = Conv(
            len(weight), kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=has_bias
        )  # fmt: skip
        self._synapse(layer, weight, bias if has_bias else None, node)
        self.shape = (len(weight), *out)

    def _kernel(self, node: Node) -> tuple[int, tuple[int, ...], tuple[int, ...]] | None:
        """Groups, kernel and padding that our contract says were written in another shape."""
        said = self.file.contract["kernels"].get(node.name) if self.file.contract else None
        if said is None:
            return None
        try:
            return int(said["groups"]), tuple(map(int, said["kernel"])), tuple(map(int, said["padding"]))
        except (KeyError, TypeError, ValueError):
            raise node.refuse("the contract of snn_bp in the file does not say its kernel.") from None

    def _own(self, node: Node, array: np.ndarray, groups: int, kernel: tuple[int, ...]) -> np.ndarray:
        fits = groups > 0 and not array.shape[0] % groups and not array.shape[1] % groups
        fits = fits and all(0 < side <= have for side, have in zip(kernel, array.shape[2:], strict=True))
        own = as_it_was(array, groups, kernel) if fits else None
        if own is None:
            raise node.refuse("its kernel is not what the contract of snn_bp says: the file was changed.")
        return own

    def _padding(self, node: Node, spans: list[int], stride: tuple[int, ...]) -> tuple[int, ...]:
        padding = node.fields.get("padding")
        if not isinstance(padding, str):
            return node.whole("padding", len(spans))
        if padding == "same" and all(span % 2 for span in spans) and set(stride) == {1}:
            return tuple(span // 2 for span in spans)
        if padding != "valid":
            raise node.refuse(f"padding {padding[:20]!r} with this kernel and stride is not read; give it as numbers.")
        return (0,) * len(spans)

    def _synapse(self, layer: Layer, weight: np.ndarray, bias: np.ndarray | None, node: Node) -> None:
        self._add(layer, {"weight": weight} | ({} if bias is None else {"bias": bias}), node)
        self.synapse, self.between = len(self.model) - 1, []

    def _pool(self, node: Node) -> None:
        (size, wide), (stride, across) = node.whole("kernel_size", 2), node.whole("stride", 2)
        if size != wide or stride != across or any(node.whole("padding", 2)) or min(size, stride) < 1:
            raise node.refuse("snn_bp pools square windows without padding only.")
        if len(self.shape) != 3 or min(self.shape[1:]) < size:
            raise node.refuse(f"its window {size} does not fit its input {list(self.shape)}.")
        if not np.all(self.gain == 1.0):
            channels = by_channel(np.broadcast_to(self.gain, self.shape))
            if channels is None:
                raise node.refuse("a Scale before it differs within a channel.")
            self.gain = channels.reshape(-1, 1, 1)
        self.between.append(("pool", self.shape))
        kind = "sum" if node.kind == "SumPool2d" else "average"
        self._add(Pool(size, kind=kind, stride=stride))
        self.shape = (self.shape[0], *((length - size) // stride + 1 for length in self.shape[1:]))

    def _flatten(self, node: Node) -> None:
        first, last = (int(node.numbers(name).ravel()[0]) for name in ("start_dim", "end_dim"))
        axes = len(self.shape)
        if not (-axes <= first < axes and -axes <= last < axes):
            raise node.refuse(f"it flattens axes {first} to {last} of {list(self.shape)}; NIR has no batch axis.")
        if first % axes == last % axes:
            return
        if (first % axes, last % axes) != (0, axes - 1):
            raise node.refuse(f"it flattens axes {first} to {last} of {list(self.shape)}; snn_bp flattens all of them.")
        self.between.append(("flatten", self.shape))
        self._add(Flatten())
        self.gain = np.broadcast_to(self.gain, self.shape).reshape(-1)
        self.shape = (int(np.prod(self.shape)),)

    def _delay(self, node: Node) -> None:
        steps = node.each("delay", self.shape) / self.step
        whole = np.rint(steps)
        if not ((np.abs(steps - whole) < 1e-3) & (whole >= 0) & (whole < 2**24)).all():
            raise node.refuse(f"its delays are no whole numbers of steps of {self.step} s. Another step_s may fit.")
        self.between.append(("delay", self.shape))
        self._add(Delay(simple(whole), most=max(62, int(whole.max()))))

    def _scale(self, node: Node) -> None:
        self.gain = self.gain * node.each("scale", self.shape)

    def _threshold(self, node: Node) -> None:
        self._put(node, self._take_gain(self.shape), node.each("threshold", self.shape), {}, lambda theta: (
            LIF(beta=0.0, threshold=theta, reset="zero")
        ))  # fmt: skip

    def _neurons(self, node: Node, loop: str | None) -> None:
        fields = set(node.fields) - FIELDS[node.kind]
        if fields:
            raise node.refuse(f"its field {min(fields)!r} is not known.")
        subtracts, spiking = self.file.subtracts(node), "v_threshold" in FIELDS[node.kind]
        if subtracts and node.kind in ("LIF", "CubaLIF"):
            raise node.refuse(
                f"a file of NIR {'.'.join(map(str, self.file.version))} takes the threshold off at a spike, before the "
                'next leak; our "subtract" does it after. replay_nir(path, x, step_s=...) runs it as it is. Written '
                "again by a newer nir it resets to 0, another network: right only where it was trained so (snnTorch's "
                "and norse's readers did reset to 0)."
            )
        rest = self._rest(node, spiking)
        decays, gain = self._dynamics(node)
        reset = "subtract" if subtracts else "zero"
        makes: dict[str, Callable[[Any], Neuron]] = {
            "I": lambda _: LI(beta=1.0),
            "IF": lambda theta: IF(threshold=theta, reset=reset),
            "LI": lambda _: LI(beta=decays["beta"]),
            "CubaLI": lambda _: LI(**decays),
            "LIF": lambda theta: LIF(beta=decays["beta"], threshold=theta, reset="zero"),
            "CubaLIF": lambda theta: CubaLIF(**decays, threshold=theta, reset="zero"),
        }
        theta = self._threshold_of(node, rest) if spiking else None
        recurrent = {}
        if loop is not None:
            recurrent = self._recurrence(self.file.nodes[loop], node, spiking)
            recurrent = {name: scaled(array, gain) for name, array in recurrent.items()}
        self._put(node, gain * self._take_gain(self.shape), theta, recurrent, makes[node.kind], loop)

    def _rest(self, node: Node, spiking: bool) -> np.ndarray:
        """The potential to which a neuron leaks and resets, from which ours are counted."""
        known = FIELDS[node.kind]
        leak, reset = (
            node.each(name, self.shape) if name in known and name in node.fields else np.zeros(self.shape)
            for name in ("v_leak", "v_reset")
        )
        if not leak.any() and not reset.any():
            return leak
        if not (spiking and "v_leak" in known and (leak == reset).all()):
            name = "v_leak" if leak.any() else "v_reset"
            raise node.refuse(f"its {name} is not 0; only a leak and a reset to one and the same value are read.")
        return leak

    def _threshold_of(self, node: Node, rest: np.ndarray) -> np.ndarray:
        """Thresholds above the rest; with our contract those that were moved from a tie as they were."""
        theta = node.each("v_threshold", self.shape)
        said = self.file.contract["neurons"].get(node.name, {}).get("threshold") if self.file.contract else None
        if said is None:
            return (theta - rest).astype(np.float32)
        exact = decay_of(node, said, self.shape)
        if not (np.abs(theta - exact) <= MOST_MOVED * np.spacing(np.abs(exact).astype(np.float32))).all():
            raise node.refuse("its v_threshold is not what the contract of snn_bp says: the file was changed.")
        return exact

    def _dynamics(self, node: Node) -> tuple[dict[str, Any], np.ndarray]:
        """The decays and the whole input gain of neurons; with our contract, exactly those they were written from."""
        contract = self.file.contract["neurons"].get(node.name) if self.file.contract else None
        if self.file.contract and contract is None:
            raise node.refuse("the contract of snn_bp in the file does not know it: the file was changed.")
        decays, gain, shares = {}, np.ones(self.shape), np.ones(self.shape)
        for symbol, name in (("alpha", "tau_syn"), ("beta", "tau" if "tau" in FIELDS[node.kind] else "tau_mem")):
            if name not in FIELDS[node.kind]:
                continue
            tau = node.each(name, self.shape)
            if not (tau >= self.step * (1 - ROUNDING)).all():
                raise node.refuse(
                    f"its {name} is as small as {tau.min():.4g} s, below the step of {self.step:g} s: an Euler step "
                    "jumps over its target. Another step_s may fit."
                )
            decay, share = np.maximum(1 - self.step / tau, 0.0), self.step / tau
            if contract is not None:
                decay = decay_of(node, contract.get(symbol), self.shape)
                share = 1 - decay.astype(np.float32).astype(np.float64)  # as the kernels take it
                changed = not ((share > 0) & (share <= 1)).all()
                if changed or ((self.step / share).astype(np.float32) != tau.astype(np.float32)).any():
                    raise node.refuse(f"its {name} is not what the contract of snn_bp says: the file was changed.")
            decays[symbol] = simple(decay)
            shares = shares * share
            gain = gain * (node.each("w_in", self.shape) if symbol == "alpha" and "w_in" in node.fields else 1)
        gain = gain * shares * node.each("r", self.shape) * (self.step if node.kind in ("I", "IF") else 1)
        gain = np.where(np.abs(gain - 1) < ROUNDING, 1.0, gain)
        if contract is not None:
            exact = shares if contract.get("form") == "unit-r" else np.ones(self.shape)
            if not np.allclose(gain, exact, rtol=ROUNDING, atol=0):
                raise node.refuse("its gain is not what the contract of snn_bp says: the file was changed.")
            gain = exact
        if (gain == 0).any():
            raise node.refuse("its input gain is 0: nothing reaches it.")
        return decays, gain

    def _recurrence(self, loop: Node, node: Node, spiking: bool) -> dict[str, np.ndarray]:
        weight = loop.numbers("weight")
        if not spiking or len(self.shape) != 1 or weight.shape != self.shape * 2:
            raise loop.refuse(f"as recurrence of {node.name!r} it should be square, between neurons that spike.")
        bias = loop.numbers("bias") if loop.kind == "Affine" else np.zeros(self.shape)
        if bias.shape != self.shape:
            raise loop.refuse(f"its bias has the shape {list(bias.shape)}, the neurons {list(self.shape)}.")
        return {"weight": weight, "bias": bias} if bias.any() else {"weight": weight}

    def _put(
        self, node: Node, gain: np.ndarray, theta: np.ndarray | None, recurrent: dict[str, np.ndarray],
        make: Callable[[Any], Neuron], loop: str | None = None,
    ) -> None:  # fmt: skip
        """Add neurons whose input has a gain: into the weights before them, else into their threshold."""
        if not self._into_weights(gain):
            if theta is None or not (gain > 0).all():
                raise node.refuse("its input gain is not 1, and no weights before it nor a threshold can take it.")
            theta = (theta / gain).astype(np.float32)
            recurrent = {name: scaled(array, 1 / gain) for name, array in recurrent.items()}
        try:
            neuron = make(None if theta is None else simple(theta))
        except SnnError as cause:
            raise node.refuse(str(cause)) from cause
        if loop is None:
            self._add(neuron)
        else:
            self._add(Recurrent(neuron, bias="bias" in recurrent), recurrent, self.file.nodes[loop])
        self.synapse = None

    def _into_weights(self, gain: np.ndarray) -> bool:
        if (gain == 1).all():
            return True
        factors = None if self.synapse is None else rows(gain, self.between)
        if factors is None or self.synapse is None:
            return False
        self.weights[self.synapse] = {
            name: scaled(array, factors) for name, array in self.weights[self.synapse].items()
        }
        return True

    def _take_gain(self, shape: Shape) -> np.ndarray:
        gain, self.gain = np.broadcast_to(self.gain, shape), 1.0
        return gain

    def _settle(self, last: Node) -> None:
        if not self._into_weights(self._take_gain(self.shape)):
            raise last.refuse("a Scale at the end has no weights that take it.")
