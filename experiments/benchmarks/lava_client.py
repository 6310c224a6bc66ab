"""Our integer replay of a netx file against lava's own client on random networks: every spike, current and potential.

    SNN_BP_LAVA_PYTHON=... python experiments/benchmarks/lava_client.py [--nets 50] [--steps 200]

Each network is written, read back, and replayed by `simulate`; the client runs the same file (`chip/lava_client.py`
says how to install it). The client's potentials are those after reset. Writes experiments/results/lava_client.json.
"""

import argparse
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np

from snn_bp.chip.graph import Graph, Population, same
from snn_bp.chip.lava_client import client_missing, client_versions, run_client
from snn_bp.chip.netx_read import read_netx
from snn_bp.chip.netx_write import write_netx
from snn_bp.chip.replay import largest_input, simulate
from snn_bp.errors import SnnError
from snn_bp.files import write_json
from snn_bp.runs.provenance import machine, version

KINDS = (
    "odd weights", "even weights", "no negative weight", "no positive weight", "bias", "bias, cleared",
    "recurrent, bias, cleared", "convolution, groups, cleared", "neurons' delays", "inputs' delays", "synapses' delays",
    "recurrent", "recurrent, bias, one by one", "wrap and saturation", "readout", "graded input",
    "graded input, delays", "graded input, recurrent", "convolution", "convolution, groups", "convolution, dilation",
    "convolution, sum pooling", "convolution, graded input, wrap",
)  # fmt: skip


def random_graph(kind: str, seed: int) -> Graph:
    """A network of a kind; the same for the same seed."""
    rng = np.random.default_rng([KINDS.index(kind), seed])
    names = {"input_bits": 8 if "graded" in kind else 0, "cleared": "cleared" in kind}
    if "convolution" in kind:
        return Graph(input_shape=(4, 9, 8), populations=_image_populations(kind, rng), **names)
    sizes = [int(size) for size in rng.integers(5, 30, int(rng.integers(3, 5)))]
    if "inputs' delays" in kind:
        sizes[1] = sizes[0]  # square weights: the file then has to say which delays they are
    pairs = pairwise(sizes)
    populations = [_dense(kind, rng, inputs, size, last=n == len(sizes) - 2) for n, (inputs, size) in enumerate(pairs)]
    return Graph(input_shape=(sizes[0],), populations=tuple(populations), **names)


def random_input(graph: Graph, rng: np.random.Generator, steps: int) -> np.ndarray:
    """Spikes or counts `[steps, 1, *input_shape]`, more in some steps than in others."""
    shape = (steps, 1, *graph.input_shape)
    rate = rng.random((steps,) + (1,) * (len(shape) - 1)) * 0.4
    return (rng.random(shape) < rate) * rng.integers(1, largest_input(graph) + 1, shape)


def _dense(kind: str, rng: np.random.Generator, inputs: int, size: int, *, last: bool) -> Population:
    delays = {"neurons'": (size, 1), "inputs'": (1, inputs), "synapses'": (size, inputs), "graded": (size, 1)}
    shape = next((shape for word, shape in delays.items() if word in kind and "delays" in kind), None)
    extreme = "wrap" in kind
    bias_high = 4096 if extreme or "cleared" in kind else 90  # cleared: it should fire before the input arrives
    each = "one by one" in kind
    low, high = (0, 1) if extreme else (40, 4097)
    return Population(
        shape=(size,),
        weight=_weights(kind, rng, (size, inputs)),
        recurrent=_weights(kind, rng, (size, size)) if "recurrent" in kind else None,
        bias=rng.integers(-4096 if extreme else -40, bias_high, size)
        if "bias" in kind or extreme or "positive" in kind
        else None,
        delay=rng.integers(0, 63, shape) if shape else None,
        current_decay=rng.integers(low, high, size) if each else int(rng.integers(low, high)),
        voltage_decay=rng.integers(low, high, size) if each else int(rng.integers(low, high)),
        threshold=rng.integers(300, 3000, size) if each else 131071 if extreme else int(rng.integers(300, 3000)),
        readout=last and "readout" in kind,
    )


def _weights(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if "even" in kind:
        return 2 * rng.integers(-128, 128, shape)
    if "no negative" in kind:
        return rng.integers(0, 256, shape)
    if "no positive" in kind:
        return rng.integers(-101, 0, shape)
    if "wrap" in kind:
        return rng.integers(100, 128, shape) * rng.choice([1, 1, -1], (shape[0],) + (1,) * (len(shape) - 1))
    return rng.integers(-100, 128, shape)


def _image_populations(kind: str, rng: np.random.Generator) -> tuple[Population, ...]:
    """On an input (4, 9, 8)."""
    current_decay, voltage_decay = (0, 0) if "wrap" in kind else rng.integers(40, 4097, 2).tolist()
    groups = 2 if "groups" in kind else 1
    dilation = (2, 1) if "dilation" in kind else (1, 1)
    first = Population(
        shape=(6, 5, 5) if dilation == (1, 1) else (6, 4, 5),
        weight=_weights(kind, rng, (6, 4 // groups, 3, 2)),
        bias=rng.integers(-20, 90, 6) if groups == 2 or "wrap" in kind else None,
        stride=(2, 2),
        padding=(1, 1),
        dilation=dilation,
        groups=groups,
        threshold=rng.integers(100, 900, 6) if groups == 2 else int(rng.integers(100, 900)),
        current_decay=current_decay,
        voltage_decay=voltage_decay,
    )
    if "pooling" in kind:
        pool = Population(shape=(6, 2, 2), weight=np.full((6, 1, 2, 2), 64), stride=(2, 2), groups=6, threshold=63)
        return first, pool, _dense(kind, rng, 24, 11, last=True)
    return first, _dense(kind.replace("wrap", ""), rng, first.size, 11, last=True)


def compare(kind: str, seed: int, steps: int) -> Counter:
    """How many numbers of one network were compared, and how many of them differ."""
    graph = random_graph(kind, seed)
    x = random_input(graph, np.random.default_rng([1, seed]), steps)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.net"
        write_netx(graph, path)
        read = read_netx(path)
        assert same(graph, read) is None, same(graph, read)
        client = run_client(path, x)
    ours = simulate(read, x, record=True, every=steps + graph.pause)
    counts = Counter(nets=1)
    for place in range(len(read.populations)):
        spikes = ours.spikes[place]
        pairs = {
            "spikes": (spikes, client.spikes[place]),
            "u": (ours.currents[place], client.currents[place]),
            "v": (np.where(spikes, 0, ours.potentials[place]), client.potentials[place]),
        }
        for name, (mine, theirs) in pairs.items():
            assert mine[:, 0].shape == theirs.shape
            counts[f"{name}_compared"] += theirs.size
            counts[f"{name}_different"] += int((mine[:, 0] != theirs).sum())
        counts["spikes_fired"] += int(spikes.sum())
        counts["u_wrapped"] += int((np.abs(np.diff(client.currents[place], axis=0)) > 1 << 23).sum())
        counts["v_saturated"] += int((np.abs(ours.potentials[place]) == (1 << 23) - 1).sum())
    wanted = (np.where(spikes, 0, ours.potentials[-1]) if read.populations[-1].readout else spikes)[read.latency :]
    counts["outputs_different"] += int((wanted != client.out).sum())
    counts["nets_different"] += any(counts[name] for name in counts if name.endswith("different"))
    return counts


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=int, default=50)
    parser.add_argument("--steps", type=int, default=200)
    asked = parser.parse_args()
    missing = client_missing()
    if missing:
        raise SnnError(missing)
    total, kinds = Counter(), {kind: Counter() for kind in KINDS[: asked.nets]}
    for number in range(asked.nets):
        kind = KINDS[number % len(KINDS)]
        counts = compare(kind, number // len(KINDS), asked.steps)
        kinds[kind].update(counts)
        total.update(counts)
        print(f"{number + 1} {kind}: {dict(counts)}", flush=True)
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in ("snn_bp", "numpy", "numba", "h5py")} | client_versions(),
        "steps": asked.steps,
        **total,
        "kinds": {kind: dict(counts) for kind, counts in kinds.items()},
    }
    write_json(Path(__file__).parents[1] / "results" / "lava_client.json", result)
    print(dict(total))


if __name__ == "__main__":
    main()
