"""A spiking network and the artificial one of its shape side by side: what they reach, and what an inference costs."""

from dataclasses import dataclass
from typing import Any

from snn_bp.errors import SnnError
from snn_bp.model.neurobench import AC_PJ, MAC_PJ, energy_pj
from snn_bp.runs.folder import Run
from snn_bp.runs.records import figure_of
from snn_bp.runtime.screen import html_table, on_screen

Figures = dict[str, float]


@dataclass(frozen=True)
class SideBySide:
    """The figures of two finished runs on one split; costs are those of an inference, in NeuroBench's names."""

    split: str
    spiking: Figures
    ann: Figures
    ann_steps: int  # frames that the artificial network sees

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"split": self.split, "spiking": self.spiking, "ann": self.ann, "ann_steps": self.ann_steps}

    def __str__(self) -> str:
        rows = [("", "spiking", "ANN", "ANN / spiking"), *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            "  ".join(
                [
                    f"{row[0]:{widths[0]}}",
                    *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
                ]
            )
            for row in rows
        ]
        return "\n".join(line.rstrip() for line in [*lines, *self._notes()])

    def __repr__(self) -> str:
        return on_screen(str(self))

    def _repr_html_(self) -> str:
        head = ("", "spiking", "ANN", "ANN / spiking")
        return html_table(f"On the {self.split} split", head, self._rows(), notes=self._notes())

    def _rows(self) -> list[tuple[str, str, str, str]]:
        return [
            (name, _number(value), _number(self.ann[name]), _ratio(value, self.ann[name]))
            for name, value in self.spiking.items()
            if name in self.ann
        ]

    def _notes(self) -> list[str]:
        sees = "one frame with all events" if self.ann_steps == 1 else f"each of {self.ann_steps} frames by itself"
        return [
            f"For an inference on the {self.split} split; the ANN sees {sees}.",
            f"Energy: {MAC_PJ} pJ a MAC, {AC_PJ} pJ an AC (32-bit floats in 45 nm, Horowitz 2014),",
            "without memory, neurons' own steps and leakage.",
        ]


def side_by_side(spiking: Run, ann: Run) -> SideBySide:
    """Two finished runs, on the test split, or on validation where that was left alone."""
    ours, other = (run.results() or {} for run in (spiking, ann))
    split = next((each for each in ("test", "validation") if each in ours and each in other), None)
    if split is None:
        raise SnnError(f"{spiking.path} and {ann.path}: they have no split with results of both. Finish both runs.")
    steps = ann.experiment.data.steps or ann.dataset().steps
    return SideBySide(split, _figures(ours, split), _figures(other, split), steps)


def _figures(results: dict[str, Any], split: str) -> Figures:
    name, value = figure_of(results[split])
    found: Figures = {name.replace("_", " "): value, "ParameterCount": results["parameters"]}
    cost = results[split].get("neurobench")
    if cost is None:  # a layer of which it is not known what it computes
        return found
    counts = cost["SynapticOperations"]
    return found | {
        "Footprint, bytes": cost["Footprint"],
        "ConnectionSparsity": cost["ConnectionSparsity"],
        "ActivationSparsity": cost["ActivationSparsity"],
        "Effective_MACs": counts["Effective_MACs"],
        "Effective_ACs": counts["Effective_ACs"],
        "SynapticOperations": counts["Effective_MACs"] + counts["Effective_ACs"],
        "Dense operations": counts["Dense"],
        "energy estimate, uJ": energy_pj(cost) / 1e6,
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def _ratio(value: float, other: float) -> str:
    return f"{other / value:.3g}" if value else "-"
