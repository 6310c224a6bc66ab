"""The testbench of a circuit, and recordings as its vectors with what the integers answer to them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from snn_bp.chip.graph import Graph
from snn_bp.chip.replay import Replay, simulate
from snn_bp.chip.verilog.circuit import Section, port_bits, sections_of
from snn_bp.chip.verilog.layout import address_bits
from snn_bp.chip.verilog.memories import in_hex, put

TEMPLATE = Path(__file__).with_name("modules") / "testbench.v"
STREAMS = (
    "clk", "rst", "in_valid", "in_ready", "in_kind", "in_address", "out_valid", "out_ready", "out_kind", "out_address",
)  # fmt: skip
STEP, RECORDING = 1, 2  # kinds of a token beside 0, a spike


def testbench(graph: Graph, sections: list[Section]) -> str:
    """The text of the testbench, which reads `vectors/`."""
    last = sections[-1]
    readout = last.population.readout
    value = last.potential if readout else 1
    ports = [*STREAMS, "out_value"] if readout else STREAMS
    lines = [f"  net dut ({', '.join(f'.{port}({port})' for port in ports)});"]
    if not readout:
        lines.append("  assign out_value = 1'b0;")
    for section in sections:
        lines.append(_compared(section))
    longest = sum(section.longest for section in sections)
    text = TEMPLATE.read_text(encoding="utf-8")
    for mark, content in {
        "@INPUT@": str(port_bits(graph)),
        "@OUTPUT@": str(last.out_address),
        "@VALUE@": str(value),
        "@QUIET@": str(20 * longest + 1000),
        "@CIRCUIT@": "\n".join(lines),
        "@FINISH@": "\n".join(
            f"      layer_{section.index}.finish;\n      if (layer_{section.index}.different != 0) failed = 1;"
            for section in sections
        ),
    }.items():
        text = text.replace(mark, content)
    return text


def _compared(section: Section) -> str:
    n, layout = section.index, section.layout
    columns = section.population.shape[2] if section.is_image else 1
    inside = f"dut.neurons_{n}"
    return (
        f"  snn_compare #(\n"
        f"      .LAYER({n}), .LANES({section.lanes}), .WORDS({section.words}), .STATE({section.potential}),"
        f" .CHANNEL_WORDS({layout.channel_words}),\n"
        f'      .COLUMNS({columns}), .IMAGE({section.is_image:d}), .FILE("vectors/layer_{n}.hex")\n'
        f"  ) layer_{n} (\n"
        f"      .clk(clk), .write({inside}.write), .present({inside}.present), .spikes({inside}.spikes),\n"
        f"      .potentials({inside}.new_potentials), .add({inside}.add),\n"
        f"      .step_sent({inside}.out_valid && {inside}.out_ready && {inside}.out_kind == 1),\n"
        f"      .recording_sent({inside}.out_valid && {inside}.out_ready && {inside}.out_kind == 2)\n"
        f"  );"
    )


def expected(graph: Graph, x: Tensor | np.ndarray) -> Replay:
    """What the circuit has to answer to recordings `x` `[time, recordings, ...]`: spikes and potentials of every step.

    Each recording begins from rest, and a spike reaches the next population in the step in which it is sent.
    """
    at_once = replace(graph, arithmetic=replace(graph.arithmetic, synapse_steps=0), cleared=False, pause=0)
    return simulate(at_once, x, record=True)


def write_vectors(graph: Graph, folder: str | Path, x: Tensor | np.ndarray, *, parallel: int = 8) -> None:
    """Put recordings `x` `[time, recordings, *input_shape]` of integers into `vectors/` of a circuit's folder.

    `input.hex` holds the tokens that go in, `output.hex` those that have to come out, `layer_N.hex` the spikes and
    potentials of population N, a line for each word of neurons in each step. `parallel` is that of the circuit.
    """
    sections, replay = sections_of(graph, parallel), expected(graph, x)
    tokens = _input_tokens(graph, np.asarray(x).astype(np.int64))
    files: dict[str, str | bytes] = {"input.hex": in_hex((tokens[:, None], port_bits(graph) + 2))}
    for section, spikes, potentials in zip(sections, replay.spikes, replay.potentials, strict=True):
        low, high = section.ranges.potential
        assert low <= potentials.min(initial=0) and potentials.max(initial=0) <= high, section.title()
        fields = (_in_words(section, potentials), section.potential), (_in_words(section, spikes), 1)
        files[f"layer_{section.index}.hex"] = in_hex(*fields)
    files["output.hex"] = _output(sections[-1], replay)
    put(Path(folder) / "vectors", files)


def _in_words(section: Section, values: np.ndarray) -> np.ndarray:
    """`[time, recordings, *shape]` as `[words, lanes]`: recording by recording, step by step."""
    values = _in_order(section, values)
    padded = np.pad(values, ((0, 0),) * 3 + ((0, -values.shape[-1] % section.lanes),))
    return padded.reshape(-1, section.lanes)


def _in_order(section: Section, values: np.ndarray) -> np.ndarray:
    """`[time, recordings, *shape]` as `[recordings, time, positions, channels]`."""
    steps, recordings = values.shape[:2]
    if section.is_image:
        values = np.moveaxis(values, 2, -1)
    return values.swapaxes(0, 1).reshape(recordings, steps, -1, section.layout.channels)


def _input_tokens(graph: Graph, x: np.ndarray) -> np.ndarray:
    """Kind and address of what goes in, one number each: spikes of a step in order, a count as so many."""
    bits, (steps, recordings) = port_bits(graph), x.shape[:2]
    addresses = np.arange(int(np.prod(graph.input_shape)))
    if graph.populations[0].kind == "conv":
        addresses = packed(np.unravel_index(addresses, graph.input_shape), graph.input_shape)
    tokens = []
    for recording in range(recordings):
        for step in range(steps):
            tokens += [np.repeat(addresses, x[step, recording].ravel()), [STEP << bits]]
        tokens.append([RECORDING << bits])
    return np.concatenate(tokens).astype(np.int64)


def packed(fields: tuple[np.ndarray, ...], shape: tuple[int, ...]) -> np.ndarray:
    """{channel, row, column} as one number."""
    bits = list(map(address_bits, shape))
    return (fields[0] << bits[1] + bits[2]) | (fields[1] << bits[2]) | fields[2]


def _output(last: Section, replay: Replay) -> bytes:
    """What comes out: {value, kind, address} in a line, the value that of a readout."""
    recordings, steps = replay.out.shape[1], replay.out.shape[0]
    sent = _in_order(last, replay.out).reshape(recordings, steps, -1)
    addresses = np.arange(last.population.size)
    if last.sends_image:
        channels, *positions = last.population.shape
        row, column, channel = np.unravel_index(addresses, (*positions, channels))
        addresses = packed((channel, row, column), last.population.shape)
    tokens: list[tuple[int, int, int]] = []
    for recording in sent:
        for step in recording:
            chosen = range(step.size) if last.population.readout else np.flatnonzero(step)
            tokens += [(int(addresses[n]), 0, int(step[n])) for n in chosen]
            tokens.append((0, STEP, 0))
        tokens.append((0, RECORDING, 0))
    columns = np.array(tokens, np.int64).T[..., None]
    value = last.potential if last.population.readout else 1
    if not last.population.readout:
        columns[2] = 0
    return in_hex((columns[0], last.out_address), (columns[1], 2), (columns[2], value))
