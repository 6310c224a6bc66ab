"""The runs of a sweep: what each is asked, where it lies, and whether they can be trained at all."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snn_bp.data import Dataset, load
from snn_bp.errors import SnnError, as_word
from snn_bp.files import is_there, json_key, read_bytes
from snn_bp.model.metrics import metric_for
from snn_bp.runs.changes import override
from snn_bp.runs.experiment import Experiment, content_of, is_same
from snn_bp.runs.experiment_file import read_names
from snn_bp.runs.folder import Run
from snn_bp.runs.own_code import is_own_dataclass, own_kinds
from snn_bp.runs.own_modules import files_beside
from snn_bp.runs.paths import experiment_at
from snn_bp.runtime.capacity import available, is_checked, size
from snn_bp.runtime.status import in_phase, say
from snn_bp.searches.grid import name_of, points_of
from snn_bp.trainer.feasibility import check_trainable
from snn_bp.trainer.memory import estimate

UNTOUCHED = "train.test=never"  # a change of every run
ONE_METRIC = "sweep: train.metric says which setting is best, and differs between runs. Give it one value."


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    point: dict[str, str]
    changes: tuple[str, ...]
    experiment: Experiment
    path: Path
    source: "Source | None" = None  # what its process reads the experiment from

    @property
    def setting(self) -> tuple[tuple[str, str], ...]:
        """The values in which its group of seeds agrees."""
        return tuple((key, value) for key, value in self.point.items() if key != "seed")

    @property
    def takes_any_gpu(self) -> bool:
        """Whether it runs on whichever GPU it sees, if any."""
        return self.experiment.train.device in ("auto", "cuda")

    def run(self) -> Run | None:
        """Its run, None where none is begun; raises where the one there is of another experiment."""
        if not is_there(self.path / "experiment.json"):
            return None
        run = Run(self.path)
        if not is_same(run.experiment, self.experiment):
            raise SnnError(
                f"{self.path}: the run there is of another experiment than {' '.join(self.changes)} asks for; the "
                "experiment's file was changed since. Put that back, or name another --out; where it is as it was, "
                "remove this run."
            )
        return run

    def results(self) -> dict[str, Any] | None:
        """Its results, None before it is finished."""
        run = self.run()
        return None if run is None else run.results()

    def check_source(self) -> None:
        """Raise where a run that begins now would not be the one that was asked for."""
        if self.source is not None and not is_there(self.path / "experiment.json"):
            self.source.check()

    def command(self, file: Path, *, trust_code: bool) -> list[str]:
        """What trains it, or goes on with it, behind `snn-bp`."""
        if is_there(self.path / "experiment.json"):
            words = ["resume", as_word(self.path)]
        else:
            words = ["train", as_word(file), *self.changes, "--out", as_word(self.path)]
        return words + ["--trust-code"] * trust_code


class Source:
    """The file of an experiment and those of the user's beside it: every run of a sweep reads them anew."""

    def __init__(self, file: Path) -> None:
        """As they stand now, where the experiment was just read from them."""
        self._contents = {path: read_bytes(path) for path in (experiment_at(file), *files_beside(file))}

    def check(self) -> None:
        """Raise where one of them is not what it was."""
        for path, content in self._contents.items():
            if not is_there(path) or read_bytes(path) != content:
                raise SnnError(
                    f"{path}: it was changed while a sweep is at work that reads it for each run, and no more runs are "
                    "begun. Put it back as it was, and the same command goes on; a sweep over what it is now takes "
                    "another --out."
                )


@dataclass(frozen=True)
class Origin:
    """The experiment that all runs of a sweep are changes of, and the user's own classes that changes may name."""

    experiment: Experiment
    named: Mapping[str, type]
    source: Source | None = None

    @classmethod
    def of(cls, source: Experiment | Path, *, trust_code: bool) -> "Origin":
        """An experiment, or that in a file."""
        if isinstance(source, Experiment):
            return cls(source, {kind.__name__: kind for kind in own_kinds(source) if is_own_dataclass(kind)})
        return cls(*read_names(source, trust_code=trust_code), Source(source))

    def changed(self, changes: Sequence[str]) -> Experiment:
        """The experiment after changes."""
        return override(self.experiment, list(changes), self.named)[0]

    def job(self, point: Mapping[str, str], axes: Sequence[str], out: Path) -> Job:
        """The run at a point, in a folder named by its values on these axes."""
        changes = (*(f"{key}={value}" for key, value in point.items()), UNTOUCHED)
        return Job(dict(point), changes, self.changed(changes), out / name_of(dict(point), axes), self.source)


def jobs_of(source: Experiment | Path, changes: Sequence[str], out: Path, *, trust_code: bool = False) -> list[Job]:
    """The runs of a sweep over an experiment, or that in a file, in the order of the grid."""
    check_out(out)
    origin = Origin.of(source, trust_code=trust_code)
    points = points_of(changes)
    check_keys(points[0])
    jobs: dict[Any, Job] = {}
    for point in in_phase(points, "making the settings"):
        job = origin.job(point, list(point), out)  # named by all: runs stay where a key loses or gains values
        if (same := jobs.setdefault(json_key(content_of(job.experiment)[0]), job)) is not job:
            raise SnnError(
                f"sweep: {' '.join(job.changes)} is the same run as {' '.join(same.changes)}. Leave one of them out."
            )
    if len({repr(job.experiment.train.metric) for job in jobs.values()}) > 1:
        raise SnnError(ONE_METRIC)
    return [*jobs.values()]


def check_out(out: Path) -> None:
    """Raise where a sweep's runs would lie within a run."""
    if is_there(out / "experiment.json"):
        raise SnnError(f"{out}: a run is here, and a sweep has a folder of its own. Name another --out.")


def check_keys(keys: Mapping[str, Any]) -> None:
    """Raise where a sweep cannot have values for one of these keys."""
    if "train.test" in keys:
        raise SnnError(f"sweep: train.test is {UNTOUCHED.partition('=')[2]!r} in every run of a sweep. Leave it out.")


def commands_of(jobs: Sequence[Job], file: Path, *, trust_code: bool = False) -> list[str]:
    """A command line for each run that is not finished, as a job array takes them."""
    return [shlex.join(["snn-bp", *job.command(file, trust_code=trust_code)]) for job in jobs if job.results() is None]


def check_jobs(jobs: Sequence[Job], parallel: int) -> None:
    """Raise where runs do not compare or cannot be trained, or memory is too small for so many at a time."""
    check_comparable(jobs)
    largest, there = largest_of(jobs), available(others=True)
    if (fits := runs_in_memory(largest, parallel, there)) < parallel:
        assert there is not None
        raise SnnError(
            f"sweep: {parallel} runs at a time would take {size(parallel * largest)} of memory, this process can have "
            f"{size(there)}. --jobs {fits} fits."
        )


def check_comparable(jobs: Sequence[Job]) -> None:
    """Raise where validation could not choose between the settings of runs: each has figures of its own kind."""
    first: tuple[Job, Any, Dataset] | None = None
    for job, dataset in _each_setting(jobs, "comparing the settings"):
        metric, ids = metric_for(job.experiment.train_at_step(), dataset.targets), dataset.ids
        if not len(ids["validation"]):
            raise SnnError(
                f"sweep: validation chooses the setting, and {job.experiment.data.name} has no validation split here. "
                "Give data a validation_fraction above 0."
            )
        first = first or (job, metric, dataset)
        both = f"{in_words(dict(first[0].setting))} and {in_words(dict(job.setting))}"
        if metric != first[1]:
            raise SnnError(
                f"sweep: {both} are measured by {first[1]} and {metric}, which do not compare. Give train.metric."
            )
        held = [[_held_out(each, split) for split in ("validation", "test")] for each in (first[2], dataset)]
        if held[0] != held[1]:
            raise SnnError(
                f"sweep: {both} hold out different recordings, whose figures do not compare. What splits the data has "
                "one value in a sweep."
            )
        if dataset is not first[2] and not _have_the_same_contents(first[2], dataset):
            say(
                f"{both} hold out recordings of the same names with other contents. Their figures compare if these are "
                "the same recordings, encoded otherwise."
            )


def _held_out(dataset: Dataset, split: str) -> tuple[list[int], list[str], list[Any]]:
    """Which recordings a split holds out: numbers, names, and of classes the class."""
    classes = dataset.labels(split).tolist() if dataset.targets.kind == "class" else []
    return dataset.ids[split].tolist(), dataset.names(split), classes


def _have_the_same_contents(first: Dataset, second: Dataset) -> bool:
    hashes = [[each.parts[part].hashes.tolist() for part in ("train", "test")] for each in (first, second)]
    return hashes[0] == hashes[1]


def runs_in_memory(largest: int, parallel: int, there: int | None) -> int:
    """How many runs at a time memory holds, one at least and `parallel` at most, by the bytes of the largest."""
    return parallel if there is None or not largest or not is_checked() else max(1, min(parallel, there // largest))


def largest_of(jobs: Sequence[Job], refused: dict[Any, str] | None = None) -> int:
    """The bytes that the largest of the runs takes; raises where one cannot be trained.

    With `refused` a setting that cannot be trained is put there, with the reason, instead.
    """
    largest = 0
    for job, dataset in _each_setting(jobs, "checking the settings"):
        try:
            check_trainable(job.experiment, dataset)
        except SnnError as cause:
            if refused is None:
                raise
            refused[job.setting] = str(cause)
            continue
        largest = max(largest, estimate(job.experiment, dataset).total)
    return largest


def in_words(values: Mapping[str, str]) -> str:
    """A setting as one would write it."""
    return " ".join(f"{key}={value}" for key, value in values.items()) or "the only setting"


def _each_setting(jobs: Sequence[Job], words: str) -> Iterator[tuple[Job, Dataset]]:
    """The first run of each setting with its recordings, which are loaded where they are not those before."""
    dataset: Dataset | None = None
    for job in in_phase(list({job.setting: job for job in reversed(jobs)}.values())[::-1], words):
        if dataset is None or dataset.data != job.experiment.data:
            dataset = load(job.experiment.data)
        yield job, dataset
