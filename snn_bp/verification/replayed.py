"""`export` and `verify`: a file, and whether it does what the network does, spike for spike, on recordings of a split.

Four replays stand behind it; what they share is not independently tested:

| | weights, sums, delays | registers | file format |
|---|---|---|---|
| forward pass of `OnChip` | torch, as trained | `kernels/fixed.py` | none |
| `chip/replay.py`, of a `.net` file | its own, in NumPy | `kernels/fixed.py`, which Lava's client pins | read back |
| `chip/xylo/replay.py`, of a `.xylo` file | its own, in NumPy | its own, which xylosim pins | read back |
| the circuit in a `.v` folder | Verilog | Verilog | compared byte by byte with what export writes |
| `exchange/nir_replay.py`, of a `.nir` file | its own | its own, NIR's equations in double precision | read by `nir` |
"""

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from snn_bp.chip.loader import loader_path, loader_text
from snn_bp.chip.netx_write import write_netx
from snn_bp.chip.verilog.rules import PARALLEL_HIGH
from snn_bp.chip.xylo.configuration import write_xylo
from snn_bp.errors import SnnError, as_path, check_choice, check_flag, check_kind, check_number
from snn_bp.errors.calls import checked_call
from snn_bp.exchange.nir_read import read_nir
from snn_bp.exchange.nir_replay import replay_nir
from snn_bp.exchange.nir_write import check_writable, metadata_path, write_nir
from snn_bp.files import check_can_write, make_folder, replace_file, write_object
from snn_bp.files.folders import replace_folder
from snn_bp.model.network import Network, has_state, neuron_of
from snn_bp.neurons import is_spiking
from snn_bp.reports.plots.filters import weight_histogram
from snn_bp.reports.plots.style import png_bytes
from snn_bp.runs.folder import Run
from snn_bp.runs.memory import Way, check_room_for
from snn_bp.runs.paths import COPY_IT
from snn_bp.runtime.status import in_phase, phase
from snn_bp.verification.decisions import decisions, right_of
from snn_bp.verification.netx import ask_client, verify_netx
from snn_bp.verification.result import Verification, first_difference
from snn_bp.verification.simulators import NEEDS, Name, find_simulators
from snn_bp.verification.stages import AT_ONCE, Batches, Recordings, for_chip
from snn_bp.verification.synthesis import DEVICES, Family
from snn_bp.verification.verilog import PARALLEL, VECTORS, check_folder, verify_verilog, write_circuit
from snn_bp.verification.xylo import for_xylo, verify_xylo

SAMPLES = 256
FOLDER = "export"  # in that of a run: results of its exports
OF_INTEGERS = {"loihi": ".net", "xylo": ".xylo"}  # the format of each target; of an FPGA's it is .v


@checked_call
@phase("exporting")
def export(
    run: Run,
    file: Path | str,
    *,
    split: str = "test",
    samples: int = SAMPLES,
    checkpoint: str = "best",
    verification: bool = True,
    step_s: float | None = None,
    compatible: Literal["1.0.4"] | None = None,
    parallel: int | None = None,
) -> Verification | None:
    """Write the run's network to `file`, `.net`, `.xylo`, `.nir` or `.v`, and verify it unless told not to.

    A `.net` file holds the integers of a network trained with `train.target="loihi"`, or of another rounded now; beside
    it stands the script that loads it in Lava's client. A `.xylo` file holds those of one trained with
    `train.target="xylo"`, by the names of Rockpool's `config_from_specification`. `.v` is a folder: a circuit in
    Verilog of the integers of a network trained for an FPGA or Loihi, or of another rounded to Loihi's now, with its
    testbench. Nothing is left behind, and an older file or folder is untouched, where the network is refused or the
    verification fails.

    Parameters:
        run: a run with a checkpoint.
        file: where to; the ending says the format.
        split ("test"), samples (256): the recordings that are replayed; in place of a test split that was left alone so
            far, as in a sweep, validation, since a replay says how many answers are right.
        checkpoint ("best"): "best" or "last".
        verification (True): whether recordings are replayed; without, the result is None.
        step_s (None): time step of a `.nir` file in seconds; None: 1e-4.
        compatible (None): "1.0.4" writes `.nir` for readers of that version.
        parallel (None): neurons of a layer that a circuit (`.v`) computes at once; None: 8.

    >>> export(run, "a.nir").holds  # the run of `train`
    True
    """
    check_kind("export: the run", run, Run, "As in export(Run('runs/mine'), 'mine.nir').")
    file = as_path("export: the file", file)
    kind = kind_of(file)
    check_flag("export: verification", verification)
    _only_for(file, ".nir", step=step_s, compatible=compatible)
    _only_for(file, ".v", parallel=parallel)
    if parallel is not None:
        check_number("parallel", parallel, integer=True, low=1, high=PARALLEL_HIGH)
    beside = {"netx": loader_path(file), "nir": metadata_path(file)}.get(kind, file)
    if kind == "verilog":
        check_folder(file)
    else:
        check_writable(file, beside)
    if verification and kind == "verilog":
        find_simulators()
    if verification or kind == "verilog":
        split = _looked_at(run, split)
        ids = _recordings(run, split, samples)  # refused before anything is written
    if verification:
        _check_memory(run, file, ids)
        _check_kept(run, file)
    check_can_write(file, "Name another.", is_folder=kind == "verilog")
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / file.name
        made = [fresh.with_name(beside.name), fresh]
        if kind == "verilog":
            x = run.dataset().batch(split, ids[:VECTORS])[0]
            write_circuit(run, checkpoint, fresh, x, parallel=PARALLEL if parallel is None else parallel)
        elif kind == "netx":
            _write_netx(run, checkpoint, fresh, file)
        elif kind == "xylo":
            made = [fresh]
            write_xylo(for_xylo(run, checkpoint)[1], fresh)
        else:
            step = 1e-4 if step_s is None else step_s
            write_nir(_for_nir(run, checkpoint, file), fresh, step_s=step, compatible=compatible)
        found = _verified(run, fresh, split, samples, checkpoint) if verification else None
        if found is not None:
            found = replace(found, file=str(file))
            _keep(run, file, found)
        if found is None or found.holds:
            if kind == "verilog":
                replace_folder(file, fresh)
                made = []
            for part in made:
                replace_file(file.with_name(part.name), part.read_bytes())
    return found


@checked_call
@phase("verifying")
def verify(
    run: Run, file: Path | str, *, split: str = "test", samples: int = SAMPLES, checkpoint: str = "best",
    lava: int = 0, step_s: float | None = None, simulator: Literal["iverilog", "verilator"] | None = None,
    synthesis: Literal["ice40", "ecp5", "xc7"] | None = None,
) -> Verification:  # fmt: skip
    """Replay recordings of a split through the run's network and through what `file` holds.

    Of a `.net` file every spike of every layer is compared: its integers replay recordings in a row, the network in
    integers takes each of them from rest. One trained in floats has to stay near to that, too. Of a `.xylo` file it is
    every spike and potential, of the network, of the integers read back and of xylosim, where that is installed. Of a
    `.nir` file it is the outputs of the network, of the one read back, and of NIR's own equations. Of a `.v` folder it
    is every spike and potential of every layer, between the integers and the circuit, which is simulated: as many
    recordings as are done within a minute. The result is written to the run's folder `export/`, with a picture of the
    weights on their grid. Raises where the file cannot be read.

    Parameters:
        run, file, split ("test"), samples (256), checkpoint ("best"): as in `export`.
        lava (0): so many recordings in a row go through Lava's real client too, where it is installed, by the script
            beside the file.
        step_s (None): time step in seconds of a `.nir` file that another library wrote.
        simulator (None): "iverilog" or "verilator" for a `.v` folder; None: the first that is here, and for many
            recordings a faster one.
        synthesis (None): "ice40", "ecp5" or "xc7" (Artix-7): what a `.v` folder takes of such an FPGA, by yosys.

    >>> verify(run, "a.nir").difference  # the file of `export`; None: nothing differs
    """
    check_kind("verify: the run", run, Run, "As in verify(Run('runs/mine'), 'mine.nir').")
    file = as_path("verify: the file", file)
    kind = kind_of(file)
    check_number("lava", lava, integer=True, low=0)
    if lava and kind != "netx":
        raise SnnError(f"{file}: Lava's client reads .net files only. Leave out --lava.")
    _only_for(file, ".nir", step=step_s)
    _only_for(file, ".v", simulator=simulator, synthesis=synthesis)
    for name, value, known in (("simulator", simulator, NEEDS), ("synthesis", synthesis, DEVICES)):
        if value is not None:
            check_choice(name, value, known)
    split = _looked_at(run, split)
    _check_memory(run, file, _recordings(run, split, samples))
    _check_kept(run, file)
    result = _verified(run, file, split, samples, checkpoint, step_s, simulator, synthesis)
    if lava:
        ids = _recordings(run, split, min(samples, lava))
        with phase(f"replaying {len(ids)} recordings in Lava's client"):
            said, difference = ask_client(file, run.dataset().batch(split, ids)[0])
        result = replace(result, client=said, difference=result.difference or difference)
    _keep(run, file, result)
    return result


def _verified(
    run: Run, file: Path, split: str, samples: int, checkpoint: str, step_s: float | None = None,
    simulator: Name | None = None, synthesis: Family | None = None,
) -> Verification:  # fmt: skip
    ids = _recordings(run, split, samples)
    batches = Recordings(run.dataset(), split, ids)
    verify_file = {
        "netx": verify_netx,
        "xylo": verify_xylo,
        "nir": partial(_verify_nir, step_s=step_s),
        "verilog": partial(verify_verilog, simulator=simulator, synthesis=synthesis),
    }[kind_of(file)]
    return replace(verify_file(run, checkpoint, file, batches), split=split, samples=len(ids))


def _check_kept(run: Run, file: Path) -> None:
    """Raise where the run's folder cannot keep a result."""
    check_can_write(run.path / FOLDER, COPY_IT, is_folder=True)
    for ending in ("json", "png"):
        check_can_write(run.path / FOLDER / f"{file.name}.{ending}", COPY_IT)


def _keep(run: Run, file: Path, result: Verification) -> None:
    """Put the result into the run's folder."""
    folder = run.path / FOLDER
    make_folder(folder)
    write_object(folder / f"{file.name}.json", result.record())
    if result.weights:
        with phase("drawing the weights"):
            replace_file(folder / f"{file.name}.png", png_bytes(weight_histogram(result.weights)))


def _write_netx(run: Run, checkpoint: str, fresh: Path, file: Path) -> None:
    """The file, and beside it its loader, in the place `fresh` for what will be `file`."""
    graph = for_chip(run, checkpoint, pause=True)[1]
    try:
        write_netx(graph, fresh)
    except SnnError as cause:
        raise SnnError(str(cause).replace(str(fresh), str(file))) from cause
    loader_path(fresh).write_text(loader_text(graph, file), encoding="utf-8")


def _for_nir(run: Run, checkpoint: str, file: Path) -> Network:
    """The run's network, which has to be one in floats."""
    network = run.network(checkpoint)
    if network.floats is not network:
        target = str(run.experiment.train.target)
        raise SnnError(
            f"export to {file.name}: the run was trained in the chip's integers, whose shifts NIR does not have. "
            f"Export it to a {OF_INTEGERS.get(target, '.v')} file, or train with train.target=float for NIR."
        )
    return network


def _looked_at(run: Run, split: str) -> str:
    """The split, or another in place of a test split that was left alone so far."""
    if split != "test" or "test" in (run.results() or {}):
        return split
    return "validation" if len(run.dataset().ids["validation"]) else "train"


def _recordings(run: Run, split: str, samples: int) -> np.ndarray:
    """The ids of up to so many recordings of a split."""
    check_number("samples", samples, integer=True, low=1)
    dataset = run.dataset()
    check_choice("split", split, dataset.ids)
    if not len(dataset.ids[split]):
        raise SnnError(f"verify: the {split!r} split of {dataset.data.name} is empty here. Use --split train.")
    return dataset.ids[split][:samples]


def kind_of(file: Path) -> str:
    """Which format a file's name asks for."""
    kinds = {".net": "netx", ".xylo": "xylo", ".nir": "nir", ".v": "verilog"}
    if file.suffix not in kinds:
        raise SnnError(
            f"{file}: the ending says the format, .net (Lava netx, Loihi), .xylo (Xylo), .nir (NIR) or .v (Verilog)."
        )
    return kinds[file.suffix]


def _check_memory(run: Run, file: Path, ids: np.ndarray) -> None:
    """Raise where the machine has not the memory to replay these recordings."""
    way: Way = "replaying" if kind_of(file) == "nir" else "replaying integers"
    dataset, count = run.dataset(), min(len(ids), AT_ONCE)
    asked = f"verify: {count} recordings at a time"
    check_room_for(asked, run.experiment, dataset, count, way=way, option="--samples")


def _only_for(file: Path, ending: str, **given: Any) -> None:
    """Raise where an option of one kind of files is given for another."""
    for name, value in given.items():
        if value is not None and file.suffix != ending:
            raise SnnError(f"{file}: --{name} is for {ending} files. Leave it out.")


def _verify_nir(run: Run, checkpoint: str, file: Path, batches: Batches, step_s: float | None) -> Verification:
    network, back = run.network(checkpoint), read_nir(file, step_s=step_s).eval()
    theirs, ours = ((each.input_shape, each.output_shape) for each in (back, network))
    if theirs != ours:
        raise SnnError(
            f"{file}: it makes {list(theirs[1])} of {list(theirs[0])} in a step, {run.path} makes {list(ours[1])} of "
            f"{list(ours[0])}. Name the run that the file is of."
        )
    loss, kind, last = run.experiment.train.loss, run.dataset().targets.kind, network.layers[-1]
    spiking = has_state(last) and is_spiking(neuron_of(last))
    right = {"trained": 0, "read back": 0, "equations": 0}
    difference, compared, total, labelled = None, 0, 0, 0
    for x, targets, mask in in_phase(batches, "replaying recordings"):
        with torch.no_grad():
            outs = {"trained": network(x), "read back": back(x)}
        outs["equations"] = replay_nir(file, x, step_s=step_s)
        for name, out in outs.items():
            correct, count = right_of(decisions(loss, out, mask, kind), targets, mask)
            right[name] += correct
            if name == "equations" and not spiking and np.allclose(out, outs["trained"], rtol=1e-4, atol=1e-5):
                compared += out.numel()  # potentials, summed in another order
            elif name != "trained":
                difference = difference or first_difference(
                    out.numpy(), outs["trained"].numpy(), layer=f"output, {name}", first=total
                )
                compared += out.numel()
        total, labelled = total + len(targets), labelled + count
    return Verification(
        file=str(file), split="", samples=total, difference=difference, compared=compared,
        accuracy={name: count / labelled for name, count in right.items()} if labelled else {},
        note="Compared: the network, the network read back, and NIR's equations, in double precision, on the file. "
        "Other readers may differ.",
    )  # fmt: skip
