"""A sweep: a run for every point of a grid, each by `snn-bp train` in a process of its own, in one folder.

The runs' folders are all that is known of a sweep until it ends, so that it goes on after any kill. Validation chooses
a setting; its runs alone are evaluated on the test split, once, and `sweep.json` keeps what was found.
"""

import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from snn_bp.data import Dataset, load
from snn_bp.errors import SnnError
from snn_bp.files import is_there, read_object, write_object
from snn_bp.files.lock import holder, locked
from snn_bp.model.metrics import metric_for
from snn_bp.runs.evaluation import evaluate
from snn_bp.runs.experiment import Experiment, content_of, override
from snn_bp.runs.experiment_file import read_names
from snn_bp.runs.folder import Run
from snn_bp.runs.records import digits, figure_in_words, figure_of
from snn_bp.runtime.capacity import available, is_checked, size
from snn_bp.runtime.signals import Stopped, noted_signals
from snn_bp.runtime.status import in_phase, phase, say
from snn_bp.searches.grid import name_of, points_of
from snn_bp.trainer.feasibility import check_trainable
from snn_bp.trainer.memory import estimate

FILE = "sweep.json"  # written when a sweep is finished
UNTOUCHED = "train.test=never"  # a change of every run
PAUSE_S = 0.2  # between two looks at the processes


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    point: dict[str, str]
    changes: tuple[str, ...]
    experiment: Experiment
    path: Path

    @property
    def setting(self) -> tuple[tuple[str, str], ...]:
        """The values in which its group of seeds agrees."""
        return tuple((key, value) for key, value in self.point.items() if key != "seed")

    def run(self) -> Run | None:
        """Its run, None where none is begun; raises where the one there is of another experiment."""
        if not is_there(self.path / "experiment.json"):
            return None
        run = Run(self.path)
        if content_of(run.experiment)[0] != content_of(self.experiment)[0]:
            raise SnnError(
                f"{self.path}: the run there is of another experiment than {' '.join(self.changes)} asks for; the "
                "experiment's file was changed since. Put that back, or name another --out."
            )
        return run

    def results(self) -> dict[str, Any] | None:
        """Its results, None before it is finished."""
        run = self.run()
        return None if run is None else run.results()

    def command(self, file: Path, *, trust_code: bool) -> list[str]:
        """What trains it, or goes on with it, behind `snn-bp`."""
        if is_there(self.path / "experiment.json"):
            words = ["resume", str(self.path)]
        else:
            words = ["train", str(file), *self.changes, "--out", str(self.path)]
        return words + ["--trust-code"] * trust_code


def jobs_of(file: Path, changes: Sequence[str], out: Path, *, trust_code: bool = False) -> list[Job]:
    """The runs of a sweep over the experiment in `file`, in the order of the grid."""
    read, own = read_names(file, trust_code=trust_code)
    points = points_of(changes)
    axes = [key for key in points[0] if len({point[key] for point in points}) > 1]
    if "train.test" in points[0]:
        raise SnnError(f"sweep: train.test is {UNTOUCHED.partition('=')[2]!r} in every run of a sweep. Leave it out.")
    jobs: list[Job] = []
    contents: list[Any] = []
    for point in points:
        each = (*(f"{key}={value}" for key, value in point.items()), UNTOUCHED)
        experiment, _ = override(read, list(each), own)
        content, _ = content_of(experiment)
        if content in contents:
            same = " ".join(jobs[contents.index(content)].changes)
            raise SnnError(f"sweep: {' '.join(each)} is the same run as {same}. Leave one of them out.")
        contents.append(content)
        jobs.append(Job(point, each, experiment, out / name_of(point, axes)))
    if len({repr(job.experiment.train.metric) for job in jobs}) > 1:
        raise SnnError("sweep: train.metric says which setting is best, and differs between runs. Give it one value.")
    return jobs


def commands_of(jobs: Sequence[Job], file: Path, *, trust_code: bool = False) -> list[str]:
    """A command line for each run that is not finished, as a job array takes them."""
    return [shlex.join(["snn-bp", *job.command(file, trust_code=trust_code)]) for job in jobs if job.results() is None]


def run_sweep(
    jobs: Sequence[Job], file: Path, out: Path, *, parallel: int = 1, command: str = "", trust_code: bool = False
) -> dict[str, Any]:
    """Train what is not finished, `parallel` runs at a time, choose a setting and evaluate it; what `sweep.json` holds.

    `command` goes on with the sweep. Raises where a run fails: the others are trained all the same.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise SnnError(f"{out}: the folder cannot be made ({cause.strerror}). Name another --out.") from None
    with locked(out):
        if (found := _finished(jobs, out)) is not None:
            return found
        check_jobs(jobs, parallel)
        failed = _train(jobs, file, out, parallel=parallel, command=command, trust_code=trust_code)
        if failed:
            told = " ".join(f"{job.path}: {why}" for job, why in failed)
            raise SnnError(
                f"{len(failed)} of {len(jobs)} runs failed, so no setting is chosen and the test split is left alone. "
                f"{told} The same command goes on with them; without their values it does without them."
            )
        found = _chosen(jobs)
        write_object(out / FILE, found)
        return found


def check_jobs(jobs: Sequence[Job], parallel: int) -> None:
    """Raise where an experiment of the sweep cannot be trained, or memory is too small for so many at a time."""
    settings = {job.setting: job for job in reversed(jobs)}
    dataset: Dataset | None = None
    largest = 0
    for job in in_phase(list(settings.values())[::-1], "checking the settings"):
        if dataset is None or dataset.data != job.experiment.data:
            dataset = load(job.experiment.data)
        if not len(dataset.ids["validation"]):
            raise SnnError(
                f"sweep: validation chooses the setting, and {job.experiment.data.name} has no validation split here. "
                "Give data a validation_fraction above 0."
            )
        check_trainable(job.experiment, dataset)
        largest = max(largest, estimate(job.experiment, dataset).total)
    there = available()
    if there is not None and is_checked() and parallel > 1 and parallel * largest > there:
        raise SnnError(
            f"sweep: {parallel} runs at a time would take {size(parallel * largest)} of memory, this process can have "
            f"{size(there)}. --jobs {max(1, there // largest)} fits."
        )


def program() -> list[str]:
    """What starts `snn-bp` in a process that imports from where this one does; `-m` would look in this folder first."""
    return [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; from snn_bp.cli import entry; entry()"]


def threads_of_each(parallel: int) -> int:
    """How many threads a run has where so many share the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(KeyError, ValueError):
        cores = min(cores, int(os.environ["OMP_NUM_THREADS"]) * parallel)
    return max(1, cores // parallel)


def lines_of(content: dict[str, Any]) -> list[str]:
    """What a finished sweep says, in lines."""
    setting = " ".join(f"{key}={value}" for key, value in content["chosen"].items()) or "the only setting"
    name = content["metric"].replace("_", " ")
    lines = [f"chosen by validation: {setting}, {name} {_spread(content['validation'])}"]
    if content["test"]:
        figures = [figure_of(record)[1] for record in content["test"].values()]
        return [*lines, f"its test {name}, looked at once: {_spread(figures)}"]
    return [*lines, "there is no test split"]


def _finished(jobs: Sequence[Job], out: Path) -> dict[str, Any] | None:
    """What `sweep.json` holds; None where there is none, refused where it is of other runs."""
    if not is_there(out / FILE):
        return None
    found = read_object(out / FILE)
    if found.get("runs") != {job.path.name: job.point for job in jobs}:
        raise SnnError(
            f"{out / FILE}: the sweep here is finished, with other runs than these, and its test split was looked at. "
            "Name another --out."
        )
    for job in jobs:
        job.run()
    return found


def _train(
    jobs: Sequence[Job], file: Path, out: Path, *, parallel: int, command: str, trust_code: bool
) -> list[tuple[Job, str]]:
    """Train all that is not finished; which runs failed, and why."""
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads_of_each(parallel))} if parallel > 1 else {})
    waiting = [job for job in jobs if job.results() is None]
    if done := len(jobs) - len(waiting):
        say(f"{done} of {len(jobs)} runs are finished")
    running: list[tuple[Job, subprocess.Popen, IO[bytes]]] = []
    failed: list[tuple[Job, str]] = []
    held = [job for job in waiting if holder(job.path)]  # a run that a killed sweep left at work counts as one of ours
    with noted_signals() as stop, phase("training", total=len(jobs)) as shown:
        try:
            while (waiting or running) and not stop:
                for each in [each for each in running if each[1].poll() is not None]:
                    running.remove(each)
                    job, why = each[0], _last_words(*each[1:])
                    if (results := job.results()) is not None:
                        done += 1
                        figure = figure_in_words(results["validation"])
                        say(f"{done} of {len(jobs)}: {job.path}: validation {figure}")
                    elif holder(job.path):  # a process that a killed sweep left was there first
                        waiting.append(job)
                        held.append(job)
                    else:
                        failed.append((job, why))
                        say(f"{job.path}: {why}", file=sys.stderr)
                shown.done = done
                held = [job for job in held if holder(job.path)]
                for job in [job for job in waiting if job not in held][: max(0, parallel - len(running) - len(held))]:
                    waiting.remove(job)
                    if job.results() is not None:  # by now, by the process that held it
                        done += 1
                        continue
                    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed where the process ends
                    words = [*program(), *job.command(file, trust_code=trust_code)]
                    process = subprocess.Popen(
                        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=environment,
                        start_new_session=True,
                    )  # fmt: skip
                    running.append((job, process, errors))
                time.sleep(PAUSE_S)
            for _, process, _ in running:
                process.terminate()  # it saves, and stops
            for _, process, _ in running:
                process.wait()
        finally:
            for _, process, errors in running:
                process.kill()
                process.wait()
                errors.close()
    if stop:
        raise Stopped(out, stop[0], command=command)
    return failed


def _last_words(process: subprocess.Popen, errors: IO[bytes]) -> str:
    """What an ended process said at last on standard error, which is closed."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").splitlines()
    errors.close()
    return (lines or [f"it ended with code {process.returncode} and no word."])[-1].removeprefix("error: ")


def _chosen(jobs: Sequence[Job]) -> dict[str, Any]:
    """The setting that is best on validation, on average over its runs, with their figures on the test split."""
    groups: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.setting, []).append(job)
    validation = {setting: [_validation(job) for job in group] for setting, group in groups.items()}
    dataset = load(jobs[0].experiment.data)
    metric: Any = metric_for(jobs[0].experiment.train_at_step(), dataset.targets)
    sign = 1 if metric.higher_is_better else -1
    means = {setting: statistics.fmean(figures) * sign for setting, figures in validation.items()}
    best = max(means, key=lambda setting: -math.inf if math.isnan(means[setting]) else means[setting])
    test: dict[str, Any] = {}
    for job in in_phase(groups[best], "evaluating the chosen setting on the test split"):
        run = Run(job.path)
        if job.experiment.data != dataset.data:
            dataset = load(job.experiment.data)
        run.hold(dataset)
        if len(dataset.ids["test"]):
            test[job.path.name] = evaluate(run, "test").record()
    return {
        "runs": {job.path.name: job.point for job in jobs},
        "chosen": dict(best),
        "metric": metric.name,
        "validation": validation[best],
        "test": test,
    }


def _validation(job: Job) -> float:
    """A finished run's figure on validation."""
    results = job.results()
    if results is None or "validation" not in results:
        raise SnnError(f"{job.path}: it has no result on validation. `snn-bp resume {job.path}` writes it anew.")
    return figure_of(results["validation"])[1]


def _spread(figures: Sequence[float]) -> str:
    """Mean and deviation in words."""
    mean = digits(statistics.fmean(figures))
    return mean if len(figures) < 2 else f"{mean} ± {digits(statistics.stdev(figures))} over {len(figures)} runs"
