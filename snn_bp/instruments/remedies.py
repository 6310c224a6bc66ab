"""What to change, said only where it is not in the model already: norms, thresholds, surrogates, decays, losses.

Changes are written as the command line takes them. Potentials and thresholds are measured on the trace.
"""

import math
from typing import Any, NamedTuple

import torch

from snn_bp.instruments.traces import LayerTrace, Trace
from snn_bp.model.activity import threshold_name
from snn_bp.model.blocks import Path
from snn_bp.model.layers import BatchNorm, Conv, Dense, Layer
from snn_bp.model.losses import CountCrossEntropy
from snn_bp.neurons import Neuron, has_adaptation, is_leaky, is_spiking

EDGE = 6 / math.pi  # slope * distance at which an arc tangent's derivative is down to a tenth
SLOPE = 2.0  # the default surrogate's


class Remedy(NamedTuple):
    """What to do in words, and as changes of the experiment."""

    advice: str
    changes: tuple[str, ...] = ()


def wake(layer: LayerTrace, trace: Trace) -> Remedy:
    """For neurons that nothing brings to their threshold."""
    if not layer.normed:
        advice = "Put BatchNorm() in front of it, or scale its weights to its input by start_alive(network, x)."
        return Remedy(advice, _with_norms(trace.model, layer.path))
    size, name = _digits(float(_driven(layer).float().square().mean().sqrt())), threshold_name(layer.neuron)
    if name and 0 < size < _threshold(layer):
        lower, at_rest = _moved(layer, name, size)
        where = f"potentials are about {size:g}{at_rest}, and its {name} is {_threshold(layer):g}{at_rest}"
        return Remedy(f"Behind its BatchNorm {where}. Lower the {name}.", _change(layer, trace, name, lower))
    return Remedy("Its BatchNorm gives it next to nothing: raise the norm's scale, or train it anew with a lower rate.")


def calm(layer: LayerTrace, trace: Trace) -> Remedy:
    """For neurons that fire at every step."""
    if not layer.normed and (changes := _with_norms(trace.model, layer.path)):
        return Remedy("Put BatchNorm() in front of it, or set train.rates=RateBounds(upper=0.5).", changes)
    if (name := threshold_name(layer.neuron)) is None:
        return Remedy("Give it a smaller input, or set train.rates=RateBounds(upper=0.5).")
    driven = layer.inputs if is_leaky(layer.neuron) else _driven(layer)
    rise = max(2 * _threshold(layer), float(driven.float().square().mean().sqrt()) * 2)
    advice = f"Raise its {name}, or set train.rates=RateBounds(upper=0.5)."
    return Remedy(advice, _change(layer, trace, name, _moved(layer, name, _digits(rise))[0]))


def widen(layer: LayerTrace, trace: Trace) -> Remedy:
    """For neurons whose potentials lie outside the surrogate's window."""
    assert layer.distances is not None
    away = layer.distances.float().abs().flatten()
    unit = _threshold(layer) if layer.surrogate.per == "threshold" else 1.0
    wanted = EDGE * unit / float(away[away.isfinite()].median())
    narrow = layer.surrogate.shape != "ATan" or layer.surrogate.slope > 1.5 * SLOPE
    if narrow and wanted >= SLOPE / 4:
        slope = _digits(min(SLOPE, wanted))
        per = "" if layer.surrogate.per == "threshold" else ", per='potential'"
        advice = f"Half of its potentials are further than {float(away.median()):.2g} from threshold. Use a wider "
        return Remedy(f"{advice}surrogate than {layer.surrogate}.", (f"train.surrogate=ATan(slope={slope:g}{per})",))
    return wake(layer, trace)


def carry(layer: LayerTrace, trace: Trace) -> Remedy:
    """For errors that shrink from layer to layer."""
    said, changes = [], ()
    if layer.surrogate.shape != "ATan" or layer.surrogate.slope > SLOPE:
        said.append(f"use a wider surrogate than {layer.surrogate}")
        changes = (f"train.surrogate=ATan(slope={SLOPE:g})",)
    if norms := _norms_for_bare(trace):
        said.append("put BatchNorm() in front of each neuron")
        changes = (*changes, *norms)
    if not said:
        slope = _digits(layer.surrogate.slope / 2)
        said.append("use a wider surrogate, or fewer layers")
        changes = (f"train.surrogate=ATan(slope={slope:g})",)
    return Remedy(_sentence(said), changes)


def shrink(layer: LayerTrace, trace: Trace) -> Remedy:
    """For errors that grow from layer to layer."""
    if norms := _norms_for_bare(trace):
        return Remedy("Put BatchNorm() in front of each neuron, or scale weights by start_alive(network, x).", norms)
    if layer.surrogate.shape != "ATan" or layer.surrogate.slope != SLOPE:
        change = f"train.surrogate=ATan(slope={SLOPE:g})"
        return Remedy(f"Use a surrogate of height 1 at threshold in place of {layer.surrogate}.", (change,))
    return Remedy("Use fewer layers, or smaller weights in front of the last ones.")


def remember(layer: LayerTrace, trace: Trace) -> Remedy:
    """For errors that do not reach back in time."""
    if not isinstance(trace.criterion, CountCrossEntropy):
        said = _sentence(["use a loss on every step", *_longer(layer.neuron)], "or")
        return Remedy(said, ("train.loss=CountCrossEntropy()",))
    slow = _digits(10 ** (-1 / len(layer.potentials)), up=True)
    names = ["beta"] if is_leaky(layer.neuron) else _decays(layer.neuron)
    low = [name for name in names if isinstance(at := getattr(layer.neuron, name, None), float) and at < slow < 1]
    changes = tuple(change for name in low for change in _change(layer, trace, name, slow))
    return Remedy(_sentence(_longer(layer.neuron), "or"), changes)


def hold(layer: LayerTrace, trace: Trace) -> Remedy:
    """For errors that grow back in time."""
    weights = "scale its recurrent weights down tenfold" if layer.recurrent else "scale weights down"
    lower = ["lower its decays"] * bool(_decays(layer.neuron))
    advice = _sentence([weights, *lower, "cut the gradient through time"], "or")
    return Remedy(advice, ("train.truncate=20",) if len(layer.potentials) > 20 else ("train.truncate=5",))


def _norms_for_bare(trace: Trace) -> tuple[str, ...]:
    """The model with its missing norms; empty where each layer that spikes has one, or none fits."""
    bare = any(not each.normed and is_spiking(each.neuron) for each in trace.layers)
    return _with_norms(trace.model) if bare else ()


def _with_norms(model: tuple[Layer, ...], path: Path | None = None) -> tuple[str, ...]:
    """The model with a norm in front of the neurons at `path`, or of all that spike; empty where none fits."""
    layers = _row_with_norms(model, path, ())
    return (f"model={layers!r}",) if layers != tuple(model) else ()


def _row_with_norms(row: tuple[Any, ...], path: Path | None, at: Path) -> tuple[Any, ...]:
    """A row of layers, joints among them, with norms likewise; `at` is the path of the row."""
    layers: list[Any] = []
    for index, layer in enumerate(row):
        here, neuron = (*at, index), getattr(layer, "neuron", layer)
        chosen = isinstance(neuron, Neuron) and is_spiking(neuron) and path in (None, here)
        if chosen and layers and isinstance(layers[-1], Dense | Conv):
            layers.append(BatchNorm())
        if hasattr(layer, "with_branches"):
            rows = enumerate(layer.branches())
            layer = layer.with_branches([_row_with_norms(inner, path, (*here, n)) for n, inner in rows])
        layers.append(layer)
    return tuple(layers)


def _threshold(layer: LayerTrace) -> float:
    """How far the threshold is from rest: what the neuron's spike counts distances in."""
    return float(layer.scale.float().mean())


def _driven(layer: LayerTrace) -> torch.Tensor:
    """How far potentials are from rest; of a neuron of one's own, seen from where it fires."""
    if is_leaky(layer.neuron) or layer.distances is None:
        return layer.potentials
    return layer.distances + layer.scale


def _moved(layer: LayerTrace, name: str, distance: float) -> tuple[float, str]:
    """The threshold at which the neuron's is so far from rest, and words for a rest that is not at 0."""
    now, away = float(torch.as_tensor(getattr(layer.neuron, name)).float().mean()), _threshold(layer)
    if is_leaky(layer.neuron) or math.isclose(now, away, rel_tol=1e-5):
        return distance, ""
    return _digits(now + distance - away), " from rest"


def _decays(neuron: Neuron) -> list[str]:
    """The parameters that are decays, of states that the neuron has."""
    kind = type(neuron).kind
    absent = {name for name in kind.optional.values() if getattr(neuron, name) == 0.0}
    return [name for name, within in kind.ranges.items() if within == "decay" and name not in absent]


def _longer(neuron: Neuron) -> list[str]:
    """What makes a neuron remember for longer."""
    if is_leaky(neuron):
        return ["raise its decays"] + ["use ALIF"] * (not has_adaptation(neuron))
    names = _decays(neuron)
    return [f"raise its decays ({', '.join(names)})"] if names else ["give it a state that decays slowly"]


def _change(layer: LayerTrace, trace: Trace, name: str, number: float) -> tuple[str, ...]:
    row: Any = trace.model
    for index, branch in zip(layer.path[::2], layer.path[1::2], strict=False):
        if not hasattr(row[index], "with_branches"):
            return ()
        row = row[index].branches()[branch]
    if layer.path[-1] >= len(row):
        return ()
    inside = "neuron." if hasattr(row[layer.path[-1]], "neuron") else ""
    return (f"model.{'.'.join(map(str, layer.path))}.{inside}{name}={number:g}",)


def _digits(number: float, *, up: bool = False) -> float:
    """Two digits of a number that is meant as a proposal; `up` keeps those behind the nines of a decay."""
    if number == 0 or not math.isfinite(number):
        return number
    return round(number, 3) if up else float(f"{number:.1e}")


def _sentence(clauses: list[str], joined: str = "and") -> str:
    *first, last = clauses
    said = f"{', '.join(first)} {joined} {last}" if first else last
    return said[0].upper() + said[1:] + "."
