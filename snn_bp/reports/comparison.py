"""`compare`: runs side by side, those that differ only in their seed as one group with mean and deviation."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from snn_bp.errors import SnnError
from snn_bp.errors.calls import checked_call
from snn_bp.files import is_there, write_csv, write_json
from snn_bp.model.names import written
from snn_bp.reports.paired import Pair, pair_of
from snn_bp.runs.experiment import Experiment, content_of
from snn_bp.runs.folder import Run
from snn_bp.runs.own_code import Code
from snn_bp.runs.records import figure_of
from snn_bp.runtime.screen import html_table, on_screen

TITLES = {
    "train_seconds": "seconds of training",
    "spikes": "spikes / inference",
    "operations": "operations / inference",
}  # figures beside those on the test and the validation split


class Spread(NamedTuple):
    """A figure over runs; `deviation` is that of the sample (n - 1), None of a single run."""

    mean: float
    deviation: float | None
    runs: int

    def __str__(self) -> str:
        digits = 4 if abs(self.mean) < 10 else 1
        behind = "" if self.deviation is None else f" ± {self.deviation:.{digits}f}"
        return f"{self.mean:.{digits}f}{behind}"


@dataclass(frozen=True)
class Group:
    """Finished runs of one experiment, seed by seed."""

    paths: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: dict[str, str]  # those in which the groups differ; "-" where this one has none
    figures: dict[str, Spread]  # as "test_accuracy", "test_loss", "spikes"; those that no run has are left out


@dataclass(frozen=True)
class Comparison:
    """Groups in the order in which their first runs were given, and with their state runs not finished or damaged."""

    groups: tuple[Group, ...]
    unfinished: dict[str, str]
    pair: Pair | str | None = None  # two runs on the same test recordings, or why not; None of others

    @property
    def measures(self) -> list[str]:
        """The names of the figures, in the order of the table."""
        found = [name for group in self.groups for name in group.figures]
        splits = ("test", "validation")
        metrics = dict.fromkeys(
            name.partition("_")[2] for name in found if name.startswith(splits) and not name.endswith("_loss")
        )
        return [f"{split}_{name}" for split in splits for name in (*(metrics or ["accuracy"]), "loss")] + [*TITLES]

    @property
    def notes(self) -> list[str]:
        """What weakens the figures, in sentences."""
        sentences = []
        for number, group in enumerate(self.groups, 1):
            for seed, count in Counter(group.seeds).items():
                if count > 1:
                    sentences.append(
                        f"group {number} has seed {seed} {count} times: its deviation is not one over seeds"
                    )
            for name, spread in group.figures.items():
                if spread.runs < len(group.paths):
                    sentences.append(f"group {number}: {spread.runs} of {len(group.paths)} runs have a {_title(name)}")
        return sentences + ([f"no pair: {self.pair}"] if isinstance(self.pair, str) else [])

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        groups = [
            {"runs": list(group.paths), "seeds": list(group.seeds), "settings": group.settings}
            | {name: spread._asdict() for name, spread in group.figures.items()}
            for group in self.groups
        ]
        paired = {"pair": self.pair.record()} if isinstance(self.pair, Pair) else {}
        return {"groups": groups, "unfinished": self.unfinished, "notes": self.notes} | paired

    def write(self, file: Path | str) -> None:
        """Write the table to `file`: `.csv`, a row for each group, or `.json`, unfinished runs included."""
        file = Path(file)
        if file.suffix not in (".csv", ".json"):
            raise SnnError(f"{file}: the ending says the format, .csv or .json.")
        if file.suffix == ".json":
            return write_json(file, self.record())
        rows: list[dict[str, Any]] = []
        for group in self.groups:
            row: dict[str, Any] = {**group.settings, "runs": len(group.paths), "seeds": _listed(group.seeds)}
            for name, spread in group.figures.items():
                row |= {f"{name}_mean": spread.mean, f"{name}_deviation": spread.deviation}
            rows.append({**row, "paths": _listed(group.paths)})
        settings = list(self.groups[0].settings) if self.groups else []
        measured = [f"{name}_{kind}" for name in self.measures for kind in ("mean", "deviation")]
        write_csv(file, [*settings, "runs", "seeds", *measured, "paths"], rows)

    def __str__(self) -> str:
        lines = []
        if self.groups:
            measured = [name for name in self.measures if any(name in group.figures for group in self.groups)]
            settings = list(self.groups[0].settings)
            table = [["group", "runs", *map(_title, measured)]]
            for number, group in enumerate(self.groups, 1):
                figures = [str(group.figures.get(name, "-")) for name in measured]
                table.append([str(number), str(len(group.paths)), *figures])
            lines += _aligned(table)
            for number, group in enumerate(self.groups, 1):
                lines.append(f"group {number}: seeds {_listed(group.seeds)} ({_listed(group.paths)})")
                lines += [f"  {key} = {group.settings[key]}" for key in settings]
        lines += [str(self.pair)] if isinstance(self.pair, Pair) else []
        lines += [f"{path}: {state}" for path, state in self.unfinished.items()]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return on_screen(str(self))

    def _repr_html_(self) -> str:
        measured = [name for name in self.measures if any(name in group.figures for group in self.groups)]
        settings = list(self.groups[0].settings) if self.groups else []
        rows = [
            (*map(str, (number, len(group.paths))), *(str(group.figures.get(name, "-")) for name in measured),
             *(group.settings[key] for key in settings))
            for number, group in enumerate(self.groups, 1)
        ]  # fmt: skip
        notes = [str(self.pair)] if isinstance(self.pair, Pair) else []
        notes += [f"{path}: {state}" for path, state in self.unfinished.items()] + [
            f"note: {each}" for each in self.notes
        ]
        return html_table(
            "Mean ± deviation over runs", ("group", "runs", *map(_title, measured), *settings), rows, notes=notes
        )


@checked_call
def compare(runs: Sequence[Run | Path | str]) -> Comparison:
    """Runs grouped by their experiment but for the seed; of finished ones, figures as mean and deviation over seeds.

    `runs` are folders or `Run`s. Figures are those of `results.json`. Spikes and synaptic operations are summed over
    layers, of the test split, or of the validation split where there is no other. Where the data lie on the disk tells
    no runs apart.

    >>> len(compare(["runs/a"]).groups)  # the run of `train`
    1
    """
    if not runs:
        raise SnnError("compare: no run is named. `snn-bp compare runs/a runs/b`, or `snn-bp compare runs/*`.")
    unfinished: dict[str, str] = {}
    distinct: dict[Path, Run] = {}
    for each in runs:
        path = each.path if isinstance(each, Run) else Path(each)
        try:
            run = each if isinstance(each, Run) else Run(path)
            distinct.setdefault(path.resolve(), run)
        except SnnError as problem:
            if not is_there(path / "experiment.json"):  # a name mistyped, not a run that is damaged
                raise
            unfinished[str(path)] = f"cannot be read: {problem}"
    contents: list[Any] = []  # the experiment of each group as JSON, in which 52 equals 52.0
    members: list[list[tuple[Run, dict[str, float]]]] = []
    for run in distinct.values():
        try:
            results = run.results()
        except SnnError as problem:
            unfinished[str(run.path)] = f"cannot be read: {problem}"
            continue
        if results is None:
            unfinished[str(run.path)] = state_of(run)
            continue
        content, _ = content_of(replace(run.experiment, seed=0, data=replace(run.experiment.data, root=None)))
        if content not in contents:
            contents.append(content)
            members.append([])
        members[contents.index(content)].append((run, _figures(results)))
    named = [settings(group[0][0].experiment) for group in members]
    for each in named:
        del each["seed"], each["data.root"]
    keys = dict.fromkeys(key for each in named for key in each)
    differing = [key for key in keys if len({each.get(key) for each in named}) > 1]
    groups = []
    for each, group in zip(named, members, strict=True):
        groups.append(
            Group(
                paths=tuple(str(run.path) for run, _ in group),
                seeds=tuple(run.experiment.seed for run, _ in group),
                settings={key: each.get(key, "-") for key in differing},
                figures=_spreads([figures for _, figures in group]),
            )
        )
    tested = [run for group in members for run, figures in group if any(name.startswith("test_") for name in figures)]
    pair = pair_of(tested[0], tested[1]) if len(tested) == sum(map(len, members)) == 2 else None
    return Comparison(tuple(groups), unfinished, pair)


def settings(experiment: Experiment) -> dict[str, str]:
    """What an experiment asks, by the keys that change it: "train.lr" is "0.002", "model.1" is "LIF(beta=0.9)".

    Definitions of the user's stand there as the first digits of their hashes, `code.mine.py:TET`.
    """
    found = {}
    for part in ("data", "train"):
        value = getattr(experiment, part)
        found |= {f"{part}.{field.name}": written(getattr(value, field.name)) for field in fields(value)}
    found |= {f"model.{index}": written(layer) for index, layer in enumerate(experiment.model)}
    code = Code.of(experiment)
    found |= {f"code.{name}": digest[:8] for name, digest in (code.hashes if code else {}).items()}
    return {**found, "seed": str(experiment.seed)}


def state_of(run: Run) -> str:
    """How far a run came that is not finished."""
    checkpoint, problems = run.latest()
    if checkpoint is None:
        why = " ".join(problems) or "its checkpoints are missing."
        return f"cannot go on: {why}" if problems or run.has_trained() else "not started"
    if run.is_search():
        return f"search not finished, {checkpoint.epoch} rows"
    return f"not finished, epoch {checkpoint.epoch} of {run.experiment.train.epochs}"


def _figures(results: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for split in ("validation", "test"):
        if part := results.get(split):
            name, value = figure_of(part)
            found |= {f"{split}_{name}": value, f"{split}_loss": part["loss"]}
            found |= {f"{split}_accuracy": part["accuracy"]} if "accuracy" in part and name != "step_accuracy" else {}
            found |= {
                name: math.fsum(part[name].values())
                for name in ("spikes", "operations")
                if part.get(name) and not (name == "operations" and part.get("not_counted"))
            }
    if "train_seconds" in results:
        found["train_seconds"] = results["train_seconds"]
    return {name: figure for name, figure in found.items() if math.isfinite(figure)}  # a loss may have overflown


def _spreads(figures: list[dict[str, float]]) -> dict[str, Spread]:
    spreads = {}
    for name in dict.fromkeys(name for each in figures for name in each):
        values = [each[name] for each in figures if name in each]
        if values:
            deviation = statistics.stdev(values) if len(values) > 1 else None
            spreads[name] = Spread(statistics.fmean(values), deviation, len(values))
    return spreads


def _title(name: str) -> str:
    return TITLES.get(name, name.replace("_", " "))


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in table]
