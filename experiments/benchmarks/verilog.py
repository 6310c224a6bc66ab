"""Circuits in simulators and synthesis: random networks and trained ones, every spike and potential of every layer.

    python experiments/benchmarks/verilog.py [--random 40] [--trained NAME ...] [--epochs 6]

Needs iverilog, verilator and yosys (apt-get install iverilog verilator yosys), and for N-MNIST and FSDD the environment
variable SNN_BP_DATA. A random network is one of all kinds (dense, recurrent, with delays, convolutions with sum pools,
graded inputs, readouts), in Loihi's arithmetic or in one with random widths, decays and resets; four recordings in a
row go through both simulators, in every second network with gaps at its input and output. A trained one is exported and
verified by both on recordings of the test split, linted and synthesised for three families. Writes
experiments/results/verilog.json.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from lava_client import KINDS, random_graph, random_input

from snn_bp import (
    LI,
    LIF,
    BatchNorm,
    Conv,
    CubaLIF,
    Data,
    Delay,
    Dense,
    Experiment,
    Fixed,
    Flatten,
    Pool,
    Recurrent,
    Train,
    train,
)
from snn_bp.chip.graph import DECAY_ONE, Graph, Population
from snn_bp.chip.verilog.write import write_verilog
from snn_bp.files import write_json
from snn_bp.kernels.fixed import Arithmetic
from snn_bp.neurons.leaky import RESETS
from snn_bp.runs.experiment_file import read_file
from snn_bp.runs.provenance import machine, version
from snn_bp.runtime.process import run_program
from snn_bp.verification.replayed import export, verify
from snn_bp.verification.simulators import Simulator, compile_testbench, find_simulators, version_of
from snn_bp.verification.synthesis import DEVICES, synthesize
from snn_bp.verification.verilog import simulate_vectors

HERE = Path(__file__).parent
TARGET = HERE.parent / "results" / "verilog.json"
CIRCUITS = [kind for kind in KINDS if "neurons' delays" not in kind and "synapses' delays" not in kind
         and kind not in ("graded input, delays", "convolution, graded input, wrap")]  # fmt: skip
STEPS, RECORDINGS = 20, 4
ZERO = LIF(beta=0.5, reset="zero")
DIGITS = Data("digits", step_ms=52, steps=6, batch=64, translate_px=2, downsample=2)
NMNIST = Data("nmnist", step_ms=52, steps=6, batch=32, translate_px=3)
LAST = (Dense(10), BatchNorm(), LIF(beta=0.75, reset="zero"))
SHORT = Fixed(weight_bits=6)
TRAINED: dict[str, tuple[Data | None, tuple, Any]] = {
    "digits, dense": (DIGITS, (Flatten(), Dense(64), BatchNorm(), ZERO, *LAST), "loihi"),
    "digits, recurrent, current-based": (
        DIGITS,
        (
            *(Flatten(), Dense(48, bias=False), Recurrent(CubaLIF(alpha=0.5, beta=0.75, reset="subtract"))),
            *(Dense(10, bias=False), LI(beta=0.875)),
        ),
        "fpga",
    ),
    "digits, with delays": (
        DIGITS,
        (Flatten(), Dense(48), BatchNorm(), ZERO, Delay(tuple(n % 3 for n in range(48))), *LAST),
        SHORT,
    ),
    "N-MNIST, convolutions and pools": (
        NMNIST,
        (
            *(Conv(8, 5, stride=2, padding=2), BatchNorm(), ZERO, Pool(2, kind="sum")),
            *(Conv(16, 3), BatchNorm(), ZERO, Flatten(), *LAST),
        ),
        Fixed(decay="multiply"),
    ),
    "N-MNIST, dense": (
        replace(NMNIST, downsample=2),
        (Flatten(), Dense(128), BatchNorm(), ZERO, *LAST),
        "float",
    ),
    "FSDD, dense": (
        None,
        (
            *(Dense(64), BatchNorm(), CubaLIF(alpha=0.75, beta=0.9375, reset="subtract_before_leak")),
            *(Dense(10, bias=False), LI(beta=0.96875)),
        ),
        Fixed(weight_bits=8, state_bits=20),
    ),
}


def main() -> None:
    """Run what is asked for; write after each network, so that nothing is lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=40)
    parser.add_argument("--trained", nargs="*", default=list(TRAINED), choices=list(TRAINED))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--samples", type=int, default=64)
    asked = parser.parse_args()
    tools = find_simulators()
    old = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in ("snn_bp", "torch", "numpy")}
        | {tool.name: tool.version for tool in tools} | {"yosys": version_of("yosys")},
        "random": old.get("random", []), "trained": old.get("trained", {}),
    }  # fmt: skip
    if asked.random:
        result["random"] = []
    for seed in range(asked.random):
        result["random"].append(random_network(seed, tools))
        print(result["random"][-1], flush=True)
        write_json(TARGET, result)
    with tempfile.TemporaryDirectory() as folder:
        circuits = {name: Path(folder) / f"{number}.v" for number, name in enumerate(asked.trained)}
        for name, circuit in circuits.items():
            result["trained"][name] = trained_network(name, circuit, tools, asked.epochs, asked.samples)
            print(name, json.dumps(result["trained"][name], indent=1), flush=True)
            write_json(TARGET, result)
        for family in sorted(DEVICES):
            for name, circuit in circuits.items():
                result["trained"][name]["synthesis"][family] = synthesize(circuit, family).record()
                print(name, result["trained"][name]["synthesis"][family]["says"], flush=True)
                write_json(TARGET, result)
    if not all(row["equal"] for row in (*result["random"], *result["trained"].values())):
        raise SystemExit("not all spikes and potentials are equal")


def random_network(seed: int, tools: list[Simulator]) -> dict[str, Any]:
    """One random network in both simulators."""
    rng = np.random.default_rng([17, seed])
    kind = CIRCUITS[seed % len(CIRCUITS)]
    graph, reset = lively(random_graph(kind, seed)), "zero"
    if seed % 2:
        reset = RESETS[seed // 2 % len(RESETS)]
        graph = in_fixed_point(graph, rng, reset)
    parallel = int(rng.choice((1, 3, 8, 16)))
    x = np.concatenate([random_input(graph, rng, STEPS) for _ in range(RECORDINGS)], axis=1) % 8
    arithmetic = graph.arithmetic
    row: dict[str, Any] = {
        "kind": kind, "reset": reset, "parallel": parallel, "state_bits": arithmetic.state_bits,
        "decay": arithmetic.decay, "neurons": [population.size for population in graph.populations],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        write_verilog(graph, folder, parallel=parallel)
        row["lint"] = lint(Path(folder))
        for tool in tools:
            compile_testbench(tool, Path(folder))
            said = simulate_vectors(graph, Path(folder), x, parallel=parallel, tool=tool, stall=seed % 4 > 1)
            row[tool.name] = {"compared": sum(said.compared), "different": sum(said.different)}
            row["fired"] = said.words[-1] > 0
            if said.difference is not None:
                row[tool.name]["difference"] = said.in_words([str(n) for n in range(9)])
    return row | {"equal": all("difference" not in row[tool.name] for tool in tools)}


def lively(graph: Graph) -> Graph:
    """The graph with thresholds that its spikes reach."""
    populations = [
        replace(each, threshold=np.maximum(1, np.asarray(each.threshold) // 8)) for each in graph.populations
    ]
    return replace(graph, populations=tuple(populations))


def in_fixed_point(graph: Graph, rng: np.random.Generator, reset: str) -> Graph:
    """The graph in an arithmetic of random widths, its states near the ends of their registers."""
    bits = int(rng.integers(12, 25))
    decay = "shift" if rng.random() < 0.5 else "multiply"
    arithmetic = Arithmetic(bits, int(rng.integers(0, bits - 8)), decay, "saturate")
    cut = 1 << int(rng.integers(0, 5))  # weights of 8 to 4 bits

    def kept(population: Population) -> np.ndarray:
        size = population.shape[0]
        if decay == "shift":
            return rng.choice([0, *(DECAY_ONE >> k for k in range(13))], size)
        return rng.integers(0, DECAY_ONE + 1, size)

    populations = [
        replace(
            each,
            weight=each.weight // cut,
            recurrent=None if each.recurrent is None else each.recurrent // cut,
            current_decay=kept(each),
            voltage_decay=kept(each),
            reset=reset,
            threshold=rng.integers(
                1, max(2, min(arithmetic.highest // 2, 300 * arithmetic.unit // cut)), each.shape[0]
            ),
            bias=rng.integers(-50, 200, each.shape[0]),
        )
        for each in graph.populations
    ]
    return replace(graph, populations=tuple(populations), arithmetic=arithmetic, cleared=True)


def trained_network(
    name: str, circuit: Path, tools: list[Simulator], epochs: int, samples: int
) -> dict[str, Any]:  # fmt: skip
    """One network trained, exported to `circuit`, verified in both simulators, and linted."""
    data, model, target = TRAINED[name]
    if data is None:
        data = read_file(HERE.parent / "fsdd.py").data
    how = Train(epochs=epochs, lr=5e-3, target=target, keep="last")
    with tempfile.TemporaryDirectory() as folder:
        run = train(Experiment(data, model, how), Path(folder) / "run", quiet=True)
        export(run, circuit, verification=False)
        row: dict[str, Any] = {"target": str(target), "equal": True, "synthesis": {}}
        for tool in tools:
            found = verify(run, circuit, samples=samples, simulator=tool.name)  # type: ignore[arg-type]
            print(found, flush=True)
            row["accuracy"], row["samples"] = found.accuracy, found.samples
            row[tool.name] = {key: value for key, value in found.circuit.items() if key != "says"}
            row[tool.name]["difference"] = found.difference
            row["equal"] &= found.holds
        row["lint"] = lint(circuit)
        described = json.loads((circuit / "network.json").read_text())
        row["memory_bits"] = described["memory_bits"]
        row["neurons"] = [each["shape"] for each in described["populations"]]
    return row


def lint(folder: Path) -> list[str]:
    """What verilator warns of in the circuit."""
    files = sorted(file.name for file in folder.glob("*.v") if file.name != "testbench.v")
    command = ["verilator", "--lint-only", "-Wall", "--top-module", "net", *files]
    done = run_program(command, timeout_s=300, folder=folder)
    assert done is not None
    return [line for line in done[1].splitlines() if line.startswith("%")]


if __name__ == "__main__":
    sys.exit(main())
