"""`check_gradients`: is this gradient right, and what does it leave out?

Right: the fast kernels equal the reference, and the smoothed network's gradient equals finite differences. Left out:
how far a surrogate gradient lies from the smoothed network's, what `detach_reset` and truncation cut.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_bp.errors import SnnError, check_number, check_seed, shown
from snn_bp.errors.calls import checked_call
from snn_bp.instruments.differences import TRUSTED, Difference, differences, largest, scales
from snn_bp.instruments.similarity import Similarity, similarity, similarity_by_layer
from snn_bp.instruments.smooth import at_edges
from snn_bp.instruments.traces import forked
from snn_bp.instruments.unroll import Variant, check_asked, copied, unroll
from snn_bp.kernels import use_backend
from snn_bp.model.blocks import LayerAt, Path, every_part, parts_of
from snn_bp.model.losses import CountCrossEntropy, Loss, loss_of, smooth_loss
from snn_bp.model.network import Network, has_state, neuron_of
from snn_bp.model.targets import pieces_of
from snn_bp.neurons import Neuron, is_spiking
from snn_bp.runtime.screen import on_screen
from snn_bp.runtime.status import in_phase, phase

ROUNDING = {"float32": 1e-5, "float64": 1e-13}  # over the largest potential: how far a sum in another order may lie
SMOOTH_LIMIT = 1e-6  # how far finite differences may be off; issue 5
KERNEL_LIMITS = {"float32": 1e-3, "float64": 1e-9}  # a sum in another order; a wrong adjoint is off by percents
FLOORS = {"float32": 0.03, "float64": 1e-3}  # over a layer's gradient: a smaller one in it is known to fewer digits
RESET_COSINE = 0.9  # cosine from which on a difference counts as the reset's
Gradients = dict[str, Tensor]


@dataclass(frozen=True)
class KernelCheck:
    """Fast kernels against the reference in one precision."""

    precision: str
    spikes_differ: int  # neurons whose output differs in any step of any recording, in all layers
    at_kinks: int  # neurons and steps whose surrogate jumps there: rounding decides on which side the slope is taken
    errors: dict[str, float]  # |fast - reference| / |reference| of each parameter's gradient (see `scales`)
    through_resets: float  # |cosine| of fast - reference with the part of the gradient that goes through resets
    constant: int = 0  # channels that do not vary ahead of a norm, which then divides rounding by rounding

    @property
    def worst(self) -> float:
        """The largest error."""
        return largest(self.errors.values())

    @property
    def conclusive(self) -> bool:
        """Whether both ran the same spikes and slopes; a sum in another order may flip one, and gradients differ."""
        return self.spikes_differ == self.at_kinks == self.constant == 0

    @property
    def ok(self) -> bool:
        """Whether the gradients agree, or are not to be compared."""
        return not self.conclusive or self.worst <= KERNEL_LIMITS[self.precision]


@dataclass(frozen=True)
class LayerCheck:
    """The surrogate gradient of one layer beside others of the same layer."""

    layer: str
    smoothed: Similarity  # surrogate over smoothed: the network whose exact gradient the surrogate would be
    attached: Similarity  # reset detached over not: the part of the gradient that goes through resets


@dataclass(frozen=True)
class TruncationCheck:
    """The whole gradient truncated every `steps` steps, over backpropagation through all steps."""

    steps: int
    same_loss: Similarity  # only the gradient through time is cut
    as_trained: Similarity | None  # as `train.truncate` does: each piece with its own loss. None: cannot run in pieces


@dataclass(frozen=True)
class GradientReport:
    """What `check_gradients` found; `ok` where no gradient is wrong."""

    kernels: tuple[KernelCheck, ...]
    differences: tuple[Difference, ...]
    layers: tuple[LayerCheck, ...]
    truncated: tuple[TruncationCheck, ...]

    @property
    def problems(self) -> list[str]:
        """In words, every gradient that is wrong."""
        said = []
        for check in self.kernels:
            if not check.ok:
                bad = [name for name, error in check.errors.items() if not error <= KERNEL_LIMITS[check.precision]]
                part = "adjoint of the reset" if check.through_resets > RESET_COSINE else "adjoint"
                said.append(
                    f"the fast kernels' gradient differs from the reference's in {check.precision} by "
                    f"{check.worst:.2g} (limit {KERNEL_LIMITS[check.precision]:g}) at {', '.join(bad)}. The kernel's "
                    f'{part} is wrong: train within use_backend("reference"), and report it.'
                )
        for row in self.differences:
            if row.conclusive and not row.within(SMOOTH_LIMIT):
                limit = max(SMOOTH_LIMIT, TRUSTED * row.uncertain)
                said.append(
                    f"{row.name}: the smoothed network's gradient is off by {row.error:.2g} of its norm from finite "
                    f"differences (limit {limit:.2g}). An equation and its derivative do not belong together."
                )
        return said

    @property
    def ok(self) -> bool:
        """Whether no gradient is wrong."""
        return not self.problems

    @property
    def conclusive(self) -> bool:
        """Whether every check is conclusive."""
        return all(check.conclusive for check in (*self.kernels, *self.differences))

    def record(self) -> dict[str, Any]:
        """All figures as JSON holds them; what is not finite becomes None."""
        return _finite({**asdict(self), "problems": self.problems})

    def __str__(self) -> str:
        lines = ["fast kernels against the reference"]
        for check in self.kernels:
            why = f"{check.spikes_differ} neurons spike otherwise" if check.spikes_differ else ""
            why = why or (f"{check.constant} channels do not vary ahead of a norm" if check.constant else "")
            why = why or f"{check.at_kinks} neurons and steps lie on a jump of the surrogate"
            note = "" if check.conclusive else f", not conclusive: {why}"
            lines.append(f"  {check.precision:30}{check.worst:10.1e}{note}")
        lines.append("smoothed network against finite differences")
        for row in self.differences:
            note = "" if row.uncertain <= SMOOTH_LIMIT / TRUSTED else f" +- {row.uncertain:.1e}: the loss is not smooth"
            if not row.conclusive:
                crossed = f", not conclusive: {row.crossed} kinks crossed"
                note = crossed if row.crossed else f"{note} here"
            lines.append(f"  {row.name:30}{row.error:10.1e}{note}")
        long = max([30, *(len(row.layer) for row in self.layers)])
        first = max(14, 48 - long)  # its right edge stays where it is where names are short
        lines.append(f"{'surrogate gradient over':{long + 2}}{'smoothed':>{first}}{'reset not detached':>20}")
        for row in self.layers:
            lines.append(f"  {row.layer:{long}}{row.smoothed!s:>{first}}{row.attached!s:>20}")
        lines.append(f"{'truncated over full':32}{'same loss':>18}{'as trained':>20}   (cosine, norm ratio)")
        for row in self.truncated:
            lines.append(f"  every {row.steps:3} steps{'':15}{row.same_loss!s:>18}{row.as_trained or '-'!s:>20}")
        end = "all right" if self.conclusive else "nothing wrong in what is conclusive"
        return "\n".join([*lines, *(f"wrong: {problem}" for problem in self.problems), *([end] * self.ok)])

    def __repr__(self) -> str:
        return on_screen(str(self))


@checked_call
@phase("checking the gradients")
def check_gradients(
    network: Network, inputs: Tensor, targets: Tensor, *,
    loss: Loss = CountCrossEntropy(),  # noqa: B008 - frozen
    directions: int = 2, truncations: Sequence[int] | None = None, seed: int = 0,
) -> GradientReport:  # fmt: skip
    """Check every gradient of `network` on `inputs` `[time, batch, ...]`, in the mode it is in; it stays as it is.

    Finite differences run the network a dozen times for each parameter tensor, so a batch of a few recordings is
    enough.

    Parameters:
        network: one with parameters.
        inputs, targets: a batch.
        loss (CountCrossEntropy()): what is differentiated.
        directions (2): finite differences for each parameter tensor.
        truncations (None): the steps after which to cut; None takes halves of the whole down to 1, four at most.
        seed (0): what the directions are drawn from.

    >>> network = Network((Dense(3), LIF(beta=0.9)), (4,))
    >>> check_gradients(network, torch.rand(4, 2, 4), torch.tensor([0, 1])).ok
    True
    """
    check_asked("check_gradients", network, inputs, loss)
    check_seed("check_gradients: seed", seed)
    check_number("check_gradients: directions", directions, integer=True, low=1)
    if not isinstance(truncations, tuple | list | None):
        raise SnnError(f"check_gradients: truncations={shown(truncations)}: it should be steps, as (50, 25), or None.")
    for every in truncations or ():
        check_number("check_gradients: truncations", every, integer=True, low=1)
    if not any(weight.numel() for weight in network.parameters()):
        raise SnnError("check_gradients: the network has no parameters. One with: (Dense(10), LIF(beta=0.9)).")
    precisions = dict.fromkeys((torch.float64 if inputs.dtype == torch.float64 else torch.float32, torch.float64))
    kernels = [
        _kernels(copied(network, double=kind == torch.float64), inputs.to(kind), targets, loss)
        for kind in in_phase(precisions, "comparing the kernels with the reference")
    ]
    double, x, steps = copied(network, double=True), inputs.double(), len(inputs)
    hard = _gradients(double, x, targets, loss, Variant())
    detached, attached = (_gradients(double, x, targets, loss, Variant(detach=cut)) for cut in (True, False))
    smoothed, cut = compare_smoothed(double, x, targets, loss), similarity_by_layer(double, detached, attached)
    layers = [LayerCheck(layer, smoothed[layer], cut[layer]) for layer in smoothed]
    chosen = truncations if truncations is not None else [steps >> n for n in range(1, 5) if steps >> n]
    truncated = [
        TruncationCheck(
            every,
            _similarity(_gradients(double, x, targets, loss, Variant(truncate=every)), hard),
            _similarity(pieces, hard) if (pieces := _in_pieces(double, x, targets, loss, every)) else None,
        )
        for every in in_phase(chosen, "truncating the gradient")
    ]
    rows = differences(double, x, targets, loss, directions=directions, seed=seed)
    return GradientReport(tuple(kernels), tuple(rows), tuple(layers), tuple(truncated))


def compare_smoothed(network: Network, x: Tensor, targets: Tensor, loss: Loss) -> dict[str, Similarity]:
    """The surrogate gradient over the smoothed network's, of each layer that has parameters."""
    hard, smooth = (_gradients(network, x, targets, loss, Variant(smooth=smooth)) for smooth in (False, True))
    return similarity_by_layer(network, hard, smooth)


def _kernels(network: Network, x: Tensor, targets: Tensor, loss: Loss) -> KernelCheck:
    """The adjoint by the fastest backend, as training takes it, and by the reference, of the same output gradient.

    Both take the loss's gradient at the reference's output: what the loss itself rounds is not the kernels' fault.
    """
    named, found, outs = dict(network.named_parameters()), {}, {}
    error = torch.zeros(())
    for backend in ("reference", "fastest"):
        work = copied(network)  # each with the same statistics of norms
        with use_backend(backend), forked(x):
            torch.manual_seed(0)
            out = work.rates(x)[0]
            if backend == "reference":
                leaf = out.detach().requires_grad_()
                (error,) = torch.autograd.grad(
                    loss_of(loss, leaf, targets), leaf, allow_unused=True, materialize_grads=True
                )
            weights = list(work.parameters())
            found[backend] = torch.autograd.grad(out, weights, error, allow_unused=True, materialize_grads=True)
            outs[backend] = _outputs(network, x)
    fast, slow = found["fastest"], found["reference"]
    precision, resets, jumps, constant = str(x.dtype).removeprefix("torch."), 0.0, 0, 0
    sizes = scales(dict(zip(named, slow, strict=True)), floor=FLOORS[precision])
    away = {name: a - b for name, a, b in zip(named, fast, slow, strict=True)}
    errors = {name: float(rest.norm()) / (sizes[name] or 1.0) for name, rest in away.items()}
    if not largest(errors.values()) <= KERNEL_LIMITS[precision]:
        attached, detached = (
            _gradients(copied(network), x, targets, loss, Variant(detach=cut)) for cut in (False, True)
        )
        resets = _similarity(away, {name: attached[name] - detached[name] for name in named}).cosine
        jumps, constant = _jumps(network, x)
    return KernelCheck(precision, _apart(outs["fastest"], outs["reference"]), jumps, errors, abs(resets), constant)


def _outputs(network: Network, x: Tensor) -> list[tuple[Neuron, Tensor]]:
    """What every layer of neurons sends, by the backend in force: what stands behind it is left off."""
    found = []
    for part in every_part(parts_of(network)):
        if has_state(part.layer):
            work = copied(network)
            row = list(_row_to(parts_of(work), part.path))
            work.layers, work.shapes = nn.ModuleList(each.layer for each in row), [each.after for each in row]
            torch.manual_seed(0)
            found.append((neuron_of(part.layer), work.rates(x)[0].detach()))
    return found


def _row_to(row: list[LayerAt], path: Path) -> Iterator[LayerAt]:
    """The layers in front of the one at a path, and itself, one after the other; a joint before them is one."""
    index, *within = path
    yield from row[: index + (not within)]
    if within:
        yield from _row_to(row[index].branches[within[0]], tuple(within[1:]))


def _apart(mine: list[tuple[Neuron, Tensor]], other: list[tuple[Neuron, Tensor]]) -> int:
    """Neurons whose spikes differ in a step of a recording, or whose potentials do by more than rounding."""
    count = 0
    for (neuron, a), (_, b) in zip(mine, other, strict=True):
        reach = 0.0 if is_spiking(neuron) else KERNEL_LIMITS[str(a.dtype).removeprefix("torch.")] * float(b.abs().max())
        count += int(((a - b).abs() > reach).flatten(0, 1).any(0).sum())
    return count


def _jumps(network: Network, x: Tensor) -> tuple[int, int]:
    """Where rounding decides the gradient: neurons and steps on an edge of the surrogate, maxima that nearly tie.

    Also the channels that do not vary ahead of a norm.
    """
    rounding = ROUNDING[str(x.dtype).removeprefix("torch.")]
    with forked(x), torch.no_grad():
        torch.manual_seed(0)
        _, layers = unroll(copied(network), x)
        torch.manual_seed(0)
        with use_backend("reference"):
            visited = list(copied(network).visit(x))
    count = sum(
        at_edges(*each, steps.neurons.surrogate, rounding=rounding) for steps in layers for each in steps.by_threshold
    )
    constant = 0
    for part, entering, _ in visited:
        if isinstance(part.layer, nn.MaxPool1d | nn.MaxPool2d):
            count += near_ties(part.layer, entering.flatten(0, 1), rounding=rounding)
        if part.role == "norm":
            each = entering.movedim(2, 0).flatten(1)  # [channels, time * batch * ...]
            constant += int((each.amax(1) - each.amin(1) <= rounding * each.abs().amax(1)).sum())
    return count, constant


def near_ties(pool: nn.MaxPool1d | nn.MaxPool2d, x: Tensor, *, rounding: float) -> int:
    """Windows `[rows, channels, ...]` whose two largest values differ by no more than rounding, and do differ."""
    sizes, strides, pads = [
        (each, each) if isinstance(each, int) else tuple(each) for each in (pool.kernel_size, pool.stride, pool.padding)
    ]
    if x.dim() == 3:
        x, sizes, strides, pads = x.unsqueeze(2), (1, sizes[-1]), (1, strides[-1]), (0, pads[-1])
    x = F.pad(x, (pads[1], pads[1], pads[0], pads[0]), value=-math.inf)
    windows = x.unfold(2, sizes[0], strides[0]).unfold(3, sizes[1], strides[1]).flatten(4)
    if windows.shape[-1] < 2:
        return 0
    first, second = windows.topk(2).values.unbind(-1)
    return int(((first > second) & (first - second <= rounding * x[x.isfinite()].abs().max())).sum())


def _gradients(network: Network, x: Tensor, targets: Tensor, loss: Loss, variant: Variant) -> Gradients:
    with forked(x):
        torch.manual_seed(0)
        out, _ = unroll(network, x, variant=variant)
    return _of(smooth_loss(loss, out, targets) if variant.smooth else loss_of(loss, out, targets), network)


def _in_pieces(network: Network, x: Tensor, targets: Tensor, loss: Loss, cut: int) -> Gradients | None:
    """As `train_step` adds it up with `truncate`; None where a delay needs recordings whole."""
    if any(part.role == "delay" for part in every_part(parts_of(network))):
        return None
    state, total = None, torch.zeros((), dtype=x.dtype, device=x.device)
    work = copied(network)
    with use_backend("reference"), forked(x):
        torch.manual_seed(0)
        pieces = x.split(cut)
        for piece, part in zip(pieces, pieces_of(targets, None, [len(piece) for piece in pieces]), strict=True):
            out, _, state = work.rates(piece, state)
            total = total + loss_of(loss, out, part.targets) * part.fraction
            state = tuple(part.detach() for part in state)
    return _of(total, work)


def _of(value: Tensor, network: Network) -> Gradients:
    named = dict(network.named_parameters())
    found = torch.autograd.grad(value, list(named.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(named, found, strict=True))


def _similarity(mine: Gradients, other: Gradients) -> Similarity:
    return similarity(list(mine.values()), list(other.values()))


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
