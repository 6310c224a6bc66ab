"""`sweep`: a grid of settings, or trials that look for the best one; and what came out, setting by setting."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from snn_bp.errors import SnnError, as_path, check_flag, check_number, shown
from snn_bp.errors.calls import checked_call, checked_dataclass
from snn_bp.files import is_there, json_sha256, read_json, write_json
from snn_bp.runs.experiment import Experiment, content_of
from snn_bp.runs.own_code import FOLDER
from snn_bp.runs.records import digits, figure_of
from snn_bp.runtime.prepared import Prepared
from snn_bp.runtime.screen import html_table, on_screen
from snn_bp.runtime.signals import stopped_at_once
from snn_bp.runtime.status import announced
from snn_bp.searches.jobs import Job, in_words, jobs_of
from snn_bp.searches.sweeping import by_setting, figure_on_validation, make, merit, run_sweep
from snn_bp.searches.trials import Trials, run_trials

BASE = "base.json"  # the experiment of a sweep that was given as a value


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed alone."""

    values: dict[str, str]
    paths: tuple[Path, ...]
    validation: tuple[float, ...]  # the metric of each run


@checked_dataclass(frozen=True)
class Sweep:
    """What `sweep` found: settings, the one that validation chose first, and its figures on the test split.

    Fields:
        path: the sweep's folder.
        metric: its name; `higher_is_better` says which way.
        settings: each with its `values`, the `paths` of its runs and their figures on `validation`, the best first.
        test: of each run of the chosen setting; None where there is no test split.
        failed: why trials failed, by their values; empty of a grid.

    >>> small = Experiment(Data("digits", steps=2), (Flatten(), Dense(10), LIF(beta=0.9)), Train(epochs=1))
    >>> sweep(small, ["train.lr=1e-3,5e-3"], out="runs/rates", quiet=True).chosen
    {'train.lr': '5e-3'}
    """

    path: Path
    metric: str
    higher_is_better: bool
    settings: tuple[Setting, ...]
    test: tuple[float, ...] | None
    failed: dict[str, str]

    @property
    def chosen(self) -> dict[str, str]:
        """The values that validation chose."""
        return self.settings[0].values

    @property
    def paths(self) -> list[Path]:
        """The folders of all runs, as `compare` takes them: those of the chosen setting first."""
        return [path for setting in self.settings for path in setting.paths]

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        settings = [asdict(each) | {"paths": list(map(str, each.paths))} for each in self.settings]
        return asdict(self) | {"path": str(self.path), "settings": settings}

    def __str__(self) -> str:
        rows = [f"{spread(each.validation)}  {in_words(each.values)}" for each in self.settings]
        return "\n".join([f"validation {self._name}, the best first:", *(f"  {row}" for row in rows), *self.lines()])

    def __repr__(self) -> str:
        return on_screen(str(self))

    def _repr_html_(self) -> str:
        keys = list(dict.fromkeys(key for each in self.settings for key in each.values))
        rows = [(*(each.values.get(key, "-") for key in keys), spread(each.validation)) for each in self.settings]
        head = (*keys, f"validation {self._name}")
        return html_table(f"sweep in {self.path}", head, rows, notes=self.lines(), left=len(keys))

    def lines(self) -> list[str]:
        """What was chosen, its figures on the test split, and what failed, in lines."""
        best = self.settings[0]
        lines = [f"chosen by validation: {in_words(best.values)}, {self._name} {spread(best.validation)}"]
        means = [merit(each.validation, self.higher_is_better) for each in self.settings]
        if alike := sum(each == means[0] for each in means[1:]):
            others = "one other setting is" if alike == 1 else f"{alike} other settings are"
            lines.append(f"{others} as good on validation: of these the first that was asked for is chosen")
        seen = f"its test {self._name}, looked at once: {spread(self.test)}" if self.test else "there is no test split"
        return [*lines, seen, *(f"failed: {key}: {why}" for key, why in self.failed.items())]

    @property
    def _name(self) -> str:
        return self.metric.replace("_", " ")


@checked_call
def sweep(
    experiment: Experiment | Path | str, changes: Sequence[str], *, out: Path | str, jobs: int = 1,
    trials: int | None = None, quiet: bool = False,
) -> Sweep:  # fmt: skip
    """Train a run for each combination of values, or for trials that look for the best ones, as `snn-bp sweep` does.

    Parameters:
        experiment: the one that is changed, or a file that defines it.
        changes: values, as "train.lr=1e-3,3e-3" and "seed=0..4", of which each combination is a run. With `trials`,
            ranges and choices: "train.lr=log(1e-4,1e-2)", "model.2.beta=uniform(0.5,1)",
            "model.1.units=choice(64,128)"; of integers, where both ends are and the setting takes those alone. Each
            trial has a run for every seed.
        out: the sweep's folder, with a run folder for each run. The same call goes on with it after any stop.
        jobs (1): how many runs at a time; they share cores and memory, and have GPUs in turn.
        trials (None): how many points to try in all. Optuna's sampler proposes them, `jobs` at a time, by what all
            before found: so another `jobs` tries others. A run that ends with an error makes its trial a failed one.
            Takes `pip install 'snn_bp[optuna]'`.
        quiet (False): leaves out all printing.

    Each run is one by `train`, in a process of its own. Validation chooses: the setting with the best mean over its
    runs. They alone are evaluated on the test split, once.

    >>> small = Experiment(Data("digits", steps=2), (Flatten(), Dense(10), LIF(beta=0.9)), Train(epochs=1))
    >>> sweep(small, ["train.lr=1e-3,5e-3"], out="runs/rates", quiet=True).metric
    'accuracy'
    """
    out = as_path("sweep: the folder", out)
    check_flag("sweep: quiet", quiet)
    check_number("sweep: jobs", jobs, integer=True, low=1)
    if trials is not None:
        check_number("sweep: trials", trials, integer=True, low=2)
    if not isinstance(changes, list | tuple) or not all(isinstance(change, str) for change in changes):
        raise SnnError(f"sweep: changes={shown(changes)}: a list of texts, as ['train.lr=1e-3,3e-3', 'seed=0..4'].")
    source = experiment if isinstance(experiment, Experiment) else as_path("sweep: the experiment", experiment)
    with announced(not quiet), stopped_at_once(out, command="the same call"):
        return sweep_over(source, changes, out, parallel=jobs, trials=trials, command="the same call", quiet=quiet)


def sweep_over(
    source: Experiment | Path, changes: Sequence[str], out: Path, *, parallel: int, trials: int | None, command: str,
    trust_code: bool = False, quiet: bool = False, begun: Prepared | None = None,
) -> Sweep:  # fmt: skip
    """Sweep over an experiment, or that in a file; `command` goes on with it."""
    options: dict[str, Any] = {"parallel": parallel, "command": command, "trust_code": trust_code, "quiet": quiet}
    options["begun"] = begun
    if trials is None:
        grid = jobs_of(source, changes, out, trust_code=trust_code)
        return _outcome(out, grid, run_sweep(grid, _file_of(source, out), out, **options), {})
    search = Trials.of(source, changes, out, trials, trust_code=trust_code)
    content = run_trials(search, _file_of(source, out), **options)
    failed = {in_words(each.point): each.failed for each in search.trials if each.failed}
    return _outcome(out, search.jobs(), content, failed)


def spread(figures: Sequence[float]) -> str:
    """Mean and deviation in words."""
    mean = digits(statistics.fmean(figures))
    if len(figures) < 2:
        return mean
    deviation = statistics.stdev(figures) if all(map(math.isfinite, figures)) else math.nan
    return f"{mean} ± {digits(deviation)} over {len(figures)} runs"


def _outcome(out: Path, jobs: Sequence[Job], content: dict[str, Any], failed: dict[str, str]) -> Sweep:
    higher = content["higher_is_better"]
    settings = [
        Setting(dict(values), tuple(job.path for job in group), tuple(map(figure_on_validation, group)))
        for values, group in by_setting(jobs).items()
    ]
    settings.sort(key=lambda each: (each.values != content["chosen"], -merit(each.validation, higher)))
    test = None if content["test"] is None else tuple(figure_of(each)[1] for each in content["test"].values())
    return Sweep(out, content["metric"], higher, tuple(settings), test, failed)


def _file_of(source: Experiment | Path, out: Path) -> Path:
    """The file of an experiment: that of a value is kept in the sweep's folder, with the user's own code beside it."""
    if not isinstance(source, Experiment):
        return source
    content, code = content_of(source)
    file = make(out) / BASE
    if is_there(file):
        if json_sha256(read_json(file)) != json_sha256(content):
            raise SnnError(f"{file}: a sweep over another experiment is here. Name another folder.")
        return file
    if code is not None:
        code.write(out / FOLDER)
        code.trust(out)
    write_json(file, content)
    return file
