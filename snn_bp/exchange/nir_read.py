"""NIR files as networks: our own come back bit for bit, those of other libraries where our neurons can say the same.

The input gain of neurons goes into the weights before them; where no weights take it, into their threshold.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from snn_bp.errors import SnnError, as_path
from snn_bp.exchange.nir_file import MAX_NEURONS, MAX_PRODUCTS, NO_STEP, SUBTRACTS, AsZero, NirFile, open_nir
from snn_bp.exchange.nir_forks import Branches, Row, tree_of
from snn_bp.exchange.nir_neurons import KINDS, dynamics, threshold
from snn_bp.exchange.nir_node import Node, offset_key, simple
from snn_bp.exchange.nir_own import OWN_KEY
from snn_bp.exchange.nir_step import spikes_by_step
from snn_bp.exchange.nir_weights import by_channel, load, row_gains, scaled, ulp_offsets, unsquared
from snn_bp.model.blocks import Role
from snn_bp.model.joints import Parallel, Residual
from snn_bp.model.layers import Conv, Delay, Dense, Flatten, Layer, Pool, Recurrent, Shape
from snn_bp.model.network import Network
from snn_bp.neurons import LIF, Neuron


def read_nir(path: Path | str, *, step_s: float | None = None, reset: AsZero = None) -> Network:
    """The network in a NIR file, in evaluation mode.

    `step_s` is the length of a time step in seconds; a file that snn_bp wrote has its own, and without both the error
    says at which steps the layers fire. A leak and a reset to one and the same value shift the threshold by it, from
    rest there; the bias of a recurrence is there from the first step, as in snnTorch; a batch axis of one in the
    shapes is taken off. Branches that start from one signal and are added again come back as `Residual` and `Parallel`.
    What our neurons cannot say is refused with the node's name: other leaks and resets, other graphs, unknown nodes.

    Before NIR 1.0.6 a spike takes the threshold off, which is our `reset="subtract_before_leak"`. Some wrote such files
    from networks that reset to 0, as snnTorch and norse read them: `reset="zero"` reads one so.
    """
    file = open_nir(path := as_path("read_nir: path", path), reset)
    try:
        with np.errstate(all="ignore"):  # what is beyond a number's range is refused where it ends up
            if file.metadata is None and step_s is None:
                raise SnnError(NO_STEP + spikes_by_step(file, lambda step: _Reading(file, step).network()))
            return _Reading(file, file.step(step_s)).network()
    except SnnError as cause:
        raise SnnError(f"{path}: {cause}") from cause


class _Reading:
    """The rows of a file, node by node, as layers with their weights."""

    def __init__(self, file: NirFile, step: float) -> None:
        self.file, self.step = file, step
        self.row, self.loops = tree_of(file.nodes, file.edges)
        self.model: list[Layer] = []
        self.weights: list[dict[str, np.ndarray]] = []  # a layer each, in double precision until all gains are in
        self.offsets: list[dict[str, np.ndarray]] = []  # units in the last place that the rounded weights are off
        self.branches: list[list[_Reading]] = []  # those of a joint
        self.shape: Shape = ()
        self.gain: np.ndarray | float = 1.0  # what a Scale leaves to the weights or thresholds behind it
        self.synapse: int | None = None  # the last one, no neurons since
        self.between: list[tuple[Role, Shape]] = []

    def network(self) -> Network:
        """The network with its weights."""
        first = next(node for node in self.file.nodes.values() if node.kind == "Input")
        last = next(node for node in self.file.nodes.values() if node.kind == "Output")
        input_shape = self.shape = first.shape()
        self._read(self.row)
        if last.shape() != self.shape:
            raise last.refuse(f"its shape is {list(last.shape())}, what reaches it has {list(self.shape)}.")
        self._end(last, "a Scale at the end")
        if not self.model:
            raise SnnError("it has no nodes but its input and output.")
        network = Network(tuple(self.model), input_shape)
        with torch.no_grad():
            self._load(network.layers)
        return network.eval()

    def _read(self, row: Row) -> None:
        for each in row:
            if isinstance(each, Branches):
                self._fork(each)
                continue
            node = self.file.nodes[each]
            READERS.get(node.kind, _Reading._unknown)(self, node)
            if not self.shape or np.prod(self.shape, dtype=float) > MAX_NEURONS:
                raise node.refuse(f"it gives {list(self.shape)}, between 1 and {MAX_NEURONS} values are read.")

    def _fork(self, fork: Branches) -> None:
        """Add a joint, whose branches are read each by itself."""
        node = self.file.nodes[fork.start[0]]
        self._end(node, "a Scale before branches")
        found = []
        for row in fork.rows:
            branch = copy.copy(self)
            branch.model, branch.weights, branch.offsets, branch.branches = [], [], [], []
            branch.synapse, branch.between = None, []
            branch._read(row)
            branch._end(node, "a Scale at the end of a branch from it")
            found.append(branch)
        rows = tuple(tuple(branch.model) for branch in found)
        if fork.combine == "add" and len(rows) == 2 and rows[0] and not rows[1]:
            self._add(Residual(*rows[0]))
        else:
            self._add(Parallel(*rows, combine=fork.combine))
        self.branches[-1] = found
        shapes = [branch.shape for branch in found]
        if any(shape[fork.combine == "concat" :] != shapes[0][fork.combine == "concat" :] for shape in shapes):
            raise node.refuse(
                f"the branches behind it give {', '.join(map(str, map(list, shapes)))}; one shape is read."
            )
        channels = sum(shape[0] for shape in shapes) if fork.combine == "concat" else shapes[0][0]
        self.shape, self.synapse, self.between = (channels, *shapes[0][1:]), None, []

    def _end(self, node: Node, scale: str) -> None:
        """Put what a Scale left into the weights before it, where nothing behind them takes it."""
        if not self._into_weights(self._take_gain()):
            raise node.refuse(f"{scale} has no weights before it that take it.")

    def _load(self, layers: nn.ModuleList) -> None:
        each = zip(layers, self.weights, self.offsets, self.branches, strict=True)
        for layer, arrays, offsets, branches in each:
            load(layer, arrays, offsets)
            for branch, row in zip(branches, getattr(layer, "branches", ()), strict=True):
                branch._load(row)

    def _unknown(self, node: Node) -> None:
        raise node.refuse(f"snn_bp has no such layer. Known: {', '.join(READERS)}.")

    def _add(self, layer: Layer, weights: dict[str, np.ndarray] | None = None, node: Node | None = None) -> None:
        self.model.append(layer)
        self.weights.append(weights or {})
        self.offsets.append({} if node is None else ulp_offsets(node, self.weights[-1]))
        self.branches.append([])

    def _dense(self, node: Node) -> None:
        weight = node.numbers("weight")
        bias = node.numbers("bias") if node.kind == "Affine" else None
        if weight.ndim != 2 or (weight.shape[1],) != self.shape:
            raise node.refuse(f"its weight has the shape {list(weight.shape)}, its input {list(self.shape)}.")
        _check_bias(node, bias, weight)
        self._synapse(Dense(len(weight), bias=bias is not None), weight * self._take_gain(), bias, node)
        self.shape = (len(weight),)

    def _conv(self, node: Node) -> None:
        weight, bias, space = node.numbers("weight"), node.numbers("bias"), int(node.kind[4])
        groups = node.integers("groups", 1)[0]
        if weight.ndim != 2 + space or len(self.shape) != 1 + space:
            raise node.refuse(f"its weight has the shape {list(weight.shape)}, its input {list(self.shape)}.")
        _check_bias(node, bias, weight)
        if groups < 1 or weight.shape[1] * groups != self.shape[0] or len(weight) % groups:
            raise node.refuse(f"its {groups} groups do not fit {self.shape[0]} channels in and {len(weight)} out.")
        if node.fields.get("input_shape") is not None and node.integers("input_shape", space) != self.shape[1:]:
            raise node.refuse(f"its input_shape is not that of its input, {list(self.shape[1:])}.")
        kernel, stride, dilation = weight.shape[2:], node.integers("stride", space), node.integers("dilation", space)
        spans = [step * (size - 1) + 1 for size, step in zip(kernel, dilation, strict=True)]
        padding = _padding(node, spans, stride)
        if min(*stride, *dilation) < 1:
            raise node.refuse("its stride and dilation should be 1 or more.")
        padded = [length + 2 * pad for length, pad in zip(self.shape[1:], padding, strict=True)]
        out = tuple((size - span) // step + 1 for size, span, step in zip(padded, spans, stride, strict=True))
        values, products = self.shape[0] * np.prod(padded, dtype=float), weight.size * np.prod(out, dtype=float)
        if min(out) < 1 or values > MAX_NEURONS or products > MAX_PRODUCTS:
            raise node.refuse(f"it gives {list(out)} from {list(self.shape[1:])}; that is nothing, or too much.")
        channels = by_channel(self._take_gain())
        if channels is None:
            raise node.refuse("a Scale before it differs within a channel; no kernel says that.")
        factors = channels.reshape(groups, 1, weight.shape[1], *[1] * space)
        weight = (weight.reshape(groups, -1, *weight.shape[1:]) * factors).reshape(weight.shape)
        if self.file.metadata and node.name in self.file.metadata["kernels"]:  # written square and without groups
            weight, node, groups, kernel, padding = _as_it_was(node, weight, self.file.metadata["kernels"][node.name])
        has_bias = bool(bias.any())
        layer = Conv(
            len(weight), kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=has_bias
        )  # fmt: skip
        self._synapse(layer, weight, bias if has_bias else None, node)
        self.shape = (len(weight), *out)

    def _synapse(self, layer: Layer, weight: np.ndarray, bias: np.ndarray | None, node: Node) -> None:
        self._add(layer, {"weight": weight} | ({} if bias is None else {"bias": bias}), node)
        self.synapse, self.between = len(self.model) - 1, []

    def _pool(self, node: Node) -> None:
        (size, width), (stride, across) = node.integers("kernel_size", 2), node.integers("stride", 2)
        if size != width or stride != across or any(node.integers("padding", 2)) or min(size, stride) < 1:
            raise node.refuse("snn_bp pools square windows without padding only.")
        if len(self.shape) != 3 or min(self.shape[1:]) < size:
            raise node.refuse(f"its window {size} does not fit its input {list(self.shape)}.")
        if not np.all(self.gain == 1.0):
            channels = by_channel(np.broadcast_to(self.gain, self.shape))
            if channels is None:
                raise node.refuse("a Scale before it differs within a channel.")
            self.gain = channels.reshape(-1, 1, 1)
        self.between.append(("pool", self.shape))
        self._add(Pool(size, kind="sum" if node.kind == "SumPool2d" else "average", stride=stride))
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
        exact = node.each("delay", self.shape) / self.step
        steps = np.rint(exact)
        if not ((np.abs(exact - steps) < 1e-3) & (steps >= 0) & (steps < 2**24)).all():
            raise node.refuse(f"its delays are not integer numbers of steps of {self.step} s. Another step_s may fit.")
        self.between.append(("delay", self.shape))
        self._add(Delay(simple(steps), max_steps=max(62, int(steps.max()))))

    def _scale(self, node: Node) -> None:
        self.gain = self.gain * node.each("scale", self.shape)

    def _threshold(self, node: Node) -> None:
        make = partial(LIF, beta=0.0, reset="zero")
        self._put(node, make, self._take_gain(), node.each("threshold", self.shape), {})

    def _neurons(self, node: Node) -> None:
        kind, loop, metadata = KINDS[node.kind], self.loops.get(node.name), self.file.metadata
        unknown = set(node.fields) - kind.fields
        if unknown:
            raise node.refuse(f"its field {min(unknown)!r} is not known.")
        if metadata is not None and (metadata := metadata["neurons"].get(node.name)) is None:
            raise node.refuse("the metadata of snn_bp in the file does not know it: the file was changed.")
        if metadata is not None and OWN_KEY in metadata:  # the node was another neuron's: its numbers are all there is
            metadata = None
        theta = threshold(node, metadata, self.shape)
        decays, gain = dynamics(node, metadata, self.shape, self.step)
        recurrent = {} if loop is None else self._recurrence(self.file.nodes[loop], node)
        recurrent = {name: scaled(array, gain) for name, array in recurrent.items()}
        reset = {"reset": SUBTRACTS if self.file.subtracts(node) else "zero"} if kind.spikes else {}
        self._put(node, partial(kind.make, **decays, **reset), gain * self._take_gain(), theta, recurrent)

    def _recurrence(self, loop: Node, node: Node) -> dict[str, np.ndarray]:
        weight = loop.numbers("weight")
        if not KINDS[node.kind].spikes or len(self.shape) != 1 or weight.shape != self.shape * 2:
            raise loop.refuse(f"as recurrence of {node.name!r} it should be square, between neurons that spike.")
        bias = loop.numbers("bias") if loop.kind == "Affine" else np.zeros(self.shape)
        if bias.shape != self.shape:
            raise loop.refuse(f"its bias has the shape {list(bias.shape)}, the neurons {list(self.shape)}.")
        return {"weight": weight, "bias": bias} if bias.any() else {"weight": weight}

    def _put(
        self, node: Node, make: Callable[..., Neuron], gain: np.ndarray, theta: np.ndarray | None,
        recurrent: dict[str, np.ndarray],
    ) -> None:  # fmt: skip
        """Add neurons whose input has a gain: into the weights before them, else into their threshold."""
        if not self._into_weights(gain):
            if theta is None or not (gain > 0).all():
                raise node.refuse("its input gain is not 1, and no weights before it nor a threshold can take it.")
            theta = (theta / gain).astype(np.float32)
            recurrent = {name: scaled(array, 1 / gain) for name, array in recurrent.items()}
        try:
            neuron = make(**({} if theta is None else {"threshold": simple(theta)}))
        except SnnError as cause:
            raise node.refuse(str(cause)) from cause
        if recurrent:
            self._add(Recurrent(neuron, bias="bias" in recurrent), recurrent, self.file.nodes[self.loops[node.name]])
        else:
            self._add(neuron)
        self.synapse = None

    def _into_weights(self, gain: np.ndarray) -> bool:
        if (gain == 1).all():
            return True
        factors = None if self.synapse is None else row_gains(gain, self.between)
        if factors is None or self.synapse is None:
            return False
        weights = self.weights[self.synapse]
        self.weights[self.synapse] = {name: scaled(array, factors) for name, array in weights.items()}
        return True

    def _take_gain(self) -> np.ndarray:
        gain, self.gain = np.broadcast_to(self.gain, self.shape), 1.0
        return gain


READERS: dict[str, Callable[[_Reading, Node], None]] = {
    "Linear": _Reading._dense, "Affine": _Reading._dense, "Conv1d": _Reading._conv, "Conv2d": _Reading._conv,
    "SumPool2d": _Reading._pool, "AvgPool2d": _Reading._pool, "Flatten": _Reading._flatten,
    "Delay": _Reading._delay, "Scale": _Reading._scale, "Threshold": _Reading._threshold,
    **dict.fromkeys(KINDS, _Reading._neurons),
}  # fmt: skip


def _check_bias(node: Node, bias: np.ndarray | None, weight: np.ndarray) -> None:
    if bias is not None and bias.shape != weight.shape[:1]:
        raise node.refuse(f"its bias has the shape {list(bias.shape)}, its weight {list(weight.shape)}.")


def _padding(node: Node, spans: list[int], stride: tuple[int, ...]) -> tuple[int, ...]:
    padding = node.fields.get("padding")
    if not isinstance(padding, str):
        return node.integers("padding", len(spans))
    if padding == "same" and all(span % 2 for span in spans) and set(stride) == {1}:
        return tuple(span // 2 for span in spans)
    if padding != "valid":
        raise node.refuse(f"padding {padding[:20]!r} with this kernel and stride is not read; give it as numbers.")
    return (0,) * len(spans)


def _as_it_was(node: Node, weight: np.ndarray, was: dict[str, Any]) -> tuple[np.ndarray, Node, int, Shape, Shape]:
    """Weight, node, groups, kernel and padding of a convolution that was written in another shape."""
    try:
        groups, kernel, padding = int(was["groups"]), tuple(map(int, was["kernel"])), tuple(map(int, was["padding"]))
    except (KeyError, TypeError, ValueError):
        raise node.refuse("the metadata of snn_bp in the file does not say its kernel.") from None
    arrays, key = {"weight": weight}, offset_key("weight")
    if key in node.metadata and node.metadata[key].shape == weight.shape:
        arrays[key] = node.metadata[key]
    for name, array in arrays.items():
        if (original := unsquared(array, groups, kernel)) is None:
            raise node.refuse("its kernel is not what the metadata of snn_bp says: the file was changed.")
        arrays[name] = original
    weight = arrays.pop("weight")
    return weight, replace(node, metadata={**node.metadata, **arrays}), groups, kernel, padding
