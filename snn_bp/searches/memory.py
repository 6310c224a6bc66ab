"""How much memory a search takes, said before it is taken, by the terms of `runs/memory.py`.

A search without gradients holds its points: the network's weights, once for each of them, many times over as the next
ones are bred. That was fitted to the rows of `experiments/benchmarks/memory.py`.
"""

from dataclasses import replace

from snn_bp.data import Dataset
from snn_bp.runs.experiment import Experiment
from snn_bp.runs.memory import COUNTED, FLOAT, HEAP, Estimate, Sizes, check_fits, counting, largest_below
from snn_bp.searches.methods import FEWEST, METHODS
from snn_bp.searches.population import MAX_OUTPUTS, MAX_WEIGHTS
from snn_bp.trainer import memory

_BATCHES = 2  # inputs in floats: those for the norms, and those in use
_TOGETHER = 5  # outputs of a layer there are at once where points run together


def estimate(experiment: Experiment, dataset: Dataset, method: str, population: int | None = None) -> Estimate:
    """What a search by a method takes at its peak, in the memory of the machine (not of a GPU)."""
    training = memory.estimate(experiment, dataset)
    sizes, steps = Sizes.of(experiment, dataset), experiment.data.steps or dataset.steps
    rows = steps * min(experiment.data.batch, max(map(len, dataset.ids.values())))
    frames = training.frames + _BATCHES * rows * sizes.inputs * FLOAT
    layers = int(HEAP * counting(sizes, rows)) if training.layers else 0
    if method == "bptt":  # it looks at no layers, and at no backward pass
        return replace(training, frames=frames, looking=layers, answers=0)
    points = METHODS[method].points_of(max(1, sizes.parameters), population)
    weights = sizes.parameters * FLOAT * (COUNTED + METHODS[method].HELD * points)
    if training.layers and sizes.parameters <= MAX_WEIGHTS:
        layers = max(layers, int(HEAP * _TOGETHER * FLOAT * max(MAX_OUTPUTS, rows * sizes.largest)))
    return Estimate(frames, int(weights), 0, layers)


def check_memory(experiment: Experiment, dataset: Dataset, method: str, population: int | None) -> None:
    """Raise where the machine has not the memory for a search, and say so where it may not be enough."""
    need = estimate(experiment, dataset, method, population)

    def remedy(there: int) -> str:
        if method == "bptt" or need.weights < need.total / 2:
            return memory.remedy(need, dataset)
        points = METHODS[method].points_of(Sizes.of(experiment, dataset).parameters, population)
        fits = largest_below(lambda count: estimate(experiment, dataset, method, count).total <= there, points)
        return f"--population {fits} fits." if fits >= FEWEST else "A smaller network or --method bptt takes less."

    check_fits(need, f"search: {method}", remedy)
