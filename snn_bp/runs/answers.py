"""What a network said of every recording of a split: kept, so that two runs can be compared recording by recording.

`predictions/test.csv` is for people: a row for each recording. `predictions/test.safetensors` holds all scores, targets
and the mask.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from snn_bp.errors import SnnError
from snn_bp.files import is_there, make_folder, read_bytes, replace_file, write_csv
from snn_bp.model.metrics import counted
from snn_bp.model.targets import KINDS, UNLABELLED, Targets

FOLDER = "predictions"


@dataclass(frozen=True, eq=False)
class Answers:
    """Scores of recordings beside their targets; tensors begin with the batch, but for the mask `[time, batch]`."""

    targets: Targets
    names: tuple[str, ...]  # one for each recording
    scores: Tensor
    values: Tensor  # the targets
    mask: Tensor | None

    def write(self, run: Path, split: str) -> None:
        """Write both files into a run folder."""
        make_folder(run / FOLDER)
        tensors = {"scores": self.scores, "targets": self.values}
        tensors |= {} if self.mask is None else {"mask": self.mask}
        described = {"kind": self.targets.kind, "outputs": self.targets.names, "recordings": self.names}
        content = save({name: part.contiguous() for name, part in tensors.items()}, {"snn_bp": json.dumps(described)})
        replace_file(run / FOLDER / f"{split}.safetensors", content)
        rows = list(self.rows())
        write_csv(run / FOLDER / f"{split}.csv", list(rows[0]), rows)

    @classmethod
    def read(cls, run: Path, split: str) -> "Answers | None":
        """Those of a run folder; None where an older version, or a run that is not finished, has none."""
        file = run / FOLDER / f"{split}.safetensors"
        if not is_there(file):
            return None
        raw = read_bytes(file)
        try:
            tensors = load(raw)
            described = json.loads(json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]["snn_bp"])
            targets = Targets(described["kind"], tuple(described["outputs"]))
            names, scores, wanted = tuple(map(str, described["recordings"])), tensors["scores"], tensors["targets"]
        except (SafetensorError, ValueError, KeyError, TypeError, SnnError) as cause:
            raise SnnError(f"{file}: the predictions are damaged ({cause}).") from None
        return cls(targets, names, scores, wanted, tensors.get("mask"))

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each recording: its name, what was wanted, what was predicted, and the scores of that.

        Of targets for every step the values stand one behind the other, and scores are left to the other file.
        """
        return _ROWS[self.targets.kind](self)

    def _named(self, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for name, row in zip(self.names, rows, strict=True):
            yield {"recording": name, **row}

    def _classes(self) -> Iterator[dict[str, Any]]:
        names = self.targets.names
        rows = []
        for scores, true in zip(self.scores, self.values.tolist(), strict=True):
            predicted = int(scores.argmax())
            row = {"target": names[true], "prediction": names[predicted], "right": int(true == predicted)}
            rows.append(row | _scored(names, scores))
        return self._named(rows)

    def _classes_of_steps(self) -> Iterator[dict[str, Any]]:
        names, labelled, rows = self.targets.names, counted(self.values, self.mask), []
        for row, (scores, true) in enumerate(zip(self.scores, self.values, strict=True)):
            there = range(len(true)) if self.mask is None else self.mask[:, row].nonzero()[:, 0].tolist()
            predicted = scores.argmax(1)
            right = int((predicted == true)[labelled[row]].sum())
            rows.append({
                "target": " ".join("-" if true[step] == UNLABELLED else names[int(true[step])] for step in there),
                "prediction": " ".join(names[int(predicted[step])] for step in there),
                "right": right, "labelled": int(labelled[row].sum()),
            })  # fmt: skip
        return self._named(rows)

    def _vectors(self) -> Iterator[dict[str, Any]]:
        names, rows = self.targets.names, []
        for scores, wanted in zip(self.scores, self.values, strict=True):
            row = {f"target {name}": _digits(value) for name, value in zip(names, wanted.tolist(), strict=True)}
            rows.append(row | {f"prediction {name}": text for name, text in _scored(names, scores, prefix="").items()})
        return self._named(rows)

    def _labels(self) -> Iterator[dict[str, Any]]:
        names, rows = self.targets.names, []
        for scores, wanted in zip(self.scores, self.values, strict=True):
            said = [name for name, score in zip(names, scores.tolist(), strict=True) if score > 0]
            true = [name for name, value in zip(names, wanted.tolist(), strict=True) if value > 0.5]
            rows.append({"target": " ".join(true), "prediction": " ".join(said)} | _scored(names, scores))
        return self._named(rows)

    def _vectors_of_steps(self) -> Iterator[dict[str, Any]]:
        names, rows = self.targets.names, []
        for row, (scores, wanted) in enumerate(zip(self.scores, self.values, strict=True)):
            length = len(scores) if self.mask is None else int(self.mask[:, row].sum())
            columns = {}
            for what, values in (("target", wanted), ("prediction", scores)):
                for index, name in enumerate(names):
                    columns[f"{what} {name}"] = " ".join(map(_digits, values[:length, index].tolist()))
            rows.append(columns)
        return self._named(rows)


_ROWS = dict(
    zip(
        KINDS,
        (
            Answers._classes,
            Answers._classes_of_steps,
            Answers._vectors,
            Answers._vectors_of_steps,
            Answers._labels,
            Answers._vectors_of_steps,
        ),
        strict=True,
    )
)


def _scored(names: tuple[str, ...], scores: Tensor, *, prefix: str = "score ") -> dict[str, str]:
    return {f"{prefix}{name}": _digits(score) for name, score in zip(names, scores.tolist(), strict=True)}


def _digits(value: float) -> str:
    return f"{value:.6g}"
