"""Which checkpoint of a run to trust: the newest to go on from, and the best, made anew where another holds it."""

import math
from typing import Any

from snn_bp.errors import SnnError, typed
from snn_bp.model.metrics import Accuracy
from snn_bp.runs.checkpoint import Checkpoint
from snn_bp.runs.folder import Run
from snn_bp.trainer.progress import Progress


def newest_checkpoint(run: Run, progress: Progress) -> Checkpoint | None:
    """The checkpoint to resume from; None if nothing was trained yet. Raises if something was, and none can be read."""
    checkpoint, problems = run.latest()
    if checkpoint is None and run.results() is None:
        remedy = (
            f"start anew with `snn-bp resume {typed(run.path)} --restart`, which keeps what is there in a folder aside"
        )
        check_nothing_trained(run, problems, remedy=remedy)
    for problem in problems:
        progress.say(problem + " The one before it is used." * (checkpoint is not None))
    return checkpoint


def check_nothing_trained(run: Run, problems: list[str], *, remedy: str) -> None:
    """Raise if a run has trained although no checkpoint of it can be read; `problems` says what is wrong with each."""
    if problems or run.has_trained():
        why = " ".join(problems) or f"{run.path / 'checkpoints'}: the checkpoints of what was trained are missing."
        raise SnnError(f"{why} Nothing was changed. Repair that, or {remedy}.")


def repair_best(run: Run, at: Checkpoint, progress: Progress) -> str | None:
    """Write the checkpoint "best" anew if it is damaged and "last" or "previous" holds its epoch.

    Gives what is wrong with it, in a sentence, if no other checkpoint has its weights; else None.
    """
    if not at.metrics:
        return None
    best = at.metrics[-1] if run.experiment.train.keep == "last" else at.metrics[0]
    problem = run.problem_of("best")
    if problem is None and run.load("best").epoch >= best["epoch"]:  # later: saved just before the run was killed
        return None
    problem = problem or f"{run.path}: its checkpoint 'best' is older than epoch {best['epoch']}."
    for name in ("last", "previous"):
        whole = run.problem_of(name) is None
        if whole and ((found := run.load(name)).epoch, found.batch) == (best["epoch"], 0):
            found.metrics = [best]
            run.save_best(found)
            progress.say(f"{problem} It was made anew from {name!r}, which holds the same epoch.")
            return None
    return problem


def is_best(rows: list[dict[str, Any]], metric: Any = Accuracy()) -> bool:  # noqa: B008 - frozen
    """Whether the last epoch is the best so far in validation, by the metric; of equal epochs the later is better.

    The later one has been trained at the lower rate, while the loss of a network that is right mostly measures how
    sure it is. A figure that is no number is worse than any.
    """
    values = [row.get(f"validation_{metric.name}", 0.0) * (1 if metric.higher_is_better else -1) for row in rows]
    values = [-math.inf if math.isnan(value) else value for value in values]
    return max(values) <= values[-1]
