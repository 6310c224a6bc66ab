"""The optimizer of a training, its learning rate, and the device it runs on."""

import inspect
import math
from collections.abc import Callable

import torch

from snn_bp.chip.network import OnChip
from snn_bp.errors import SnnError
from snn_bp.model.network import Network
from snn_bp.runs.experiment import Train


def make_device(how: Train) -> torch.device:
    """Where to train: "auto" is a GPU where there is one."""
    if how.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.ones(1, device=how.device).cpu().to(how.device).device  # one that holds values: meta does not
    except (RuntimeError, AssertionError) as cause:
        reason = str(cause).splitlines()[0]
        raise SnnError(f"train.device={how.device!r}: not usable here ({reason}). auto and cpu work.") from None


def make_optimizer(network: Network, how: Train) -> torch.optim.Optimizer:
    """The optimizer; only the weights of synapses decay, not biases, norms or parameters of neurons."""
    decaying = [weight for name, weight in network.named_parameters() if weight.dim() > 1 and ".learned." not in name]
    others = [weight for name, weight in network.named_parameters() if weight.dim() <= 1 or ".learned." in name]
    groups = [{"params": decaying, "weight_decay": how.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if how.optimizer == "sgd":
        kind = _without_compiler(torch.optim.SGD)
        return kind(groups, lr=how.lr, momentum=how.momentum, nesterov=how.nesterov, fused=True)
    kind = _without_compiler(torch.optim.AdamW if how.optimizer == "adamw" else torch.optim.Adam)
    return kind(groups, lr=how.lr, fused=True)


def _without_compiler(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """The optimizer with its methods bare: what torch wraps around them imports its compiler, 1.7 s of every start."""
    wrapped = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    bare = {name: inspect.unwrap(getattr(kind, name)) for name in wrapped}
    return type(kind.__name__, (kind,), bare | {"step": torch.no_grad()(inspect.unwrap(kind.step))})


def freeze_norm(network: Network, how: Train, done: int, *, of: int) -> None:
    """For the last fraction of a training for the chip, let norms use the statistics that the chip will use."""
    if isinstance(network, OnChip):
        network.freeze_norm = done >= of * (1 - how.freeze_norm)


def learning_rate(how: Train, *, step: int, steps: int, batches: int) -> float:
    """The rate at one of all `steps`, `batches` of them an epoch: a climb from 0, then the schedule."""
    climb = math.ceil(how.warmup * steps)
    if step < climb:
        return how.lr * (step + 1) / climb
    if how.schedule == "cosine":
        return how.lr * 0.5 * (1 + math.cos(math.pi * (step - climb) / max(1, steps - climb)))
    if how.schedule == "step":
        return how.lr * how.step_factor ** (step // batches // how.step_epochs)
    return how.lr
