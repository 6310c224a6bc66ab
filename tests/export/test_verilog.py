"""A graph as a circuit: what its folder holds, what is refused, and that simulators do what the integers do."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import quick_first

from export import KINDS, random_graph, random_input
from snn_bp import LI, LIF, Delay, Dense, Network, OnChip, SnnError
from snn_bp.chip.arithmetic import CIRCUIT_DELAY_HIGH
from snn_bp.chip.graph import DECAY_ONE, Graph, Pair, Population, Shape
from snn_bp.chip.netx_rules import conv_shape
from snn_bp.chip.quantize import quantize
from snn_bp.chip.verilog.memories import in_hex
from snn_bp.chip.verilog.ranges import ranges
from snn_bp.chip.verilog.testbench import expected, write_vectors
from snn_bp.chip.verilog.write import write_verilog
from snn_bp.kernels.fixed import LOIHI, Arithmetic
from snn_bp.neurons.leaky import RESETS

needs_iverilog = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="needs iverilog, the Debian package of that name"
)
needs_verilator = pytest.mark.skipif(
    shutil.which("verilator") is None, reason="needs verilator, the Debian package of that name"
)
needs_yosys = pytest.mark.skipif(shutil.which("yosys") is None, reason="needs yosys, the Debian package of that name")
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


def from_hex(content: bytes, *, values: int, bits: int) -> np.ndarray:
    """The words `[words, values]` of a file in which each value has so many bits."""
    numbers = [int(line, 16) for line in content.decode("ascii").split()]
    mask, sign = (1 << bits) - 1, 1 << (bits - 1)
    words = [[((number >> index * bits & mask) ^ sign) - sign for index in range(values)] for number in numbers]
    return np.array(words, np.int64).reshape(len(numbers), values)


def awake(kind: str, seed: int) -> Graph:
    """A random graph with thresholds so low that all its populations fire."""
    graph = random_graph(kind, seed)
    lower = [replace(each, threshold=each.threshold // (1000 if "wrap" in kind else 12)) for each in graph.populations]
    return replace(graph, populations=tuple(lower))


def simulated(folder: Path, *plus: str, top: str = "testbench") -> list[str]:
    """What a testbench says in iverilog, line by line."""
    command = ["iverilog", "-g2005", "-Wall", "-s", top, "-o", "simulation.vvp"]
    sources = sorted(
        path.name for path in folder.glob("*.v") if path.name not in {"testbench.v", "twice.v"} - {f"{top}.v"}
    )
    compiled = subprocess.run([*command, *sources], cwd=folder, capture_output=True, text=True)
    assert compiled.returncode == 0 and not compiled.stderr, compiled.stderr
    ran = subprocess.run(["vvp", "-N", "simulation.vvp", *plus], cwd=folder, capture_output=True, text=True)
    assert (ran.returncode == 0) == ("FAIL" not in ran.stdout.split("\n")), ran.stdout
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
    check_simulated(awake(kind, 0), tmp_path, steps=8, count=2)


@needs_iverilog
def test_nothing_is_lost_where_input_and_output_wait(tmp_path):
    check_simulated(awake("recurrent", 1), tmp_path, "+stall", steps=8, count=2)


@needs_iverilog
@pytest.mark.slow
@pytest.mark.parametrize("parallel", (1, 5, 64))
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NO_CIRCUIT], ids=str)
def test_every_kind_of_graph_is_the_integers_in_a_simulator(kind, parallel, tmp_path):
    for seed in range(2):
        check_simulated(awake(kind, seed), tmp_path / str(seed), "+stall", parallel=parallel)


@needs_iverilog
@pytest.mark.slow
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("arithmetic", (SHIFTS, PRODUCTS, LOIHI), ids=("shifts", "products", "loihi"))
@pytest.mark.parametrize("kind", ("recurrent", "inputs' delays", "convolution", "wrap and saturation", "readout"))
def test_every_arithmetic_and_reset_is_the_integers_in_a_simulator(kind, arithmetic, reset, tmp_path):
    check_simulated(in_arithmetic(random_graph(kind, 0), arithmetic, reset), tmp_path, parallel=4)


@pytest.mark.slow
@needs_iverilog
def test_all_at_once_is_the_integers(tmp_path):
    rng = np.random.default_rng(0)
    names = {"current_decay": 256, "voltage_decay": np.array([0, 1024, 4096, 2]), "reset": "subtract_before_leak"}
    first = convolution(
        (2, 6, 5), out=4, groups=2, kernel=(3, 2), stride=(2, 1), padding=(1, 1), dilation=(1, 2), **names
    )
    second = convolution(first.shape, out=3, kernel=(2, 2), threshold=900)
    dense = Population(
        shape=(7,), weight=rng.integers(-60, 99, (7, second.size)), delay=rng.integers(0, 6, (1, second.size)),
        recurrent=rng.integers(-60, 60, (7, 7)), bias=rng.integers(-99, 99, 7), threshold=800, reset="zero_all",
        current_decay=np.arange(7) // 6 * 2048, voltage_decay=64,
    )  # fmt: skip
    last = Population(shape=(3,), weight=rng.integers(-60, 60, (3, 7)), voltage_decay=128, readout=True)
    graph = Graph(input_shape=(2, 6, 5), populations=(first, second, dense, last), arithmetic=SHIFTS)

    check_simulated(graph, tmp_path, "+stall", count=2)


@needs_iverilog
def test_the_longest_delays_that_training_takes_have_a_circuit(tmp_path):
    model = (Dense(4), LIF(beta=0.5), Delay(CIRCUIT_DELAY_HIGH, max_steps=300), Dense(3), LIF(beta=0.5))
    network = Network(model, (5,), seed=0)
    with torch.no_grad():
        for each in network.parameters():
            each.abs_()
    graph = quantize(network, target="fpga")

    check_simulated(graph, tmp_path, steps=CIRCUIT_DELAY_HIGH + 9, count=2)

    assert graph.populations[1].delay.max() == CIRCUIT_DELAY_HIGH
    assert expected(graph, recordings(graph, steps=CIRCUIT_DELAY_HIGH + 9)).out.any()


@needs_iverilog
def test_a_current_wraps_as_on_loihi(tmp_path):
    population = Population(shape=(3,), weight=np.full((3, 40), [[127], [-128], [3]]), current_decay=0)
    graph = Graph(input_shape=(40,), populations=(population,))
    x = np.ones((60, 1, 40), int)
    write_verilog(graph, tmp_path)
    write_vectors(graph, tmp_path, x)
    currents = expected(graph, x).currents[0][:, 0].T

    assert simulated(tmp_path)[-1] == "PASS"

    assert (np.diff(currents[0]) < 0).any() and (np.diff(currents[1]) > 0).any()


@needs_iverilog
@pytest.mark.slow
def test_a_sum_of_a_convolution_wraps_as_on_loihi(tmp_path):
    weight = np.stack([np.full((12, 5, 5), 120), np.full((12, 5, 5), -128)])
    population = Population(
        shape=(2, 1, 1), weight=weight, stride=(1, 1), current_decay=2000, voltage_decay=2000, threshold=99
    )
    graph = Graph(input_shape=(12, 5, 5), populations=(population,), input_bits=8)
    x = np.array([255, 255, 0, 3]).reshape(4, 1, 1, 1, 1) * np.ones((12, 5, 5), int)
    write_verilog(graph, tmp_path)
    write_vectors(graph, tmp_path, x)
    potentials = expected(graph, x).potentials[0][0].ravel()

    assert simulated(tmp_path)[-1] == "PASS"

    assert potentials[0] < 0 < potentials[1]  # though the sums are positive and negative


@needs_iverilog
@pytest.mark.slow
@pytest.mark.parametrize("parallel", (1, 3, 4, 8))
@pytest.mark.parametrize(
    "inputs, out, groups, stride, padding, dilation",
    (
        (4, 4, 4, (1, 1), (1, 1), (1, 1)),
        (6, 9, 3, (1, 1), (1, 1), (2, 2)),
        (4, 12, 2, (3, 2), (2, 1), (2, 3)),
        (6, 18, 3, (1, 1), (0, 1), (1, 1)),
        (5, 3, 1, (4, 3), (3, 0), (1, 1)),
    ),
)
def test_every_geometry_of_a_convolution(inputs, out, groups, stride, padding, dilation, parallel, tmp_path):
    names = {"groups": groups, "stride": stride, "padding": padding, "dilation": dilation}
    population = convolution((inputs, 7, 8), out=out, kernel=(3, 2), voltage_decay=1000, threshold=200, **names)

    check_simulated(Graph(input_shape=(inputs, 7, 8), populations=(population,)), tmp_path, parallel=parallel)


def convolution(shape: Shape, *, out: int, kernel: Pair, groups: int = 1, **names: Any) -> Population:
    """Random weights of a convolution behind an input of that shape."""
    weight = np.random.default_rng(7).integers(-60, 100, (out, shape[0] // groups, *kernel))
    names = {"weight": weight, "stride": (1, 1), "groups": groups} | names
    return Population(shape=conv_shape(Population(shape=shape, **names), shape) or shape, **names)


@needs_iverilog
@pytest.mark.parametrize("spikes", (0, 3))
def test_silence_and_spikes_cost_the_cycles_that_are_said(spikes, tmp_path):
    silent = replace(random_graph("odd weights", 0).populations[0], threshold=131071)
    graph = Graph(input_shape=silent.weight.shape[1:], populations=(silent,))
    x = np.zeros((9, 1, *graph.input_shape), int)
    x[4, 0, :spikes] = 1
    write_verilog(graph, tmp_path, parallel=4)
    write_vectors(graph, tmp_path, x, parallel=4)
    said = json.loads((tmp_path / "network.json").read_text())["populations"][0]["cycles"]

    lines = simulated(tmp_path)

    taken = 9 * said["step"] + spikes * said["spike"] + said["recording"] - 1  # to the last token, not to the next one
    assert f"cycles: 1 recordings, {taken} least, {taken} in all, {taken} most" in lines


@needs_iverilog
@pytest.mark.parametrize("target", ["loihi", "fpga"])
def test_the_folder_says_what_a_readout_sends_for_a_potential_of_one(target, tmp_path):
    network = OnChip(Network((Dense(3), LI(beta=0.75)), (4,)).eval(), target)
    x = torch.randint(0, 2, (9, 5, 4), generator=torch.Generator().manual_seed(0)).float()
    graph = quantize(network)
    write_verilog(graph, tmp_path / "net")
    unit = json.loads((tmp_path / "net/network.json").read_text())["output"]["unit"]
    assert f"{unit:.9g} for a potential of 1" in (tmp_path / "net/README.md").read_text()
    torch.testing.assert_close(torch.tensor(expected(graph, x).out / unit, dtype=torch.float32), network(x).detach())


def test_a_dense_population_takes_an_image_in_the_order_of_its_input(tmp_path):
    population = Population(shape=(5,), weight=np.random.default_rng(0).integers(-60, 99, (5, 24)), threshold=90)

    check_simulated(Graph(input_shape=(2, 3, 4), populations=(population,)), tmp_path)


RESET_IN_THE_MIDDLE = """
module twice;
  reg clk = 0, rst = 1, in_valid = 0;
  reg [IN+1:0] token = 0;
  wire in_ready, out_valid;
  wire [1:0] out_kind;
  wire [OUT-1:0] out_address;
  integer file, cycles = 0, taken = 0;
  net dut (.clk(clk), .rst(rst), .in_valid(in_valid), .in_ready(in_ready), .in_kind(token[IN+1:IN]),
           .in_address(token[IN-1:0]), .out_valid(out_valid), .out_ready(1'b1), .out_kind(out_kind),
           .out_address(out_address));
  initial file = $fopen("vectors/input.hex", "r");
  always #5 clk = !clk;
  always @(posedge clk) begin
    cycles = cycles + 1;
    rst <= cycles < 3 || cycles == 500;
    if (cycles == 500) begin
      taken = $rewind(file);
      in_valid <= 0;
    end else if (cycles > 3 && cycles != 501 && (!in_valid || in_ready)) begin
      in_valid <= $fscanf(file, "%h", token) == 1;
    end
    if (cycles > 501 && out_valid) $display("%h", {1'b0, out_kind, out_kind == 0 ? out_address : {OUT{1'b0}}});
    if (cycles == 20000 || (cycles > 501 && out_valid && out_kind == 2)) $finish;
  end
endmodule
"""


def reset_in_the_middle(graph: Graph, folder: Path, **names: int) -> tuple[list[str], str]:
    """The tokens that should come after a reset, in hexadecimal; and the name of the testbench that prints those."""
    write_verilog(graph, folder, parallel=3)
    write_vectors(graph, folder, recordings(graph, count=1, **names), parallel=3)
    said = json.loads((folder / "network.json").read_text())
    bits = f"IN = {said['input']['address_bits']}, OUT = {said['output']['address_bits']}"
    (folder / "twice.v").write_text(RESET_IN_THE_MIDDLE.replace("twice;", f"twice;\n  localparam {bits};"))
    return (folder / "vectors" / "output.hex").read_text().split(), "twice"


def in_numbers(lines: list[str]) -> list[int]:
    return [int(line, 16) for line in lines if line.strip()]


@needs_iverilog
@pytest.mark.parametrize(
    "kind", ("recurrent", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("inputs' delays", "convolution")))
)
def test_a_reset_leaves_nothing_of_what_was(kind, tmp_path):
    wanted, top = reset_in_the_middle(awake(kind, 0), tmp_path, steps=25)

    found = simulated(tmp_path, top=top)

    assert in_numbers(found) == in_numbers(wanted) and len(wanted) > 25


@needs_iverilog
@needs_yosys
@pytest.mark.slow
@pytest.mark.parametrize("kind", ("recurrent", "convolution"))
def test_the_gates_that_yosys_makes_do_the_same(kind, tmp_path):
    wanted, top = reset_in_the_middle(awake(kind, 0), tmp_path, steps=8)
    cells = Path(shutil.which("yosys") or "").parents[1] / "share" / "yosys" / "ice40" / "cells_sim.v"
    sources = " ".join(
        sorted(path.name for path in tmp_path.glob("*.v") if path.name not in ("testbench.v", f"{top}.v"))
    )
    script = f"read_verilog -defer {sources}; synth_ice40 -device u -dsp -top net; write_verilog -noattr gates.net"
    subprocess.run(["yosys", "-q", "-p", script], cwd=tmp_path, check=True)
    command = ["iverilog", "-g2012", "-DNO_ICE40_DEFAULT_ASSIGNMENTS", "-DICE40_U", "-s", top, "-o", "simulation.vvp"]
    subprocess.run([*command, f"{top}.v", "gates.net", str(cells)], cwd=tmp_path, check=True)

    ran = subprocess.run(["vvp", "-N", "simulation.vvp"], cwd=tmp_path, capture_output=True, text=True)

    assert in_numbers(ran.stdout.splitlines()) == in_numbers(wanted) and len(wanted) > 10


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


@needs_yosys
@pytest.mark.slow
def test_memories_become_block_rams_and_nothing_a_latch(tmp_path):
    write_verilog(random_graph("recurrent", 0), tmp_path, parallel=4)

    ran = subprocess.run(["make", "-s", "ice40"], cwd=tmp_path, capture_output=True, text=True)

    said = (tmp_path / "build" / "ice40.txt").read_text()
    assert ran.returncode == 0 and "arning" not in ran.stdout + ran.stderr
    assert "SB_RAM40_4K" in said and "LATCH" not in said


@pytest.mark.parametrize("reset", quick_first(RESETS, *RESETS[:2]))
@pytest.mark.parametrize("arithmetic", (SHIFTS, PRODUCTS, LOIHI), ids=("shifts", "products", "loihi"))
def test_no_input_leaves_the_ranges_of_the_registers(arithmetic, reset):
    """For each neuron the inputs that drive it up, or down, for 150 steps, and then each other's."""
    rng = np.random.default_rng(1)
    largest = 127 if arithmetic == LOIHI else 2
    weight, decays = rng.integers(-largest, largest + 1, (10, 12)), [1024, 4096, 2048, 4096, 1024]
    population = Population(
        shape=(10,), weight=weight, bias=rng.integers(-9, 9, 10), reset=reset, threshold=rng.integers(1, 4000, 10),
        current_decay=np.array(decays * 2), voltage_decay=np.repeat(decays, 2),
    )  # fmt: skip
    graph = Graph(input_shape=(12,), populations=(population,), arithmetic=arithmetic)
    up, down = weight > 0, weight < 0
    phases = [np.concatenate(each) for each in ((up, down), (down, up))]
    x = np.repeat(np.stack(phases), 150, axis=0).astype(int)

    replay, found = expected(graph, x), ranges(population, arithmetic, 1)

    assert found.sums == (int((weight * down).sum(1).min()), int((weight * up).sum(1).max()))
    for values, (low, high) in ((replay.currents[0], found.current), (replay.potentials[0], found.potential)):
        assert low <= values.min() and values.max() <= high
    assert not found.current_overflows and not found.potential_saturates
    assert reset != "none" or replay.potentials[0].max() > 0.95 * found.potential[1]


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


@pytest.mark.parametrize(
    "changes, said",
    (
        ({"reset": "to_rest"}, "resets by 'to_rest'"),
        ({"threshold": -3}, "threshold is -3"),
        ({"voltage_decay": 4097}, "decays lie in 0..4096"),
        ({"bias": np.arange(3)}, "bias has one number or 5"),
        ({"recurrent": np.ones((4, 4))}, r"recurrent weights are \[5, 5\]"),
        ({"recurrent": np.ones((5, 5)), "readout": True}, "a readout sends potentials"),
        ({"delay": np.arange(5)[:, None]}, r"delays are those of the inputs, \[1, 7\]"),
        ({"delay": np.full((1, 7), 256)}, "of up to 255 steps"),
        ({"weight": np.ones((5, 6))}, "7 inputs and 5 neurons"),
        ({"shape": (5, 1)}, "its shape is"),
        ({"stride": (1, 1), "weight": np.ones((5, 7, 1, 1))}, "give neurons"),
    ),
)
def test_a_population_without_a_circuit_is_refused_by_name(changes, said, tmp_path):
    names = {"shape": (5,), "weight": np.ones((5, 7))} | changes
    first = Population(shape=(7,), weight=np.eye(7))

    with pytest.raises(SnnError, match=f"for a circuit, population 1: .*{said}"):
        write_verilog(Graph(input_shape=(7,), populations=(first, Population(**names))), tmp_path / "net.v")

    assert not (tmp_path / "net.v").exists()


@pytest.mark.parametrize("unknown", (Arithmetic(16, 4, "round", "saturate"), Arithmetic(16, 4, "shift", "ignore")))
def test_an_arithmetic_without_a_circuit_is_refused_by_name(unknown, tmp_path):
    with pytest.raises(SnnError, match="has no circuit"):
        write_verilog(replace(random_graph("odd weights", 0), arithmetic=unknown), tmp_path)


def test_a_shift_that_is_none_is_refused(tmp_path):
    graph = random_graph("odd weights", 0)
    odd = replace(graph.populations[1], voltage_decay=3000)

    with pytest.raises(SnnError, match="population 0: a decay is no shift"):
        write_verilog(
            replace(graph, populations=(odd,), input_shape=(odd.weight.shape[1],), arithmetic=SHIFTS), tmp_path
        )
