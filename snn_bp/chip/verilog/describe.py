"""What a folder's circuit is, in numbers (network.json) and in words (README.md)."""

from typing import Any

import numpy as np

from snn_bp.chip.graph import Graph
from snn_bp.chip.replay import largest_input
from snn_bp.chip.verilog.circuit import Section, port_bits
from snn_bp.chip.verilog.layout import address_bits

STEP_CYCLES, RECORDING_CYCLES = 7, 4  # beside one for each word that is updated, or cleared


def description(graph: Graph, sections: list[Section], parallel: int) -> dict[str, Any]:
    """Shapes, word widths, cycles and memories."""
    last = sections[-1]
    arithmetic = graph.arithmetic
    return {
        "parallel": parallel,
        "input": {"shape": list(graph.input_shape), "address_bits": port_bits(graph), "most": largest_input(graph)},
        "output": {
            "shape": list(last.population.shape),
            "address_bits": last.out_address,
            "value_bits": last.potential if last.population.readout else 0,
            "unit": _unit(graph),
        },
        "arithmetic": {
            "state_bits": arithmetic.state_bits,
            "fraction_bits": arithmetic.fraction_bits,
            "decay": arithmetic.decay,
            "overflow": arithmetic.overflow,
        },
        "populations": [_population(section) for section in sections],
        "memory_bits": sum(sum(_memories(section).values()) for section in sections),
    }


def _population(section: Section) -> dict[str, Any]:
    population, layout, ranges = section.population, section.layout, section.ranges
    return {
        "shape": list(population.shape),
        "kind": population.kind,
        "recurrent": population.recurrent is not None,
        "readout": population.readout,
        "reset": population.reset,
        "lanes": layout.lanes,
        "words": layout.words,
        "delay": layout.slots - 1,
        "bits": {
            "weight": layout.weights.bits,
            "sum": section.sum,
            "current": section.current if section.held else 0,
            "potential": section.potential,
        },
        "ranges": {
            "sum": list(ranges.sums),
            "current": list(ranges.current),
            "potential": list(ranges.potential),
            "current_overflows": ranges.current_overflows,
            "potential_saturates": ranges.potential_saturates,
        },
        "cycles": {
            "spike": section.spike_cycles,
            "step": layout.words + STEP_CYCLES,
            "recording": layout.cells + RECORDING_CYCLES,
        },
        "memory_bits": _memories(section),
    }


def _memories(section: Section) -> dict[str, int]:
    """Bits of each memory, by its name."""
    layout = section.layout
    found = {memory.name: memory.width * len(memory.words) for memory in section.all_memories()}
    found["sums"] = layout.cells * layout.lanes * section.sum
    found["potentials"] = layout.words * layout.lanes * section.potential
    if section.held:
        found["currents"] = layout.words * layout.lanes * section.current
    if section.population.recurrent is not None:
        found["spikes"] = (1 << (section.population.size - 1).bit_length()) * section.in_address
    return found


def words(graph: Graph, sections: list[Section], parallel: int) -> dict[str, str]:
    """What stands at the marks of README.md."""
    said, last = description(graph, sections, parallel), sections[-1]
    readout, most, arithmetic = last.population.readout, largest_input(graph), graph.arithmetic
    decay = {
        "multiply": "a decay is a product with n / 4096, rounded toward zero",
        "shift": "a decay is x - (x >> k), where >> rounds down",
    }[arithmetic.decay]
    overflow = {"wrap": "comes in at the other end", "saturate": "saturates"}[arithmetic.overflow]
    each = [(section, section.layout, section.ranges) for section in sections]
    memory = sorted(
        ((bits, f"{name} of population {section.index}" if "_" not in name else name)
         for section in sections for name, bits in _memories(section).items()), reverse=True,
    )  # fmt: skip
    return {
        "SUMMARY": "\n".join([f"- input: {_shape(graph.input_shape)}", *(f"- {each.title()}" for each in sections)]),
        "IN_BITS": str(port_bits(graph)),
        "IN_ADDRESS": _address(graph.input_shape, graph.populations[0].kind == "conv"),
        "OUT_BITS": str(last.out_address),
        "OUT_ADDRESS": _address(last.population.shape, last.sends_image),
        "VALUE": (
            f"| `out_value` | {last.potential} | the potential of the neuron, {_unit(graph):.9g} for "
            f"{'a step of a weight' if graph.scale is None else 'a potential of 1 in the network'}: every neuron sends "
            "it in every step, as a token of kind 0 |\n" if readout else ""
        ),
        "COUNTS": ", a count of n as n spikes" if most > 1 else "",
        "MOST": f"up to {most} times" if most > 1 else "once",
        "ARITHMETIC": (
            f"States have {arithmetic.state_bits} bits, {arithmetic.fraction_bits} of them below a step of a weight; "
            f"{decay}. A synaptic current too large {overflow}, a potential saturates. A neuron fires strictly above "
            "its threshold, and its reset takes place in the next step."
        ),
        "WIDTHS": "\n".join(
            f"| {s.index} | {layout.weights.bits} | {s.sum} | {s.current if s.held else 'not held'} | {s.potential} "
            f"| {ranges.sums[0]}..{ranges.sums[1]} | {ranges.potential[0]}..{ranges.potential[1]} |"
            for s, layout, ranges in each
        ),
        "PARALLEL": f"up to {parallel}",
        "CYCLES": "\n".join(
            f"| {n} | {'up to ' if sections[n].layout.rows else ''}{p['cycles']['spike']} | {p['cycles']['step']} "
            f"| {p['cycles']['recording']} |"
            for n, p in enumerate(said["populations"])
        ),
        "MEMORY": f"{said['memory_bits']:,} bits in all; the largest: "
        + ", ".join(f"{name} {bits:,}" for bits, name in memory[:4]) + ".",
    }  # fmt: skip


def _unit(graph: Graph) -> float:
    """What a readout sends for a potential of 1 in the network, or for a step of a weight where no more is known."""
    return graph.arithmetic.unit * (1 if graph.scale is None else graph.scale)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _address(shape: tuple[int, ...], is_image: bool) -> str:
    """What an address says, in words."""
    if is_image:
        bits = list(map(address_bits, shape))
        return f"{{channel, row, column}} of {bits[0]}, {bits[1]} and {bits[2]} bits, each from 0"
    order = "" if len(shape) == 1 else ", in the order channel, row, column"
    return f"its number in 0..{int(np.prod(shape)) - 1}{order}"
