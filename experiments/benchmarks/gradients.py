"""Is every gradient right, and how far does a surrogate gradient lie from the smoothed network's?

    python experiments/benchmarks/gradients.py

A table over neurons, resets and surrogates: the smoothed network of two layers against central finite differences in
double precision, and the cosine and norm ratio of the surrogate gradient to the smoothed one in the first layer. Then
`check_gradients` on the default experiment before its first step. Writes experiments/results/gradients.json.
"""

import itertools
import runpy
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from snn_bp import ALIF, LI, LIF, CubaLIF, Dense, Network, Surrogate
from snn_bp.data import load
from snn_bp.files import write_json
from snn_bp.instruments import check_gradients
from snn_bp.instruments.differences import differences
from snn_bp.instruments.gradients import compare_smoothed
from snn_bp.instruments.unroll import copied
from snn_bp.model.losses import CountCrossEntropy
from snn_bp.model.start import start_alive
from snn_bp.neurons import RESETS
from snn_bp.runs.provenance import machine, version
from snn_bp.surrogates import SHAPES

KINDS = (
    lambda **how: LIF(beta=0.9, **how),
    lambda **how: CubaLIF(alpha=0.7, beta=0.85, **how),
    lambda **how: ALIF(beta=0.9, rho=0.9, kappa=0.4, **how),
    lambda **how: ALIF(beta=0.9, rho=0.9, kappa=0.4, alpha=0.3, **how),
)
RECORDINGS = 4  # of the default data


def table() -> list[dict[str, Any]]:
    """A row for each neuron, reset, way to detach it, and surrogate."""
    generator = torch.Generator().manual_seed(0)
    x, targets = torch.randn(8, 4, 6, generator=generator, dtype=torch.float64), torch.arange(4) % 3
    rows = []
    for kind, reset, detach, shape in itertools.product(KINDS, RESETS, (True, False), SHAPES):
        neuron, surrogate = kind(reset=reset, detach_reset=detach), Surrogate(shape, 2.3)
        network = copied(Network((Dense(8), neuron, Dense(3), LI(beta=0.8)), (6,), surrogate=surrogate), double=True)
        found = differences(network, x, targets, CountCrossEntropy(), directions=2, seed=0)
        first = compare_smoothed(network, x, targets, CountCrossEntropy())[network.name(0)]
        error, crossed = max(row.error for row in found), sum(row.crossed for row in found)
        row = {"neuron": repr(neuron), "surrogate": shape, "error": error, "kinks_crossed": crossed, **asdict(first)}
        rows.append(row)
    return rows


def main() -> None:
    """Measure and write the result."""
    rows = table()
    worst = max(rows, key=lambda row: row["error"])
    print(f"{len(rows)} combinations, largest relative error {worst['error']:.1e}: {worst}")
    experiment = runpy.run_path(str(Path(__file__).parents[1] / "digits.py"))["experiment"]
    dataset = load(experiment.data, quiet=True)
    network = experiment.network(dataset.shape)
    x, targets = dataset.batch("train", dataset.batches("train", seed=0)[0])
    start_alive(network, x)
    report = check_gradients(network, x[:, :RECORDINGS], targets[:RECORDINGS])
    print(report)
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in ("snn_bp", "torch", "numba")},
        "combinations": len(rows),
        "largest_error": worst["error"],
        "kinks_crossed": sum(row["kinks_crossed"] for row in rows),
        "table": rows,
        "default_experiment": report.record(),
    }
    write_json(Path(__file__).parents[1] / "results" / "gradients.json", result)


if __name__ == "__main__":
    main()
