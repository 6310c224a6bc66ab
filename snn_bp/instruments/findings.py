"""What an instrument says: a finding in words with the change to make, and a report of them."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from snn_bp.runtime.screen import html_table, on_screen

Kind: TypeAlias = Literal[
    "not finite", "silent", "saturated", "dead window", "vanishing error", "exploding error", "vanishing over time",
    "exploding over time", "decay at its bound", "update too small", "update too large", "frozen layer", "leaked state",
    "shifted labels", "unrelated labels", "stale cache", "changed recordings", "shared recordings", "one class",
    "no input", "window too short", "learning rate too high", "learning rate too low", "chance level", "overfitting",
]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where, which figure says so, and what to change."""

    kind: Kind
    where: str  # a layer by its name, or which of the data
    measure: str
    value: float
    limit: float
    advice: str
    changes: tuple[str, ...] = ()  # to the experiment, as the command line takes them

    def __str__(self) -> str:
        said = f"{self.where}: {self.kind}. {self.measure}: {self.value:.3g} (limit {self.limit:g}). {self.advice}"
        return f"{said} Change: {shlex.join(self.changes)}" if self.changes else said


@dataclass(frozen=True)
class Report:
    """All findings on a subject; `ok` where there is none."""

    subject: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def record(self) -> dict[str, Any]:
        """The findings as JSON holds them; a figure that is not finite becomes None."""
        rows = [asdict(finding) for finding in self.findings]
        for row in rows:
            row["value"] = row["value"] if math.isfinite(row["value"]) else None
        return {"subject": self.subject, "findings": rows}

    def __str__(self) -> str:
        if self.ok:
            return f"{self.subject}: nothing is wrong"
        return "\n".join([f"{self.subject}: {len(self.findings)} findings", *(f"  {each}" for each in self.findings)])

    def __repr__(self) -> str:
        return on_screen(str(self))

    def _repr_html_(self) -> str:
        said = f"{self.subject}: {f'{len(self.findings)} findings' if self.findings else 'nothing is wrong'}"
        rows = [
            (each.where, each.kind, f"{each.value:.3g} (limit {each.limit:g})", each.advice, shlex.join(each.changes))
            for each in self.findings
        ]
        return html_table(said, ("where", "finding", "measured", "advice", "change"), rows, left=5)


def only_new(findings: Sequence[Finding], already_reported: set[tuple[str, str]]) -> list[Finding]:
    """The findings whose kind and place are not in `already_reported` yet; they are added to it."""
    found = [finding for finding in findings if (finding.kind, finding.where) not in already_reported]
    already_reported.update((finding.kind, finding.where) for finding in found)
    return found
