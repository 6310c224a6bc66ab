"""`compare`: runs side by side, those that differ only in their seed as one group with mean and deviation."""

import math
import statistics
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from snn_bp.data.description import FOLDER
from snn_bp.errors import SnnError, as_path, shown
from snn_bp.errors.calls import checked_call
from snn_bp.files import is_there, json_key, replace_file, write_csv, write_json
from snn_bp.model.names import written
from snn_bp.reports.paired import Pair, SeedPair, pair_of
from snn_bp.runs.experiment import Experiment, content_of
from snn_bp.runs.folder import Run
from snn_bp.runs.interval import mean_interval
from snn_bp.runs.own_code import Code
from snn_bp.runs.paths import runs_under
from snn_bp.runs.records import differing_contents, digits, figure_of
from snn_bp.runtime.screen import html_table, on_screen
from snn_bp.runtime.status import phase

TITLES = {
    "train_seconds": "seconds of training",
    "spikes": "spikes / inference",
    "operations": "operations / inference",
}  # figures beside those on the test and the validation split
KINDS = ("mean", "deviation", "low", "high")  # columns of a figure: its interval lies between the last two
COLUMNS = 80  # what is printed fits a terminal of so many
FILES = ("experiment.json", "results.json")  # one of which makes a folder a run, be it a damaged one


class Spread(NamedTuple):
    """A figure over runs; `deviation` is that of the sample (n - 1), None of a single run."""

    mean: float
    deviation: float | None
    runs: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean over runs, by Student's t; None of a single run."""
        return None if self.deviation is None else mean_interval(self.mean, self.deviation, self.runs)

    def __str__(self) -> str:
        return self.text(4 if abs(self.mean) < 10 else 1)

    def text(self, digits: int) -> str:
        """Mean and deviation, with so many digits behind the point."""
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
    by_seed: tuple[SeedPair, ...] = ()  # each group less the first, of those with the same seeds, two or more
    unpaired: tuple[str, ...] = ()  # groups of the same seeds that are not compared, and why, in sentences
    chosen: tuple[str, ...] = ()  # by a sweep: what, and its figures, in sentences

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
        return [*sentences, *self.unpaired] + ([f"no pair: {self.pair}"] if isinstance(self.pair, str) else [])

    @property
    def tests(self) -> list[str]:
        """What tests say of differences, in sentences."""
        sentences = [str(self.pair)] if isinstance(self.pair, Pair) else []
        sentences += map(str, self.by_seed)
        several = "Several groups are compared with one: p is not corrected for their number."
        return sentences + [several] * (len(self.by_seed) > 1)

    def _interval_of(self, group: Group) -> str:
        """The interval of a group's first figure, in words; empty of a single run."""
        name = next((name for name in self.measures if name in group.figures), None)
        interval = None if name is None else group.figures[name].interval
        if name is None or interval is None:
            return ""
        return f"{_title(name)}: 95 % interval of the mean {digits(interval[0])} .. {digits(interval[1])}"

    def columns(self) -> list[tuple[str, list[str]]]:
        """The table: of each column its title and a cell for each group; figures that no run has are left out."""
        found = [("group", [str(number) for number in range(1, len(self.groups) + 1)])]
        found.append(("runs", [str(len(group.paths)) for group in self.groups]))
        for name in self.measures:
            spreads = [group.figures.get(name) for group in self.groups]
            if means := [abs(spread.mean) for spread in spreads if spread]:
                digits = 4 if max(means) < 10 or any(0 < mean < 1 for mean in means) else 1  # a small one is no 0.0
                found.append((_title(name), [spread.text(digits) if spread else "-" for spread in spreads]))
        return found

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        groups = [
            {"runs": list(group.paths), "seeds": list(group.seeds), "settings": group.settings}
            | {name: spread._asdict() | {"interval": spread.interval} for name, spread in group.figures.items()}
            for group in self.groups
        ]
        paired = {"pair": self.pair.record()} if isinstance(self.pair, Pair) else {}
        paired |= {"by_seed": [asdict(each) for each in self.by_seed]} if self.by_seed else {}
        paired |= {"chosen": list(self.chosen)} if self.chosen else {}
        return {"groups": groups, "unfinished": self.unfinished, "notes": self.notes} | paired

    def write(self, file: Path | str) -> None:
        """Write it to `file`: `.csv`, a row for each group; `.json`, unfinished runs included; `.html`, with curves."""
        file = as_path("Comparison.write: the file", file)
        if file.suffix not in (".csv", ".json", ".html"):
            raise SnnError(f"{file}: the ending says the format, .csv, .json or .html.")
        if file.suffix == ".json":
            return write_json(file, self.record())
        if file.suffix == ".html":
            from snn_bp.reports.comparison_page import page_of  # matplotlib, only where it is asked for

            return replace_file(file, page_of(self).encode(errors="backslashreplace"))
        rows: list[dict[str, Any]] = []
        for group in self.groups:
            row: dict[str, Any] = {**group.settings, "runs": len(group.paths), "seeds": _listed(group.seeds)}
            for name, spread in group.figures.items():
                low, high = spread.interval or (None, None)
                figures = (spread.mean, spread.deviation, low, high)
                row |= {f"{name}_{kind}": figure for kind, figure in zip(KINDS, figures, strict=True)}
            rows.append({**row, "paths": _listed(group.paths)})
        settings = list(self.groups[0].settings) if self.groups else []
        measured = [f"{name}_{kind}" for name in self.measures for kind in KINDS]
        write_csv(file, [*settings, "runs", "seeds", *measured, "paths"], rows)

    def __str__(self) -> str:
        lines = []
        if self.groups:
            lines += _in_blocks(self.columns())
            for number, group in enumerate(self.groups, 1):
                lines.append(f"group {number}: seeds {_listed(group.seeds)} ({_listed(group.paths)})")
                lines += [f"  {key} = {_cut(value)}" for key, value in group.settings.items() if value != "-"]
                lines += [f"  {self._interval_of(group)}"] if self._interval_of(group) else []
        lines += self.tests
        lines += [f"{path}: {state}" for path, state in self.unfinished.items()]
        lines += [*(f"note: {note}" for note in self.notes), *self.chosen]
        return "\n".join(each for line in lines for each in _wrapped(line))

    def __repr__(self) -> str:
        return on_screen(str(self))

    def _repr_html_(self) -> str:
        columns, settings = self.columns(), list(self.groups[0].settings) if self.groups else []
        columns += [(key, [group.settings[key] for group in self.groups]) for key in settings]
        rows = list(zip(*(cells for _, cells in columns), strict=True))
        notes = (
            self.tests
            + [f"{path}: {state}" for path, state in self.unfinished.items()]
            + [f"note: {each}" for each in self.notes]
            + [*self.chosen]
        )
        return html_table("Mean ± deviation over runs", [head for head, _ in columns], rows, notes=notes)


@checked_call
@phase("reading the runs")
def compare(runs: Sequence[Run | Path | str]) -> Comparison:
    """Runs grouped by their experiment but for the seed; of finished ones, figures as mean and deviation over seeds.

    `runs` are folders or `Run`s; a folder that is no run stands for all runs under it. Figures are those of
    `results.json`. Spikes and synaptic operations are summed over layers, of the test split, or of the validation split
    where there is no other. Groups of the same seeds, two or more, are compared with the first by a paired t-test over
    seeds. Where the data lie on the disk tells no runs apart.

    >>> len(compare(["runs/a"]).groups)  # the run of `train`
    1
    """
    if isinstance(runs, Run | str | PathLike):
        runs = [runs]
    if not isinstance(runs, Iterable):
        raise SnnError(f"compare: it takes runs, found {shown(runs)}. As in compare(['runs/a', 'runs/b']).")
    if not (runs := list(runs)):
        raise SnnError("compare: no run is named. `snn-bp compare runs/a runs/b`, or `snn-bp compare runs/*`.")
    unfinished: dict[str, str] = {}
    distinct: dict[Path, Run] = {}
    for each in (one for given in runs for one in _runs_in(given)):
        path = each.path if isinstance(each, Run) else each
        try:
            run = each if isinstance(each, Run) else Run(each)
            distinct.setdefault(path.resolve(), run)
        except SnnError as problem:
            if not any(is_there(path / name) for name in FILES):  # a name mistyped, not a run that is damaged
                raise
            unfinished[str(path)] = f"cannot be read: {problem}"
    found: dict[Any, list[tuple[Run, dict[str, float]]]] = {}  # the runs of each group
    for run in distinct.values():
        try:
            results = run.results()
        except SnnError as problem:
            unfinished[str(run.path)] = f"cannot be read: {problem}"
            continue
        if results is None:
            unfinished[str(run.path)] = state_of(run)
            continue
        content, _ = content_of(replace(run.experiment, seed=0))
        if not _is_which(run.experiment):
            del content["data"]["root"]
        found.setdefault(json_key(content), []).append((run, _figures(results)))
    members, named = [*found.values()], []
    for experiment in (group[0][0].experiment for group in members):
        left_out = {"seed"} if _is_which(experiment) else {"seed", "data.root"}
        named.append({key: value for key, value in settings(experiment).items() if key not in left_out})
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
    comparison = Comparison(tuple(groups), unfinished, pair)
    pairs = _by_seed(members, comparison.measures)
    by_seed = tuple(each for each in pairs if isinstance(each, SeedPair))
    return replace(comparison, by_seed=by_seed, unpaired=tuple(each for each in pairs if isinstance(each, str)))


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


def _is_which(experiment: Experiment) -> bool:
    """Whether the folder of the files says which recordings they are; of a known set it says where they lie here."""
    return experiment.data.name == FOLDER


def _title(name: str) -> str:
    return TITLES.get(name, name.replace("_", " "))


def _runs_in(given: Run | Path | str) -> Sequence[Run | Path]:
    """A run, or the runs under a folder that is none."""
    if isinstance(given, Run):
        return [given]
    path = as_path("compare: a run", given)
    return [path] if any(is_there(path / name) for name in FILES) else runs_under(path) or [path]


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


def _by_seed(members: list[list[tuple[Run, dict[str, float]]]], measures: Sequence[str]) -> list[SeedPair | str]:
    """Each group less the first by the first figure that all their runs have, where both have the same seeds once.

    Why there is none, in a sentence, where their recordings differ.
    """
    pairs = []
    for number, group in enumerate(members[1:], 2):
        sides = (members[0], group)
        seeds = [sorted(run.experiment.seed for run, _ in side) for side in sides]
        name = next((name for name in measures if all(name in figures for side in sides for _, figures in side)), None)
        if name is not None and seeds[0] == seeds[1] and 1 < len(seeds[0]) == len(set(seeds[0])):
            first, second = ({run.experiment.seed: figures[name] for run, figures in side} for side in sides)
            split = name.partition("_")[0] if name.startswith(("validation_", "test_")) else ""
            runs = [sorted((run for run, _ in side), key=lambda run: run.experiment.seed) for side in sides]
            apart = (differing_contents(one.path, other.path, split) for one, other in zip(*runs, strict=True))
            if (other := next((each for each in apart if each is not None), None)) is not None:
                pairs.append(f"groups 1 and {number} are not compared by seed: {other} of {split} has other contents")
            else:
                pairs.append(SeedPair.of((1, number), name, first, second))
    return pairs


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _in_blocks(table: list[tuple[str, list[str]]]) -> list[str]:
    """Columns, each a title and its cells, as lines: those that do not fit stand in a block below, behind the first."""
    heads = [textwrap.wrap(head, 12) for head, _ in table]
    height = max(map(len, heads))
    columns = [[""] * (height - len(head)) + head + cells for head, (_, cells) in zip(heads, table, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    blocks, left = [[0]], COLUMNS - widths[0]
    for index, width in enumerate(widths[1:], 1):
        if left < 2 + width and len(blocks[-1]) > 1:
            blocks.append([0])
            left = COLUMNS - widths[0]
        blocks[-1].append(index)
        left -= 2 + width
    lines: list[str] = []
    for block in blocks:
        rows = zip(*(columns[index] for index in block), strict=True)
        lines += [""] * bool(lines)
        lines += ["  ".join(f"{cell:>{widths[i]}}" for i, cell in zip(block, row, strict=True)) for row in rows]
    return lines


def _cut(value: str) -> str:
    """A setting as a terminal shows it; the beginning of one that is a table of numbers."""
    return value if len(value) <= 4 * COLUMNS else f"{value[: 3 * COLUMNS]} ... ({len(value):,} letters)"


def _wrapped(line: str) -> list[str]:
    """A line, at its spaces broken into several that fit; those after the first stand further in."""
    if len(line) <= COLUMNS:
        return [line]
    return textwrap.wrap(line, COLUMNS, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
