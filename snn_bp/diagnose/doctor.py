"""`examine`: why a network does not learn, in words, with the change to make.

Each limit stands beside its reason. Limits are wide: a network that learns the default data well stays below all of
them from the first step to the last, so what is said is worth reading.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_bp.data import Dataset, load
from snn_bp.diagnose.faults import find_leaked_state, find_shifted_labels, find_stale_cache, find_unrelated_labels
from snn_bp.diagnose.findings import Finding, Report
from snn_bp.diagnose.trace import LayerTrace, Trace, diagnose
from snn_bp.errors import SnnError
from snn_bp.evaluate import evaluate_network
from snn_bp.experiment import Experiment
from snn_bp.network import Network, start_alive
from snn_bp.neurons import is_spiking
from snn_bp.run import Run

SILENT = 0.9  # of a layer's neurons; of a healthy first convolution half see only the dark border of an image
SATURATED = 0.5  # of a layer's neurons fire in 95 % of the steps: they say nothing of the input
WINDOW = 0.01  # of neurons and steps inside the surrogate's window; healthy layers: 0.07 .. 0.6 on the default data
SHRUNK = 1e-2  # of |dL/dv| over all layers: five layers at 0.007 learned the default data to 0.80 instead of 0.96
GROWTH = 1e3  # of |dL/dv| over all layers, or over time: of the 7 digits of single precision 3 are lost in a sum
BOUND = 1e-3  # distance of a learned decay from 0 or 1; there the logistic function passes a thousandth of its gradient
BOUND_SHARE = 0.1  # of a layer's neurons
UPDATE_LOW, UPDATE_HIGH = 1e-5, 0.3  # |update| / |weight| of a step: about 1e-3 is usual, healthy runs reach 0.1
SAMPLES = 32  # recordings that a trace of a run takes


def examine(subject: Trace | Run | Experiment) -> Report:
    """Verdicts on a trace; on a run, at its last checkpoint with its data; or on an experiment as it would start."""
    if isinstance(subject, Trace):
        return Report("trace", tuple(examine_trace(subject)))
    if isinstance(subject, Run):
        return _examine_run(subject)
    if isinstance(subject, Experiment):
        return _examine_start(subject)
    raise SnnError(f"examine: it takes a Trace, a Run or an Experiment, found {type(subject).__name__}.")


def examine_trace(trace: Trace) -> list[Finding]:
    """What one backward pass says; where something is not finite, that alone."""
    if broken := _not_finite(trace):
        return [broken]
    over_time = _time(trace)
    named = {finding.where for finding in over_time}
    depth = [finding for finding in _depth(trace) if finding.where not in named]  # what time explains depth does not
    return [*_activity(trace), *depth, *over_time, *_bounds(trace)]


def examine_updates(rows: list[dict[str, Any]]) -> list[Finding]:
    """What the rows of `layers.jsonl` say of the updates; each layer by its largest, for schedules end near zero."""
    largest: dict[str, float] = {}
    for row in rows:
        if "update_over_weight" in row:
            largest[row["layer"]] = max(largest.get(row["layer"], 0.0), row["update_over_weight"])
    found = []
    for layer, ratio in largest.items():
        measure = "largest |update| / |weight| of a step"
        if ratio < UPDATE_LOW:
            advice = "Its weights hardly move: raise train.lr, or see whether error reaches it."
            found.append(Finding("update too small", layer, measure, ratio, UPDATE_LOW, advice))
        if ratio > UPDATE_HIGH:
            advice = "One step rewrites its weights: lower train.lr tenfold, or lengthen train.warmup."
            found.append(Finding("update too large", layer, measure, ratio, UPDATE_HIGH, advice))
    return found


def _examine_run(run: Run) -> Report:
    dataset, how = run.dataset(), run.experiment.train
    network = run.network("last")
    findings = [*_examine_network(network, dataset, run.experiment), *examine_updates(run.layers())]
    if len(dataset.ids["validation"]):
        seen = evaluate_network(network, dataset, "validation", how.loss, counts=False)
        findings += find_shifted_labels(seen.confusion, where="the validation split")
    return Report(str(run.path), tuple(findings))


def _examine_start(experiment: Experiment) -> Report:
    dataset = load(experiment.data)
    network = experiment.network(dataset.shape)
    start_alive(network, _batch(dataset)[0])
    findings = [*_examine_network(network, dataset, experiment), *find_unrelated_labels(dataset)]
    return Report(f"{experiment.data.name} before the first step", tuple(findings))


def _examine_network(network: Network, dataset: Dataset, experiment: Experiment) -> list[Finding]:
    x, targets = _batch(dataset)
    found = [*find_leaked_state(network, x), *find_stale_cache(dataset)]
    return [*examine_trace(diagnose(network.train(), x, targets, loss=experiment.train.loss)), *found]


def _batch(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Training recordings spread over the split."""
    ids = dataset.ids["train"]
    return dataset.batch("train", ids[np.linspace(0, len(ids) - 1, min(len(ids), SAMPLES)).astype(int)])


def _not_finite(trace: Trace) -> Finding | None:
    """Where a NaN or infinity first stands: on the way forward, else on the way back."""

    def finding(where: str, what: str, tensor: Tensor, advice: str) -> Finding:
        step = int((~torch.isfinite(tensor)).flatten(1).any(1).nonzero()[0])
        share = float((~torch.isfinite(tensor)).float().mean())
        return Finding("not finite", where, f"share of {what}, the first at step {step}", share, 0, advice)

    lower = "Lower train.lr, set train.clip=1.0, and look at the data for infinities."
    for layer in trace.layers:
        for what, tensor in (("its input", layer.inputs), ("its potentials", layer.potentials)):
            if not torch.isfinite(tensor).all():
                return finding(layer.name, what, tensor, lower)
    for layer in reversed(trace.layers):
        if layer.slopes is not None and not torch.isfinite(layer.slopes).all():
            advice = f"Its surrogate {layer.surrogate} gives no number at finite potentials. Use ATan()."
            return finding(layer.name, "its surrogate's slopes", layer.slopes, advice)
        if not torch.isfinite(layer.error).all():
            return finding(layer.name, "its error dL/dv", layer.error, lower)
    broken = [name for name, size in trace.gradients.items() if not np.isfinite(size)]
    if broken or not np.isfinite(trace.loss):
        return Finding("not finite", broken[-1] if broken else "the loss", "share", 1, 0, lower)
    return None


def _activity(trace: Trace) -> list[Finding]:
    found: list[Finding] = []
    dead = ""
    for layer in trace.layers:
        if not is_spiking(layer.neuron):
            continue
        if layer.silent > SILENT:
            advice = "Put BatchNorm() in front of it, or scale its weights to its input by start_alive(network, x)."
            if dead:
                advice = f"Mend {dead} first: too little reaches this layer."
            found.append(
                Finding("silent", layer.name, "share of neurons that never fire", layer.silent, SILENT, advice)
            )
            dead = dead or layer.name
        if layer.saturated > SATURATED:
            advice = "Put BatchNorm() in front of it, raise its threshold, or set train.rates=RateBounds(upper=0.5)."
            measure = "share of neurons that fire in 95 % of the steps"
            found.append(Finding("saturated", layer.name, measure, layer.saturated, SATURATED, advice))
        if layer.window < WINDOW:
            advice = f"Put BatchNorm() in front of it, or use a wider surrogate than {layer.surrogate}."
            measure = "share of neurons and steps inside the surrogate's window"
            found.append(Finding("dead window", layer.name, measure, layer.window, WINDOW, advice))
    return found


def _depth(trace: Trace) -> list[Finding]:
    """The first layer, from the output on, whose error has left the size of the output's."""
    sizes = trace.errors.norm(dim=1).tolist()
    if not sizes[-1]:
        advice = "The loss does not depend on the output: is a surrogate's window dead, or the loss saturated?"
        return [Finding("vanishing error", trace.layers[-1].name, "|dL/dv|", 0.0, 0.0, advice)]
    for layer, size in reversed(list(zip(trace.layers, sizes, strict=True))):
        ratio, measure = size / sizes[-1], "|dL/dv| over the output's"
        if ratio < SHRUNK:
            advice = f"Use a wider surrogate than {layer.surrogate}, as ATan(), and BatchNorm() in front of neurons."
            return [Finding("vanishing error", layer.name, measure, ratio, SHRUNK, advice)]
        if ratio > GROWTH:
            advice = "Put BatchNorm() in front of each neuron, or scale weights by start_alive(network, x)."
            return [Finding("exploding error", layer.name, measure, ratio, GROWTH, advice)]
    return []


def _time(trace: Trace) -> list[Finding]:
    found = []
    measure = "largest |dL/dv| of the first quarter of the steps over that of the last"
    for layer, gain in zip(trace.layers, trace.time_gains, strict=True):
        if gain > GROWTH and _reachable(layer, late=True):
            advice = "Scale its recurrent weights down tenfold, lower its decays, or set train.truncate=20."
            found.append(Finding("exploding over time", layer.name, measure, gain, GROWTH, advice))
        if gain < 1 / GROWTH and _reachable(layer):
            advice = "Raise its decays, use ALIF, or a loss on every step (CountCrossEntropy)."
            found.append(Finding("vanishing over time", layer.name, measure, gain, 1 / GROWTH, advice))
    return found


def _reachable(layer: LayerTrace, *, late: bool = False) -> bool:
    """Whether a window is open in the first (or last) quarter of the steps; if not, that keeps the error out."""
    if layer.slopes is None:
        return True
    quarter = max(1, len(layer.slopes) // 4)
    slopes = layer.slopes[-quarter:] if late else layer.slopes[:quarter]
    return bool((slopes > 0.1 * layer.height).any())


def _bounds(trace: Trace) -> list[Finding]:
    found = []
    for layer in trace.layers:
        for name, value in layer.decays.items():
            share = float(((value < BOUND) | (value > 1 - BOUND)).float().mean())
            if share > BOUND_SHARE:
                advice = f"It no longer learns there: start {name} further inside, or fix it where it went."
                measure = f"share of neurons whose {name} is within {BOUND:g} of 0 or 1"
                found.append(Finding("decay at its bound", layer.name, measure, share, BOUND_SHARE, advice))
    return found
