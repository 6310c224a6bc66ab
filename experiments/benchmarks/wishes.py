"""Do 51 ordinary wishes of a researcher work inside a run, with every promise that a run keeps?

    python experiments/benchmarks/wishes.py [--only WORDS]

Each wish (its words are those of a survey of what people build: data, networks, training) is one or more small
experiments in `wished/`, with whatever is the user's own defined there. Each is trained once undisturbed, and once
killed with SIGKILL in the middle and gone on with. A wish works where, for all of its experiments,

- both runs have the same weights, rows and results, bit for bit;
- the experiment comes back from its JSON as it was;
- `evaluate`, in a run that is opened anew, gives the figures of results.json;
- the page of `report` has all its parts, and `diagnose` a verdict;
- `export` to .net and .nir is verified, or refused in a sentence;
- a check of the wish itself holds, where it has one.

Writes experiments/results/wishes.json.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from forked import fork, kill_at_operation
from killed import outcome
from wished import data, networks, training
from wished.wish import Wish

from snn_bp import Dataset, Run, SnnError, diagnose, evaluate, export, report, resume, train
from snn_bp.files import write_json
from snn_bp.runs.experiment import to_json
from snn_bp.runs.provenance import machine, version

COLUMNS = {"data": data.WISHES, "networks": networks.WISHES, "training": training.WISHES}
RESULT = Path(__file__).parents[1] / "results" / "wishes.json"
OPERATIONS = (120, 60, 30)  # of files, at one of which a run is killed: the first that it gets to
LIMIT_S = 600


def promises(wish: Wish, folder: Path) -> dict[str, Any]:
    """What becomes of one experiment: what does not hold, by promise, and what was said of its export."""
    experiment, broken = wish.make(folder), {}
    if problem := wish.work(experiment, folder):
        broken["wish"] = problem
    dataset = wish.dataset() if wish.dataset else None
    train(experiment, folder / "whole", quiet=True, save_seconds=0, dataset=dataset)
    if not killed(wish, folder):
        broken["resume"] = "it ended before it could be killed"
    resume(folder / "killed", quiet=True, dataset=dataset)
    run = opened(folder / "whole", dataset)
    if outcome(folder / "whole") != outcome(folder / "killed"):
        broken["resume"] = "weights, rows or results differ"
    if to_json(run.experiment) != to_json(experiment):
        broken["JSON"] = f"{run.experiment}"
    found = run.results() or {}
    for split in ("validation", "test"):
        if split in found and json.loads(json.dumps(evaluate(run, split).record())) != found[split]:
            broken["evaluate"] = f"{split}: other figures than results.json"
    page = report(run).read_text()
    if "This part is missing" in page:
        broken["report"] = page[page.index("This part is missing") :][:300]
    try:
        str(diagnose(run))
    except Exception as cause:  # the others are looked at, too
        broken["doctor"] = f"{type(cause).__name__}: {cause}"
    if problem := wish.holds(run):
        broken["wish"] = problem
    return {"broken": broken, "export": {kind: exported(run, folder / f"a.{kind}") for kind in ("net", "nir")}}


def killed(wish: Wish, folder: Path) -> bool:
    """Train in a process that is killed in the middle."""

    def work(operation: int) -> None:
        kill_at_operation(operation)
        dataset = wish.dataset() if wish.dataset else None
        train(wish.make(folder), folder / "killed", quiet=True, save_seconds=0, dataset=dataset)

    for operation in OPERATIONS:
        ended = fork(lambda: work(operation), limit_s=LIMIT_S)  # noqa: B023 - called at once
        if ended.code == -9:
            return True
        (folder / "killed").rename(folder / f"not killed at {operation}")
    return False


def opened(path: Path, dataset: Dataset | None) -> Run:
    """The run, opened anew, with the recordings that it was handed."""
    run = Run(path)
    if dataset is not None:
        run.hold(dataset)
    return run


def exported(run: Run, file: Path) -> str:
    """What export says: "verified", or why the file is refused: what it cannot hold, or the first difference."""
    try:
        found = export(run, file, samples=8)
    except SnnError as cause:
        return f"refused: {cause}".replace(str(file.parent), "")
    return "verified" if found is not None and found.holds else f"refused: {found and found.difference}"


def tried(name: str, wishes: list[Wish] | str) -> dict[str, Any]:
    """A row of the table: what became of a wish."""
    if isinstance(wishes, str):
        return {"wish": name, "state": "library", "said": wishes}
    rows = []
    for wish in wishes:
        with tempfile.TemporaryDirectory() as folder:
            ended = fork(lambda: print(json.dumps(promises(wish, Path(folder)))), limit_s=LIMIT_S)  # noqa: B023
        if ended.code == 0:
            rows.append(json.loads(ended.out.splitlines()[-1]))
        else:
            rows.append({"broken": {"run": f"ended with {ended.code}: {ended.err[-1500:]}"}})
    kept = all(not row["broken"] for row in rows)
    return {"wish": name, "state": "works" if kept else "fails", "experiments": rows}


def main() -> None:
    """Try all wishes, or some, and write their rows into the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="part of a wish's words, or a column: the other rows stay as they are")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:  # compiles and imports, for all forks
        promises(networks.WISHES["tdBN"][0], Path(folder))
    made: dict[str, dict[str, Any]] = {}
    for column, wishes in COLUMNS.items():
        for name, each in wishes.items():
            if only in (None, column) or only in name:
                began = time.monotonic()
                made[name] = row = tried(name, each)
                print(f"{row['state']:8} {column}: {name} ({time.monotonic() - began:.0f} s)", flush=True)
                if row["state"] == "fails":
                    print(json.dumps(row["experiments"], indent=1), flush=True)
    before = json.loads(RESULT.read_text())["wishes"] if only and RESULT.exists() else {}
    made = {row["wish"]: row for rows in before.values() for row in rows} | made
    table = {column: [made[name] for name in wishes if name in made] for column, wishes in COLUMNS.items()}
    states = Counter(row["state"] for rows in table.values() for row in rows)
    result = {
        "date": time.strftime("%Y-%m-%d"), "machine": machine(), "torch": version("torch"), "states": states,
        "wishes": table,
    }  # fmt: skip
    write_json(RESULT, result)
    print(json.dumps(states))
    sys.exit(states["fails"] > 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
