"""A graph as a circuit: what its folder holds, what is refused, and that simulators do what the integers do."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export import KINDS, random_graph, random_input
from snn_bp import SnnError
from snn_bp.chip.graph import DECAY_ONE, Graph, Population
from snn_bp.chip.verilog.memories import from_hex, in_hex
from snn_bp.chip.verilog.testbench import write_vectors
from snn_bp.chip.verilog.write import write_verilog
from snn_bp.kernels.fixed import LOIHI, Arithmetic
from snn_bp.neurons.leaky import RESETS

needs_iverilog = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="needs iverilog, the Debian package of that name"
)
needs_verilator = pytest.mark.skipif(
    shutil.which("verilator") is None, reason="needs verilator, the Debian package of that name"
)
NO_CIRCUIT = ("neurons' delays", "synapses' delays", "graded input, delays", "convolution, graded input, wrap")
SHIFTS = Arithmetic(16, 6, "shift", "saturate")
PRODUCTS = Arithmetic(14, 4, "multiply", "saturate")


def recordings(graph: Graph, *, steps: int = 12, count: int = 3) -> np.ndarray:
    """Some `[steps, count, *input_shape]`, counts of a few where the graph takes counts."""
    rng = np.random.default_rng(5)
    return np.concatenate([random_input(graph, rng, steps) for _ in range(count)], axis=1) % 6


def in_arithmetic(graph: Graph, arithmetic: Arithmetic, reset: str) -> Graph:
    """The graph with decays and thresholds of another arithmetic, its states near the ends of their registers."""
    rng = np.random.default_rng(3)

    def decay(population: Population) -> np.ndarray:
        size = population.shape[0]
        if arithmetic.decay == "shift":
            return rng.choice([0, *(DECAY_ONE >> k for k in range(13))], size)
        return rng.integers(0, DECAY_ONE + 1, size)

    populations = [
        replace(
            each, current_decay=decay(each), voltage_decay=decay(each), reset=reset,
            threshold=rng.integers(1, 2000 if arithmetic.in_weights else arithmetic.highest // 2, each.shape[0]),
            bias=rng.integers(-50, 200, each.shape[0]),
        )
        for each in graph.populations
    ]  # fmt: skip
    return replace(graph, populations=tuple(populations), arithmetic=arithmetic, cleared=True)


def simulated(folder: Path, *plus: str) -> list[str]:
    """The lines of the testbench in iverilog."""
    command = ["iverilog", "-g2005", "-Wall", "-s", "testbench", "-o", "simulation.vvp"]
    sources = sorted(path.name for path in folder.glob("*.v"))
    compiled = subprocess.run([*command, *sources], cwd=folder, capture_output=True, text=True)
    assert compiled.returncode == 0 and not compiled.stderr, compiled.stderr
    ran = subprocess.run(["vvp", "-N", "simulation.vvp", *plus], cwd=folder, capture_output=True, text=True)
    assert (ran.returncode == 0) == ("PASS" in ran.stdout.split("\n")), ran.stdout
    return ran.stdout.splitlines()


def check_simulated(graph: Graph, folder: Path, *plus: str, parallel: int = 3, **names: int) -> None:
    x = recordings(graph, **names)
    write_verilog(graph, folder, parallel=parallel)
    write_vectors(graph, folder, x, parallel=parallel)

    lines = simulated(folder, *plus)

    assert lines[-1] == "PASS", lines
    for line, population in zip(lines, graph.populations, strict=False):
        assert f"{x.shape[0] * x.shape[1] * population.size} compared, 0 different" in line


@needs_iverilog
@pytest.mark.parametrize(
    "kind", ("recurrent, bias, one by one", "inputs' delays", "readout", "convolution, groups", "graded input"), ids=str
)
def test_the_circuit_does_what_the_integers_do(kind, tmp_path):
    check_simulated(random_graph(kind, 0), tmp_path, steps=8, count=2)


@needs_iverilog
def test_nothing_is_lost_where_input_and_output_wait(tmp_path):
    check_simulated(random_graph("recurrent", 1), tmp_path, "+stall", steps=8, count=2)


@needs_iverilog
@pytest.mark.slow
@pytest.mark.parametrize("parallel", (1, 5, 64))
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NO_CIRCUIT], ids=str)
def test_every_kind_of_graph_is_the_integers_in_a_simulator(kind, parallel, tmp_path):
    for seed in range(2):
        check_simulated(random_graph(kind, seed), tmp_path / str(seed), "+stall", parallel=parallel)


@needs_iverilog
@pytest.mark.slow
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("arithmetic", (SHIFTS, PRODUCTS, LOIHI), ids=("shifts", "products", "loihi"))
@pytest.mark.parametrize("kind", ("recurrent", "inputs' delays", "convolution", "wrap and saturation", "readout"))
def test_every_arithmetic_and_reset_is_the_integers_in_a_simulator(kind, arithmetic, reset, tmp_path):
    check_simulated(in_arithmetic(random_graph(kind, 0), arithmetic, reset), tmp_path, parallel=4)


@needs_iverilog
def test_a_wrong_weight_is_found_and_named(tmp_path):
    graph = random_graph("odd weights", 0)
    write_verilog(graph, tmp_path)
    write_vectors(graph, tmp_path, recordings(graph))
    weights = from_hex((tmp_path / "weights_0.hex").read_bytes(), values=8, bits=8)
    weights[:: len(weights) // graph.input_shape[0], 2] ^= 1  # in the first word of each row
    (tmp_path / "weights_0.hex").write_bytes(in_hex((weights, 8)))

    lines = simulated(tmp_path)

    assert lines[-1] == "FAIL"
    assert any(line.startswith("layer 0: first difference: recording 0, step ") for line in lines)
    assert any("neuron 2: potential" in line for line in lines)


@needs_verilator
@pytest.mark.slow
@pytest.mark.parametrize("parallel", (1, 3, 8))
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NO_CIRCUIT], ids=str)
def test_verilator_has_no_warning(kind, parallel, tmp_path):
    write_verilog(random_graph(kind, 0), tmp_path, parallel=parallel)

    ran = subprocess.run(["make", "lint"], cwd=tmp_path, capture_output=True, text=True)

    assert ran.returncode == 0 and "%" not in ran.stderr, ran.stderr


@needs_verilator
@pytest.mark.slow
def test_verilator_simulates_what_iverilog_does(tmp_path):
    graph = random_graph("recurrent, bias, one by one", 0)
    write_verilog(graph, tmp_path)
    write_vectors(graph, tmp_path, recordings(graph))

    ran = subprocess.run(["make", "verilator", "PLUS=+stall"], cwd=tmp_path, capture_output=True, text=True)

    assert "PASS" in ran.stdout.split("\n"), ran.stdout + ran.stderr


def test_memories_hold_the_weights_in_the_order_of_the_words(tmp_path):
    graph = random_graph("odd weights", 0)
    write_verilog(graph, tmp_path, parallel=4)

    for index, population in enumerate(graph.populations):
        said = json.loads((tmp_path / "network.json").read_text())["populations"][index]
        content = (tmp_path / f"weights_{index}.hex").read_bytes()
        rows = from_hex(content, values=4, bits=said["bits"]["weight"])
        rows = rows.reshape(population.weight.shape[1], -1)[:, : population.size]

        np.testing.assert_array_equal(rows, population.weight.T)


def test_what_is_written_in_hexadecimal_is_read_back():
    words = np.random.default_rng(0).integers(-16, 16, (9, 7))

    content = in_hex((words, 5))

    assert {len(line) for line in content.decode().split()} == {9}
    np.testing.assert_array_equal(from_hex(content, values=7, bits=5), words)


def test_the_same_graph_gives_the_same_files(tmp_path):
    for folder in ("one", "two"):
        write_verilog(random_graph("convolution", 0), tmp_path / folder)

    one, two = ({path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in ("one", "two"))
    assert one == two
    assert {"net.v", "testbench.v", "Makefile", "README.md", "network.json", "weights_0.hex", "rows_0.hex"} <= set(one)
    assert not [name for name, content in one.items() if b"@" in content and not name.endswith(".v") and name[0] != "M"]


@pytest.mark.parametrize("kind", NO_CIRCUIT)
def test_what_has_no_circuit_is_refused_and_nothing_is_written(kind, tmp_path):
    with pytest.raises(SnnError, match="Use "):
        write_verilog(random_graph(kind, 0), tmp_path / "net.v")

    assert not (tmp_path / "net.v").exists()


@pytest.mark.parametrize("parallel", (0, 65, 1.5, True, "8"))
def test_another_parallelism_is_refused(parallel, tmp_path):
    with pytest.raises(SnnError, match="parallel="):
        write_verilog(random_graph("odd weights", 0), tmp_path, parallel=parallel)


def test_a_shift_that_is_none_is_refused(tmp_path):
    graph = random_graph("odd weights", 0)
    odd = replace(graph.populations[1], voltage_decay=3000)

    with pytest.raises(SnnError, match="population 0: a decay is no shift"):
        write_verilog(
            replace(graph, populations=(odd,), input_shape=(odd.weight.shape[1],), arithmetic=SHIFTS), tmp_path
        )
