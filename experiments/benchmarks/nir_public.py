"""NIR files that other packages ship: which are read, and does the network do what the file's equations say?

    pip download --no-deps --no-binary :all: nirtorch==2.6 norse==1.1.0 sinabs==3.1.3    # and unpack them in FOLDER
    python experiments/benchmarks/nir_tests.py FOLDER TESTS ...    # of these, nir 1.0.8 and sc-neurocore 3.16
    python experiments/benchmarks/nir_public.py FOLDER

Every `.nir` below FOLDER counts once, by its hash. It is read with each step of time that writers use (and those at
which an input counts once), and compared with `replay_nir` on random spikes at the first step that keeps the output
alive, else at the first at which it is read. Writes experiments/results/nir_public.json: outputs and how many differ,
or why a file is refused. Where norse is installed, it runs the old files whose neurons are all CubaLIF, with both
resets: only these reset in norse as they are told. A recurrence there has no bias in the first step, so that goes into
the weights before it. An old file of 34 x 34 pixels and 10 classes answers the test recordings of N-MNIST that lie in
$SNN_BP_DATA.
"""

import argparse
import hashlib
import importlib.util
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nir
import torch
from torch import Tensor

from snn_bp import Data, SnnError
from snn_bp.data import load
from snn_bp.exchange.nir_file import RESETS_TO_VALUE, AsZero, open_nir
from snn_bp.exchange.nir_node import NEURONS
from snn_bp.exchange.nir_read import read_nir
from snn_bp.exchange.nir_replay import replay_nir
from snn_bp.exchange.nir_step import candidates
from snn_bp.files import write_json
from snn_bp.model.network import Network, has_state, neuron_of
from snn_bp.neurons import is_spiking
from snn_bp.runs.provenance import machine, version

PACKAGES = ("snn_bp", "nir", "norse", "nirtorch", "sc-neurocore", "torch", "numpy")
STEPS, SAMPLES, FRACTION = 100, 8, 0.3  # random spikes that each file hears
NEAR = 1e-4  # relative to the largest: potentials are sums in another order


def looked_at(path: Path) -> dict[str, Any]:
    """What became of one file."""
    try:
        file = open_nir(path)
        steps = [file.step(None)] if file.metadata else list(candidates(file))
    except SnnError as cause:
        return {"outcome": "refused", "why": _without(path, cause)}
    said = {
        "nir": ".".join(map(str, file.version)),
        "nodes": sorted({node.kind for node in file.nodes.values()}),
    }
    best, refused = {}, []
    for step in steps:
        try:
            found = _compared(path, step, read_nir(path, step_s=step))
        except SnnError as cause:
            refused.append(_without(path, cause))
            continue
        best = best or found
        if found["active"]:
            best = found
            break
    if not best:
        return {**said, "outcome": "refused", "why": refused[0]}
    more: dict[str, Any] = {}
    old = file.version < RESETS_TO_VALUE and file.metadata is None
    if old and set(said["nodes"]) & set(NEURONS) == {"CubaLIF"} and importlib.util.find_spec("norse"):
        more = {
            f"differing_in_norse, {reset or 'as the file says'}": _differing_in_norse(path, best["step_s"], reset)
            for reset in (None, "zero")
        }
    if old and best["input"] == [2, 34, 34] and best["classes"] == [10]:
        more["nmnist"] = _right_of_nmnist(path, best["step_s"])
    return {**said, "outcome": "read", **best, **more}


def _spikes(network: Network) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(STEPS, SAMPLES, *network.input_shape, generator=generator) < FRACTION).float()


def _compared(path: Path, step: float, network: Network) -> dict[str, Any]:
    x = _spikes(network)
    with torch.no_grad():
        out, wanted = network(x), replay_nir(path, x, step_s=step)
    last = network.layers[-1]
    spikes = has_state(last) and is_spiking(neuron_of(last))
    near = 0.0 if spikes else NEAR * float(wanted.abs().max())
    return {
        "step_s": step,
        "input": list(network.input_shape),
        "classes": list(network.output_shape),
        "weights": sum(each.numel() for each in network.parameters()),
        "output": "spikes" if spikes else "numbers",
        "outputs": out.numel(),
        "active": int((wanted != 0).sum()),
        "differing": int(((out - wanted).abs() > near).sum()),
    }


@torch.no_grad()
def _right_of_nmnist(path: Path, step: float) -> dict[str, int]:
    """Test recordings of N-MNIST in bins of 1 ms, of which the output that spikes most is right."""
    dataset = load(Data("nmnist", step_ms=1), quiet=True)
    pieces = dataset.ids["test"].reshape(-1, 20)
    right = {"recordings": pieces.size}
    for reset in (None, "zero"):
        network = read_nir(path, step_s=step, reset=reset)
        answers = (
            (network(x.float()).sum(0).argmax(1), targets) for x, targets in map(partial(dataset.batch, "test"), pieces)
        )
        right[reset or "as the file says"] = sum(int((answer == targets).sum()) for answer, targets in answers)
    return right


@torch.no_grad()
def _differing_in_norse(path: Path, step: float, reset: AsZero) -> int:
    import norse.torch as norse  # pyright: ignore[reportMissingImports]
    from norse.torch.functional.reset import reset_subtract, reset_value  # pyright: ignore[reportMissingImports]

    network, graph, differing = read_nir(path, step_s=step, reset=reset), nir.read(path), 0
    for back, behind in [edge for edge in graph.edges if edge[::-1] in graph.edges]:
        loop: Any = graph.nodes[back]
        if isinstance(loop, nir.Affine):
            front: Any = next(graph.nodes[start] for start, end in graph.edges if end == behind and start != back)
            front.bias = front.bias + loop.bias
            graph.nodes[back] = nir.Linear(loop.weight)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nir.write(Path(folder) / "net.nir", graph)
        for sample, wanted in zip(_spikes(network).unbind(1), network(_spikes(network)).unbind(1), strict=True):
            method = reset_subtract if reset is None else reset_value
            module = norse.from_nir(nir.read(Path(folder) / "net.nir"), dt=step, reset_method=method)
            state = None
            for x, spikes in zip(sample, wanted, strict=True):
                out, state = module(x, state)
                differing += int((out != spikes).sum())
    return differing


def _without(path: Path, cause: SnnError) -> str:
    return str(cause).removeprefix(f"{path}: ")


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*.nir")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest not in rows:
            rows[digest] = {"file": str(path.relative_to(folder)), "sha256": digest, **looked_at(path)}
            print(
                *(rows[digest].get(name, "") for name in ("file", "outcome", "step_s", "differing", "why")), flush=True
            )
    made = [row for row in rows.values() if row["file"].startswith("made/")]
    shipped = [row for row in rows.values() if row not in made]
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "shipped": summary(shipped),
        "made by tests": summary(made),
        "table": [*shipped, *made],
    }
    write_json(Path(__file__).parents[1] / "results" / "nir_public.json", result)
    print(result["shipped"], result["made by tests"])


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many were read and differ, and why others were refused, names and numbers aside."""
    read = [row for row in rows if row["outcome"] == "read"]
    whys = [row["why"].partition("): ")[2] or row["why"] for row in rows if row["outcome"] == "refused"]
    return {
        "files": len(rows),
        "read": len(read),
        "outputs": sum(row["outputs"] for row in read),
        "differing": sum(row["differing"] for row in read),
        "refused": dict(Counter(re.sub(r"'[^']*'|\[[^]]*\]|-?\d[\d.]*", "...", why) for why in whys).most_common()),
    }


if __name__ == "__main__":
    main()
