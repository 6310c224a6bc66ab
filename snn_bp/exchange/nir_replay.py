"""What a NIR file does, by NIR's own equations in numpy: an independent reference that shares no code with networks.

Euler steps, current first, then membrane, threshold (strict) and reset, from rest at `v_leak`. Recurrent neurons
receive their spikes of the step before, none at first; what leads them back, a bias included, acts at once.
"""

from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from snn_bp.errors import SnnError, check_choice
from snn_bp.exchange.nir_file import MAX_NEURONS, AsZero, NirFile, open_nir
from snn_bp.exchange.nir_node import NEURONS, Node


def replay_nir(
    path: Path | str, x: Tensor | np.ndarray, *,
    step_s: float | None = None, precision: Literal["double", "single"] = "double", reset: AsZero = None,
) -> Tensor:  # fmt: skip
    """The output `[time, batch, ...]` of the file for an input `[time, batch, ...]`, as single precision holds it.

    `precision` is that of the equations. `step_s` is needed where the file has no metadata of snn_bp. Skips and sums
    of several edges are followed too, and files from before NIR 1.0.6, where a spike takes the threshold off, or sets 0
    with `reset="zero"`.
    """
    check_choice("replay_nir: precision", precision, ("double", "single"))
    x = np.asarray(x, dtype=np.float64 if precision == "double" else np.float32)
    file = open_nir(path, reset)
    try:
        with np.errstate(all="ignore"):
            out = _run(file, x, file.step(step_s))
    except SnnError as cause:
        raise SnnError(f"{path}: {cause}") from cause
    except (ArithmeticError, AssertionError, LookupError, MemoryError, TypeError, ValueError) as cause:
        said = (str(cause).splitlines() or [type(cause).__name__])[0][:120]
        raise SnnError(f"{path}: its nodes do not fit together ({said}).") from cause
    return torch.from_numpy(np.ascontiguousarray(out, np.float32))


def _run(file: NirFile, x: np.ndarray, step: float) -> np.ndarray:
    into: dict[str, list[str]] = {name: [] for name in file.nodes}
    for start, end in file.edges:
        into[end].append(start)
    loops = {
        name: start
        for name, node in file.nodes.items()
        for start in into[name]
        if node.kind in NEURONS and into[start] == [name] and sum(edge[0] == start for edge in file.edges) == 1
    }
    for name, start in loops.items():
        into[name].remove(start)
        del into[start]
    try:
        order = list(TopologicalSorter(into).static_order())
    except CycleError as cause:
        raise SnnError(f"its nodes {cause.args[1]} close a cycle that is no recurrence of neurons.") from None
    values: dict[str, np.ndarray] = {}
    for name in order:
        node = file.nodes[name]
        if node.kind == "Input":
            shape = tuple(node.numbers("shape").ravel().astype(int))
            if x.ndim < 2 or x.shape[2:] != shape:
                raise node.refuse(f"the input should be [time, batch, {', '.join(map(str, shape))}], found {x.shape}.")
            values[name] = x
            continue
        if not into[name]:
            raise node.refuse("nothing leads to it.")
        total = sum((values[start] for start in into[name][1:]), start=values[into[name][0]])
        if node.kind in NEURONS:
            loop = file.nodes[loops[name]] if name in loops else None
            values[name] = _neurons(node, loop, total, step, subtracts=file.subtracts(node))
        else:
            values[name] = _stateless(node, total, step)
    outputs = [name for name, node in file.nodes.items() if node.kind == "Output"]
    if len(outputs) != 1:
        raise SnnError(f"it should have one Output, found {len(outputs)}.")
    return values[outputs[0]]


def _neurons(node: Node, loop: Node | None, x: np.ndarray, step: float, *, subtracts: bool) -> np.ndarray:
    shape = x.shape[2:]

    def number(name: str, default: float | None = None) -> np.ndarray:
        return np.full(shape, default) if default is not None and name not in node.fields else node.each(name, shape)

    def cast(value: np.ndarray) -> np.ndarray:
        return value.astype(x.dtype)

    r, leak = cast(number("r")), cast(number("v_leak", 0))
    decays = "tau" in node.fields or "tau_mem" in node.fields
    rate = cast(step / number("tau" if "tau" in node.fields else "tau_mem") if decays else np.full(shape, step))
    current_rate = cast(step / number("tau_syn")) if "tau_syn" in node.fields else None
    w_in = cast(number("w_in", 1))
    spikes = node.kind in ("IF", "LIF", "CubaLIF")
    theta, v_reset = (cast(number("v_threshold")), cast(number("v_reset", 0))) if spikes else (leak, leak)
    i = np.zeros(x.shape[1:], x.dtype)
    v = i + leak
    back = i if loop is None else _stateless(loop, i[None], step)[0]
    out = np.empty_like(x)
    for t, x_t in enumerate(x):
        x_t = x_t + back
        if current_rate is not None:
            i = i + current_rate * (w_in * x_t - i)
            x_t = i
        v = v + rate * (leak - v + r * x_t) if decays else v + rate * (r * x_t)
        if spikes:
            s = v > theta
            v = np.where(s, v - theta if subtracts else v_reset, v)
        out[t] = s if spikes else v
        if loop is not None:
            back = _stateless(loop, out[t][None], step)[0]
    return out


def _stateless(node: Node, x: np.ndarray, step: float) -> np.ndarray:
    """A node without state on `[time, batch, ...]`."""
    kind, shape = node.kind, x.shape[2:]
    if kind in ("Linear", "Affine"):
        weight = node.numbers("weight").astype(x.dtype)
        out = x @ weight.T
        return out + node.numbers("bias").astype(x.dtype) if kind == "Affine" else out
    if kind in ("Conv1d", "Conv2d"):
        return np.stack([_conv(node, x_t) for x_t in x])
    if kind in ("SumPool2d", "AvgPool2d"):
        windows = _windows(
            x, node.integers("kernel_size", 2), node.integers("stride", 2), node.integers("padding", 2), (1, 1)
        )
        return windows.sum((-2, -1)) if kind == "SumPool2d" else windows.mean((-2, -1))
    if kind == "Flatten":
        first, last = (int(node.numbers(name)) % len(shape) for name in ("start_dim", "end_dim"))
        return x.reshape(*x.shape[: 2 + first], -1, *x.shape[3 + last :])
    if kind == "Delay":
        steps = np.rint(node.each("delay", shape) / step).astype(int)
        out = np.zeros_like(x)
        for each in np.unique(steps[steps < len(x)]):
            out[each:] = np.where(steps == each, x[: len(x) - each], out[each:])
        return out
    if kind == "Scale":
        return x * node.each("scale", shape).astype(x.dtype)
    if kind == "Threshold":
        return (x > node.each("threshold", shape).astype(x.dtype)).astype(x.dtype)
    if kind == "Output":
        return x
    raise node.refuse("the replay does not know it.")


def _conv(node: Node, x: np.ndarray) -> np.ndarray:
    """One step `[batch, channels, ...]`."""
    weight = node.numbers("weight").astype(x.dtype)
    space = weight.ndim - 2
    dilation, padding = node.integers("dilation", space), node.fields["padding"]
    around = [step * (size - 1) for size, step in zip(weight.shape[2:], dilation, strict=True)]
    if isinstance(padding, str) and (padding == "valid" or not any(length % 2 for length in around)):
        pad = tuple(length // 2 if padding == "same" else 0 for length in around)
    else:
        pad = node.integers("padding", space)
    windows = _windows(x, weight.shape[2:], node.integers("stride", space), pad, dilation)
    groups = node.integers("groups", 1)[0]
    inputs = np.split(windows, groups, axis=1)
    axes = ((1, *range(2 + space, 2 + 2 * space)), (1, *range(2, 2 + space)))
    outputs = [np.tensordot(part, kernel, axes) for part, kernel in zip(inputs, np.split(weight, groups), strict=True)]
    bias = node.numbers("bias").astype(x.dtype)
    return np.moveaxis(np.concatenate(outputs, axis=-1) + bias, -1, 1)


def _windows(
    x: np.ndarray, size: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...]
) -> np.ndarray:
    """The windows over the last axes of `x`, zeros around it: `[..., places, size]`."""
    space = tuple(range(x.ndim - len(size), x.ndim))
    if np.prod([length + 2 * pad for length, pad in zip(x.shape[-len(size) :], padding, strict=True)], dtype=float) > (
        MAX_NEURONS
    ):
        raise SnnError(f"a padding of {list(padding)} is beyond reason.")
    x = np.pad(x, [(0, 0)] * space[0] + [(pad, pad) for pad in padding])
    spans = tuple((length - 1) * step + 1 for length, step in zip(size, dilation, strict=True))
    windows = sliding_window_view(x, spans, axis=space)
    inside = tuple(slice(None, None, step) for step in dilation)
    return windows[(..., *(slice(None, None, step) for step in stride), *inside)]
