"""Does it help to mix recordings, of one class or across classes?

    python experiments/benchmarks/mixing.py --root DIR [--seeds 5] [--only CASE ...]      # DIR holds NMNIST/

Experiments of `experiments/` are trained as they are, with `CutMix` and with `Blend`, of the same class and of any,
each with its usual p = 0.5, on half of the training part; the other half is the validation split, on which the last
epoch is evaluated. A seed draws weights, order and that split, alike for every way, so ways are compared seed by seed:
the mean difference from training without mixing, and of any class from the same, with the 95 % interval by Student's t
and the p of the paired test. The test split is never looked at. One thread. Writes experiments/results/mixing.json
after every seed; cases that are not run again stay.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from snn_bp import Blend, CutMix, train
from snn_bp.files import write_json
from snn_bp.runs.changes import override
from snn_bp.runs.experiment import Experiment
from snn_bp.runs.experiment_file import read_file
from snn_bp.runs.interval import mean_interval, paired_t
from snn_bp.runs.provenance import commit, machine, version

EXPERIMENTS = Path(__file__).parents[1]
RESULTS = EXPERIMENTS / "results" / "mixing.json"
WAYS: dict[str, tuple[CutMix | Blend, ...]] = {
    "none": (),
    "CutMix same": (CutMix(classes="same"),),
    "CutMix any": (CutMix(classes="any"),),
    "Blend same": (Blend(classes="same"),),
    "Blend any": (Blend(classes="any"),),
}
HALF = "data.validation_fraction=0.5"


@dataclass(frozen=True)
class Case:
    """An experiment's file, what is other than in it, and the ways that it is trained in."""

    file: str
    changes: tuple[str, ...] = (HALF,)
    ways: tuple[str, ...] = tuple(WAYS)


CASES = {
    "digits": Case("digits"),
    "nmnist": Case("nmnist", (HALF, "train.epochs=50")),
    "nmnist_mlp": Case("nmnist_mlp"),
    "nmnist_mlp, longer": Case("nmnist_mlp", (HALF, "train.epochs=240"), ("none", "CutMix any")),
}


def experiment(case: Case, way: str, *, seed: int, root: str | None) -> Experiment:
    """A case with one of the ways, its split drawn from the seed; the test split is left alone."""
    made = override(read_file(EXPERIMENTS / f"{case.file}.py"), [*case.changes, "train.test=never", f"seed={seed}"])[0]
    folder = None if made.data.name == "digits" else root
    return replace(made, data=replace(made.data, augment=WAYS[way], split_seed=seed, root=folder))


def trained(asked: Experiment) -> dict[str, float]:
    """What validation says of the last epoch, and what it took."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        run = train(asked, Path(folder) / "run", quiet=True)
        last, results = run.metrics()[-1], run.results()
        assert results is not None and "test" not in results
        return {
            "accuracy": results["validation"]["accuracy"], "loss": last["validation_loss"],
            "accuracy_in_training": last["train_accuracy"], "cpu_s": round(time.process_time() - began, 1),
            "validated": results["validation"]["samples"],
        }  # fmt: skip


def compared(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Of each way the mean; of each pair of ways that answers the question the difference, seed by seed."""
    means = {
        way: {name: statistics.fmean(run[name] for run in each) for name in ("accuracy", "loss")}
        for way, each in runs.items()
    }
    pairs = [(way, "none") for way in runs if way != "none"]
    pairs += [(f"{kind} any", f"{kind} same") for kind in ("CutMix", "Blend") if f"{kind} same" in runs]
    return {"means": means, "less": {f"{way} less {other}": less(runs[way], runs[other]) for way, other in pairs}}


def less(runs: list[dict[str, float]], others: list[dict[str, float]]) -> dict[str, Any]:
    """How much more accurate runs are than others of the same seeds; nothing of a single one."""
    apart = [run["accuracy"] - other["accuracy"] for run, other in zip(runs, others, strict=True)]
    if len(apart) < 2:
        return {}
    low, high = mean_interval(statistics.fmean(apart), statistics.stdev(apart), len(apart))
    return {"difference": statistics.fmean(apart), "low": low, "high": high, "p": paired_t(apart)}


def main() -> None:
    """Train, and write what is known whenever a seed is through."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="the folder of NMNIST")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    runs = {name: {way: [] for way in CASES[name].ways} for name in asked.only}
    cases: dict[str, Any] = json.loads(asked.out.read_text())["cases"] if asked.out.exists() else {}
    for seed in range(asked.seeds):
        for name in asked.only:
            for way in CASES[name].ways:
                runs[name][way].append(trained(experiment(CASES[name], way, seed=seed, root=asked.root)))
                print(f"{name:16} seed {seed} {way:12} {runs[name][way][-1]}", flush=True)
            cases[name] = {
                "file": f"experiments/{CASES[name].file}.py", "changes": CASES[name].changes, "seeds": seed + 1,
                "date": time.strftime("%Y-%m-%d"), "commit": commit(), "runs": runs[name],
            }  # fmt: skip
            cases = {key: cases[key] | compared(cases[key]["runs"]) for key in CASES if key in cases}
            written = {
                "question": "validation accuracy with recordings mixed, of the same class and of any, beside none",
                "command": "python experiments/benchmarks/mixing.py --root DIR",
                "machine": machine() | {"threads": 1},
                "versions": {each: version(each) for each in ("snn_bp", "torch", "numpy", "numba", "scikit-learn")},
                "cases": cases,
            }
            write_json(asked.out, written)


if __name__ == "__main__":
    main()
