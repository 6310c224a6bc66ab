"""What a training will take, before it runs: `--dry-run`."""

import time

from snn_bp.chip.quantize import rounded_decays
from snn_bp.data import Dataset
from snn_bp.model.blocks import every_part, own_weights, parts_of
from snn_bp.model.start import start_alive
from snn_bp.runs.experiment import Experiment
from snn_bp.runtime.capacity import free
from snn_bp.runtime.status import phase, say
from snn_bp.trainer import memory
from snn_bp.trainer.feasibility import check_chip, check_trainable
from snn_bp.trainer.optimizer import make_optimizer, train_step


def dry_run(experiment: Experiment, dataset: Dataset) -> None:
    """Print shapes and parameters, and what two real training steps tell of memory and time."""
    config = experiment.train
    check_trainable(experiment, dataset)
    network = experiment.network(dataset.shape)
    ids = dataset.batches("train", seed=experiment.seed)
    for note in dataset.notes:
        say(note)
    say(
        f"input [time, batch, {', '.join(map(str, dataset.shape))}] = {dataset.steps} steps of "
        f"{experiment.data.step_ms} ms, batches of {experiment.data.batch}"
    )
    for part in every_part(parts_of(network)):
        count = sum(weight.numel() for weight in own_weights(part).values())
        indent = "  " * (len(part.path) // 2)  # a layer within a joint, which comes behind its branches
        say(f"  {list(part.after)!s:16} {count:10,} parameters  {indent}{network.name(part.path)}")
    say(f"training takes {memory.estimate(experiment, dataset)}; {free()}")
    if config.target != "float":
        for found in check_chip(experiment, experiment.network(dataset.shape)):
            say(str(found))
        for changed in rounded_decays(network) if config.target != "xylo" else ():
            say(changed)
    x, targets = dataset.batch("train", ids[0], seed=experiment.seed)
    mask, kind = dataset.mask("train", ids[0]), dataset.targets.kind
    start_alive(network, x, mask=mask)
    optimizer = make_optimizer(network, config)
    with phase("taking two steps"):
        train_step(network, optimizer, x, targets, config, mask, kind)  # the first one compiles
        began = time.monotonic()
        train_step(network, optimizer, x, targets, config, mask, kind)
    seconds = (time.monotonic() - began) * len(ids)
    total = sum(weight.numel() for weight in network.parameters())
    say(f"{total:,} parameters")
    whole = seconds * config.epochs
    say(
        f"about {seconds:.1f} s for an epoch of {len(ids)} batches, "
        f"{f'{whole:.1f} s' if whole < 60 else f'{whole / 60:.1f} min'} for {config.epochs} epochs, on this machine "
        "and without validation"
    )
