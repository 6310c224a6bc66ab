"""Checks of the JSON files in a run folder, made whenever one is read."""

import csv
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from snn_bp.data import Dataset
from snn_bp.data.catalogue import Sensor
from snn_bp.data.fingerprint import first_difference
from snn_bp.errors import SnnError, is_number, typed
from snn_bp.files import json_sha256, read_object, read_text
from snn_bp.model.metrics import columns_of, metric_for
from snn_bp.model.neurobench import is_cost
from snn_bp.model.targets import Targets
from snn_bp.runs.experiment import Experiment, Train, from_json, strict_json
from snn_bp.runs.own_code import FOLDER, Loaded, open_code

FRACTIONS = ("accuracy", "low", "high")  # where there are classes
PUT_IT_BACK = "Put it back, or move it away where the data are."
COUNTS = ("correct", "samples", "steps")


def _is_count(value: Any) -> bool:
    return is_number(value, integer=True) and value >= 0


def _is_fraction(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _is_figure(value: Any) -> bool:
    """A number that may be infinite or NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool)


FIELDS: dict[str, Callable[[Any], bool]] = {  # what results.json holds beside the splits
    **dict.fromkeys(("epochs", "best_epoch", "parameters"), _is_count),
    "train_seconds": is_number,
    "notes": lambda notes: isinstance(notes, list) and all(isinstance(note, str) for note in notes),
    "tables": lambda tables: isinstance(tables, dict),
}


def rows_of(file: Path, lines: Sequence[str]) -> list[dict[str, float]]:
    """The rows of a table of numbers by its lines, of which the first names the columns; empty fields are left out."""
    header, *rest = lines or [""]
    columns, rows = header.split(","), []
    if rest and "epoch" not in columns:
        raise SnnError(f"{file}: its first line should name the columns, found {header[:40]!r}.")
    for number, fields in enumerate(csv.reader(rest), 2):
        try:
            rows.append({name: float(text) for name, text in zip(columns, fields, strict=True) if text})
        except ValueError:
            raise SnnError(f"{file}: line {number} is not a row of {len(columns)} numbers.") from None
    return rows


def read_experiment(file: Path) -> Experiment:
    """The experiment in a JSON file."""
    return read_with_code(file)[0]


def read_with_code(file: Path, *, trust_code: bool = False) -> tuple[Experiment, Loaded]:
    """The experiment in a JSON file, and the definitions of the user's that it stands on, from the folder beside it.

    Those that this user's `train` did not write are run with `trust_code` alone.
    """
    text = read_text(file)
    try:
        content = strict_json(text)
    except SnnError as cause:
        raise SnnError(f"{file}: {cause} Put it back as it was written, as from a copy.") from cause
    try:
        own = Loaded({})
        if not isinstance(content, dict) or content.get("is") != "Experiment":
            raise SnnError('it holds no experiment; that of a run starts with {"is": "Experiment"}.')
        if "code" in content:
            own = open_code(file.parent / FOLDER, content.pop("code"), trust=trust_code)
        experiment = from_json(content, own)
    except SnnError as cause:
        raise SnnError(f"{file}: {cause}") from cause
    return experiment, own


def check_results(file: Path) -> dict[str, Any]:
    """What `results.json` holds; raises where it is not what a finished run writes. A loss may be infinite or NaN."""
    behind = f"Move it away: then `snn-bp resume {typed(file.parent)}` writes it anew."
    try:
        results = read_object(file)
    except SnnError as cause:
        raise SnnError(f"{cause} {behind}") from None
    if not {"epochs", "best_epoch"} <= results.keys():
        raise SnnError(f"{file}: it holds no results. {behind}")
    wrong = next((name for name, fits in FIELDS.items() if name in results and not fits(results[name])), None)
    for split in ("validation", "test"):
        if split in results and (part := _wrong_in(results[split])) is not None:
            wrong = f"{split}.{part}" if part else split
    if wrong is not None:
        raise SnnError(f"{file}: {wrong!r} in it is missing or not what a run writes. {behind}")
    return results


def columns_of_rows(train: Train, targets: Targets) -> tuple[str, ...]:
    """The columns of `metrics.csv`: of classes and their accuracy those of every version."""
    figures = ("loss", *columns_of(metric_for(train, targets), targets))
    splits = [f"{split}_{name}" for split in ("train", "validation") for name in figures]
    measured = ("seconds", "wait_seconds", "samples_per_s", "peak_memory_mb")
    return ("epoch", *splits, "lr", "spike_rate", "grad_norm", *measured)


def figure_of(evaluation: Mapping[str, Any]) -> tuple[str, float]:
    """The name and value of the metric in force in an evaluation's record; versions before 0.2 knew accuracy alone."""
    name = evaluation.get("metric", "accuracy")
    return name, evaluation["metrics"][name] if "metrics" in evaluation else evaluation["accuracy"]


def figure_in_words(evaluation: Mapping[str, Any]) -> str:
    """The metric in force with what says how far it can be trusted, as "accuracy 0.9500 (19 of 20, ...)"."""
    name, value = figure_of(evaluation)
    return f"{name.replace('_', ' ')} {digits(value)} ({figure_note(evaluation)})"


def results_line(results: Mapping[str, Any]) -> str:
    """The results of a finished run in one line."""
    test, epochs = results.get("test"), results["epochs"]
    ended = f" ({results['ended']})" if results.get("ended") else ""
    if test is None:
        finished = f"finished after {epochs} epoch{'s' * (epochs != 1)}{ended}"
        name = figure_of(results.get("validation") or {"accuracy": 0.0})[0].replace("_", " ")
        if results.get("untouched"):
            validation = results.get("validation")
            seen = f", validation {figure_in_words(validation)}" if validation else ""
            left = "the test split was left alone, `snn-bp evaluate` looks at it"
            return f"{finished}{seen}; {left}"
        return f"{finished}; there is no test split, so no test {name}"
    return f"test {figure_in_words(test)} at epoch {results['best_epoch']} of {epochs}{ended}"


def figure_note(evaluation: Mapping[str, Any]) -> str:
    """What says how far the figure can be trusted: counts and their interval, other metrics."""
    (name, _), samples = figure_of(evaluation), evaluation["samples"]
    if "correct" not in evaluation:
        others = [f"{other} {digits(figure)}" for other, figure in evaluation["metrics"].items() if other != name]
        return ", ".join([*others, f"{samples} recordings"])
    counted = f"{evaluation['correct']} of {samples}"
    if "steps" in evaluation:
        counted = f"{evaluation['correct']} of {evaluation['steps']} steps of {samples} recordings"
    note = f"{counted}, 95 % interval {evaluation['low']:.3f} .. {evaluation['high']:.3f}"
    return note if name in ("accuracy", "step_accuracy") else f"accuracy {evaluation['accuracy']:.4f}: {note}"


def metric_of_rows(rows: Sequence[Mapping[str, float]]) -> str:
    """The name of the metric in force in rows of `metrics.csv`."""
    named = [name.removeprefix("train_") for name in (rows[0] if rows else ()) if name.startswith("train_")]
    return next((name for name in reversed(named) if name != "loss"), "accuracy")


def digits(value: float) -> str:
    """Four digits behind the point, more where the figure is small."""
    return f"{value:.4f}" if not value or abs(value) >= 0.01 else f"{value:.3g}"


def shape_of(file: Path) -> tuple[int, ...]:
    """The shape of an input in a `data.json`."""
    encoding = _described(file).get("encoding")
    content = dict(encoding) if isinstance(encoding, dict) else {}
    shape, digest = content.get("shape"), content.pop("sha256", None)
    fits = isinstance(shape, list) and all(_is_count(size) and size > 0 for size in shape)
    if not fits or digest != json_sha256(content):
        raise SnnError(f"{file}: its encoding is damaged or was altered. {PUT_IT_BACK}")
    return tuple(shape or ())


def description_of(file: Path) -> tuple[Targets, Sensor, bool]:
    """What a run was asked for, its sensor, and whether its recordings are events, by its `data.json`."""
    content = _described(file)
    names, sensor, kind = (content.get(key) for key in ("class_names", "sensor", "targets"))
    train = content["parts"].get("train") if isinstance(content.get("parts"), dict) else None
    try:
        if not isinstance(train, dict) or not (isinstance(sensor, list) and all(map(_is_count, sensor))):
            raise SnnError("no sensor or no training part")
        width, height, polarities = sensor
        targets = Targets("class" if kind is None else kind, tuple(names))  # type: ignore[arg-type] - checked there
        return targets, (width, height, polarities), "events" in train
    except (SnnError, TypeError, ValueError) as cause:
        raise SnnError(
            f"{file}: its description of the recordings is damaged or was altered ({cause}). {PUT_IT_BACK}"
        ) from None


def _described(file: Path) -> dict[str, Any]:
    """What a `data.json` holds."""
    try:
        return read_object(file)
    except SnnError as cause:
        raise SnnError(f"{cause} {PUT_IT_BACK}") from None


def contents_of(file: Path, split: str) -> list[str] | None:
    """Name, target and hash of each recording of a split, by a `data.json`; None where it does not say, as old ones."""
    try:
        content = read_object(file)
        part = content["parts"]["test" if split == "test" else "train"]
        lines = content["parts"].get(part.get("same_as"), part)["each_recording"]
        return sorted(str(lines[number]) for number in content["splits"][split]["ids"])
    except (SnnError, AttributeError, IndexError, KeyError, TypeError):
        return None


def differing_contents(first: Path, second: Path, split: str) -> str | None:
    """A recording of a split that two runs' `data.json` have otherwise, by its name; None where there is none."""
    files = [folder / "data.json" for folder in (first, second)]
    with suppress(OSError):
        if files[0].read_bytes() == files[1].read_bytes():  # as of most runs that are compared; nothing to parse
            return None
    contents = [contents_of(file, split) for file in files]
    if contents[0] is None or contents[1] is None:
        return None
    apart = set(contents[0]) ^ set(contents[1])
    return min(apart).rsplit(" ", 2)[0] if apart else None


def differing_data(file: Path, dataset: Dataset) -> str | None:
    """How a data set differs from what `data.json` recorded, in words; None if it does not."""
    recorded = read_object(file)
    for kind in ("parts", "splits"):  # every version wrote a hash of each
        entries = recorded.get(kind)
        if not isinstance(entries, dict) or not entries:
            return f"{file} is damaged, it lacks {kind!r}"
        for name, each in entries.items():
            if not isinstance(each, dict) or not isinstance(each.get("sha256"), str):
                return f"{file} is damaged, {name!r} of its {kind} has no hash"
    return first_difference(recorded, dataset)


def _wrong_in(evaluation: Any) -> str | None:
    """The name of the first wrong part of an evaluation's record, "" for the record itself; None if all is right."""
    if not isinstance(evaluation, dict):
        return ""
    metrics = evaluation.get("metrics")
    needed = ["samples"]
    if metrics is None:  # written before there was a choice
        needed += [*FRACTIONS, "correct"]
    elif not isinstance(metrics, dict) or not all(map(_is_figure, metrics.values())):
        return "metrics"
    elif evaluation.get("metric") not in metrics:
        return "metric"
    for name in FRACTIONS:
        if (name in evaluation or name in needed) and not _is_fraction(evaluation.get(name)):
            return name
    for name in COUNTS:
        if (name in evaluation or name in needed) and not _is_count(evaluation.get(name)):
            return name
    if not _is_figure(evaluation.get("loss")):
        return "loss"
    for name in ("spikes", "operations"):
        figures = evaluation.get(name, {})
        if not (isinstance(figures, Mapping) and all(is_number(figure) for figure in figures.values())):
            return name
    if "neurobench" in evaluation and not is_cost(evaluation["neurobench"]):
        return "neurobench"
    rows = evaluation.get("confusion", [])
    if not (isinstance(rows, list) and all(isinstance(row, list) and all(map(_is_count, row)) for row in rows)):
        return "confusion"
    return "confusion" if any(len(row) != len(rows) for row in rows) else None
