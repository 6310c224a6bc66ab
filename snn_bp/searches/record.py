"""What a search found and how it came there, and the run folder that keeps it."""

import time
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from snn_bp.files import write_object
from snn_bp.model.network import Network
from snn_bp.runs.evaluation import Evaluation
from snn_bp.runs.experiment import Experiment
from snn_bp.runs.folder import Run
from snn_bp.runs.records import figure_in_words
from snn_bp.runtime.screen import on_screen


@dataclass(frozen=True)
class Row:
    """A point of the curve: what was spent so far, and how good the method's answer was then.

    The three costs are of searching alone: validation, and the training loss below, are measured beside it.
    """

    generation: int  # for bptt: steps of the optimizer
    sample_evaluations: int  # one forward of one sample is 1, its backward 2 more
    seconds: float
    cpu_seconds: float  # all threads together; other programs on the machine hardly change it
    peak_memory_mb: float  # the most that the process has held so far
    value: float  # the objective on the validation split; on the training recordings below where it is empty
    best_value: float  # the lowest so far
    train_loss: float  # on up to 256 training recordings, the same for every row, in evaluation mode
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None


@dataclass(frozen=True, eq=False)
class Search:
    """What `search` found: the weights with the lowest value on the validation split, and the curve.

    Fields:
        experiment: with the seed that was used.
        method, objective, budget: what was asked.
        population: points of the first generation; 1 for bptt.
        weights: with the norms' statistics: `experiment.network(shape).load_state_dict(weights)`.
        curve: its rows, what was spent and how good the answer was then; `best` is the index of the best one.
        input_shape: of one time step.
        validation, test: evaluations of the best weights, the test split's once; None where a split is empty.

    >>> found.network().output_shape  # the search of `search`
    (2,)
    """

    experiment: Experiment
    method: str
    objective: str
    budget: int
    population: int
    weights: dict[str, Tensor]
    curve: tuple[Row, ...]
    best: int
    input_shape: tuple[int, ...]
    validation: Evaluation | None
    test: Evaluation | None

    def __str__(self) -> str:
        best = self.curve[self.best]
        lines = [
            f"search by {self.method} for {self.objective}: {best.value:.4g} at generation {best.generation} of "
            f"{self.curve[-1].generation}, {best.sample_evaluations:,} of {self.budget:,} sample evaluations"
        ]
        found = [found for found in (self.validation, self.test) if found is not None]
        return "\n".join([*lines, *(f"  {each.split} {figure_in_words(each.record())}" for each in found)])

    def __repr__(self) -> str:
        return on_screen(str(self))

    def network(self) -> Network:
        """The network with the best weights, in evaluation mode."""
        network = self.experiment.network(self.input_shape)
        network.load_state_dict(self.weights)
        return network.eval()

    def record(self) -> dict[str, Any]:
        """All but the weights, as JSON holds it."""
        plain = {name: getattr(self, name) for name in ("method", "objective", "budget", "population", "best")}
        evaluations = {
            split: None if found is None else found.record()
            for split, found in (("validation", self.validation), ("test", self.test))
        }
        seed = {"seed": self.experiment.seed, "date": time.strftime("%Y-%m-%d")}
        return plain | seed | evaluations | {"curve": [asdict(row) for row in self.curve]}

    def finish(self, run: Run, *, notes: tuple[str, ...] = ()) -> None:
        """Write `search.json` and `results.json` into a run folder that has the rows and the weights."""
        write_object(run.path / "search.json", self.record())
        results: dict[str, Any] = {
            "epochs": len(self.curve),
            "best_epoch": self.best + 1,
            "parameters": sum(weight.numel() for weight in self.network().parameters()),
            "train_seconds": self.curve[-1].seconds,
            "tables": run.marks(),
            "notes": [f"searched by {self.method}; each epoch is a row of search.json", *notes],
        }
        found = {"validation": self.validation, "test": self.test}
        results |= {split: one.record() for split, one in found.items() if one is not None}
        write_object(run.path / "results.json", results)
