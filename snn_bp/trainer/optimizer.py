"""One step of training, and what it needs: the optimizer, its learning rate, the device."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from snn_bp.chip.network import OnChip
from snn_bp.errors import SnnError
from snn_bp.model.finite import first_nonfinite
from snn_bp.model.losses import loss_of, scores_of
from snn_bp.model.metrics import parts_of_batch
from snn_bp.model.network import Network
from snn_bp.model.targets import Kind, classes_of, pieces_of
from snn_bp.runs.experiment import Train
from snn_bp.runtime.optimizers import without_compiler
from snn_bp.runtime.processes import processes
from snn_bp.trainer.distributed import Team, device_of
from snn_bp.trainer.weights import rate_factors


class Step(NamedTuple):
    """Figures of one training step."""

    loss: float
    correct: int
    samples: int
    grad_norm: float
    spike_rate: float
    parts: tuple[float, ...] = ()  # what the batch adds to a metric other than the accuracy


def train_step(
    network: Network, optimizer: torch.optim.Optimizer, x: Tensor, targets: Tensor, config: Train,
    mask: Tensor | None = None, kind: Kind = "class", metric: Any = None, *,
    frozen: Sequence[nn.Module] = (), fraction: float = 1.0, first: bool = True, last: bool = True,
    team: Team | None = None,
) -> Step:  # fmt: skip
    """One step of the optimizer on one batch: forward, loss, backward through time, clip, update.

    As `run_batch`, and a loss or gradient that is not finite updates nothing. Of several batches that make one step
    each counts by its `fraction`, and their gradients are added one after the other; the `first` begins with none, the
    `last` takes the step.
    """
    weights = list(network.parameters())
    before = [None if first or team is not None else weight.grad for weight in weights]
    if first or team is None:  # torch joins what several processes have added up
        optimizer.zero_grad(set_to_none=True)
    options: dict[str, Any] = {"frozen": frozen, "fraction": fraction, "joins": last, "team": team}
    step = run_batch(network, x, targets, config, mask, kind, metric, **options)
    for weight, grad in zip(weights, before, strict=True):
        if grad is not None:
            weight.grad = grad if weight.grad is None else grad.add_(weight.grad)
    return step._replace(grad_norm=update(network, optimizer, config, step.loss)) if last else step


def run_batch(
    network: Network, x: Tensor, targets: Tensor, config: Train,
    mask: Tensor | None = None, kind: Kind = "class", metric: Any = None, *,
    frozen: Sequence[nn.Module] = (), fraction: float = 1.0, joins: bool = True, team: Team | None = None,
) -> Step:  # fmt: skip
    """The figures of one batch, whose gradients are added to those of the network: forward and backward through time.

    With `truncate=K` the state is carried over every K steps and the gradient is not; each piece counts in proportion
    to its length, of steps that have a label or lie within `mask` where that is not all. Of fractions of classes,
    accuracy and metric count against the largest. `metric` None: none is asked beside the accuracy of classes. Norms in
    `frozen` keep their statistics. With a `team` the batch is this process's shard of its own, and figures are those of
    the whole; its gradients too, once it `joins`.
    """
    network.train()
    for norm in frozen:
        norm.eval()
    state, outs, rates, total = None, [], [], 0.0
    pieces = x.split(config.truncate or len(x))
    lengths = [len(piece) for piece in pieces]
    parts = list(pieces_of(targets, mask, lengths))
    if team is not None:
        parts = team.begin(parts, lengths, targets, mask)
    start = 0
    for n, (piece, part) in enumerate(zip(pieces, parts, strict=True)):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=config.autocast is not None):
            steps = () if mask is None else (mask[start : start + len(piece)],)
            if team is None:
                out, hidden, state = network.rates(piece, state, *steps)
            else:
                out, hidden, state = team.rates(piece, state, *steps, joins=joins and n == len(pieces) - 1)
        start += len(piece)
        out = out if out.dtype in (torch.float32, torch.float64) else out.float()
        if len(part.targets):
            seen = out if part.rows is None else out[:, part.rows]
            loss: Tensor = loss_of(config.loss, seen, part.targets, part.mask)
        else:  # all recordings have ended
            loss = 0.0 * out.sum()
        if team is not None:
            loss = team.part_of_loss(loss, n)
        if config.rates is not None:
            loss = loss + config.rates(hidden if team is None else team.means(hidden, n))
        loss = loss * part.fraction
        (loss if fraction == 1.0 else loss * fraction).backward()
        total += loss.item()
        state = tuple(part.detach() for part in state)
        outs.append(out.detach())
        rates += [rate.detach().mean(dtype=torch.float32) for rate in hidden]
    rate, samples = float(torch.stack(rates).mean()) if rates else 0.0, len(targets)
    scores = scores_of(config.loss, torch.cat(outs), mask, kind)
    targets = classes_of(targets) if kind == "class" else targets
    correct = int((scores.argmax(1) == targets).sum()) if kind == "class" else 0
    sums = () if metric is None else tuple(parts_of_batch(metric, scores, targets, mask))
    if team is not None:
        total, rate, (correct, samples, *sums) = team.totals(total, rate, correct, samples, *sums)
    return Step(total, int(correct), int(samples), 0.0, rate, tuple(sums))


def joined(steps: Sequence[Step]) -> Step:
    """One step that was taken on several batches."""
    if len(steps) == 1:
        return steps[0]
    samples = sum(step.samples for step in steps)
    return Step(
        loss=sum(step.loss * step.samples for step in steps) / samples,
        correct=sum(step.correct for step in steps),
        samples=samples,
        grad_norm=steps[-1].grad_norm,
        spike_rate=sum(step.spike_rate * step.samples for step in steps) / samples,
        parts=tuple(map(sum, zip(*(step.parts for step in steps), strict=True))),
    )


def update(network: Network, optimizer: torch.optim.Optimizer, config: Train, total: float) -> float:
    """Clip the gradient and take a step; gives the gradient's norm ahead of it."""
    weights = list(network.parameters())
    size = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    norm = float(size)
    if math.isfinite(total) and math.isfinite(norm):  # else gradients stay as they are, to say which broke
        nn.utils.clip_grads_with_norm_(weights, config.clip or math.inf, size)
        optimizer.step()
    return norm


def explain_nonfinite(
    step: Step, network: Network, x: Tensor | None, *, epoch: int, batch: int, team: Team | None = None
) -> str:
    """Where a NaN or infinity of a training step first stands, and what may help; without `x` another process looks."""
    where = None if x is None else first_nonfinite(network, x)
    if team is not None:
        where = next((each for each in team.of_each(where) if each), None)
    if where is None:
        gradients = {name: weight.grad for name, weight in network.named_parameters()}
        bad = [name for name, grad in gradients.items() if grad is not None and not grad.isfinite().all()]
        where = f"the gradient of {', '.join(bad)}" if bad else "the loss itself"
    return (
        f"epoch {epoch}, batch {batch}: loss {step.loss}, gradient norm {step.grad_norm}. First not finite: {where}. "
        "This step changed no weight; a lower train.lr or train.clip=1.0 may help."
    )


def make_device(config: Train) -> torch.device:
    """Where to train: "auto" is a GPU where there is one."""
    if processes() > 1:
        return device_of(config)
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.ones(1, device=config.device).cpu().to(config.device).device  # meta holds no values
    except (RuntimeError, AssertionError) as cause:
        reason = str(cause).splitlines()[0]
        raise SnnError(f"train.device={config.device!r}: not usable here ({reason}). auto and cpu work.") from None


def make_optimizer(network: Network, config: Train) -> torch.optim.Optimizer:
    """The optimizer; only the weights of synapses decay, not biases, norms or parameters of neurons.

    Weights that `config.freeze` keeps are left out; those with a rate of their own have its factor in their group.
    """
    learned, decaying, others = network.learned_by_neurons(), [], []
    for name, weight in network.named_parameters():
        if weight.requires_grad or not config.freeze:
            (decaying if weight.dim() > 1 and name not in learned else others).append(weight)
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if config.lr_of:
        groups = _with_factors(groups, rate_factors(network, config))
    if config.optimizer == "sgd":
        kind = without_compiler(torch.optim.SGD)
        return kind(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=True)
    kind = without_compiler(torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam)
    return kind(groups, lr=config.lr, fused=True)


def _with_factors(groups: list[dict[str, Any]], factors: dict[int, float]) -> list[dict[str, Any]]:
    """The groups, parted by the factor of the learning rate."""
    parted = []
    for group in groups:
        for factor in dict.fromkeys(factors.get(id(weight), 1.0) for weight in group["params"]):
            weights = [weight for weight in group["params"] if factors.get(id(weight), 1.0) == factor]
            parted.append({**group, "params": weights, "lr_factor": factor})
    return parted


def freeze_norm(network: Network, config: Train, done: int, *, of: int) -> None:
    """For the last fraction of a training for the chip, let norms use the statistics that the chip will use."""
    if isinstance(network, OnChip):
        network.freeze_norm = done >= of * (1 - config.freeze_norm)


def sharpen_delays(network: Network, done: int, *, of: int) -> None:
    """Reduce the spread of delays that are learned to what it is when so much of a training is done."""
    for layer in network.modules():
        if hasattr(layer, "sharpen"):
            layer.sharpen(done / of)  # type: ignore[operator]


def learning_rate(config: Train, *, step: int, steps: int, batches: int) -> float:
    """The rate at one of all `steps`, `batches` of them an epoch: a climb from 0, then the schedule."""
    climb = math.ceil(config.warmup * steps)
    if step < climb:
        return config.lr * (step + 1) / climb
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * (step - climb) / max(1, steps - climb)))
    if config.schedule == "step":
        return config.lr * config.step_factor ** (step // batches // config.step_epochs)
    return config.lr
