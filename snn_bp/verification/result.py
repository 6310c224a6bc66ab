"""`Verification`, the result of `verify`, and the first difference of two outputs in words."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from snn_bp.runtime.screen import on_screen


@dataclass(frozen=True)
class Verification:
    """What `verify` found; `holds` says whether the file does what the network does."""

    file: str
    split: str
    samples: int
    accuracy: dict[str, float]  # each stage's on the same recordings
    difference: str | None  # where file and network first differ, in words
    compared: int  # outputs of neurons, step by step
    spikes: dict[str, float] = field(default_factory=dict)  # as `evaluate` counts them, of the network in integers
    operations: dict[str, float] = field(default_factory=dict)  # synaptic, likewise
    weights: dict[str, dict[int, int]] = field(default_factory=dict)  # each population's: how often each number occurs
    chips: dict[str, str] = field(default_factory=dict)
    client: str | None = None  # what Lava's own client said, where it was asked
    note: str = "Silicon was not tested: the arithmetic is that of the chip's published models."
    row: int = 1  # recordings that followed one another in the replay
    pause: int = 0  # steps without input between them
    rounding: dict[str, Any] = field(default_factory=dict)  # what a network trained in floats lost by it
    overflows: dict[str, dict[str, int]] = field(default_factory=dict)  # each population's in the replay
    lost: dict[str, int] = field(default_factory=dict)  # weights of each population that rounded to zero
    warnings: tuple[str, ...] = ()
    load: str | None = None  # the call that loads the file in Lava's client
    circuit: dict[str, Any] = field(default_factory=dict)  # figures of Verilog; under "says" in words

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return self.difference is None

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"holds": self.holds, **asdict(self)}

    def __str__(self) -> str:
        lines = [f"{self.file} on {self.samples} recordings of {self.split}:"]
        fewer = self.circuit.get("recordings", self.samples) < self.samples
        for name, value in self.accuracy.items():
            of = f", the first {self.circuit['recordings']} of {self.samples}" if fewer and name == "circuit" else ""
            lines.append(f"  accuracy {name:10} {value:.4f}{of}")
        lines += [f"  {name}: {count:.1f} spikes for each inference" for name, count in self.spikes.items()]
        for name, count in self.operations.items():
            lines.append(f"  {name}: {count:.0f} synaptic operations for each inference")
        for name, said in self.chips.items():
            lines.append(f"  {name}: {said}")
        if self.client:
            lines.append(f"  Lava's client: {self.client}")
        lines += [f"  circuit: {said}" for said in self.circuit.get("says", ())]
        lines += [f"  warning: {said}" for said in self.warnings]
        if self.load:
            lines.append(f"  load it by {self.load}")
        row = f", {self.row} recordings in a row, {self.pause} steps of pause between them" if self.row > 1 else ""
        found = f"all {self.compared:,} outputs of neurons are equal{row}"
        lines += [f"  {found if self.holds else f'DIFFERENT: {self.difference}'}", f"  {self.note}"]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return on_screen(str(self))


def histogram(weights: np.ndarray) -> dict[int, int]:
    """How often each integer is among the weights."""
    values, counts = np.unique(weights, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def first_difference(mine: np.ndarray, theirs: np.ndarray, *, layer: str, first: int = 0) -> str | None:
    """Where two outputs `[time, batch, ...]` first differ, in words."""
    if mine.shape != theirs.shape:
        return f"{layer}: shapes {list(mine.shape)} and {list(theirs.shape)}"
    differing = np.argwhere(mine != theirs)
    if not len(differing):
        return None
    step, sample, *neuron = differing[0].tolist()
    found, wanted = (values[tuple(differing[0])].item() for values in (mine, theirs))
    return (
        f"{layer}, step {step}, neuron {tuple(neuron)}, recording {first + sample}: {found:.9g} in the file, "
        f"{wanted:.9g} in the network ({len(differing)} of {mine.size} differ)"
    )
