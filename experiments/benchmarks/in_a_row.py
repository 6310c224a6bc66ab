"""Trained networks in Lava's real client, eight recordings in a row, by the loader script that `export` writes.

    SNN_BP_LAVA_PYTHON=... python experiments/benchmarks/in_a_row.py [--recordings 8] [--families dense conv ...]

One small network of each family (dense, convolutional, recurrent, with delays), trained in floats and in whole numbers
on the digits, is exported and proven on the test recordings; then the client runs the script beside the file
(`chip/lava_client.py` says how to install it). What it answers is held against our replay, every spike, current and
potential in every row, and its output against the network, each recording from rest. Writes
experiments/results/in_a_row.json.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from snn_bp import (
    IF,
    LIF,
    BatchNorm,
    Conv,
    CubaLIF,
    Data,
    Delay,
    Dense,
    Experiment,
    Flatten,
    Pool,
    Recurrent,
    SnnError,
    Train,
    train,
)
from snn_bp.chip.arithmetic import Target
from snn_bp.chip.lava_client import client_missing, client_versions, run_client
from snn_bp.files import write_json
from snn_bp.model.layers import Layer
from snn_bp.runs.provenance import machine, version
from snn_bp.verification.replayed import export, verify
from snn_bp.verification.stages import for_chip

COUNTS = Data("digits", step_ms=31, steps=10, downsample=2, batch=64)
EVENTS = Data("digits", step_ms=31, steps=10, downsample=2, batch=64, binary=True)
ZERO = LIF(beta=0.8, reset="zero")
LAST = (Dense(10), BatchNorm(), ZERO)
SPREAD = tuple(n % 6 for n in range(40))  # steps of delay of each hidden neuron
FAMILIES: dict[str, tuple[Data, tuple[Layer, ...]]] = {
    "dense": (COUNTS, (Flatten(), Dense(40), BatchNorm(), ZERO, *LAST)),
    "conv": (COUNTS, (Conv(6, 3), BatchNorm(), ZERO, Pool(2), Conv(8, 3), BatchNorm(), ZERO, Flatten(), *LAST)),
    "recurrent": (EVENTS, (Flatten(), Dense(40, bias=False), Recurrent(ZERO), *LAST)),
    "delays": (EVENTS, (Flatten(), Dense(40, bias=False), ZERO, Delay(SPREAD), Dense(30), ZERO, *LAST)),
    "delays and currents": (
        EVENTS,
        (
            *(
                Flatten(),
                Delay(2.0, learn=True, max_steps=8),
                Dense(40, bias=False),
                CubaLIF(alpha=0.6, beta=0.8, reset="zero"),
            ),
            *(Delay(SPREAD), Dense(30), IF(reset="zero"), *LAST),
        ),
    ),
}


def main() -> None:
    """Train, export, run the client; write after each network, so that nothing is lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=8)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--epochs", type=int, default=4)
    asked = parser.parse_args()
    missing = client_missing()
    if missing:
        raise SnnError(missing)
    rows: dict[str, Any] = {}
    for family in asked.families:
        for target in ("float", "loihi"):
            with tempfile.TemporaryDirectory() as folder:
                rows[f"{family}, {target}"] = measure(family, target, Path(folder), asked.epochs, asked.recordings)
            print(f"{family}, trained in {target}: {rows[f'{family}, {target}']}", flush=True)
            result = {
                "date": time.strftime("%Y-%m-%d"),
                "machine": machine(),
                "versions": {name: version(name) for name in ("snn_bp", "torch", "numpy", "h5py")} | client_versions(),
                "rows": rows,
            }
            write_json(Path(__file__).parents[1] / "results" / "in_a_row.json", result)
    if not all(row["equal"] for row in rows.values()):
        raise SystemExit("not all outputs are equal")


def measure(family: str, target: Target, folder: Path, epochs: int, recordings: int) -> dict[str, Any]:
    """One network trained, exported, proven, and run in the client."""
    data, model = FAMILIES[family]
    run = train(Experiment(data, model, Train(epochs=epochs, lr=5e-3, target=target)), folder / "run", quiet=True)
    file = folder / "chip.net"
    proof = export(run, file)
    assert proof is not None
    row = {"accuracy": proof.accuracy, "proof": proof.difference or "holds", "pause": proof.pause, "load": proof.load}
    row |= {"warnings": list(proof.warnings)}
    if not proof.holds:
        return row | {"equal": False}
    asked = verify(run, file, samples=recordings, lava=recordings)
    x, _ = run.dataset().batch("test", run.dataset().ids["test"][:recordings])
    network, _ = for_chip(run)
    with torch.no_grad():
        wanted = network(x).numpy()
    client = run_client(file, x)
    differing = int((client.out != wanted).sum())
    counts = {"recordings": x.shape[1], "outputs": wanted.size, "differing": differing, "spikes": int(wanted.sum())}
    spikes = [int(of.sum()) for of in client.spikes]
    return row | counts | {"spikes_of_layers": spikes, "client": asked.client, "equal": asked.holds and not differing}


if __name__ == "__main__":
    sys.exit(main())
