"""A sweep: a run for every point of a grid, each by `snn-bp train` in a process of its own, in one folder.

The runs' folders are all that is known of a sweep until it chooses, so that it goes on after any kill. Validation
chooses a setting; its runs alone are evaluated on the test split, once, and `sweep.json` keeps what was found.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snn_bp.data import Dataset, load
from snn_bp.errors import SnnError, typed
from snn_bp.files import is_there, read_object, write_object
from snn_bp.files.lock import locked
from snn_bp.model.metrics import metric_for
from snn_bp.runs.evaluation import evaluate
from snn_bp.runs.folder import Run
from snn_bp.runs.memory import check_batches
from snn_bp.runs.paths import SWEPT
from snn_bp.runs.records import figure_of
from snn_bp.runtime.prepared import Prepared, environment_of_each
from snn_bp.runtime.status import in_phase, say
from snn_bp.searches.jobs import Job, check_jobs
from snn_bp.searches.processes import Failure, train_all

OTHERWISE = "Put it back as it was, or name another --out."
NAMED = 3  # failed runs in an error; each was told as it failed


def run_sweep(
    jobs: Sequence[Job], file: Path, out: Path, *, parallel: int = 1, command: str = "", trust_code: bool = False,
    quiet: bool = False, begun: Prepared | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train what is not finished, `parallel` runs at a time, choose a setting and evaluate it; what `sweep.json` holds.

    `command` goes on with the sweep, `begun` is the prepared process where it was started before. Raises where a run
    fails: the others are trained all the same.
    """
    with alone_in(out):
        before = chosen_before(jobs, out) if is_there(out / SWEPT) else None
        done = sum(job.results() is not None for job in jobs)
        if before is not None and done == len(jobs):
            return look(before, jobs, out)
        with begun or Prepared(file) as prepared:
            if done < len(jobs):
                prepared.begin(environment_of_each(parallel))  # while the settings are checked
            check_jobs(jobs, parallel)
            if done and not quiet:
                say(f"{done} of {len(jobs)} runs are finished")
            failed = train_all(
                jobs, file, out, prepared=prepared, parallel=parallel, command=command, trust_code=trust_code,
                quiet=quiet, last=jobs[len(jobs) - len(jobs) % parallel :],
            )  # fmt: skip
        if failed:
            raise SnnError(
                f"{why_failed(failed, len(jobs))} The same command goes on with them; without their values it does "
                "without them."
            )
        return look(before or choose(jobs), jobs, out)


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Within the block a sweep's folder is there, and no other sweep is at work on it."""
    with locked(make(out)):
        yield


def make(out: Path) -> Path:
    """The folder of a sweep, made where it is not there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise SnnError(f"{out}: the folder cannot be made ({cause.strerror}). Name another --out.") from None
    return out


def why_failed(failed: Sequence[Failure], count: int) -> str:
    """Which of so many runs failed, and why."""
    told = " ".join(f"{each.job.path}: {each.why}" for each in failed[:NAMED])
    told += f" And {len(failed) - NAMED} more." * (len(failed) > NAMED)
    return f"{len(failed)} of {count} runs failed, so no setting is chosen and the test split is left alone. {told}"


def chosen_before(jobs: Sequence[Job], out: Path, *, trials: int | None = None) -> dict[str, Any]:
    """What `sweep.json` holds; refused where it is of other runs, or not what a sweep writes."""
    found = read_kept(out / SWEPT)
    if trials is not None and isinstance(tried := found.get("trials"), int) and tried != trials:
        raise SnnError(
            f"{out / SWEPT}: the sweep here is finished after {tried} trials, not {trials}, and its test split was "
            f"looked at. --trials {tried} shows it; for others, name another --out."
        )
    if found.get("runs") != {job.path.name: job.point for job in jobs} or found.get("trials") != trials:
        raise SnnError(
            f"{out / SWEPT}: the sweep here is finished, with other runs than these, and its test split was looked at. "
            "Name another --out."
        )
    with as_written(out / SWEPT):
        settings, names = [dict(job.setting) for job in jobs], {job.path.name for job in jobs}
        if found["chosen"] not in settings or {type(found["metric"]), type(found["higher_is_better"])} != {str, bool}:
            raise ValueError
        if found["test"] is not None and not found["test"].keys() <= names:
            raise ValueError
        for each in (found["test"] or {}).values():
            figure_of(each)
    for job in jobs:
        job.run()
    return found


def read_kept(file: Path) -> dict[str, Any]:
    """What a sweep keeps in a file."""
    try:
        return read_object(file)
    except SnnError as cause:
        raise SnnError(f"{cause} {OTHERWISE}") from None


@contextmanager
def as_written(file: Path) -> Iterator[None]:
    """Within the block, what a file should hold and does not is one error."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError):
        raise SnnError(f"{file}: it does not hold what a sweep writes. {OTHERWISE}") from None


def choose(jobs: Sequence[Job]) -> dict[str, Any]:
    """The setting that is best on validation, on average over its runs; nothing of the test split yet."""
    validation = {setting: [figure_on_validation(job) for job in group] for setting, group in by_setting(jobs).items()}
    metric = metric_of(jobs[0])
    best = max(validation, key=lambda setting: merit(validation[setting], metric.higher_is_better))
    if merit(validation[best], metric.higher_is_better) == -math.inf:
        raise SnnError(
            f"{jobs[0].path.parent}: {metric.name} on validation is a finite number in no setting, so none is "
            "chosen and the test split is left alone. Give train.metric one that is."
        )
    return {
        "runs": {job.path.name: job.point for job in jobs},
        "chosen": dict(best),
        "metric": metric.name,
        "higher_is_better": metric.higher_is_better,
        "validation": validation[best],
        "test": {},
    }


def look(content: dict[str, Any], jobs: Sequence[Job], out: Path) -> dict[str, Any]:
    """Evaluate the runs of the chosen setting on the test split, those that were not yet; each is kept at once.

    `test` is None where there is no test split.
    """
    if not is_there(out / SWEPT):
        write_object(out / SWEPT, content)
    if content["test"] is None:
        return content
    left = [job for job in jobs if dict(job.setting) == content["chosen"] and job.path.name not in content["test"]]
    dataset: Dataset | None = None
    for job in in_phase(left, "evaluating the chosen setting on the test split"):
        run = Run(job.path)
        if dataset is None or job.experiment.data != dataset.data:
            dataset = load(job.experiment.data)
        run.hold(dataset)
        if len(dataset.ids["test"]):
            check_batches("sweep: evaluating the test split", job.experiment, dataset, "test")  # which has no --batch
            content["test"][job.path.name] = evaluate(run, "test").record()
        else:
            content["test"] = None
        write_object(out / SWEPT, content)
        if content["test"] is None:
            break
    return content


def by_setting(jobs: Sequence[Job]) -> dict[tuple[tuple[str, str], ...], list[Job]]:
    """The runs of each setting, seed by seed."""
    groups: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.setting, []).append(job)
    return groups


def metric_of(job: Job) -> Any:
    """The metric that says which setting is best."""
    return metric_for(job.experiment.train_at_step(), load(job.experiment.data).targets)


def merit(figures: Sequence[float], higher_is_better: bool) -> float:
    """By how much a setting is good, by its figures on validation; the least where one is no number."""
    mean = statistics.fmean(figures) * (1 if higher_is_better else -1)
    return -math.inf if math.isnan(mean) else mean


def figure_on_validation(job: Job) -> float:
    """A finished run's figure on validation."""
    results: Mapping[str, Any] | None = job.results()
    if results is None or "validation" not in results:
        raise SnnError(f"{job.path}: it has no result on validation. `snn-bp resume {typed(job.path)}` writes it anew.")
    return figure_of(results["validation"])[1]
