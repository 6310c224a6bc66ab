"""Verifies a .xylo file: its integers replay recordings, each from rest, beside the network and xylosim."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from snn_bp.chip.rules import name_of
from snn_bp.chip.xylo.configuration import HIDDEN, OUTPUTS, Configuration, read_xylo, same
from snn_bp.chip.xylo.forward import run_xylo
from snn_bp.chip.xylo.quantize import configuration_of
from snn_bp.chip.xylo.replay import Replay, simulate
from snn_bp.chip.xylo.simulator import run_simulator, simulator_missing, simulator_version
from snn_bp.errors import SnnError
from snn_bp.model.network import Network
from snn_bp.runs.folder import Run
from snn_bp.runtime.status import in_phase
from snn_bp.verification.decisions import decisions, right_of
from snn_bp.verification.result import Verification, first_difference, histogram
from snn_bp.verification.stages import Batches

MATRICES = ("weights_in", "weights_rec", "weights_out")
EXPANSION = 128  # hidden neurons of Xylo Audio 3 that get inputs, the first, and that reach outputs, the last


def for_xylo(run: Run, checkpoint: str = "best") -> tuple[Network, Configuration]:
    """The run's network in Xylo's integers, and these."""
    if run.experiment.train.target != "xylo":
        raise SnnError(
            f"export to .xylo: {run.path} was trained with train.target={run.experiment.train.target!r}, whose neurons "
            "send one spike in a step, Xylo's up to 31. Train with train.target=xylo."
        )
    network = run.network(checkpoint)
    return network, configuration_of(network, step_ms=run.experiment.data.step_ms or 1.0)


def verify_xylo(run: Run, checkpoint: str, file: Path, batches: Batches) -> Verification:
    """Whether a .xylo file does what a run's network does, on batches of recordings."""
    network, configuration = for_xylo(run, checkpoint)
    held = read_xylo(file)
    difference = same(configuration, held)
    if difference is not None:
        difference = f"the file does not hold the integers of {run.path}: {difference}"
        if any(getattr(configuration, name).shape != getattr(held, name).shape for name in MATRICES):
            raise SnnError(f"{file}: {difference}. Export the run again, or name the run that the file is of.")
    loss, kind = run.experiment.train.loss, run.dataset().targets.kind
    missing = simulator_missing()
    right, compared, total, labelled = {"quantised": 0, "integer": 0}, {"network": 0, "simulator": 0}, 0, 0
    spikes: dict[str, float] = {}
    operations = dict.fromkeys(MATRICES, 0.0)  # each spike of a count for itself
    apart: str | None = None  # where xylosim differs
    for x, targets, mask in in_phase(batches, "replaying recordings"):
        with torch.no_grad():
            ran = list(run_xylo(network, x))
        sent = np.pad(x.flatten(2).numpy(), ((0, held.latency), (0, 0), (0, 0)))
        replay = simulate(held, sent)
        steps = slice(held.latency, None)
        outs = {"quantised": ran[-1][1], "integer": torch.from_numpy(replay.out[steps])}
        for name, out in outs.items():
            correct, count = right_of(decisions(loss, out.to(x.dtype), mask, kind), targets, mask)
            right[name] += correct
        labelled += count
        for name, mine, theirs in _pairs(network, ran, held, replay):
            difference = difference or first_difference(mine, theirs, layer=name, first=total)
            compared["network"] += mine.size
        for block, counts, *_ in ran:
            name = name_of(network, block)
            spikes[name] = spikes.get(name, 0.0) + float(counts.sum())
        for name, source in zip(MATRICES, (sent, replay.spikes, replay.spikes), strict=True):
            operations[name] += float(source.sum((0, 1)) @ (getattr(held, name) != 0).sum(1))
        if not missing:
            for name, theirs in vars(run_simulator(held, sent)).items():
                mine = getattr(replay, name)
                apart = apart or first_difference(mine, theirs, layer=f"xylosim, {name}", first=total)
                compared["simulator"] += mine.size
        total += len(targets)
    said = missing or (
        "it differs" if apart else f"all {compared['simulator']:,} spikes, currents and potentials are equal"
    )
    return Verification(
        file=str(file), split="", samples=total, difference=difference or apart, compared=compared["network"],
        accuracy={name: count / labelled for name, count in right.items()} if labelled else {},
        spikes={name: count / total for name, count in spikes.items()},
        operations={name: count / total for name, count in operations.items()},
        weights={name: histogram(getattr(held, name)) for name in MATRICES},
        chips={**_fits(held), "xylosim was not asked" if missing else f"xylosim {simulator_version()}": said},
        note="Silicon was not tested: the arithmetic is that of xylosim, from rest for each recording.",
        load="config_from_specification(**{name: numpy.array(values) for name, values in "
        f"json.load(open({file.name!r}))['specification'].items()}})",
    )  # fmt: skip


def _pairs(
    network: Network, ran: list[tuple], held: Configuration, replay: Replay
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """What each layer's spikes and potentials are called, in the file's replay and in the network."""
    ends = np.cumsum([0, *held.hidden])
    for index, (block, counts, potentials, grid) in enumerate(ran):
        columns, name = slice(*ends[index : index + 2]), name_of(network, block)
        mine = replay.spikes[..., columns], replay.potentials[..., columns]
        if index == held.latency:
            mine = replay.out, replay.out_potentials
        theirs = counts, potentials - counts * grid.threshold
        for said, one, other in zip(("spikes", "potentials"), mine, theirs, strict=True):
            yield f"{name}, {said}", one[index : index + len(counts)], other.numpy().astype(np.int64)


def _fits(held: Configuration) -> dict[str, str]:
    """How much of each chip a configuration takes, and what of it the chip does not have."""
    taken = f"{sum(held.hidden)} of {{}} hidden neurons, {held.weights_out.shape[1]} of {{}} outputs."
    found = {"Xylo Audio 2": taken.format(HIDDEN, OUTPUTS), "Xylo Audio 3": taken.format(992, 32)}
    sizes = {"inputs reach the first": held.hidden[0], "outputs are reached by the last": held.hidden[-1]}
    for name, size in sizes.items():
        if size > EXPANSION:
            found["Xylo Audio 3"] += f" There {name} {EXPANSION} only, and this layer has {size}."
    return found
