"""How long does a whole training step take (forward, loss, backward), ours and every installed peer's?

    python experiments/benchmarks/speed.py                 # everything, about an hour
    python experiments/benchmarks/speed.py --works W1 W4 --parts times check --quick --out /tmp/speed.json

Times are medians over interleaved repeats, each library in a process of its own, as its users run it. Beside them:
whether a peer and ours with the peer's reset spike alike and have the same gradients; the peak memory of a step of W1;
growth over time steps and input density; the share of the machine's copy bandwidth that the neurons alone reach; the
one product of W1 that stays dense, by torch. Writes experiments/results/speed.json and speed.png; parts that are not
asked for stay in the file as they are. Peers: `pip install -e ".[benchmark]"`; what is missing is left out.
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from speed.libraries import LIBRARIES, installed
from speed.plot import plot
from speed.process import do, in_turns, measured
from speed.works import TITLES, WORKS

from snn_bp.files import write_json
from snn_bp.runs.provenance import commit, machine, version

RESULT = Path(__file__).resolve().parents[1] / "results" / "speed.json"
OURS = "snn_bp"
BYTES = 6 * 4  # of a neuron and step alone: x in, v and s out; v and g_s in, g_x out; single precision
CHECK_BATCH = 8
PACKAGES = (OURS, "torch", "numpy", "numba", "snntorch", "spikingjelly", "norse", "sinabs", "spyx", "jax", "flax")


def main() -> None:
    """Measure, print, write and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", nargs="+", choices=tuple(WORKS), default=list(WORKS), metavar="WORK")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--libraries", nargs="+", choices=tuple(LIBRARIES), default=installed(), metavar="LIBRARY")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="5 repeats and fewer points")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.task:
        do(json.loads(asked.task))
        return
    if asked.quick:
        asked.repeats = min(asked.repeats, 5)
    result: dict[str, Any] = {
        "question": "time and memory of a whole training step (forward, loss, backward), ours against peers",
        "works": {name: TITLES[name] for name in asked.works},
    }
    if set(asked.parts) != set(PARTS) and asked.out.exists():
        result |= json.loads(asked.out.read_text())
    with tempfile.TemporaryDirectory() as folder:
        for part, measure_part in PARTS.items():
            if part in asked.parts:
                result |= measure_part(asked, folder, result) | {f"{part}_measured": _origin(asked)}
                write_json(asked.out, result)
    plot(result, asked.out.with_suffix(".png"))


def _origin(asked: argparse.Namespace) -> dict[str, Any]:
    """How, when and on what a part was measured."""
    return {
        "command": shlex.join(["python", "experiments/benchmarks/speed.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "repeats": asked.repeats,
    }


def _times(asked: argparse.Namespace, folder: str, result: dict[str, Any]) -> dict[str, Any]:
    rows, bandwidth = [], []
    for threads in asked.threads:
        copy = measured({"do": "bandwidth"}, threads=threads)
        bandwidth.append({"threads": threads, "copy_gb_per_s": copy})
        print(f"\n{threads} thread{'s' * (threads > 1)}, copies at {copy} GB/s")
        for work in asked.works:
            task = {"work": work, "folder": folder}
            found = _compared(in_turns(task, asked.libraries, repeats=asked.repeats, threads=threads), threads)
            least = BYTES * WORKS[work].steps * WORKS[work].batch * WORKS[work].shape[0] / copy / 1e6
            if not WORKS[work].units:
                found = [row | {"share_of_copy_bandwidth": row["ms"] and round(least / row["ms"], 3)} for row in found]
            keys = ("ms", "least_ms", "times_ours", "share_of_copy_bandwidth", "error")
            _print(f"{work}: {TITLES[work]}", found, keys)
            rows += found
    return {"times": rows, "bandwidth": bandwidth}


def _compared(rows: list[dict[str, Any]], threads: int) -> list[dict[str, Any]]:
    """The rows with how many times as long as ours each took."""
    ours = next((row["ms"] for row in rows if row["library"] == OURS), None)
    for row in rows:
        row |= {"threads": threads, "times_ours": round(row["ms"] / ours, 2) if ours and row["ms"] else None}
    return rows


def _check(asked: argparse.Namespace, folder: str, result: dict[str, Any]) -> dict[str, Any]:
    rows = []
    works = {work: min(CHECK_BATCH, WORKS[work].batch) for work in asked.works}
    for name in [name for name in asked.libraries if name != OURS]:
        for dtype in ("float64", "float32"):
            task = {"do": "check", "works": works, "library": name, "dtype": dtype, "folder": folder}
            found = measured(task, threads=max(asked.threads))
            rows += found if isinstance(found, list) else [{"library": name, "precision": dtype} | found]
    keys = ("work", "precision", "spikes", "differing_spikes", "gradient_error", "error")
    _print("agreement with ours of the same reset", rows, keys)
    return {"check": rows}


def _memory(asked: argparse.Namespace, folder: str, result: dict[str, Any]) -> dict[str, Any]:
    if "W1" not in asked.works:
        return {}
    rows = []
    for name in asked.libraries:
        task = {"do": "memory", "work": "W1", "library": name, "folder": folder}
        rows.append({"library": name} | measured(task, threads=1))
    _print("W1: most memory of a step, beyond inputs and weights", rows, ("mb", "error"))
    return {"memory": rows}


def _product(asked: argparse.Namespace, folder: str, result: dict[str, Any]) -> dict[str, Any]:
    ms = measured({"do": "product", "work": "W1", "folder": folder}, threads=1)
    print(f"\nW1, one thread: a dense product that no step can do without takes torch {ms} ms")
    return {"product_ms": ms}


def _growth(asked: argparse.Namespace, folder: str, result: dict[str, Any]) -> dict[str, Any]:
    if "W1" not in asked.works:
        return {}
    libraries = [OURS, *_fastest(result.get("times", []))]
    steps = (125, 250, 500) if asked.quick else (125, 250, 500, 1000)
    density = (0.01, 0.05, 0.2) if asked.quick else (0.01, 0.02, 0.05, 0.1, 0.2)
    points = [({"steps": value}, libraries) for value in steps] + [({"steps": 4 * 500}, [OURS])] * (not asked.quick)
    grown: dict[str, Any] = {}
    for key, series in (("steps", points), ("density", [({"density": value}, libraries) for value in density])):
        rows = []
        for changes, names in series:
            task = {"work": "W1", "changes": changes, "folder": folder}
            rows += _compared(in_turns(task, names, repeats=asked.repeats, threads=1), 1)
        _print(f"W1, one thread, over {key}", rows, (key, "ms", "times_ours", "error"))
        grown[f"growth_over_{key}"] = rows
    return grown


def _fastest(rows: list[dict[str, Any]], *, count: int = 2) -> list[str]:
    """The peers that are fastest on W1."""
    peers = [row for row in rows if row["work"] == "W1" and LIBRARIES[row["library"]].package != OURS and row["ms"]]
    least = min((row["threads"] for row in peers), default=1)
    return [row["library"] for row in sorted(peers, key=lambda row: row["ms"]) if row["threads"] == least][:count]


def _print(title: str, rows: list[dict[str, Any]], keys: tuple[str, ...]) -> None:
    keys = tuple(key for key in keys if any(row.get(key) is not None for row in rows))
    print(f"\n{title}\n{'library':20}" + "".join(f"{key:>24}" for key in keys))
    for row in rows:
        cells = [row.get(key) for key in keys]
        print(
            f"{row['library']:20}" + "".join(f"{'' if cell is None else _short(cell):>24}" for cell in cells),
            flush=True,
        )


def _short(cell: Any) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) and abs(cell) < 1e-2 else str(cell)[-200:]


# in the order they are measured
PARTS = {"times": _times, "check": _check, "memory": _memory, "product": _product, "growth": _growth}

if __name__ == "__main__":
    main()
