"""Writes a run's network as Verilog, and verifies such a folder: the circuit is simulated, recordings in a row.

Only a folder that is byte for byte what export writes is simulated, so no Verilog of another's runs here.
"""

import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_bp.chip.graph import Graph
from snn_bp.chip.replay import Replay
from snn_bp.chip.verilog.testbench import expected, write_vectors
from snn_bp.chip.verilog.write import write_verilog
from snn_bp.errors import SnnError, typed
from snn_bp.files import is_there, kind_of_entry, read_bytes, read_object
from snn_bp.files.folders import names_in
from snn_bp.model.network import Network
from snn_bp.runs.folder import Run
from snn_bp.runtime.status import phase
from snn_bp.verification.decisions import decisions, right_of
from snn_bp.verification.result import Verification
from snn_bp.verification.simulators import (
    Name,
    Simulated,
    Simulator,
    compile_testbench,
    find_simulators,
    run_testbench,
)
from snn_bp.verification.stages import Batches, for_chip, replay_stages
from snn_bp.verification.synthesis import Family, check_yosys, synthesize

PARALLEL = 8  # neurons at once
VECTORS = 4  # recordings that the folder's own testbench takes
PATIENCE_S = 15.0  # seconds of one simulator, after which a faster one, slow to compile, takes over
SIMULATED_S = 60.0  # seconds after which no further recordings are simulated
LONGEST_S = 900.0  # a simulation that takes longer is ended
BUILT = ("vectors", "build", "wave.vcd")  # beside the files: what its Makefile makes
DESCRIPTION = "network.json"  # in it stands what the folder is
NOTE = "No FPGA was tested: the circuit was simulated, without the delays of its gates."


def write_circuit(run: Run, checkpoint: str, folder: Path, x: Tensor, *, parallel: int) -> None:
    """The folder of a run's network, with recordings `x` `[time, recordings, ...]` for its testbench."""
    graph = _for_circuit(run, checkpoint)[1]
    write_verilog(graph, folder, parallel=parallel)
    write_vectors(graph, folder, x, parallel=parallel)


def check_folder(folder: Path) -> None:
    """Raise unless a folder can be written here, and only one of such an export would be lost by it."""
    if not folder.parent.is_dir():
        raise SnnError(f"export to {folder}: there is no folder {folder.parent}. Make it, or choose another name.")
    if not is_there(folder):
        return
    description = description_of(folder, "export to ")
    files = description.get("files")
    known = (*(files if isinstance(files, list) else ()), *BUILT)
    if foreign := [name for name in names_in(folder) if name not in known]:
        raise SnnError(
            f"export to {folder}: {foreign[0]} in it is not of an export and would be lost. Move it, or choose another "
            "name."
        )


def description_of(folder: Path, what: str = "") -> dict[str, Any]:
    """What the folder's `network.json` holds; raises where it is no folder of such an export."""
    if not is_there(folder):
        raise SnnError(f"{what}{folder}: there is no such folder. `snn-bp export RUN {typed(folder)}` writes one.")
    mode = folder.lstat().st_mode
    if folder.is_symlink() or not folder.is_dir():
        raise SnnError(f"{what}{folder}: it should be a folder, found {kind_of_entry(mode)}. Choose another name.")
    if not is_there(folder / DESCRIPTION):
        raise SnnError(
            f"{what}{folder}: it is no folder that export wrote, {DESCRIPTION} is not there. Choose another name."
        )
    return read_object(folder / DESCRIPTION)


def verify_verilog(
    run: Run, checkpoint: str, folder: Path, batches: Batches, *, simulator: Name | None = None,
    synthesis: Family | None = None, longest_s: float = SIMULATED_S,
) -> Verification:  # fmt: skip
    """Whether a folder of Verilog does what a run's network does, on batches of recordings.

    All of them are replayed in integers; the circuit takes as many of them in a row as begin within `longest_s`.
    """
    parallel: Any = description_of(folder).get("parallel")
    if synthesis is not None:
        check_yosys()
    tools, (chip, graph) = find_simulators(simulator), _for_circuit(run, checkpoint)
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary) / "net"
        write_verilog(graph, fresh, parallel=parallel)
        other = _other_file(folder, fresh)
        if other is not None:
            other = (
                f"the folder does not hold the integers of {run.path}: {other}. Export the run again, or name the run "
                "that the folder is of"
            )
        found = replay_stages(run, chip, graph, batches, lambda x: _replayed(graph, x), difference=other)
        if other is None:
            parts = list(_in_circuit(graph, fresh, parallel, tools, batches, longest_s))
            circuit = _summary(parallel, parts)
            if synthesis is not None:
                with phase(f"synthesis for {synthesis}"):
                    made = synthesize(fresh, synthesis)
                circuit |= {"synthesis": made.record(), "says": [*circuit["says"], str(made)]}
            found = replace(
                found, circuit=circuit,
                difference=found.difference or _in_words(list(found.weights), parts),
                accuracy=found.accuracy | _accuracy(run, graph, batches, circuit["recordings"]),
                compared=found.compared + circuit["compared"],
            )  # fmt: skip
    return replace(found, file=str(folder), note=NOTE)


def _for_circuit(run: Run, checkpoint: str) -> tuple[Network, Graph]:
    """The network in integers and its graph, without warnings of spikes that only Loihi takes to the next recording."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*carries those spikes into the next recording")
        return for_chip(run, checkpoint)


def _replayed(graph: Graph, x: Tensor) -> Replay:
    """What the circuit has to answer; its sums are as wide as they become."""
    replay = expected(graph, x)
    return replace(replay, overflows=tuple(each._replace(sums=0) for each in replay.overflows))


def _in_circuit(
    graph: Graph, folder: Path, parallel: int, tools: list[Simulator], batches: Batches, longest_s: float
) -> Iterator[tuple[Simulator, Simulated]]:
    """What each simulation said, by the first tool, or by the last where the first would take long.

    Each tool takes one recording at first, to see how long that takes.
    """
    waiting, tool = sum(x.shape[1] for x, *_ in batches), tools[0]
    _compile(tool, folder)
    begun, done = time.monotonic(), 0
    for x, *_ in batches:
        low = 0
        while low < x.shape[1]:
            per_recording = (time.monotonic() - begun) / max(1, done)
            if done and tool is not tools[-1] and waiting * per_recording > PATIENCE_S:
                tool = tools[-1]
                _compile(tool, folder)
                begun, done = time.monotonic(), 0
            many = 1 if not done else int((longest_s + begun - time.monotonic()) / per_recording)
            if many < 1:
                return
            some = x[:, low : low + many]
            with phase(f"simulating in {tool.name}"):
                yield tool, simulate_vectors(graph, folder, some, parallel=parallel, tool=tool)
            low, done, waiting = low + many, done + some.shape[1], waiting - some.shape[1]


def _compile(tool: Simulator, folder: Path) -> None:
    with phase(f"compiling in {tool.name}"):
        compile_testbench(tool, folder)


def simulate_vectors(
    graph: Graph, folder: Path, x: Tensor | np.ndarray, *, parallel: int, tool: Simulator, stall: bool = False
) -> Simulated:
    """What the compiled testbench of a graph's folder says of recordings `x` `[time, recordings, ...]` in a row."""
    write_vectors(graph, folder, x, parallel=parallel)
    said = run_testbench(tool, folder, timeout_s=LONGEST_S, stall=stall)
    wanted = tuple(int(np.prod(x.shape[:2])) * population.size for population in graph.populations)
    if said.difference is None and (said.compared != wanted or said.recordings != x.shape[1]):
        raise SnnError(f"the testbench compared {said.compared} neurons' steps of {wanted}.")
    return said


def _summary(parallel: int, parts: list[tuple[Simulator, Simulated]]) -> dict[str, Any]:
    """The figures of all simulations, and what they say in words."""
    said = [each for _, each in parts]
    recordings, total = sum(each.recordings for each in said), sum(each.cycles[1] for each in said)
    least, most = min(each.cycles[0] for each in said), max(each.cycles[2] for each in said)
    tools: dict[str, int] = {}
    for tool, each in parts:
        tools[f"{tool.name} {tool.version}"] = tools.get(f"{tool.name} {tool.version}", 0) + each.recordings
    found = {
        "parallel": parallel,
        "simulators": tools,
        "recordings": recordings,
        "row": max(each.recordings for each in said),
        "compared": sum(sum(each.compared) for each in said),
        "cycles": {"min": least, "mean": total / recordings, "max": most},
        "words": sum(sum(each.words) for each in said) / recordings,
    }
    taken = [f"{count} recording{'s' * (count > 1)} in {name}" for name, count in tools.items()]
    says = [
        f"{' and '.join(taken)}, up to {found['row']} in a "
        f"row: spikes and potentials of {found['compared']:,} neurons' steps compared with the integers",
        f"{found['cycles']['mean']:,.0f} cycles ({least:,} to {most:,}) for each inference; {found['words']:,.0f} "
        f"words of up to {parallel} weights are added",
    ]
    return found | {"says": says}


def _in_words(names: list[str], parts: list[tuple[Simulator, Simulated]]) -> str | None:
    """Where the circuit first differs from the integers."""
    first = 0
    for _, said in parts:
        if said.difference is not None:
            return said.in_words(names, first=first)
        first += said.recordings
    return None


def _accuracy(run: Run, graph: Graph, batches: Batches, recordings: int) -> dict[str, float]:
    """The accuracy of the first so many recordings, of the integers, which are the circuit's where nothing differs."""
    loss, kind, right, labelled = run.experiment.train.loss, run.dataset().targets.kind, 0, 0
    for x, targets, mask in batches:
        if not recordings:
            break
        x, targets, mask = x[:, :recordings], targets[:recordings], None if mask is None else mask[:, :recordings]
        out = torch.from_numpy(expected(graph, x).out).flatten(2).to(x.dtype)
        correct, count = right_of(decisions(loss, out, mask, kind), targets, mask)
        right, labelled, recordings = right + correct, labelled + count, recordings - x.shape[1]
    return {"circuit": right / labelled} if labelled else {}


def _other_file(folder: Path, fresh: Path) -> str | None:
    """The first file in which a folder is not the one that export writes, in words; None where it is."""
    for name in names_in(fresh):
        if not name.endswith((".v", ".hex", DESCRIPTION)):  # a Makefile or README takes no part
            continue
        wanted = read_bytes(fresh / name)
        if not is_there(folder / name):
            return f"{name} is not there"
        found = read_bytes(folder / name, limit_mb=len(wanted) / 2**20 + 1)
        if found != wanted:
            return _first_line(name, found, wanted)
    return None


def _first_line(name: str, found: bytes, wanted: bytes) -> str:
    lines, others = (text.decode("utf-8", "replace").splitlines() for text in (found, wanted))
    for number, (line, other) in enumerate(zip(lines, others, strict=False), 1):
        if line != other:
            return f"{name}, line {number}: {line.strip()[:40]!r} and {other.strip()[:40]!r}"
    return f"{name}: {len(lines)} lines and {len(others)}"
