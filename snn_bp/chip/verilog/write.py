"""Writes a graph as a folder of Verilog: the circuit, its memories, a testbench, a Makefile, and what they are."""

import json
from pathlib import Path
from textwrap import fill

from snn_bp.chip.graph import Graph
from snn_bp.chip.verilog.circuit import circuit, sections_of
from snn_bp.chip.verilog.describe import description, words
from snn_bp.chip.verilog.memories import in_hex, put
from snn_bp.chip.verilog.rules import check_verilog
from snn_bp.chip.verilog.testbench import testbench

MODULES = Path(__file__).with_name("modules")


def write_verilog(graph: Graph, folder: str | Path, *, parallel: int = 8) -> None:
    """Put the circuit of a graph into a folder, made where there is none; refused where it has no circuit.

    `parallel` neurons of each population work at a time: a spike costs a cycle for each word of so many neurons that
    it reaches, a step one for each word. The top module is called `net`.
    """
    check_verilog(graph, parallel=parallel)
    sections = sections_of(graph, parallel)
    modules = {"snn_rom", "snn_ram", "snn_decay", "snn_neuron", "snn_neurons"}
    for section in sections:
        modules.add("snn_dense" if section.layout.rows is None else "snn_conv")
        modules |= {"snn_recurrence"} if section.population.recurrent is not None else set()
    files: dict[str, str | bytes] = {
        "net.v": circuit(graph, sections),
        "testbench.v": testbench(graph, sections),
        "Makefile": _filled("Makefile"),
        "README.md": _in_lines(_filled("README.md", **words(graph, sections, parallel))),
    }
    files |= {f"{module}.v": _filled(f"{module}.v") for module in sorted(modules)}
    for section in sections:
        files |= {f"{each.name}.hex": in_hex((each.words, each.bits)) for each in section.all_memories()}
    said = description(graph, sections, parallel) | {"files": [*sorted(files), "network.json"]}
    files["network.json"] = json.dumps(said, indent=2) + "\n"
    put(Path(folder), files)


def _filled(file: str, **names: str) -> str:
    """The text of a file with what stands for @NAME@ and others."""
    text = (MODULES / file).read_text(encoding="utf-8")
    for name, value in names.items():
        text = text.replace(f"@{name}@", value)
    return text


def _in_lines(text: str) -> str:
    """Markdown with its paragraphs in lines of up to 120 characters; lists, tables and code stay as they are."""
    paragraphs = [
        fill(" ".join(each.split()), width=120, break_long_words=False, break_on_hyphens=False)
        if each[:1].isalnum() or each[:1] == "`" else each
        for each in text.split("\n\n")
    ]  # fmt: skip
    return "\n\n".join(paragraphs) + "\n"
