"""`diagnose`: why a network does not learn, in words, with the change to make.

Each limit stands beside its reason. Limits are wide: a network that learns the default data well stays below all of
them from the first step to the last, so what is said is worth reading.
"""

import math

import numpy as np
import torch
from torch import Tensor

from snn_bp.data import Dataset, load
from snn_bp.errors import SnnError, shown
from snn_bp.errors.calls import checked_call
from snn_bp.instruments.constant import accuracies, answers_well, find_constant_answer, has_accuracies
from snn_bp.instruments.faults import find_leaked_state, find_shifted_labels, find_stale_cache, find_unrelated_labels
from snn_bp.instruments.findings import Finding, Report
from snn_bp.instruments.inputs import find_changed_recordings, find_faults_of_recordings, find_window
from snn_bp.instruments.learning import (
    diagnose_updates,
    find_chance_level,
    find_learning_rate,
    find_overfitting,
)
from snn_bp.instruments.remedies import calm, carry, hold, remember, shrink, wake, widen
from snn_bp.instruments.traces import LayerTrace, Trace, traced
from snn_bp.model.activity import in_window, silent_fraction
from snn_bp.model.blocks import module_at
from snn_bp.model.network import Network
from snn_bp.model.start import start_alive
from snn_bp.neurons import is_spiking
from snn_bp.runs.evaluation import evaluate_network
from snn_bp.runs.experiment import Experiment, Train
from snn_bp.runs.folder import Run
from snn_bp.runs.memory import check_batches, check_room_for
from snn_bp.runtime.status import phase

MAX_SILENT = 0.9  # in a healthy first convolution half of the neurons see only the dark border of an image
MAX_SATURATED = 0.5  # neurons that fire in 95 % of the steps say nothing of the input
MIN_WINDOW = 0.01  # fraction of neurons and steps; healthy layers: 0.07 .. 0.6 on the default data
SHRUNK = 1e-2  # |dL/dv| over all layers: five layers at 0.007 learned the default data to 0.80 instead of 0.96
GROWTH = 1e3  # |dL/dv| over all layers, or over time: of the 7 digits of single precision 3 are lost in a sum
GROWN = 10.0  # what grows in a layer is larger there than so many times the output's largest |dL/dv|
BOUND = 1e-3  # distance of a learned decay from 0 or 1; there the logistic function passes a thousandth of its gradient
MAX_AT_BOUND = 0.1  # fraction of a layer's neurons
LEARNED = 1e-4  # at a lower loss nothing is left to learn, and no error comes back
HALF_INSIDE = 0.5  # where a run answers poorly, a window with fewer of the events holds too little
NOTHING_IN = ("no input", "window too short")
SCATTERED = ("silent", "saturated", "dead window", "vanishing error", "exploding error")  # where a rate left weights
ECHOES = ("silent", "dead window", "vanishing error", "vanishing over time")  # what follows from no input
FIX_FIRST = "Fix {} first: too little reaches this layer."
BEARABLE = ("vanishing over time", "exploding over time")  # dropped for a run that answers well: its task needs no more
SAMPLES = 32  # recordings that a trace of a run takes


@checked_call
@phase("looking for what keeps it from learning")
def diagnose(subject: Trace | Run | Experiment) -> Report:
    """Verdicts on a `subject`: a trace; a run, at its last checkpoint with its data; or an experiment as it would
    start.

    A report has `findings`, each with its kind, where it is, the figure that says so, and what to change.

    >>> network = Network((Dense(8), LIF(beta=0.9, threshold=50.0), Dense(2), LIF(beta=0.9)), (4,))
    >>> report = diagnose(trace(network, torch.ones(10, 3, 4), torch.tensor([0, 1, 0])))
    >>> report.findings[0].kind, report.findings[0].where
    ('silent', 'model.1 LIF(beta=0.9, threshold=50)')
    """
    if isinstance(subject, Trace):
        return Report("trace", tuple(diagnose_trace(subject)))
    if isinstance(subject, Run):
        return _diagnose_run(subject)
    if isinstance(subject, Experiment):
        return _diagnose_start(subject)
    raise SnnError(
        f"diagnose: it takes a Trace, a Run or an Experiment, found {shown(subject)}. As in diagnose(Run('runs/a')) "
        "or diagnose(trace(network, x, targets))."
    )


def diagnose_trace(trace: Trace) -> list[Finding]:
    """What one backward pass says; where something is not finite, that alone."""
    if broken := _not_finite(trace):
        return [broken]
    if not trace.layers:  # the network has no neurons
        return _frozen(trace)
    over_time = _time(trace)
    named = {finding.where for finding in over_time}
    depth = [finding for finding in _depth(trace) if finding.where not in named]  # what time explains depth does not
    return [*_frozen(trace), *_activity(trace), *depth, *over_time, *_bounds(trace)]


def diagnose_course(
    rows: list[dict[str, float]], dataset: Dataset, experiment: Experiment, *, finished: bool, causes: bool = False
) -> list[Finding]:  # fmt: skip
    """What the rows of `metrics.csv` say: chance level, or overfitting; `causes` stand in other findings.

    Overfitting is looked for where accuracies are known: of other metrics nobody knows how large a gap is usual.
    """
    if not has_accuracies(rows, dataset):
        return find_constant_answer(rows, dataset, experiment.train_at_step(), finished=finished, causes=causes)
    rows, labels, counts = accuracies(rows, dataset)
    if chance := find_chance_level(rows, labels, finished=finished, causes=causes, counts=counts, data=experiment.data):
        return chance
    return find_overfitting(rows, labels, experiment.data, experiment.model, counts=counts)


def diagnose_rate(network: Network, trace: Trace, config: Train, *, batches: int) -> list[Finding]:
    """Whether the learning rate fits the weights that `network` starts from, traced before the first step."""
    return find_learning_rate(network, config, trace.gradients, steps=config.epochs * batches)


def _diagnose_run(run: Run) -> Report:
    dataset, experiment = run.dataset(), run.experiment
    _check_memory(experiment, dataset)
    network, rows = run.network("last"), run.metrics()
    learned = answers_well(rows, dataset, experiment.train_at_step())
    inputs = [*find_changed_recordings(run), *find_faults_of_recordings(dataset)]
    if not learned and dataset.has_events and not any(finding.kind in NOTHING_IN for finding in inputs):
        inputs += find_window(dataset, inside=HALF_INSIDE)
    found, _ = _diagnose_network(network, dataset, experiment)
    found = [finding for finding in found if not (learned and finding.kind in BEARABLE)]
    first = experiment.network(dataset.shape)
    start_alive(first, _batch(dataset)[0])
    (x, targets, mask), loss = _batch(dataset), experiment.train_at_step().loss
    start = traced(first.train(), x, targets, loss, mask=mask)
    rate = diagnose_rate(first, start, experiment.train, batches=len(dataset.batches("train")))
    updates = diagnose_updates(run.layers(), experiment.train)
    if rate:  # the rate explains what it did
        found = [finding for finding in found if finding.kind not in SCATTERED]
        updates = [finding for finding in updates if finding.kind not in ("update too small", "update too large")]
    found = [*rate, *_without_echoes(inputs, found), *updates]
    if len(dataset.ids["validation"]):
        seen = evaluate_network(network, dataset, "validation", loss, counts=False)
        found += find_shifted_labels(seen.confusion, where="the validation split") if seen.confusion else []
    named = {finding.kind for finding in found}
    course = diagnose_course(rows, dataset, experiment, finished=run.results() is not None, causes=bool(found))
    kinds = {finding.kind for finding in course}
    if "chance level" in kinds and not named & {*NOTHING_IN, "one class", "shifted labels"}:
        found += find_unrelated_labels(dataset)
    if "overfitting" in kinds and "shifted labels" in named:
        course = []
    once = {(finding.kind, finding.where): finding for finding in reversed([*found, *course])}
    return Report(str(run.path), tuple(reversed(once.values())))


def _diagnose_start(experiment: Experiment) -> Report:
    dataset = load(experiment.data)
    _check_memory(experiment, dataset)
    inputs = find_faults_of_recordings(dataset)
    network = experiment.network(dataset.shape)
    start_alive(network, _batch(dataset)[0])
    found, trace = _diagnose_network(network, dataset, experiment)
    rate = diagnose_rate(network, trace, experiment.train, batches=len(dataset.batches("train")))
    found = [*_without_echoes(inputs, found), *rate]
    if not any(finding.kind in (*NOTHING_IN, "one class") for finding in inputs):
        found += find_unrelated_labels(dataset)
    return Report(f"{experiment.data.name} before the first step", tuple(found))


def _diagnose_network(network: Network, dataset: Dataset, experiment: Experiment) -> tuple[list[Finding], Trace]:
    x, targets, mask = _batch(dataset)
    found = [*find_leaked_state(network, x), *find_stale_cache(dataset)]
    start = traced(network.train(), x, targets, experiment.train_at_step().loss, mask=mask)
    return [*diagnose_trace(start), *found], start


def _without_echoes(inputs: list[Finding], found: list[Finding]) -> list[Finding]:
    """Where nothing comes in, no more is said of silence and of errors that do not come back."""
    if any(finding.kind == "no input" for finding in inputs):
        found = [finding for finding in found if finding.kind not in ECHOES]
    return [*inputs, *found]


def _check_memory(experiment: Experiment, dataset: Dataset) -> None:
    """Raise where the machine has not the memory to look at a backward pass, or at the validation split."""
    count = min(SAMPLES, len(dataset.ids["train"]))
    check_room_for(f"doctor: a backward pass on {count} recordings", experiment, dataset, count, way="tracing")
    check_batches("doctor", experiment, dataset, "validation", way="answering")


def _batch(dataset: Dataset) -> tuple[Tensor, Tensor, Tensor | None]:
    """Training recordings spread over the split, their targets and mask."""
    ids = dataset.spread("train", SAMPLES)
    return *dataset.batch("train", ids), dataset.mask("train", ids)


def _not_finite(trace: Trace) -> Finding | None:
    """Where a NaN or infinity first stands: on the way forward, else on the way back."""

    def finding(where: str, what: str, tensor: Tensor, advice: str) -> Finding:
        step = int((~torch.isfinite(tensor)).flatten(1).any(1).nonzero()[0])
        fraction = float((~torch.isfinite(tensor)).float().mean())
        return Finding("not finite", where, f"fraction of {what}, the first at step {step}", fraction, 0, advice)

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
        return Finding("not finite", broken[-1] if broken else "the loss", "fraction", 1, 0, lower)
    return None


def _frozen(trace: Trace) -> list[Finding]:
    found = []
    for path, name in trace.frozen.items():
        layer = module_at(path)
        advice = f"No gradient is asked for its weights. Unless they are to stay: {layer}.requires_grad_(True)."
        found.append(Finding("frozen layer", name, "fraction of its parameters that learn", 0.0, 0.0, advice))
    return found


def _activity(trace: Trace) -> list[Finding]:
    found: list[Finding] = []
    dead = ""
    for layer in trace.layers:
        if not is_spiking(layer.neuron):
            continue
        silent = _silent(layer, last=layer is trace.layers[-1])
        if silent > MAX_SILENT:
            advice, changes = wake(layer, trace)
            if dead:
                advice, changes = FIX_FIRST.format(dead), ()
            measure = "fraction of neurons that never fire" + ", of those with input" * (silent != layer.silent)
            found.append(Finding("silent", layer.name, measure, silent, MAX_SILENT, advice, changes))
            dead = dead or layer.name
        if layer.saturated > MAX_SATURATED:
            advice, changes = calm(layer, trace)
            measure = "fraction of neurons that fire in 95 % of the steps"
            found.append(Finding("saturated", layer.name, measure, layer.saturated, MAX_SATURATED, advice, changes))
        if layer.window < MIN_WINDOW:
            far = "It is silent, and far from its threshold."
            advice, changes = widen(layer, trace) if silent <= MAX_SILENT else (far, ())
            measure = "fraction of neurons and steps inside the surrogate's window"
            found.append(Finding("dead window", layer.name, measure, layer.window, MIN_WINDOW, advice, changes))
    return found


def _silent(layer: LayerTrace, *, last: bool) -> float:
    """The fraction that never fires among neurons with input; of an output 0 where most recordings get a spike.

    (Of a map over a dark sensor most neurons see nothing; of many classes a batch holds few.)
    """
    if last and float(layer.spikes.flatten(2).any(2).any(0).float().mean()) > 0.5:
        return 0.0
    steps = layer.inputs.flatten(0, 1).flatten(1)
    has_input = (steps != steps[:1]).any(0)
    assert layer.fired is not None
    fired = layer.fired.flatten()
    return silent_fraction(fired[has_input]) if bool(has_input.any()) else layer.silent


def _depth(trace: Trace) -> list[Finding]:
    """The first layer, from the output on, whose error has left the size of the output's."""
    sizes = trace.errors.norm(dim=1).tolist()
    if not sizes[-1]:
        if trace.loss < LEARNED:
            return []  # every answer is right, and sure
        advice = "The loss does not depend on the output: is a surrogate's window dead, or the loss saturated?"
        return [Finding("vanishing error", trace.layers[-1].name, "|dL/dv|", 0.0, 0.0, advice)]
    for layer, size in reversed(list(zip(trace.layers, sizes, strict=True))):
        ratio, measure = size / sizes[-1], "|dL/dv| over the output's"
        if ratio < SHRUNK:
            advice, changes = carry(layer, trace)
            return [Finding("vanishing error", layer.name, measure, ratio, SHRUNK, advice, changes)]
        if ratio > GROWTH:
            advice, changes = shrink(layer, trace)
            return [Finding("exploding error", layer.name, measure, ratio, GROWTH, advice, changes)]
    return []


def _time(trace: Trace) -> list[Finding]:
    found = []
    measure = "largest |dL/dv| of the first quarter of the steps over that of the last"
    source = float(trace.errors[-1].max())  # a loss of first spikes, or of maxima, sends all of it to few steps
    for layer, gain, errors in zip(trace.layers, trace.time_gains, trace.errors, strict=True):
        alone = layer is trace.layers[-1] and layer.recurrent  # its own error is all there is to compare it with
        grows = math.isfinite(gain) and gain > GROWTH and (alone or float(errors.max()) > GROWN * source)
        if grows and _reachable(layer, late=True):  # infinite: no error arises late
            advice, changes = hold(layer, trace)
            found.append(Finding("exploding over time", layer.name, measure, gain, GROWTH, advice, changes))
        if gain < 1 / GROWTH and _reachable(layer):
            advice, changes = remember(layer, trace)
            found.append(Finding("vanishing over time", layer.name, measure, gain, 1 / GROWTH, advice, changes))
    return found


def _reachable(layer: LayerTrace, *, late: bool = False) -> bool:
    """Whether a window is open in the first (or last) quarter of the steps; if not, that keeps the error out."""
    if layer.slopes is None:
        return True
    quarter = max(1, len(layer.slopes) // 4)
    slopes = layer.slopes[-quarter:] if late else layer.slopes[:quarter]
    return bool(in_window(slopes, layer.height).any())


def _bounds(trace: Trace) -> list[Finding]:
    found = []
    for layer in trace.layers:
        for name, value in layer.decays.items():
            fraction = float(((value < BOUND) | (value > 1 - BOUND)).float().mean())
            if fraction > MAX_AT_BOUND:
                advice = f"It no longer learns there: start {name} further inside, or fix it where it went."
                measure = f"fraction of neurons whose {name} is within {BOUND:g} of 0 or 1"
                found.append(Finding("decay at its bound", layer.name, measure, fraction, MAX_AT_BOUND, advice))
    return found
