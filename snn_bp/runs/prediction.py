"""What a trained network says of recordings that nobody labelled: classes with scores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snn_bp.data.unlabelled import unlabelled
from snn_bp.errors import SnnError, as_path, check_choice, check_kind
from snn_bp.errors.calls import checked_call
from snn_bp.files import is_there, write_csv, write_json
from snn_bp.model.losses import scores_of
from snn_bp.model.metrics import usual_metric
from snn_bp.model.targets import Targets
from snn_bp.runs.folder import Run
from snn_bp.runs.memory import in_batches
from snn_bp.runs.paths import CHECKPOINTS
from snn_bp.runs.records import description_of
from snn_bp.runtime.screen import html_table, on_screen
from snn_bp.runtime.status import phase

_SCORES_SHOWN = 5  # scores in a line


@dataclass(frozen=True, eq=False)
class Predictions:
    """The answers of a network, an entry a recording in each field."""

    names: tuple[str, ...]
    targets: Targets  # what the network was asked for, and the names of its outputs
    scores: Tensor  # [recordings, outputs]; of targets for every step [recordings, time, outputs]
    steps: tuple[int, ...]  # how many of `time` each recording has
    threshold: float = 0.0  # a label is predicted where its score is above

    def __len__(self) -> int:
        return len(self.names)

    @property
    def answers(self) -> list[Any]:
        """Of classes the name of the one with the highest score, for every step a list; of labels those above the
        threshold; of anything else the numbers themselves.
        """
        outputs, found = self.targets.names, []
        for scores, steps in zip(self.scores, self.steps, strict=True):
            if self.targets.kind == "class":
                found.append(outputs[int(scores.argmax())])
            elif self.targets.kind == "class per step":
                found.append([outputs[index] for index in scores[:steps].argmax(1).tolist()])
            elif self.targets.kind == "labels":
                found.append(
                    [name for name, score in zip(outputs, scores.tolist(), strict=True) if score > self.threshold]
                )
            else:
                found.append((scores[:steps] if self.targets.is_per_step else scores).tolist())
        return found

    def record(self) -> dict[str, Any]:
        """The answers and scores as JSON holds them."""
        each = zip(self.names, self.answers, self.scores, self.steps, strict=True)
        rows = [
            {
                "recording": name,
                "prediction": answer,
                "scores": (scores[:steps] if self.targets.is_per_step else scores).tolist(),
            }
            for name, answer, scores, steps in each
        ]
        return {"kind": self.targets.kind, "outputs": list(self.targets.names), "predictions": rows}

    def write(self, file: Path | str) -> None:
        """Write them to `file`: `.json`, or `.csv`, a row for each recording with the score of each output."""
        file = as_path("Predictions.write: the file", file)
        if file.suffix == ".json":
            return write_json(file, self.record())
        if file.suffix != ".csv" or self.targets.is_per_step:
            least = " of targets for every step" * self.targets.is_per_step
            raise SnnError(f"{file}: the ending says the format, .json{'' if least else ' or .csv'}{least}.")
        names = self.targets.names
        told = [f"score {name}" for name in names] if self.targets.kind in ("class", "labels") else []
        told = told or [f"prediction {name}" for name in names]
        rows: list[dict[str, Any]] = []
        for name, answer, scores in zip(self.names, self.answers, self.scores.tolist(), strict=True):
            row = {"recording": name, **dict(zip(told, scores, strict=True))}
            rows.append(row | {"prediction": answer if isinstance(answer, str) else ";".join(map(str, answer))})
        write_csv(file, ["recording", *["prediction"] * (self.targets.kind in ("class", "labels")), *told], rows)

    def __str__(self) -> str:
        width = max(map(len, self.names), default=0)
        return "\n".join(
            f"{name:{width}}  {said}" + f"  ({scores})" * bool(scores) for name, said, scores in self._rows()
        )

    def __repr__(self) -> str:
        return on_screen(str(self))

    def _repr_html_(self) -> str:
        caption = f"Predictions of {len(self)} recordings"
        return html_table(caption, ("recording", "prediction", "scores"), list(self._rows()), left=3)

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        """Recording, answer, and of classes and labels the highest scores."""
        for name, answer, scores in zip(self.names, self.answers, self.scores, strict=True):
            told = (
                answer if isinstance(answer, str) else ", ".join(str(one) for one in answer[:_SCORES_SHOWN]) or "none"
            )
            told += ", ..." * (not isinstance(answer, str) and len(answer) > _SCORES_SHOWN)
            best = (
                scores.argsort(descending=True)[:_SCORES_SHOWN].tolist()
                if self.targets.kind in ("class", "labels")
                else ()
            )
            yield name, told, ", ".join(f"{self.targets.names[n]} {float(scores[n]):.4g}" for n in best)


@checked_call
@phase("predicting")
@torch.inference_mode()
def predict(
    run: Run, recordings: Any, *,
    checkpoint: str = "best", names: Sequence[str] | None = None, batch: int | None = None,
) -> Predictions:  # fmt: skip
    """The answers of a run's network to `recordings`: those of classes with scores.

    Parameters:
        run: a run with a checkpoint; its own recordings need not be here.
        recordings: files of events; structured arrays of events (x, y, t in microseconds, p); or of a network of frames
            an array `[recordings, steps, ...]`, a list of arrays `[steps, ...]`, or `.npy` files of one each. They are
            encoded as the run's own are, without shifts or turns.
        names (None): what they are called; None: by file or number.
        checkpoint ("best"): "best" or "last".
        batch (None): how many run at a time, by default as in training; scores may differ in their last digits.

    Raises where they are of another sensor or shape.

    >>> predict(run, np.zeros((1, 5, 4))).scores.shape  # the run of `train`; [recordings, classes]
    torch.Size([1, 2])
    """
    check_kind("predict: the run", run, Run, "As in predict(Run('runs/mine'), ['a.npy']).")
    check_choice("checkpoint", checkpoint, CHECKPOINTS)
    experiment, train = run.experiment, run.experiment.train_at_step()
    if is_there(file := run.path / "data.json"):
        targets, sensor, events = description_of(file)
    else:
        own = run.dataset()
        targets, sensor, events = own.targets, own.sensor, own.has_events
    dataset = unlabelled(experiment.data, recordings, targets=targets, sensor=sensor, events=events, names=names)
    if tuple(dataset.shape) != run.shape():
        raise SnnError(
            f"predict: one step of these recordings is {list(dataset.shape)}, the network of {run.path} takes "
            f"{list(run.shape())}. Give recordings of the sensor that it was trained on."
        )
    dataset = in_batches("predict", experiment, dataset, "train", batch, way="answering", keep=True)
    network, found, steps = run.network(checkpoint), [], []
    for ids in dataset.batches("train"):
        x, mask = dataset.batch("train", ids, in_bytes=True)[0], dataset.mask("train", ids)
        found.append(scores_of(train.loss, network(x, mask), mask, targets.kind))
        steps += [dataset.steps] * len(ids) if mask is None else mask.sum(0).tolist()
    metric = usual_metric(train.loss, targets) if train.metric is None else train.metric
    threshold = getattr(metric, "threshold", 0.0)
    return Predictions(tuple(dataset.names("train")), targets, torch.cat(found), tuple(steps), threshold)
