"""Verifies a netx file: recordings in a row through its integers, compared with the network on each of them alone.

The network starts every recording from rest, with nothing under way; what the file carries over from before, or sends
before a recording arrives, is therefore a difference.
"""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from snn_bp.chip.cores import CHIPS, placement
from snn_bp.chip.graph import same
from snn_bp.chip.in_a_row import ROW, carried, in_a_row, one_after_the_other
from snn_bp.chip.lava_client import run_client
from snn_bp.chip.loader import loading_call
from snn_bp.chip.netx_read import read_netx
from snn_bp.chip.replay import simulate
from snn_bp.errors import SnnError
from snn_bp.runs.folder import Run
from snn_bp.verification.result import Verification, first_difference
from snn_bp.verification.stages import Batches, for_chip, replay_stages


def verify_netx(run: Run, checkpoint: str, file: Path, batches: Batches) -> Verification:
    """Whether a netx file does what a run's network does, on batches of recordings."""
    chip, graph = for_chip(run, checkpoint)
    held = read_netx(file)
    difference = same(graph, held)
    if difference is None and held.pause < graph.pause:
        difference = f"pause: {graph.pause} and {held.pause}"
    if difference is not None:
        difference = f"the file does not hold the integers of {run.path}: {difference}"
        shapes = [(each.input_shape, *(population.shape for population in each.populations)) for each in (graph, held)]
        if shapes[0] != shapes[1]:  # nothing can be replayed beside each other
            raise SnnError(f"{file}: {difference}. Export the run again, or name the run that the file is of.")
    found = replay_stages(run, chip, held, batches, lambda x: in_a_row(held, x), difference=difference)
    fits = {name: placement(held, name) for name in CHIPS}
    names = list(found.weights)
    going_on = [f"{names[each.population]}: {each}" for each in carried(held)]
    difference = found.difference
    if difference is not None and not difference.startswith(("the file", "rounding")):
        difference = " ".join((difference + ".", *going_on))  # what in the graph may be the cause of it
    return replace(
        found, file=str(file), difference=difference,
        chips={name: " ".join((f"{sum(on.cores)} cores at least.", *on.problems)) for name, on in fits.items()},
        row=min(ROW, found.samples), pause=held.pause, warnings=(*found.warnings, *going_on),
        load=loading_call(held, file, steps=len(batches[0][0])),
    )  # fmt: skip


def ask_client(file: Path, x: Tensor) -> tuple[str, str | None]:
    """What Lava's client says to recordings `[time, recordings, ...]` in a row, and where our replay differs."""
    held, recordings = read_netx(file), x.shape[1]
    every = len(x) + held.pause
    ours = simulate(held, one_after_the_other(held, x, row=recordings), record=True, every=every)
    ran = run_client(file, x)
    pairs = {}
    if not held.populations[-1].readout:  # lava's potentials are those after reset, and stand below
        pairs["the output"] = in_a_row(held, x, row=recordings).out, ran.out
    for index in range(len(held.populations)):
        fired = ours.spikes[index]
        pairs[f"spikes of population {index}"] = fired, ran.spikes[index][:, None]
        pairs[f"currents of population {index}"] = ours.currents[index], ran.currents[index][:, None]
        after_reset = ours.potentials[index] * (1 - fired)
        pairs[f"potentials of population {index}"] = after_reset, ran.potentials[index][:, None]
    compared = 0
    for name, (mine, theirs) in pairs.items():
        compared += mine.size
        difference = first_difference(mine, theirs, layer=f"Lava's client, {name}")
        if difference is not None:
            return "it differs", difference
    return f"all {compared:,} spikes, currents and potentials of {recordings} recordings in a row are equal", None
