"""What `train --ann` does: train the artificial network of the same shape beside the spiking one, and compare."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snn_bp.errors import SnnError
from snn_bp.files import is_there

if TYPE_CHECKING:
    from snn_bp.runs.experiment import Experiment
    from snn_bp.runs.folder import Run


def train_both(
    experiment: "Experiment", ann: "Experiment", out: Path, *, command: str, changes: Sequence[str], log: Any
) -> None:
    """Train both, into `out` and `OUT-ann`, and print what each reaches and costs.

    What is there of either is gone on with, so that the same command ends it after any stop.
    """
    from snn_bp.data import load
    from snn_bp.reports.ann import side_by_side
    from snn_bp.runtime.signals import Stopped
    from snn_bp.runtime.status import say
    from snn_bp.trainer.feasibility import check_trainable

    beside = out.with_name(f"{out.name}-ann")
    both = [(each, path, _run_of(each, path)) for each, path in ((experiment, out), (ann, beside))]
    if both[1][2] is None:  # what cannot be trained is told before hours of the other
        check_trainable(ann, load(ann.data))
    try:
        runs = [_trained(*each, command=command, changes=changes, log=log) for each in both]
    except Stopped as stop:
        raise Stopped(out, stop.signum, command=command) from None
    say(f"the spiking network {out} and the artificial one {beside}")
    print(side_by_side(*runs))


def _run_of(experiment: "Experiment", path: Path) -> "Run | None":
    """The run of an experiment in a folder, None where none is; raises where it is of another experiment."""
    from snn_bp.runs.experiment import is_same
    from snn_bp.runs.folder import Run

    if not is_there(path / "experiment.json"):
        Run.check_free(path)
        return None
    run = Run(path)
    if not is_same(run.experiment, experiment):
        raise SnnError(f"{path}: the run there is of another experiment. Name another --out.")
    return run


def _trained(
    experiment: "Experiment", path: Path, run: "Run | None", *, command: str, changes: Sequence[str], log: Any
) -> "Run":
    from snn_bp.trainer.loop import resume, train

    if run is None:
        return train(experiment, path, command=command, changes=changes, log=log)
    return resume(path, log=log)
