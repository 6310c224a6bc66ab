"""What export costs: experiments trained in floats and in whole numbers, written to .net and .nir, and replayed.

    python experiments/benchmarks/exported.py experiments/digits.py experiments/nmnist.py experiments/nmnist_mlp.py \
        --lava 50 --changes data.root=FOLDER

Writes experiments/results/exported.json: for each file accuracy in floats, in whole numbers and of the file's replay on
all test recordings, whether every spike is equal, cores, and what Lava's real client says to `--lava` recordings (of
the network trained in whole numbers; one takes some seconds). The changes are not for digits.py.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from snn_bp.chip.lava_client import client_versions
from snn_bp.files import write_json
from snn_bp.runs.changes import override
from snn_bp.runs.experiment_file import read_file
from snn_bp.runs.provenance import machine, version
from snn_bp.trainer.loop import resume, train
from snn_bp.verification.replayed import export, verify

PACKAGES = ("snn_bp", "torch", "numpy", "numba", "tonic", "nir", "h5py")
ALL = 1_000_000  # test recordings


def main() -> None:
    """Train, export, verify; write after each experiment, so that nothing is lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--changes", nargs="*", default=[])
    parser.add_argument("--lava", type=int, default=0)
    parser.add_argument("--out", type=Path, help="keep the runs here, and use those that are here")
    arguments = parser.parse_args()
    target = Path(__file__).parents[1] / "results" / "exported.json"
    rows = json.loads(target.read_text())["rows"] if target.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for file in arguments.files:
            changes = [] if file.stem == "digits" else arguments.changes
            rows[file.stem] = measure(file, changes, arguments.out or Path(folder), arguments.lava)
            result = {
                "rows": rows,
                "date": time.strftime("%Y-%m-%d"),
                "machine": machine(),
                "versions": {name: version(name) for name in PACKAGES} | client_versions(),
            }
            write_json(target, result)


def measure(file: Path, changes: list[str], folder: Path, lava: int) -> dict[str, Any]:
    """Both trainings of one experiment, and their files."""
    row: dict[str, Any] = {}
    for how in ("float", "loihi"):
        experiment, _ = override(read_file(file), [*changes, f"train.target={how}"])
        path = folder / f"{file.stem}-{how}"
        run = resume(path, quiet=True) if path.exists() else train(experiment, path, quiet=True)
        for ending in ("net", "nir") if how == "float" else ("net",):
            path = run.path / f"{file.stem}.{ending}"
            proof = export(run, path, samples=ALL)
            if ending == "net" and how == "loihi" and lava:
                proof = verify(run, path, samples=ALL, lava=lava)
            assert proof is not None
            record = proof.record()
            del record["weights"], record["file"]
            row[f"trained in {how}, .{ending}"] = record
            print(f"{file.stem}, trained in {how}:\n{proof}", flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
