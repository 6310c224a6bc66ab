"""Does it help to mix recordings, of one class or of two, where there are few of them?

    python experiments/benchmarks/mixed.py [--epochs 30] [--seeds 5]

The network of experiments/digits.py learns from a tenth of its training part, 14 recordings of each digit, and the
other nine tenths value it behind the last epoch; the test part is not touched. Shifts stay as they are. Written to
experiments/results/mixed.json.
"""

import argparse
import runpy
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from snn_bp import Blend, CutMix, Experiment, train
from snn_bp.files import write_json
from snn_bp.runs.provenance import commit, machine, version

HERE = Path(__file__).resolve()
WAYS: dict[str, tuple[Any, ...]] = {
    "none": (), "CutMix(classes='same')": (CutMix(classes="same"),), "CutMix()": (CutMix(),),
    "Blend()": (Blend(),), "Blend(classes='any')": (Blend(classes="any"),),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Validation accuracy with and without recordings that are mixed.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    experiment: Experiment = runpy.run_path(str(HERE.parents[1] / "digits.py"))["experiment"]
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(asked.seeds):
        for way, augment in WAYS.items():
            data = replace(experiment.data, augment=augment, validation_fraction=0.9)
            how = replace(experiment.train, epochs=asked.epochs, test="never")
            with tempfile.TemporaryDirectory() as folder:
                run = train(replace(experiment, data=data, train=how, seed=seed), f"{folder}/run", quiet=True)
                found[way].append(run.metrics()[-1]["validation_accuracy"])
    content = {
        "question": "validation accuracy of the digits' network from 144 recordings, by how they are mixed",
        "command": f"python experiments/benchmarks/mixed.py --epochs {asked.epochs} --seeds {asked.seeds}",
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "versions": {name: version(name) for name in ("torch", "numpy", "numba")},
        "machine": machine(),
        "validation_accuracy": found,
        "mean": {way: statistics.mean(each) for way, each in found.items()},
        "less_none": {
            way: [one - plain for one, plain in zip(each, found["none"], strict=True)] for way, each in found.items()
        },
    }
    write_json(HERE.parents[1] / "results" / "mixed.json", content)
    for way, each in found.items():
        print(f"{way:24} {statistics.mean(each):.3f}  {', '.join(f'{one:.3f}' for one in each)}")


if __name__ == "__main__":
    main()
