"""What is measured at the end of each epoch, and at the end of a training: on the test split for the only time."""

from typing import Any

import numpy as np
from torch import Tensor

from snn_bp.errors import typed
from snn_bp.files import write_object
from snn_bp.instruments import diagnose_course
from snn_bp.model.metrics import columns_of
from snn_bp.runs.checkpoint import Checkpoint
from snn_bp.runs.evaluation import Evaluation, Measurement, drawing_from, layer_activity
from snn_bp.runs.folder import Run
from snn_bp.runs.provenance import peak_memory_mb
from snn_bp.runs.records import results_line
from snn_bp.trainer.course import Course
from snn_bp.trainer.distributed import Team
from snn_bp.trainer.progress import Progress, Tally, layer_updates
from snn_bp.trainer.saving import repair_best
from snn_bp.trainer.together import evaluate_together


def rows_of_epoch(
    course: Course, tally: Tally, *, lr: float, before: list[Tensor]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The row of `metrics.csv` of the epoch that has just ended, and those of `layers.jsonl`."""
    network, dataset, metric, epoch = course.network, course.dataset, course.metric, course.at.epoch
    with drawing_from(0, course.device):
        layers = layer_activity(network, course.probe, course.mask_of_probe)
    row = {
        "epoch": epoch,
        **tally.row(metric, dataset.targets),
        "lr": lr,
        "peak_memory_mb": peak_memory_mb(course.device),
    }
    row["spike_rate"] = float(np.mean([layer["rate"] for layer in layers])) if layers else 0.0
    if (seen := validation_of(course)) is not None:
        named = columns_of(metric, dataset.targets)
        row |= {"validation_loss": seen.loss} | {f"validation_{name}": seen.metrics[name] for name in named}
    return row, [{"epoch": epoch, **layer} for layer in (*layers, *layer_updates(network, before))]


def validation_of(course: Course) -> Evaluation | None:
    """The network on the validation split; None without one, and in processes that are not the first. All call it."""
    if not len(course.dataset.ids["validation"]):
        return None
    measurement = Measurement(course.dataset, "validation", course.config.loss, course.metric, counts=False, keep=False)
    with course.averaged():
        found = evaluate_together(course.network, measurement, course.team)
    return found and found[0]


def end_run(run: Run, at: Checkpoint, progress: Progress, why: str = "", team: Team | None = None) -> None:
    """Evaluate the best checkpoint, on the test split for the only time, and write `results.json`.

    `why`: what ended the training before its last epoch. `team`: whose other processes call `follow_end`.
    """
    notes = list(run.dataset().notes)
    if lost := repair_best(run, at, progress):
        notes.append(f"{lost} Evaluated: the last epoch, in its place.")
        progress.say(notes[-1])
        run.save_best(run.load("last"))
    network, dataset, config = run.network("best"), run.dataset(), run.experiment.train_at_step()
    results: dict[str, Any] = {
        "epochs": at.epoch,
        "best_epoch": run.load("best").epoch,
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "train_seconds": round(at.seconds, 3),
        "notes": notes,
        "tables": run.marks(),
    }
    if why:
        results["ended"] = why
    untouched = ["test"] if config.test == "never" and len(dataset.ids["test"]) else []
    if untouched:
        results["untouched"] = untouched
    splits = [split for split in ("validation", "test") if len(dataset.ids[split]) and split not in untouched]
    if team is not None:
        team.tell((network.state_dict(), splits))
    for split in splits:
        measured = evaluate_together(network, _measurement(run, split), team)
        assert measured is not None  # in the first process
        found, kept = measured
        results[split] = found.record()
        if kept is not None:
            run.check_same_folder()
            kept.write(run.path, split)
    run.check_same_folder()
    write_object(run.path / "results.json", results)
    progress.say(results_line(results))
    for finding in diagnose_course(run.metrics(), dataset, run.experiment, finished=True):
        progress.say(f"doctor: {finding}")
    progress.say(f"pictures and page: snn-bp report {typed(run.path)}")


def follow_end(run: Run, team: Team) -> None:
    """Take part in what the first process evaluates in `end_run`."""
    weights, splits = team.awaited()
    network = run.experiment.network(run.dataset().shape)
    network.load_state_dict(weights)
    network.eval()
    for split in splits:
        evaluate_together(network, _measurement(run, split), team)


def _measurement(run: Run, split: str) -> Measurement:
    """All that is kept of a split at the end."""
    config = run.experiment.train_at_step()
    return Measurement(run.dataset(), split, config.loss, config.metric, counts=True, keep=True)
