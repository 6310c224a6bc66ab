"""Spikes that arrive later: each neuron's by its own number of steps, and what a learned delay learns from."""

import torch
from torch import Tensor

from snn_bp.errors import SnnError
from snn_bp.kernels.around import check_backward, is_transformed


def delayed(x: Tensor, delay: Tensor, *, learns: bool) -> Tensor:
    """`x` `[time, batch, *shape]` later by `delay` `[*shape]`, rounded; gradients flow to both where it `learns`."""
    if not is_transformed():
        return _Delayed.apply(x, delay)  # type: ignore[return-value]
    if learns:
        raise SnnError(
            "Delay(learn=True): it has a gradient by backward() alone, none under torch.func or forward mode. Use "
            "backward(), or a Delay that does not learn."
        )
    return _moved(x, delay.round().long())


class _Delayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, delay: Tensor):
        steps = delay.round().long()
        ctx.save_for_backward(x, steps)
        ctx.kind = delay.dtype
        return _moved(x, steps)

    @staticmethod
    def backward(ctx, g):
        x, steps = ctx.saved_tensors
        learns = ctx.needs_input_grad[1]
        if learns or not torch.is_grad_enabled():  # a delay that is given has a gradient of its gradient too
            check_backward("Delay", (g,), "Only a Delay that does not learn has more.")
        g_x = _moved(g.flip(0), steps).flip(0)
        if not learns:
            return g_x, None
        zero = x.new_zeros(1, *x.shape[1:])
        slope = (torch.cat((x[1:], zero)) - torch.cat((zero, x[:-1]))) / 2
        return g_x, -(g * _moved(slope, steps)).sum((0, 1)).to(ctx.kind).reshape(steps.shape)


def _moved(x: Tensor, steps: Tensor) -> Tensor:
    """`x` `[time, batch, *shape]` later by `steps` `[*shape]`."""
    rows, out = x.flatten(2), torch.zeros_like(x, memory_format=torch.contiguous_format).flatten(2)
    for step in steps.unique().tolist():
        if step < len(x):
            chosen = (steps.flatten() == step).nonzero()[:, 0]
            out[step:, :, chosen] = rows[: len(x) - step, :, chosen]
    return out.view(x.shape)
