"""From which checkpoint a run goes on, and what of a damaged one can be made anew. Nothing starts over by itself."""

from snn_bp.checkpoint import Checkpoint
from snn_bp.errors import SnnError
from snn_bp.progress import Progress
from snn_bp.run import Run


def newest(run: Run, progress: Progress) -> Checkpoint | None:
    """The checkpoint to go on from, None of a run that has trained nothing; raises where it has, and none serves."""
    checkpoint, problems = run.latest()
    if checkpoint is None and run.results() is None:
        if not problems and not run.has_trained():
            return None
        why = " ".join(problems) or f"{run.path / 'checkpoints'}: the checkpoints of what was trained are missing."
        raise SnnError(
            f"{why} Nothing was changed. Mend that, or start anew with `snn-bp resume {run.path} --restart`, which "
            "keeps what is there in a folder aside."
        )
    for problem in problems:
        progress.say(problem + " The one before it is used." * (checkpoint is not None))
    return checkpoint


def mend_best(run: Run, at: Checkpoint, progress: Progress) -> str | None:
    """See to it that the checkpoint "best" can be read: made from "last" or "previous" where they are of its epoch.

    Gives what is wrong with it, in a sentence, where its weights stand nowhere else.
    """
    if not at.metrics:
        return None
    best = at.metrics[-1] if run.experiment.train.keep == "last" else at.metrics[0]
    problem = run.problem_of("best")
    if problem is None and run.load("best").epoch >= best["epoch"]:  # later: saved just before the run was killed
        return None
    problem = problem or f"{run.path}: its checkpoint 'best' is older than epoch {best['epoch']}."
    for name in ("last", "previous"):
        if run.can_load(name) and ((found := run.load(name)).epoch, found.batch) == (best["epoch"], 0):
            found.metrics = [best]
            run.save_best(found)
            progress.say(f"{problem} It was made anew from {name!r}, which holds the same epoch.")
            return None
    return problem
