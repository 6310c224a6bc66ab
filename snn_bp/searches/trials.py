"""A sweep by trials: points that Optuna proposes, a run for each of their seeds, and what is kept of them.

`trials.json` has each point before its runs begin; figures are those of the runs' folders. So after any kill what was
proposed is finished first, and the next points are those of a sweep that nobody killed.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snn_bp.errors import SnnError
from snn_bp.files import is_there, write_object
from snn_bp.runs.experiment import Experiment
from snn_bp.runs.paths import SWEPT
from snn_bp.runs.provenance import version
from snn_bp.runtime.capacity import available
from snn_bp.runtime.prepared import Prepared, environment_of_each
from snn_bp.runtime.status import phase, say
from snn_bp.searches.grid import parted
from snn_bp.searches.jobs import (
    ONE_METRIC,
    Job,
    Origin,
    check_comparable,
    check_keys,
    check_out,
    in_words,
    largest_of,
    runs_in_memory,
)
from snn_bp.searches.processes import train_all
from snn_bp.searches.space import Space, check_optuna, proposed, space_of
from snn_bp.searches.sweeping import (
    alone_in,
    as_written,
    choose,
    chosen_before,
    figure_on_validation,
    look,
    merit,
    metric_of,
    read_kept,
    why_failed,
)

FILE = "trials.json"


@dataclass
class Trial:
    """A point of the space."""

    point: dict[str, str]
    known: int  # the first so many trials, whose figures its proposal knew
    failed: str = ""  # why it has no figure
    value: float | None = None  # the less the better, NaN where it failed; None before its runs are finished
    jobs: list[Job] = field(default_factory=list)  # made once

    def __post_init__(self) -> None:
        self.value = math.nan if self.failed else self.value

    def fail(self, why: str) -> None:
        """Give it up."""
        self.failed, self.value = self.failed or why, math.nan

    def kept(self) -> dict[str, Any]:
        """What is kept of it; the rest is in its runs' folders."""
        return {"point": self.point, "known": self.known, "failed": self.failed}


@dataclass
class Trials:
    """A search over a space, as far as it came; `count` trials are asked for."""

    origin: Origin
    space: Space
    changes: dict[str, str]
    out: Path
    count: int
    trials: list[Trial]
    higher_is_better: bool | None = None  # which way its metric goes; None before a trial is finished

    @classmethod
    def of(
        cls, source: Experiment | Path, changes: Sequence[str], out: Path, count: int, *, trust_code: bool = False
    ) -> "Trials":
        """That of a folder, or a new one; raises where another is there."""
        check_out(out)
        origin = Origin.of(source, trust_code=trust_code)
        space = space_of(changes, origin.changed)
        check_keys(space.dimensions)
        if "train.metric" in space.axes:
            raise SnnError(ONE_METRIC)
        if space.count <= count:
            raise SnnError(
                f"sweep: --trials {count} of a space of {space.count:.0f} points. A grid tries all of them: leave "
                "--trials out, and write values as key=a,b."
            )
        check_optuna()
        found = cls(origin, space, parted(changes), out, count, [])
        if is_there(out / FILE):
            content = read_kept(out / FILE)
            if content.get("space") != found.changes:
                raise SnnError(f"{out / FILE}: another search is here, over another space. Name another --out.")
            with as_written(out / FILE):
                found.trials = [
                    Trial(space.checked(each["point"]), int(each["known"]), str(each["failed"]))
                    for each in content["trials"]
                ]
        return found

    def write(self) -> None:
        """Keep it."""
        kept = {"space": self.changes, "trials": [each.kept() for each in self.trials], "optuna": version("optuna")}
        write_object(self.out / FILE, kept)

    def jobs_of(self, trial: Trial) -> list[Job]:
        """The runs of a trial; raises where no experiment takes its values."""
        if not trial.jobs:
            runs = self.space.runs_at(trial.point)
            trial.jobs = [self.origin.job(point, self.space.axes, self.out) for point in runs]
        return trial.jobs

    def jobs(self) -> list[Job]:
        """The runs of the trials that have not failed."""
        return [job for trial in self.trials if not trial.failed for job in self.jobs_of(trial)]

    def value_of(self, trial: Trial) -> float:
        """How far a finished trial is from good, by the mean of its figures on validation; NaN where that is none."""
        if self.higher_is_better is None:
            self.higher_is_better = metric_of(trial.jobs[0]).higher_is_better
        value = -merit([figure_on_validation(job) for job in trial.jobs], bool(self.higher_is_better))
        return value if math.isfinite(value) else math.nan

    def propose(self, count: int) -> bool:
        """Add up to so many trials, all by what is known of those before them; whether there are any."""
        known = [(trial.point, trial.value) for trial in self.trials]
        seed = int(self.space.seeds[0]) if self.space.seeds else self.origin.experiment.seed
        before = len(self.trials)
        with phase("proposing what to try next"):
            for _ in range(min(count, self.count - before)):
                if (point := proposed(self.space, known, seed=seed)) is None:
                    break
                known.append((point, None))
                self.trials.append(Trial(point, before))
        self.write()
        return len(self.trials) > before


def run_trials(
    search: Trials, file: Path, *, parallel: int = 1, command: str = "", trust_code: bool = False, quiet: bool = False,
    begun: Prepared | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Propose and train until all trials have a figure or failed, choose and evaluate; what `sweep.json` holds.

    Trials are proposed `parallel` at a time, when all before them are finished. One of which a run ends with an error,
    as of a loss that diverges, has failed, which counts as worse than any; one that something else ends is none.
    """
    out = search.out
    with alone_in(out):
        before = chosen_before(search.jobs(), out, trials=search.count) if is_there(out / SWEPT) else None
        if before is not None and all(job.results() is not None for job in search.jobs()):
            return look(before, search.jobs(), out)
        with begun or Prepared(file) as prepared:
            prepared.begin(environment_of_each(parallel))  # while trials are proposed and checked
            while True:
                _train(
                    search, file, prepared, parallel=parallel, command=command, trust_code=trust_code, quiet=quiet
                )  # fmt: skip
                if before is not None or not search.propose(parallel):
                    break
        if not search.jobs():
            raise SnnError(f"{out}: all {len(search.trials)} trials failed, the first: {search.trials[0].failed}")
        if len(search.trials) < search.count and not quiet:
            say(f"after {len(search.trials)} trials no draw gives a new point; there are no more")
        return look(before or choose(search.jobs()) | {"trials": search.count}, search.jobs(), out)


def _train(
    search: Trials, file: Path, prepared: Prepared, *, parallel: int, command: str, trust_code: bool, quiet: bool
) -> None:
    """Train what the trials so far have left, and note the value of each; those that cannot be trained have failed."""
    left = [trial for trial in search.trials if trial.value is None]
    refused: dict[Any, str] = {}
    for trial in left:
        try:
            search.jobs_of(trial)
        except SnnError as cause:
            refused[tuple(trial.point.items())] = str(cause)
    jobs = {job.path: (job, trial) for trial in left for job in trial.jobs}
    check_comparable([trial.jobs[0] for trial in search.trials if trial.jobs])
    largest = largest_of([job for job, _ in jobs.values() if job.results() is None], refused)
    for trial in left:
        if (why := refused.get(tuple(trial.point.items()))) is not None:
            trial.fail(why)
            if not quiet:
                say(f"{in_words(trial.point)}: {why}", file=sys.stderr)
    fits, seeds = runs_in_memory(largest, parallel, available(others=True)), max(1, len(search.space.seeds))
    if fits < parallel and not quiet:
        say(f"memory holds {fits} of these runs at a time")
    wanted = [job for job, trial in jobs.values() if not trial.failed]
    failures = train_all(
        wanted, file, search.out, prepared=prepared, parallel=fits, command=command, trust_code=trust_code, quiet=quiet,
        done=seeds * (len(search.trials) - len(left)), total=seeds * search.count,
    )  # fmt: skip
    for each in failures:
        if each.is_refused:
            jobs[each.job.path][1].fail(each.why)
    if any(trial.failed for trial in left):
        search.write()
    if ended := [each for each in failures if not each.is_refused]:
        raise SnnError(f"{why_failed(ended, len(wanted))} The same command goes on with them.")
    for trial in left:
        if not trial.failed:
            trial.value = search.value_of(trial)
