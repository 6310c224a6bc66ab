"""Whether a change of the code changed a number: two checkouts train, and all that they write is compared.

    python experiments/benchmarks/unchanged.py OLD NEW --nmnist FOLDER [--seeds 0 1 2] [--epochs 4] [--only digits ...]

OLD and NEW are folders of two checkouts; each runs its own experiments by its own command line, on one thread. Compared
bit for bit: every tensor of the last checkpoint (weights, statistics, the optimizer's state), the rows of metrics.csv
but for times and memory, and the exported .net and .nir files. NEW also resumes a run that OLD stopped halfway, which
should end as the run that OLD finished. Writes experiments/results/unchanged.json.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors import safe_open

from snn_bp.files import write_json
from snn_bp.runs.provenance import machine, version

WORKS = {  # name: experiment, changes, kinds of files
    "digits": ("digits", [], ("net", "nir")),
    "digits_loihi": ("digits", ["train.target=loihi"], ("net",)),
    "nmnist": ("nmnist", [], ("net", "nir")),
    "nmnist_mlp": ("nmnist_mlp", [], ("net", "nir")),
    "nmnist_mlp_loihi": ("nmnist_mlp", ["train.target=loihi"], ("net",)),
}
MEASURED = (
    "seconds",
    "wait_seconds",
    "samples_per_s",
    "peak_memory_mb",
)  # columns of metrics.csv that differ between equal runs
PACKAGES = ("snn_bp", "torch", "numpy", "numba")


def main() -> None:
    """Train by both checkouts, compare, write; exits with 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--nmnist", type=Path, required=True, help="the folder that holds NMNIST")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--only", nargs="*", choices=WORKS, default=list(WORKS))
    parser.add_argument("--runs", type=Path, help="keep the runs here, and use those of OLD that are here")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in arguments.seeds:
            for name in arguments.only:
                rows.append(compare(arguments, arguments.runs or Path(temporary), name, seed))
                print(json.dumps(rows[-1]), flush=True)
    result = {
        "rows": rows, "epochs": arguments.epochs, "date": time.strftime("%Y-%m-%d"), "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "commits": [commit(arguments.old), commit(arguments.new)],
    }  # fmt: skip
    write_json(Path(__file__).parents[1] / "results" / "unchanged.json", result)
    sys.exit(any(row["different"] for row in rows))


def compare(arguments: argparse.Namespace, runs: Path, name: str, seed: int) -> dict[str, Any]:
    """One experiment and seed by both checkouts, and what differs."""
    experiment, changes, kinds = WORKS[name]
    changes = [*changes, f"seed={seed}", f"train.epochs={arguments.epochs}"]
    if experiment != "digits":
        changes.append(f"data.root={arguments.nmnist}")
    folders = {}
    for which, checkout in (("old", arguments.old), ("new", arguments.new)):
        folders[which] = folder = runs / f"{which}_{name}_{seed}"
        if which == "new":
            shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            snn_bp(checkout, "train", checkout / "experiments" / f"{experiment}.py", "--out", folder, *changes)
            for kind in kinds:
                snn_bp(checkout, "export", folder, folder / f"file.{kind}", "--no-verify")
    old, new = folders["old"], folders["new"]
    different = differences(old, new)
    for kind in kinds:
        files = [folder / f"file.{kind}" for folder in (old, new)]
        different += [f"{kind}: {entry}" for entry in differing_entries(*files)]
    resumed = runs / f"resumed_{name}_{seed}"
    shutil.rmtree(resumed, ignore_errors=True)
    shutil.copytree(old, resumed)
    rewind(resumed)
    snn_bp(arguments.new, "resume", resumed)
    different += [f"resumed from the old run's last but one epoch: {each}" for each in differences(old, resumed)]
    last = rows_of(new)[-1]
    return {"work": name, "seed": seed, "different": different, "last": {key: last[key] for key in list(last)[:4]}}


def snn_bp(checkout: Path, *command: object) -> None:
    """Run the command line of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "snn_bp", *map(str, command)]
    done = subprocess.run(line, env=environment, cwd=checkout, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)} in {checkout}:\n{done.stdout}{done.stderr}")


def rewind(run: Path) -> None:
    """Put a finished run back to its last but one checkpoint, as if it had been killed then."""
    checkpoints = run / "checkpoints"
    checkpoints.joinpath("previous.safetensors").replace(checkpoints / "last.safetensors")
    run.joinpath("results.json").unlink()


def differences(old: Path, new: Path) -> list[str]:
    """What differs between the last checkpoints and the metrics of two runs."""
    mine, theirs = tensors_of(old), tensors_of(new)
    found = [f"tensor {name}" for name in sorted(mine.keys() ^ theirs.keys())]
    found += [f"tensor {name}" for name in mine.keys() & theirs.keys() if not same(mine[name], theirs[name])]
    if [without(row) for row in rows_of(old)] != [without(row) for row in rows_of(new)]:
        found.append("metrics.csv")
    return found


def tensors_of(run: Path) -> dict[str, np.ndarray]:
    """The tensors of a run's last checkpoint."""
    with safe_open(run / "checkpoints" / "last.safetensors", framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def same(mine: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether two arrays are equal in type, shape and every bit."""
    return mine.dtype == theirs.dtype and mine.shape == theirs.shape and mine.tobytes() == theirs.tobytes()


def rows_of(run: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics."""
    with run.joinpath("metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without(row: dict[str, str]) -> dict[str, str]:
    """A row of metrics without what differs between equal runs."""
    return {name: value for name, value in row.items() if name not in MEASURED}


def differing_entries(old: Path, new: Path) -> list[str]:
    """Names of the entries in which two HDF5 files differ; none where the files are equal byte for byte."""
    if old.read_bytes() == new.read_bytes():
        return []
    mine, theirs = entries(old), entries(new)
    names = sorted(mine.keys() | theirs.keys())
    return [name for name in names if mine.get(name) != theirs.get(name)] or ["bytes of the container"]


def entries(path: Path) -> dict[str, bytes]:
    """Every data set of an HDF5 file as bytes."""
    found: dict[str, bytes] = {}

    def add(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset):
            value = entry[()]
            found[name] = value if isinstance(value, bytes) else np.asarray(value).tobytes()

    with h5py.File(path) as file:
        file.visititems(add)
    return found


def commit(checkout: Path) -> str:
    """The commit of a checkout."""
    line = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(line, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
