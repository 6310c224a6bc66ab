"""Whether an experiment can be trained: what cannot is refused here, before a run folder stands."""

import math
from collections.abc import Callable
from typing import Any

import torch

from snn_bp.chip.cores import CHIPS, Placement, placement
from snn_bp.chip.netx_rules import check_netx
from snn_bp.chip.quantize import quantize
from snn_bp.chip.verilog.rules import check_verilog
from snn_bp.chip.xylo.quantize import configuration_of
from snn_bp.data import Data, Dataset
from snn_bp.data.augmentations import mixing_classes
from snn_bp.errors import SnnError
from snn_bp.model.blocks import every_part, parts_of
from snn_bp.model.losses import LOSSES, check_loss, loss_of, takes_soft_targets, try_loss
from snn_bp.model.metrics import check_metric, metric_for
from snn_bp.model.network import Network
from snn_bp.model.plan import has_chain
from snn_bp.model.signatures import called
from snn_bp.runs.experiment import Experiment
from snn_bp.runs.training_options import Train
from snn_bp.runtime.processes import processes
from snn_bp.runtime.status import phase
from snn_bp.trainer.distributed import check_together
from snn_bp.trainer.memory import check_memory
from snn_bp.trainer.optimizer import make_device, make_optimizer
from snn_bp.trainer.sampling import class_chances
from snn_bp.trainer.weights import freeze_layers


@phase("checking that it can be trained")
def check_trainable(
    experiment: Experiment, dataset: Dataset, check: Callable[[Experiment, Dataset], object] = check_memory
) -> None:
    """Raise unless the experiment can be trained: data, shapes, loss, device, memory, and one forward step.

    `check` says whether memory is large enough.
    """
    if len(dataset.ids["train"]) == 0:
        raise SnnError(f"train: the training split of {experiment.data.name} is empty. {' '.join(dataset.notes)}")
    check(experiment, dataset)
    network, config = experiment.network(dataset.shape), experiment.train_at_step()
    outputs = network.output_shape
    if outputs != (dataset.classes,):
        asked = "classes" if dataset.targets.are_classes else f"outputs, targets of the kind {dataset.targets.kind!r}"
        raise SnnError(
            f"model: its output has the shape {list(outputs)}, {experiment.data.name} has {dataset.classes} {asked}. "
            f"End it with Dense({dataset.classes}) and a neuron."
        )
    masked = dataset.mask("train", dataset.ids["train"][:1]) is not None
    check_loss(config.loss, network, dataset.targets)
    check_soft_targets(config.loss, experiment.data)
    soft = mixing_classes(experiment.data.augment) is not None
    try_loss(config.loss, dataset.targets, steps=dataset.steps, masked=masked, soft=soft)
    check_metric(metric_for(config, dataset.targets), dataset.targets, steps=dataset.steps, masked=masked)
    make_device(config)
    check_options(config, dataset, network)
    make_optimizer(network, config)
    check_norms(experiment, dataset, network)
    if processes() > 1:
        check_together(network, config, dataset)
    if config.truncate and any(part.role == "delay" for part in every_part(parts_of(network))):
        raise SnnError("train.truncate: with a Delay a recording runs whole, spikes are under way between its pieces.")
    if config.target != "float":
        check_chip(experiment, network)
    if config.memory == "low" and not has_chain(parts_of(network.train())):
        raise SnnError(
            "train.memory='low': it spares the potentials of dense layers that their neurons follow directly, this "
            "model has none (a BatchNorm between them needs the weighted sums of all steps). Use 'full'."
        )
    with torch.no_grad():  # one step of silence: what no input can run is refused here, before a folder stands
        out, rates, _ = network.eval().rates(torch.zeros(1, 1, *dataset.shape))
        if type(config.loss) in LOSSES:
            loss_of(config.loss, out, dataset.targets.silence(1, 1))
        if config.rates is not None:
            config.rates(rates)


def check_soft_targets(loss: Any, data: Data) -> None:
    """Raise where recordings of two classes are mixed, and a loss or an objective does not say that it takes that."""
    mixing = mixing_classes(data.augment)
    if mixing is not None and not takes_soft_targets(loss):
        raise SnnError(
            f"{called(loss)}: {mixing} mixes recordings of two classes, and targets are the fraction of each, floats "
            "[batch, classes], which it does not say that it takes. "
            f"{type(mixing).__name__}(classes='same') leaves labels; what takes both says takes_soft_targets = True."
        )


def check_options(config: Train, dataset: Dataset, network: Network) -> None:
    """Raise where early stopping, balanced draws or frozen layers ask for what is not there."""
    if config.stop is not None and not len(dataset.ids["validation"]):
        raise SnnError(
            f"train.stop={config.stop}: it follows the validation split, and there is none. Give data a "
            "validation_fraction above 0, or leave train.stop out."
        )
    if config.sampler == "balanced":
        class_chances(dataset)
    if freeze_layers(network, config.freeze) and config.target != "float":
        raise SnnError(
            f"train.freeze: for target {config.target!r} norms stay together or not at all. Leave the norm's index out "
            "of train.freeze; train.freeze_norm=1 keeps them all."
        )


def check_norms(experiment: Experiment, dataset: Dataset, network: Network) -> None:
    """Raise where a norm would meet a batch, or the last piece of one, with one value for each channel."""
    steps, truncate = experiment.data.steps or dataset.steps, experiment.train.truncate
    piece = (steps % truncate or truncate) if truncate else steps
    smallest = min(len(ids) for ids in dataset.batches("train"))
    for part in every_part(parts_of(network)):
        if part.role == "norm" and piece * smallest * math.prod(part.after[1:]) == 1:
            count = len(dataset.ids["train"])
            raise SnnError(
                f"data.batch={experiment.data.batch}: of {count} training recordings the last batch has {smallest}, "
                f"trained in pieces of {piece} step, and {network.name(part.path)} takes the spread of one value, "
                "which is none. Use another batch that does not leave one over, more steps, or no BatchNorm."
            )


def check_chip(experiment: Experiment, network: Network) -> list[Placement]:
    """How the network lies on each of Loihi's chips where it is for one; raises where the target cannot hold it."""
    if experiment.train.target == "xylo":
        configuration_of(network.eval(), step_ms=experiment.data.step_ms or 1.0)
        return []
    graph = quantize(network.eval(), input_bits=0 if experiment.data.binary else 8)
    if experiment.train.target != "loihi":
        check_verilog(graph, parallel=1)
        return []
    check_netx(graph)
    found = [placement(graph, chip) for chip in CHIPS]
    if all(each.problems for each in found):
        problems = [f"{each.chip}: {' '.join(each.problems)}" for each in found]
        raise SnnError(f"train.target='loihi': no chip holds the network. {' '.join(problems)}")
    return found
