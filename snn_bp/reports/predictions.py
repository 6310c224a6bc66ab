"""What was predicted: of classes which is taken for which, of numbers how far off they are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from snn_bp.reports.page import Section, Table, svg_image
from snn_bp.reports.plots.pictures import confusion_picture, scatter_picture
from snn_bp.runs.answers import FOLDER, Answers
from snn_bp.runs.folder import Run


def predictions(run: Run, evaluation: Mapping[str, Any] | None, split: str) -> Section:
    """Which class is taken for which; of other targets, what was predicted."""
    title = "Predictions"
    if evaluation is None:
        return Section(title, sentences=[f"There are no results on the {split} split yet."])
    if "confusion" not in evaluation:
        return _of_no_classes(run, split)
    names = run.dataset().class_names
    rows = [(names[true], *map(str, counts)) for true, counts in enumerate(evaluation["confusion"])]
    table = Table("The confusion matrix as a table: true classes down, predictions across", ("true", *names), rows)
    picture = confusion_picture(evaluation, names)
    image = svg_image(picture.figure, picture.alt, f"Predictions on the {split} split")
    return Section(title, tables=[_of_classes(evaluation, names, split)], images=[image], folded=[table])


def _of_classes(evaluation: Mapping[str, Any], names: Sequence[str], split: str) -> Table:
    """How well each class is recognised, and what it is taken for."""
    counts, rows = np.array(evaluation["confusion"]), []
    for index, (name, row) in enumerate(zip(names, counts, strict=True)):
        right, wrong = int(row[index]), np.where(np.arange(len(row)) == index, 0, row)
        taken = f"{names[int(wrong.argmax())]} ({wrong.max()})" if wrong.any() else "-"
        rows.append(
            (name, f"{row.sum():,}", _fraction(right, row.sum()), _fraction(right, counts[:, index].sum()), taken)
        )
    what = "steps" if "steps" in evaluation else "recordings"
    heads = ("class", what, "accuracy", "precision", "most often taken for")
    caption = f"Each class of the {split} split. Accuracy: of its {what}, those that are recognised; precision: of the "
    return Table(caption + "answers of this class, those that are right", heads, rows)


def _fraction(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _of_no_classes(run: Run, split: str) -> Section:
    """What was predicted of targets that are no classes."""
    title, kept = "Predictions", Answers.read(run.path, split)
    if kept is None:
        return Section(title, sentences=[f"The run keeps no predictions of the {split} split."])
    sentences = [f"Of every recording they stand in {FOLDER}/{split}.csv."]
    if kept.targets.kind == "labels":
        said, true = kept.scores > 0, kept.values > 0.5
        columns = (true & said, ~true & said, true & ~said, ~true & ~said)
        rows = list(zip(kept.targets.names, *(map(str, each.sum(0).tolist()) for each in columns), strict=True))
        heads = ("label", "rightly said", "wrongly said", "missed", "rightly left out")
        return Section(title, sentences, tables=[Table(f"Labels of the {split} split", heads, rows)])
    if kept.targets.kind == "spikes":
        return Section(title, sentences)
    picture = scatter_picture(kept)
    image = svg_image(picture.figure, picture.alt, f"Predictions on the {split} split against their targets")
    return Section(title, sentences, images=[image])
