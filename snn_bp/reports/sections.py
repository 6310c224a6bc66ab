"""The sections of a run's page, each from what the run folder holds; what is missing is said in a sentence."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from snn_bp.data import Data
from snn_bp.errors import SnnError, typed
from snn_bp.files import is_there, read_object
from snn_bp.instruments.doctor import diagnose
from snn_bp.instruments.learning import largest_updates
from snn_bp.model.names import in_short, path_of, written
from snn_bp.model.neurobench import cost_in_words
from snn_bp.neurons import Neuron
from snn_bp.reports.comparison import settings
from snn_bp.reports.page import Fact, Formula, Image, Link, Section, Table, gif_image, svg_image
from snn_bp.reports.plots.filters import weight_histogram
from snn_bp.reports.plots.pictures import (
    Picture,
    Scene,
    has_checkpoint,
    training_pictures,
)
from snn_bp.reports.plots.recordings import event_movie
from snn_bp.runs.answers import FOLDER, Answers
from snn_bp.runs.evaluation import evaluate_and_keep
from snn_bp.runs.experiment import Train
from snn_bp.runs.folder import Run
from snn_bp.runs.memory import check_batches
from snn_bp.runs.records import digits, figure_note, figure_of
from snn_bp.runtime.status import say

LONG = 300  # letters of a layer, from which on its tuples of values are shortened
NO_CHECKPOINT = "The run has no checkpoint yet: there is no trained network to look at."
SHOWN_IN = {  # by the kind of a finding, the section that shows it; what is wrong with recordings is counted at the end
    **dict.fromkeys(("silent", "saturated", "dead window", "update too small", "update too large", "frozen layer",
                     "decay at its bound"), "Layers"),
    **dict.fromkeys(("vanishing error", "exploding error", "vanishing over time", "exploding over time",
                     "no input", "window too short"), "One backward pass"),
    **dict.fromkeys(("not finite", "learning rate too high", "learning rate too low", "overfitting"), "Training"),
    **dict.fromkeys(("chance level", "one class", "shifted labels", "unrelated labels"), "Predictions"),
}  # fmt: skip
# what any verification holds
VERIFICATION = {"file", "holds", "samples", "split", "accuracy", "compared", "difference", "note"}


def results(run: Run, evaluation: Mapping[str, Any] | None, split: str) -> Section:
    """Figures to see at once."""
    found, facts = run.results() or {}, []
    if evaluation:
        facts.append(_figure(evaluation))
    if split != "validation" and (validation := found.get("validation")):
        facts.append(_figure(validation))
    if evaluation:
        facts.append(Fact(f"{split} loss", f"{evaluation['loss']:.4f}"))
        spikes, operations = (sum(evaluation.get(name, {}).values()) for name in ("spikes", "operations"))
        if operations:
            strange = ", ".join(evaluation.get("not_counted", ()))
            layers = f"without those of {strange}, which are not known" if strange else "all layers"
            facts.append(Fact("spikes", f"{spikes:,.0f}", "for each inference, all layers"))
            facts.append(Fact("synaptic operations", f"{operations:,.0f}", f"for each inference, {layers}"))
    if "parameters" in found:
        facts.append(Fact("parameters", f"{found['parameters']:,}"))
    if "train_seconds" in found:
        facts.append(Fact("training", f"{found['train_seconds']:,.1f} s", f"{found['epochs']} epochs"))
    sentences = list(found.get("notes", []))
    if not found:
        sentences.append("The run is not finished; there are no final results.")
    elif evaluation is None:
        sentences.append(f"There is no {split} split among the results.")
    elif "test" not in found:
        sentences.append("There is no test split among the results.")
    return Section("Results", sentences, facts=facts)


def evaluated(run: Run, split: str) -> tuple[dict[str, Any] | None, Answers | None]:
    """The record of a split in `results.json`; computed with answers where one of them is missing and can be had.

    Never of the test split: a run meets it once, when it is finished.
    """
    found = (run.results() or {}).get(split)
    is_kept = found is not None and is_there(run.path / FOLDER / f"{split}.safetensors")
    if is_kept or split == "test" or not has_checkpoint(run):
        return found, None
    train = run.experiment.train_at_step()
    try:
        dataset = run.dataset()
        check_batches("report", run.experiment, dataset, split, keep=True)
        evaluation, kept = evaluate_and_keep(run.network("best"), dataset, split, train.loss, metric=train.metric)
    except SnnError as cause:
        if found is None:
            raise
        say(f"{cause} The page has no predictions of the {split} split.", file=sys.stderr)
        return found, None  # as of an older run, whose recordings are not here
    return found or evaluation.record(), kept


def configuration(run: Run) -> Section:
    """The experiment, and where it differs from the defaults."""
    experiment = run.experiment
    plain = replace(experiment, data=_at_defaults(experiment.data), train=Train())
    wanted, usual = settings(experiment), settings(plain)
    layers, whole = [], []
    for path, layer in _listed(experiment.model):
        text = written(layer)
        layers.append((path, text if len(text) <= LONG else in_short(layer)))
        whole += [(path, text)] if len(text) > LONG else []
    rest = [(key, value) for key, value in wanted.items() if not key.startswith(("model.", "code."))]
    own = [(key.removeprefix("code."), value) for key, value in wanted.items() if key.startswith("code.")]
    always = ("data.name", "data.step_ms", "data.steps", "train.epochs", "train.lr", "seed")
    changed = [
        (key, value)
        for key, value in rest
        if key in always or usual[key] != value or (key in ("data.root", "data.sensor") and value != "None")
    ]
    same = [each for each in rest if each not in changed]
    recorded = _json(run, "provenance.json")
    changes = recorded.get("changes", [])
    sentences = [f"Command: {recorded['command']}"] if "command" in recorded else []
    sentences += ["Changes on the command line:"] if changes else []
    return Section(
        "What was asked",
        sentences,
        listed=changes,
        tables=[
            Table("The model, from the input on", ("index", "layer"), layers, numbers=False),
            Table(
                "Data, training and seed, where they are not the default", ("setting", "value"), changed, numbers=False
            ),
        ],
        folded=[
            *([Table("Layers with all their values", ("index", "layer"), whole, numbers=False)] if whole else []),
            Table("Settings at their defaults", ("setting", "value"), same, numbers=False),
            *([Table("Definitions of one's own, in code/", ("definition", "hash"), own, numbers=False)] if own else []),
        ],
    )


def neurons(run: Run) -> Section:
    """The equation of each kind of neuron, its step and its adjoint."""
    layer_names: dict[str, list[str]] = {}
    kinds: dict[str, Neuron] = {}
    for path, layer in _listed(run.experiment.model_at_step()):
        neuron = getattr(layer, "neuron", layer)
        if Neuron.is_one(neuron):
            key = f"{type(neuron).__name__} {neuron.equation.key}"
            kinds.setdefault(key, neuron)
            layer_names.setdefault(key, []).append(path)
    formulas, folded = [], []
    for key, neuron in kinds.items():
        written = neuron.equations()
        step, adjoint = written.mathml()
        title = f"{type(neuron).__name__}, layer{'s' * (len(layer_names[key]) > 1)} {', '.join(layer_names[key])}"
        formulas.append(Formula(title, (("Step", step), ("Adjoint, from the last step to the first", adjoint)),
                                written.legend_of_signs))  # fmt: skip
        lines = [*written.step, *written.adjoint, *written.legend]
        folded.append(Table(f"{title}, as text", ("line",), [(line,) for line in lines], numbers=False))
    return Section("Neurons", formulas=formulas, folded=folded)


def _listed(row: Iterable[Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of a model by its path; a joint, and then what lies in its branches."""
    for index, value in enumerate(row):
        yield f"{at}{index}", value
        for number, branch in enumerate(value.branches() if hasattr(value, "branches") else ()):
            yield from _listed(branch, f"{at}{index}.{number}.")


def training(run: Run) -> Section:
    """Curves over the epochs."""
    drawn = training_pictures(run)
    if not drawn:
        return Section("Training", sentences=["No epoch is complete yet."])
    captions = {"training": "Loss, metric, learning rate, spike rate, gradient norm and speed of every epoch",
                "layers": "Every layer of neurons, on training recordings at the end of each epoch"}  # fmt: skip
    return Section("Training", images=[_image(picture, captions[name]) for name, picture in drawn.items()])


def layers(run: Run) -> Section:
    """The last epoch, layer by layer."""
    rows = run.layers()
    if not rows:
        return Section("Layers", sentences=["No figures of its layers are recorded yet; a search records none."])
    last = [row for row in rows if row["epoch"] == rows[-1]["epoch"]]  # two of a layer that spikes and has weights
    largest = largest_updates(rows)
    neurons = [
        (row["layer"], f"{row['rate']:.4f}", *(f"{row[key]:.1%}" for key in ("silent", "saturated", "window")))
        for row in last if "rate" in row
    ]  # fmt: skip
    weights = [
        (row["layer"], f"{row['grad']:.3g}", f"{row['update_over_weight']:.2g}", f"{largest[row['layer']]:.2g}")
        for row in last if "grad" in row
    ]  # fmt: skip
    epoch = rows[-1]["epoch"]
    return Section(
        "Layers",
        tables=[
            Table(
                f"Neurons after epoch {epoch}: rate in spikes per neuron and step; silent neurons never fire, "
                "saturated ones in 95 % of the steps; in the window the surrogate is above a tenth of its height",
                ("layer", "rate", "silent", "saturated", "in the window"),
                neurons,
            ),
            Table(
                "Weights at the last step of an epoch: norm of the gradient, size of the update over the weights'",
                ("layer", f"gradient, epoch {epoch}", f"update / weights, epoch {epoch}", "largest of all epochs"),
                weights,
            ),
        ],
    )  # fmt: skip


def doctor(run: Run) -> Section:
    """The doctor's verdicts on the last checkpoint."""
    if not has_checkpoint(run):
        return Section("Doctor", sentences=[NO_CHECKPOINT])
    found = diagnose(run)
    if found.ok:
        return Section("Doctor", sentences=["The doctor finds nothing wrong at the last checkpoint."])
    findings = [Link(str(each), SHOWN_IN.get(each.kind, "Where it comes from")) for each in found.findings]
    return Section("Doctor", sentences=["At the last checkpoint:"], listed=findings)


def backward(run: Run) -> Section:
    """One backward pass, and what the network sees."""
    if not has_checkpoint(run):
        return Section("One backward pass", sentences=[NO_CHECKPOINT])
    scene = Scene.of(run)
    split = "validation" if len(run.dataset().ids["validation"]) else "training"
    sentence = f"The best network so far, in evaluation mode, on {scene.x.shape[1]} {split} recordings"
    in_integers = scene.network.floats is not scene.network
    sentence += ", traced in floats though the run trains in integers." if in_integers else "."
    captions = {
        "error_map": "Error of every layer and time step",
        "raster": "Spikes of one recording, and behind them the error that came back to each neuron",
        "surrogate": "Where the potentials lie, and where the surrogate lets error through",
        "filters": "Weights of the first layer",
    }
    what = "output at each step" if scene.options["target"] is None else "scores up to each step"
    colors = " White: ON events, black: OFF events" if scene.x.dim() == 5 else ""
    captions["events"] = f"One recording and the network's {what}.{colors}"
    drawn = scene.pictures()
    images = [_image(picture, captions[name]) for name, picture in drawn.items()]
    movie = []
    if "events" in drawn:
        content = event_movie(*scene.first, **scene.options)
        movie = [gif_image(content, drawn["events"].alt, "The same recording as a movie")]
    return Section("One backward pass", [sentence], images=images, folded=movie)


def activity(evaluation: Mapping[str, Any] | None, split: str) -> Section:
    """Spikes and synaptic operations of an inference, and what it costs."""
    title = "Spikes and operations"
    if evaluation is None or not evaluation.get("operations"):
        return Section(title, sentences=[f"They are not counted on the {split} split yet."])
    spikes, operations = evaluation["spikes"], evaluation["operations"]
    names = sorted({**spikes, **operations}, key=path_of)
    rows = [(name, *(f"{part[name]:,.1f}" if name in part else "" for part in (spikes, operations))) for name in names]
    rows.append(("all layers", f"{sum(spikes.values()):,.1f}", f"{sum(operations.values()):,.1f}"))
    caption = f"For each inference, mean of the {split} split. An operation: a weight added for an input that is not 0"
    cost = evaluation.get("neurobench")
    sentences = [f"{line}." for line in cost_in_words(cost)] if cost else ["The results have no figures of NeuroBench."]
    return Section(title, sentences, tables=[Table(caption, ("layer", "spikes", "synaptic operations"), rows)])


def exported(run: Run) -> Section:
    """What each verification of an export says."""
    sentences: list[str] = []
    images, tables = [], []
    for file in sorted((run.path / "export").glob("*.json")):
        try:
            result = read_object(file)
        except SnnError as problem:
            sentences.append(str(problem))
            continue
        if not result.keys() >= VERIFICATION:
            sentences.append(f"{file.name}: it is nothing that snn-bp verify wrote.")
            continue
        if Path(str(result["file"])).name != file.stem:
            sentences.append(
                f"{file.name}: it should be the verification of {file.stem}, found that of {result['file']}."
            )
            continue
        tables.append(_export_table(result))
        if result.get("weights"):
            counts = {
                name: {int(value): n for value, n in histogram.items()} for name, histogram in result["weights"].items()
            }
            ranges = ", ".join(f"{name} {min(histogram)} .. {max(histogram)}" for name, histogram in counts.items())
            picture = Picture(weight_histogram(counts), f"Histogram of the integers: {ranges}.")
            images.append(_image(picture, f"{result['file']}: how often each integer is a weight"))
        sentences.append(f"{result['file']}: {result['note']}")
    if not sentences:
        sentences.append(
            f"Nothing is exported yet. `snn-bp export {typed(run.path)} FILE.net` writes a file and verifies it."
        )
    return Section("Export", sentences, tables=tables, images=images)


def origin(run: Run) -> Section:
    """Versions, commit, machine."""
    recorded = _json(run, "provenance.json")
    if not recorded:
        return Section("Where it comes from", sentences=["The run folder has no provenance.json."])
    rows = [(key, str(recorded[key])) for key in ("started", "commit") if key in recorded]
    for part in ("machine", "versions", "seeds"):
        rows += [(f"{part}: {key}", str(value)) for key, value in recorded.get(part, {}).items()]
    tables = [Table("Versions, commit and machine of the run", ("what", "value"), rows, numbers=False)]
    splits = _json(run, "data.json").get("splits", {})
    sentences = [] if splits else ["The run folder has no data.json, which names the recordings."]
    if splits:
        counted = [(name, str(len(split["ids"])), split["sha256"]) for name, split in splits.items()]
        tables.append(
            Table("Recordings of each split", ("split", "recordings", "hash of their numbers"), counted, False)
        )
    return Section("Where it comes from", sentences, tables=tables)


def _at_defaults(data: Data) -> Data:
    """The same recordings at the same steps, and everything else that is not said."""
    kept = ("name", "source", "root", "sensor", "step_ms", "steps")
    return replace(data, **{field.name: field.default for field in fields(data) if field.name not in kept})


def _export_table(result: Mapping[str, Any]) -> Table:
    equal = f"all {result['compared']:,} outputs of neurons are equal"
    rows = [("spikes", equal if result["holds"] else f"different: {result['difference']}")]
    simulated = result.get("circuit", {}).get("recordings", result["samples"])
    for stage, value in result["accuracy"].items():
        fewer = stage == "circuit" and simulated < result["samples"]
        of = f", the first {simulated} of {result['samples']}" if fewer else ""
        rows.append((f"accuracy, {stage}", f"{value:.4f}{of}"))
    for name, count in result.get("spikes", {}).items():
        operations = result.get("operations", {}).get(name)
        behind = "" if operations is None else f", {operations:,.0f} synaptic operations"
        rows.append((name, f"{count:,.1f} spikes{behind} for each inference"))
    rows += [(f"on {chip}", verdict) for chip, verdict in result.get("chips", {}).items()]
    rows += [("circuit", said) for said in result.get("circuit", {}).get("says", ())]
    if result.get("client"):
        rows.append(("Lava's client", result["client"]))
    return Table(
        f"{result['file']} against the network, on {result['samples']} recordings of {result['split']}",
        ("what", "found"), rows, numbers=False,
    )  # fmt: skip


def _figure(evaluation: Mapping[str, Any]) -> Fact:
    name, value = figure_of(evaluation)
    return Fact(f"{evaluation['split']} {name.replace('_', ' ')}", digits(value), figure_note(evaluation))


def _image(picture: Picture, caption: str) -> Image:
    return svg_image(picture.figure, picture.alt, caption)


def _json(run: Run, name: str) -> dict[str, Any]:
    """A JSON object of the run folder, empty where there is none."""
    file = run.path / name
    return read_object(file) if is_there(file) else {}
