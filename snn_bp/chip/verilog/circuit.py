"""The text of the circuit: the top module, in which each population is its synapses and its neurons."""

import numpy as np

from snn_bp.chip.graph import DECAY_ONE, Graph
from snn_bp.chip.verilog.layout import Layout, Memory, address_bits, group_words, layouts, signed_bits
from snn_bp.chip.verilog.ranges import threshold_of

RESETS = ("none", "zero", "zero_all", "subtract", "subtract_before_leak")  # by their number in snn_neuron.v
SHIFTS = {0: 15} | {DECAY_ONE >> shift: shift for shift in range(13)}  # by the decay
KEPT_BITS = {"multiply": 13, "shift": 4}


class Section:
    """A population of the circuit in numbers and lines; what it is sent to says how wide its addresses are."""

    def __init__(self, graph: Graph, laid_out: list[Layout], index: int) -> None:
        layout = laid_out[index]
        self.layout, self.index, self.arithmetic = layout, index, graph.arithmetic
        self.population, self.ranges = layout.population, layout.ranges
        self.lanes, self.words = layout.lanes, layout.words
        self.word = address_bits(self.words)
        self.cell = address_bits(layout.cells)
        self.shift = graph.arithmetic.decay == "shift"
        self.kept = KEPT_BITS[graph.arithmetic.decay]
        self.sum = max(signed_bits(*self.ranges.sums), layout.weights.bits + 1, 24 * self.ranges.wraps_sum)
        self.unit = graph.arithmetic.fraction_bits
        self.current, self.potential = signed_bits(*self.ranges.current), signed_bits(*self.ranges.potential)
        self.level = signed_bits(*self.ranges.level)
        self.highest = graph.arithmetic.state_bits - 1
        # three terms, of which one is a bias less a threshold, take two bits more than the longest of them
        self.wide = 2 + max(self.sum + self.unit, self.current, self.potential, self.level, self.highest + 1)
        self.held = bool((np.asarray(self.population.current_decay) != DECAY_ONE).any())
        self.fields = tuple(map(address_bits, self.population.shape))  # bits of the fields {channel, row, column}
        self.is_image = len(self.population.shape) == 3
        behind = laid_out[index + 1] if index + 1 < len(laid_out) else None
        self.sends_image = self.is_image and (behind is None or behind.rows is not None)
        self.in_address = in_address(laid_out, index)
        self.out_address = self._out_address(behind, laid_out)
        self.constants, self.memories = self._parameters()

    def _out_address(self, behind: Layout | None, laid_out: list[Layout]) -> int:
        if behind is not None:
            return in_address(laid_out, self.index + 1)
        return sum(self.fields) if self.sends_image else address_bits(self.population.size)

    def _parameters(self) -> tuple[dict[str, str], list[Memory]]:
        """What is the same for all neurons, as a constant of Verilog; and the rest in memories."""
        held = self.arithmetic.held
        values = {
            "bias": (0 if self.population.bias is None else self.population.bias * held, self.level),
            "threshold": (np.asarray(threshold_of(self.population, self.arithmetic)), self.level),
            "current_kept": (self._kept(self.population.current_decay), self.kept),
            "potential_kept": (self._kept(self.population.voltage_decay), self.kept),
        }
        constants, memories = {}, []
        for name, (each, bits) in values.items():
            each = np.asarray(each)
            if each.ndim == 0 or (each == each[0]).all():
                constants[name] = f"{{{self.lanes}{{{bits}'d{int(each.flat[0]) % (1 << bits)}}}}}"
            else:
                padded = np.pad(each, (0, -len(each) % self.lanes))
                memories.append(Memory(name=f"{name}_{self.index}", words=padded.reshape(-1, self.lanes), bits=bits))
        return constants, memories

    def _kept(self, decay: int | np.ndarray) -> np.ndarray:
        decay = np.asarray(decay)
        return np.vectorize(SHIFTS.__getitem__)(decay) if self.shift else DECAY_ONE - decay

    def text(self, incoming: str, outgoing: str) -> str:
        """The lines of the population between two streams of tokens."""
        return "\n".join([*self._synapses(incoming), *self._neurons(outgoing), ""])

    def _synapses(self, incoming: str) -> list[str]:
        n, layout, lines = self.index, self.layout, [f"  // {self.title()}"]
        wires = [
            f"  wire add_{n}, step_{n}, clear_{n}, done_{n};",
            f"  wire [{self.cell - 1}:0] add_cell_{n};",
            f"  wire [{layout.weights.width - 1}:0] add_weights_{n};",
        ]
        lines += wires
        if layout.rows is not None:
            return [*lines, *self._conv(incoming)]
        if self.population.recurrent is not None:
            inputs = int(np.prod(layout.before))
            number = address_bits(self.population.size)
            lines += [
                *_stream(f"all_{n}", self.in_address),
                f"  wire spike_{n} = out_{n}_valid && out_{n}_ready && out_{n}_kind == 0;",
                f"  wire [{self.in_address - 1}:0] spike_row_{n} = {self.in_address}'d{inputs} + "
                + _extended(f"out_{n}_address", self.out_address, number, self.in_address) + ";",
                f"  snn_recurrence #(.NUMBER({number}), .ADDRESS({self.in_address})) recurrence_{n} (",
                f"      .clk(clk), .rst(rst), .spike(spike_{n}), .spike_row(spike_row_{n}),",
                f"      {_ports('in', incoming)},",
                f"      {_ports('out', f'all_{n}')}",
                "  );",
            ]  # fmt: skip
            incoming = f"all_{n}"
        if layout.delays is not None:
            delays = layout.delays
            lines += [
                f"  wire [{self.word - 1}:0] add_word_{n};",
                f"  wire [{delays.bits - 1}:0] later_{n};",
                f"  snn_rom #(.WIDTH({delays.bits}), .DEPTH({len(delays.words)}), .ADDRESS({delays.address}),"
                f' .FILE("{delays.name}.hex")) {delays.name} (',
                f"      .clk(clk), .enable({incoming}_valid), .address({incoming}_address[{delays.address - 1}:0]),"
                f" .word(later_{n})",
                "  );",
                f"  assign add_cell_{n} = {{later_{n}, add_word_{n}}};",
            ]
        rows = len(layout.weights.words) // self.words
        word = f"add_word_{n}" if layout.delays is not None else f"add_cell_{n}"
        return [
            *lines,
            "  snn_dense #(",
            f"      .WORDS({self.words}), .LAST_WORD({self.words - 1}), .WORD({self.word}), .ROWS({rows}),",
            f'      .ADDRESS({self.in_address}), .WIDTH({layout.weights.width}), .FILE("{layout.weights.name}.hex")',
            f"  ) synapses_{n} (",
            f"      .clk(clk), .rst(rst), {_ports('in', incoming)},",
            f"      .add(add_{n}), .add_word({word}), .add_weights(add_weights_{n}),",
            f"      .step(step_{n}), .clear(clear_{n}), .done(done_{n})",
            "  );",
        ]

    def _conv(self, incoming: str) -> list[str]:
        n, layout = self.index, self.layout
        assert layout.rows is not None and layout.columns is not None
        kernel, positions = self.population.weight.shape[2:], layout.channel_words
        words = group_words(self.population, self.lanes)[1]
        bits = self.conv_address
        fields = tuple(map(address_bits, layout.before))
        row_cells, column_cells = self.population.shape[2] * positions, positions
        return [
            "  snn_conv #(",
            f"      .CHANNEL({fields[0]}), .ROW({fields[1]}), .COLUMN({fields[2]}),",
            f"      .CHANNELS({layout.before[0]}), .ROWS({layout.before[1]}), .COLUMNS({layout.before[2]}),",
            f"      .GROUPED({self.population.groups > 1:d}), .LAST_WORD({words - 1}),",
            f"      .WORD({address_bits(words)}), .REACH({self.reach}), .DEPTH({len(layout.weights.words)}),",
            f"      .ADDRESS({bits}), .CHANNEL_WEIGHTS({kernel[0] * kernel[1] * words}),",
            f"      .ROW_WEIGHTS({layout.rows.kernel_step * kernel[1] * words}),"
            f" .COLUMN_WEIGHTS({layout.columns.kernel_step * words}), .CELL({self.cell}),",
            f"      .ROW_CELLS({layout.rows.step * row_cells}), .COLUMN_CELLS({layout.columns.step * column_cells}),",
            f"      .WIDTH({layout.weights.width}),",
            f'      .FILE("{layout.weights.name}.hex"), .GROUP_FILE("groups_{n}.hex"),',
            f'      .ROW_FILE("rows_{n}.hex"), .COLUMN_FILE("columns_{n}.hex")',
            f"  ) synapses_{n} (",
            f"      .clk(clk), .rst(rst), {_ports('in', incoming)},",
            f"      .add(add_{n}), .add_cell(add_cell_{n}), .add_weights(add_weights_{n}),",
            f"      .step(step_{n}), .clear(clear_{n}), .done(done_{n})",
            "  );",
        ]

    @property
    def reach(self) -> int:
        """Bits of the number of rows, or columns, that a spike reaches."""
        assert self.layout.rows is not None and self.layout.columns is not None
        return max(1, int(max(self.layout.rows.count.max(), self.layout.columns.count.max())).bit_length())

    @property
    def conv_address(self) -> int:
        """Bits of the address of a convolution's weights."""
        return max(self.layout.weights.address, address_bits(self.layout.before[0]) + 1)

    def all_memories(self) -> list[Memory]:
        """Everything that is read from a file."""
        delays = [] if self.layout.delays is None else [self.layout.delays]
        return [self.layout.weights, *delays, *self.tables(), *self.memories]

    @property
    def spike_cycles(self) -> int:
        """Cycles for a spike that comes in; of a convolution the most."""
        layout = self.layout
        if layout.rows is None or layout.columns is None:
            return self.words
        return max(
            1, int(layout.rows.count.max() * layout.columns.count.max()) * group_words(self.population, self.lanes)[1]
        )

    @property
    def longest(self) -> int:
        """Cycles at most in which it neither takes nor sends anything, unless it has to wait."""
        rows = self.population.size if self.population.recurrent is not None else 1
        return self.layout.cells + self.words + (rows + 1) * self.spike_cycles

    def tables(self) -> list[Memory]:
        """Where spikes reach, of a convolution: {how many, first cell, weights to it} by row and by column."""
        layout = self.layout
        if layout.rows is None or layout.columns is None:
            return []
        (first, words), positions = group_words(self.population, self.lanes), layout.channel_words
        found = []
        if self.population.groups > 1:
            begins = np.repeat(first, self.population.weight.shape[1])[:, None]
            found.append(Memory(name=f"groups_{self.index}", words=begins, bits=self.cell))
        scales = (self.population.shape[2] * positions, self.population.weight.shape[3] * words), (positions, words)
        for name, window, (cells, weights) in zip(
            ("rows", "columns"), (layout.rows, layout.columns), scales, strict=True
        ):
            packed = window.kernel * weights + (window.first * cells << self.conv_address)
            packed = packed + (window.count << self.conv_address + self.cell)
            bits = self.reach + self.cell + self.conv_address
            found.append(Memory(name=f"{name}_{self.index}", words=packed[:, None], bits=bits))
        return found

    def _neurons(self, outgoing: str) -> list[str]:
        n, lanes, layout = self.index, self.lanes, self.layout
        lines, buses = [f"  wire move_{n};", f"  wire [{self.word - 1}:0] parameter_word_{n};"], {}
        widths = {"bias": self.level, "threshold": self.level, "current_kept": self.kept, "potential_kept": self.kept}
        for name, bits in widths.items():
            buses[name] = f"{name}_{n}"
            lines.append(f"  wire [{lanes * bits - 1}:0] {name}_{n}" + (
                f" = {self.constants[name]};" if name in self.constants else ";"
            ))  # fmt: skip
        lines += [
            f"  snn_rom #(.WIDTH({memory.width}), .DEPTH({len(memory.words)}), .ADDRESS({memory.address}),"
            f' .FILE("{memory.name}.hex")) {memory.name}_memory (\n'
            f"      .clk(clk), .enable(move_{n}), .address(parameter_word_{n}[{memory.address - 1}:0]),"
            f" .word({memory.name})\n  );"
            for memory in self.memories
        ]
        if all(memory.address < self.word for memory in self.memories):
            high, low = self.word - 1, max((memory.address for memory in self.memories), default=0)
            lines.append(f"  wire unused_parameter_word_{n} = &parameter_word_{n}[{high}:{low}];")
        if not self.memories:
            lines.append(f"  wire unused_move_{n} = move_{n};")
        image = []
        if self.sends_image:
            fields = zip(("CHANNEL", "ROW", "COLUMN"), self.fields, strict=True)
            image = [", ".join(f".{name}({bits})" for name, bits in fields)]
            image = [f"      .IMAGE(1), {image[0]}, .LAST_COLUMN({self.population.shape[2] - 1}),"]
        last = layout.channels - (layout.channel_words - 1) * lanes
        reset = RESETS.index(self.population.reset)
        next_step = 0 if layout.slots == 1 else 1 << self.word
        return [
            *lines,
            f"  wire signed [{self.potential - 1}:0] {'' if self.population.readout else 'unused_'}value_{n};",
            "  snn_neurons #(",
            f"      .LANES({lanes}), .LAST_WORD({self.words - 1}), .WORD({self.word}), .LAST_CELL({layout.cells - 1}),"
            f" .CELL({self.cell}), .NEXT_STEP({next_step}),",
            f"      .WEIGHT({layout.weights.bits}), .SUM({self.sum}), .UNIT({self.unit}), .CURRENT({self.current}),"
            f" .STATE({self.potential}), .LEVEL({self.level}),",
            f"      .KEPT({self.kept}), .WIDE({self.wide}), .HIGHEST({self.highest}), .SHIFT({self.shift:d}),"
            f" .HELD({self.held:d}), .WRAP_SUM({self.ranges.wraps_sum:d}),",
            f"      .WRAP({self.wraps:d}), .SATURATE({self.saturates:d}),"
            f" .SATURATE_POTENTIAL({self.ranges.potential_saturates:d}), .RESET({reset}),",
            f"      .LAST_OF_CHANNELS({layout.channel_words - 1}), .LAST_LANES({last}), .ADDRESS({self.out_address}),",
            *image,
            f"      .READOUT({self.population.readout:d})",
            f"  ) neurons_{n} (",
            f"      .clk(clk), .rst(rst), .add(add_{n}), .add_cell(add_cell_{n}), .add_weights(add_weights_{n}),",
            f"      .step(step_{n}), .clear(clear_{n}), .done(done_{n}), .move(move_{n}),",
            f"      .parameter_word(parameter_word_{n}), .bias({buses['bias']}), .threshold({buses['threshold']}),",
            f"      .current_kept({buses['current_kept']}), .potential_kept({buses['potential_kept']}),",
            f"      {_ports('out', outgoing)},",
            f"      .out_value({'' if self.population.readout else 'unused_'}value_{n})",
            "  );",
        ]

    @property
    def wraps(self) -> bool:
        """Whether a current can come in at the other end."""
        return self.ranges.current_overflows and self.arithmetic.overflow == "wrap"

    @property
    def saturates(self) -> bool:
        """Whether a current can saturate."""
        return self.ranges.current_overflows and self.arithmetic.overflow == "saturate"

    def title(self) -> str:
        """What it is, in a line."""
        population = self.population
        shape = " x ".join(map(str, population.shape))
        kind = "a convolution" if population.kind == "conv" else "dense"
        recurrent = ", recurrent" if population.recurrent is not None else ""
        delays = ", delays" if self.layout.delays is not None else ""
        output = ", potentials are read out" if population.readout else ""
        return f"population {self.index}: {shape} neurons, {kind}{recurrent}{delays}{output}"


def sections_of(graph: Graph, parallel: int) -> list[Section]:
    """The populations of the circuit."""
    laid_out = layouts(graph, parallel)
    return [Section(graph, laid_out, index) for index in range(len(laid_out))]


def in_address(laid_out: list[Layout], index: int) -> int:
    """Bits of the addresses that a population takes."""
    layout = laid_out[index]
    if layout.rows is not None:
        return sum(map(address_bits, layout.before))
    return layout.weights.address


def circuit(graph: Graph, sections: list[Section]) -> str:
    """The top module."""
    last, first = sections[-1], sections[0]
    readout = last.population.readout
    ports = [
        "input  wire clk", "input  wire rst", "input  wire in_valid", "output wire in_ready",
        "input  wire [1:0] in_kind", f"input  wire [{port_bits(graph) - 1}:0] in_address",
        "output wire out_valid", "input  wire out_ready", "output wire [1:0] out_kind",
        f"output wire [{last.out_address - 1}:0] out_address",
    ]  # fmt: skip
    if readout:
        ports.append(f"output wire signed [{last.potential - 1}:0] out_value")
    heading = [f"// {section.title()}" for section in sections]
    lines = [
        "// A spiking network; README.md says how it is used.",
        *heading,
        "module net (",
        "    " + ",\n    ".join(ports),
        ");",
    ]
    lines.append(f"  wire [{first.in_address - 1}:0] in_row = " + (
        _extended("in_address", port_bits(graph), port_bits(graph), first.in_address) + ";"
    ))  # fmt: skip
    for section in sections:
        lines += _stream(f"out_{section.index}", section.out_address)
    lines.append("")
    for section in sections:
        incoming = "in" if section.index == 0 else f"out_{section.index - 1}"
        lines.append(section.text(incoming, f"out_{section.index}"))
    n = last.index
    lines += [
        f"  assign out_valid = out_{n}_valid;",
        f"  assign out_{n}_ready = out_ready;",
        f"  assign out_kind = out_{n}_kind;",
        f"  assign out_address = out_{n}_address;",
        *([f"  assign out_value = value_{n};"] if readout else []),
        "endmodule",
        "",
    ]
    return "\n".join(lines)


def port_bits(graph: Graph) -> int:
    """Bits of an address at the input: {channel, row, column} of an image for a convolution, else a number."""
    if graph.populations[0].kind == "conv":
        return sum(map(address_bits, graph.input_shape))
    return address_bits(int(np.prod(graph.input_shape)))


def _stream(name: str, address: int) -> list[str]:
    return [
        f"  wire {name}_valid, {name}_ready;",
        f"  wire [1:0] {name}_kind;",
        f"  wire [{address - 1}:0] {name}_address;",
    ]


def _ports(side: str, name: str) -> str:
    address = "in_row" if name == "in" else f"{name}_address"
    return ", ".join(
        f".{side}_{part}({address if part == 'address' else f'{name}_{part}'})"
        for part in ("valid", "ready", "kind", "address")
    )


def _extended(name: str, held: int, used: int, wanted: int) -> str:
    """The lowest `used` bits of a wire of `held`, with zeros up to `wanted`."""
    bits = name if used == held else f"{name}[{used - 1}:0]"
    return bits if used == wanted else f"{{{wanted - used}'d0, {bits}}}"
