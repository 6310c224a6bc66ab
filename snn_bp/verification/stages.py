"""A network in floats, the same in integers, and a replay of these integers, compared recording by recording.

`.net` files and circuits share it: each says how its integers are replayed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from snn_bp.chip.forward import run_chip
from snn_bp.chip.graph import Graph
from snn_bp.chip.in_a_row import carried, pause_for
from snn_bp.chip.network import OnChip
from snn_bp.chip.quantize import lost_weights, quantize
from snn_bp.chip.replay import Overflow, Replay
from snn_bp.chip.rules import name_of
from snn_bp.data import Dataset
from snn_bp.kernels.fixed import Arithmetic
from snn_bp.model.network import Network
from snn_bp.runs.evaluation import count_activity
from snn_bp.runs.folder import Run
from snn_bp.runtime.status import in_phase, phase
from snn_bp.verification.decisions import decisions, differing, right_of
from snn_bp.verification.result import Verification, first_difference, histogram

Batches: TypeAlias = Sequence[tuple[Tensor, Tensor, Tensor | None]]  # inputs, targets, mask
CLASSES_APART = 0.1  # fraction of recordings that rounding a network trained in floats may classify otherwise
SPIKES_APART = 2.0  # how many times as often, or as seldom, a layer may fire after it
AT_ONCE = 64  # recordings that are replayed at a time


@dataclass(frozen=True, eq=False)
class Recordings(Sequence[tuple[Tensor, Tensor, Tensor | None]]):
    """Recordings of a split in batches, each made when it is asked for."""

    dataset: Dataset
    split: str
    ids: np.ndarray

    def __len__(self) -> int:
        return -(-len(self.ids) // AT_ONCE)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor | None]:  # type: ignore[override] - no slices
        some = self.ids[range(len(self))[number] * AT_ONCE :][:AT_ONCE]
        return *self.dataset.batch(self.split, some), self.dataset.mask(self.split, some)


@phase("rounding to integers")
def for_chip(run: Run, checkpoint: str = "best", *, pause: bool = False) -> tuple[Network, Graph]:
    """The run's network in integers, and the integers it uses.

    `pause`: where a population could go on by itself, recordings of the training split say how long to wait for it.
    """
    trained = run.network(checkpoint)
    chip = cast(Network, OnChip(trained)) if trained.floats is trained else trained
    graph = quantize(trained, input_bits=0 if run.experiment.data.binary else 8)
    if pause and carried(graph):
        dataset = run.dataset()
        split = next(split for split in ("train", "validation", "test") if len(dataset.ids[split]))
        graph = replace(graph, pause=pause_for(graph, dataset.batch(split, dataset.ids[split][:256])[0]))
    return chip, graph


def replay_stages(
    run: Run, chip: Network, graph: Graph, batches: Batches, replayed: Callable[[Tensor], Replay], *,
    difference: str | None = None,
) -> Verification:  # fmt: skip
    """What comes out of each stage on batches of recordings, and where the integers differ from the network first.

    `replayed` gives the steps in which recordings `[time, recordings, ...]` reach each population of `graph`. A
    `difference` that is known before stays the one that is named.
    """
    loss, kind = run.experiment.train.loss, run.dataset().targets.kind
    right, others, compared, total = {"float": 0, "quantised": 0, "integer": 0}, 0, 0, 0
    counts: dict[str, tuple[dict[str, float], dict[str, float]]] = {"float": ({}, {}), "quantised": ({}, {})}
    overflows = [Overflow(0)] * len(graph.populations)
    names: list[str] = []
    labelled = 0
    for x, targets, mask in in_phase(batches, "replaying recordings"):
        replay = replayed(x)
        with torch.no_grad():
            outs = {"float": count_activity(chip.floats, x, *counts["float"], mask=mask)}
            ran = list(run_chip(chip, x))
            outs["quantised"] = count_activity(chip, x, *counts["quantised"], mask=mask)
        outs["integer"] = torch.from_numpy(replay.out).reshape(outs["quantised"].shape)
        said = {name: decisions(loss, out.to(x.dtype), mask, kind) for name, out in outs.items()}
        for name, classes in said.items():
            correct, count = right_of(classes, targets, mask)
            right[name] += correct
        labelled += count
        others += differing(said["float"], said["quantised"])
        names = [name_of(chip, block) for block, *_ in ran]
        for index, (population, (_, out, potentials, _)) in enumerate(zip(graph.populations, ran, strict=True)):
            mine, theirs = replay.spikes[index], out
            if population.readout:
                mine, theirs = replay.potentials[index], potentials * graph.arithmetic.unit
            theirs = theirs.numpy().reshape(mine.shape)  # a Flatten behind the last neurons is not in the file
            difference = difference or first_difference(mine, theirs, layer=names[index], first=total)
            compared += mine.size
        overflows = [before + now for before, now in zip(overflows, replay.overflows, strict=True)]
        total += len(targets)
    per = {
        stage: tuple({name: count / total for name, count in each.items()} for each in both)
        for stage, both in counts.items()
    }
    rounding: dict[str, Any] = {}
    if run.experiment.train.target == "float":
        rounding = {"votes": others, "spikes": per["float"][0]}
        difference = difference or apart(others, total, per["float"][0], per["quantised"][0])
    with torch.no_grad():
        lost = {each.name: each for each in lost_weights(chip, graph.populations) if each.count}
    beyond = {name: found._asdict() for name, found in zip(names, overflows, strict=True) if any(found)}
    return Verification(
        file="", split="", samples=total, difference=difference, compared=compared,
        accuracy={name: count / labelled for name, count in right.items()} if labelled else {},
        spikes=per["quantised"][0], operations=per["quantised"][1],
        weights={
            name: histogram(population.weight) for name, population in zip(names, graph.populations, strict=True)
        },
        rounding=rounding, overflows=beyond, lost={name: each.count for name, each in lost.items()},
        warnings=(*_too_large(beyond, graph.arithmetic), *map(str, lost.values())),
    )  # fmt: skip


def apart(others: int, recordings: int, floats: dict[str, float], integers: dict[str, float]) -> str | None:
    """In words, where a network trained in floats and the same in integers part by more than rounding.

    `others` of so many recordings are taken for another class; the dictionaries hold each layer's spikes for one
    inference.
    """
    remedy = (
        "Train in integers (train.target=loihi, for Verilog also fpga), or keep outliers from the weights (BatchNorm, "
        "weight decay)."
    )
    for name, count in floats.items():
        held = integers.get(name, 0.0)
        if max(count, held) >= 1 and not count / SPIKES_APART <= held <= count * SPIKES_APART:
            return (
                f"rounding: {name} sends {count:.1f} spikes for each inference in floats and {held:.1f} in "
                f"integers, more than {SPIKES_APART:g} times apart. {remedy}"
            )
    if others > max(1, CLASSES_APART * recordings):
        return (
            f"rounding: {others} of {recordings} recordings are taken for another class than in floats, more than "
            f"{CLASSES_APART:.0%}. {remedy}"
        )
    return None


def _too_large(overflows: dict[str, dict[str, int]], arithmetic: Arithmetic) -> list[str]:
    """Warnings about numbers that left their registers."""
    bits = arithmetic.state_bits
    if arithmetic.overflow == "saturate":
        return [
            f"{name}: {kinds['saturations']:,} currents and potentials at an end of their {bits} bits, as in training."
            for name, kinds in overflows.items()
        ]
    meanings = {
        "sums": "sums of weights beyond 16 bits, which lava adds up all the same and a chip may not",
        "wraps": f"currents that wrapped in {bits} bits",
        "saturations": f"membranes, and currents that do not wrap, at the end of {bits} bits",
    }
    return [
        f"{name}: {count:,} {meanings[kind]}. Use fewer inputs, shorter steps or data.binary=True."
        for name, kinds in overflows.items()
        for kind, count in kinds.items()
        if count
    ]
