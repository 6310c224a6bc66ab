"""Layers that look back over several steps: convolution over time, and a dense layer whose synapses have delays.

Both keep the last steps of their input as a state, so a recording may come in pieces. Nothing looks ahead.
"""

import math
from dataclasses import KW_ONLY
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_bp.errors import SnnError
from snn_bp.errors.calls import checked_dataclass
from snn_bp.errors.fields import Within, check_fields
from snn_bp.model.modules import Shape
from snn_bp.model.own_module import Carried
from snn_bp.model.sizes import Count, Counts, Sizes, check_sizes, windows

SHARP = 0.5  # steps: the spread that a delay ends with, and below which it is rounded anyway
SHARP_FROM = 0.75  # the fraction of a training after which the spread is no longer reduced


@checked_dataclass(frozen=True)
class TemporalConv:
    """Convolution over the last `steps` steps, and over space where there is some: 1-D, 2-D or 3-D with time.

        y[t] = sum over k of W[k] * x[t - k * dilation] + b,  k = 0 .. steps - 1

    A flat input is channels without space (`kernel` 1). Before the first step there is nothing (zeros). It is causal:
    a recording may be streamed, and what is padded behind a short one changes nothing.

    Parameters:
        channels: how many maps, or values of a flat output, it gives.
        steps: time steps that it looks at.
        kernel (1): side of the window in space, in pixels; one integer, or one for each axis.
        stride (1): pixels from one window to the next; every step has an output.
        padding (0): pixels of zeros added at each end.
        dilation (1): time steps from one that is looked at to the next.
        groups (1): parts that the channels are divided into, each convolved by itself.
        bias (True): whether each map adds a learned constant.

    >>> Network((TemporalConv(8, 5, dilation=2), LIF(beta=0.9)), (3,))(torch.rand(20, 2, 3)).shape
    torch.Size([20, 2, 8])
    """

    channels: Count
    steps: Count
    kernel: Sizes = 1
    _: KW_ONLY
    stride: Sizes = 1
    padding: Counts = 0
    dilation: Count = 1
    groups: Count = 1
    bias: bool = True

    __post_init__ = check_fields

    def build(self, shape: Shape) -> nn.Module:
        """The module for an input of `shape`."""
        self.after(shape)  # which checks the sizes
        if shape[0] % self.groups or self.channels % self.groups:
            raise SnnError(
                f"TemporalConv(groups={self.groups}): the groups should divide the {shape[0]} channels in, "
                f"{self.channels} out."
            )
        return CausalConv(self, shape)

    def after(self, shape: Shape) -> Shape:
        """The channels, and the windows that fit along each spatial axis."""
        if len(shape) != 1:
            check_sizes(self, shape, "kernel", "stride", "padding")
            return self.channels, *windows(self, shape, self.kernel, self.stride, self.padding)
        if (self.kernel, self.stride, self.padding) != (1, 1, 0):
            raise SnnError(
                f"TemporalConv(kernel={self.kernel}): the input {list(shape)} is flat, it has no space to move over. "
                "Use kernel=1, or Unflatten((channels, height, width)) before it."
            )
        return (self.channels,)


@checked_dataclass(frozen=True)
class DelayedDense:
    """A dense layer whose every synapse has a delay of its own, 0 .. `max_steps` steps, learned with its weight.

        y[t] = sum over j and k of w_ij * g_ij[k] * x_j[t - k] + b_i

    Hammouamri et al. 2024 (DCLS): in training `g_ij` is a Gaussian about the delay, normalised over the steps, whose
    spread falls from `spread` to 0.5 steps over the first three quarters of the training; in evaluation the delay is
    rounded, and `g_ij` is 1 at that step. Delays start evenly spread. The exporters refuse it by name: NIR and Lava
    delay neurons, not synapses (`Delay` in front of a `Dense`).

    Parameters:
        units: how many values it gives.
        max_steps (25): the longest delay, in time steps.
        spread (None): width of the Gaussian at first, in time steps, from 0.5 up; None: half of `max_steps`.
        bias (True): whether each unit adds a learned constant.

    >>> Network((DelayedDense(8, 10), LIF(beta=0.9)), (3,))(torch.rand(20, 2, 3)).shape
    torch.Size([20, 2, 8])
    """

    units: Count
    max_steps: Count = 25
    _: KW_ONLY
    spread: Annotated[float | None, Within(low=SHARP)] = None
    bias: bool = True

    __post_init__ = check_fields

    def build(self, shape: Shape) -> nn.Module:
        """The module for a flat input of `shape`."""
        if len(shape) != 1:
            told = f"DelayedDense({self.units}): it takes a flat input, found {list(shape)}. Put Flatten() before it."
            raise SnnError(told)
        return DelayedLinear(shape[0], self)

    def after(self, shape: Shape) -> Shape:
        """One value for each unit."""
        return (self.units,)


class CausalConv(nn.Module):
    """A convolution over time and space; sees `[time, batch, channels, ...]`, its state is the last steps of that."""

    bias: nn.Parameter | None

    def __init__(self, value: TemporalConv, shape: Shape) -> None:
        super().__init__()
        axes = len(shape) - 1
        kernel = value.kernel if isinstance(value.kernel, tuple) else (value.kernel,) * axes
        self.stride = (1, *(value.stride if isinstance(value.stride, tuple) else (value.stride,) * axes))
        self.padding = (0, *(value.padding if isinstance(value.padding, tuple) else (value.padding,) * axes))
        self.dilation, self.groups = (value.dilation, *(1,) * axes), value.groups
        self.past = (value.steps - 1) * value.dilation
        self.weight = nn.Parameter(torch.empty(value.channels, shape[0] // value.groups, value.steps, *kernel))
        self.register_parameter("bias", nn.Parameter(torch.empty(value.channels)) if value.bias else None)
        _draw(self.weight, self.bias)

    def forward(self, x: Tensor, state: Carried | None = None) -> tuple[Tensor, Carried]:
        """The output of every step, and the last steps of the input."""
        x, after = _with_past(x, state, self.past)
        return self.convolve(x, self.weight, self.bias, self.groups), after

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        """The convolution of the steps that came and those before, with other weights than its own."""
        function = (F.conv1d, F.conv2d, F.conv3d)[weight.dim() - 3]
        x = x.movedim(0, 2)  # [batch, channels, time, ...]
        weight = weight.flip(2)  # the latest step is the kernel's first, torch's convolution has it last
        return function(x, weight, bias, self.stride, self.padding, self.dilation, groups).movedim(2, 0).contiguous()

    def operations(self, x: Tensor, counted: Tensor | None = None) -> float:
        """How many weights the inputs of `x` `[time, batch, ...]` that are not zero meet; of the `counted`, if any."""
        active, _ = _with_past((x != 0).double(), None, self.past)
        every = torch.ones_like(self.weight, dtype=torch.bool) if counted is None else counted
        kernel = every.double().unflatten(0, (self.groups, -1)).sum(1)
        return float(self.convolve(active, kernel, None, self.groups).sum())

    def extra_repr(self) -> str:
        return f"{list(self.weight.shape)}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}"


class DelayedLinear(nn.Module):
    """A weighted sum of inputs each delayed for each unit; sees `[time, batch, inputs]`."""

    bias: nn.Parameter | None

    def __init__(self, inputs: int, value: DelayedDense) -> None:
        super().__init__()
        self.max_steps = value.max_steps
        self.first_spread = value.spread or max(SHARP, value.max_steps / 2)
        self.spread = self.first_spread
        self.weight = nn.Parameter(torch.empty(value.units, inputs))
        self.register_parameter("bias", nn.Parameter(torch.empty(value.units)) if value.bias else None)
        _draw(self.weight, self.bias)
        fractions = torch.rand(value.units, inputs, device="cpu").clamp(0.02, 0.98)
        self.learned = nn.ParameterDict({"delay": nn.Parameter(torch.logit(fractions).to(self.weight.device))})

    def sharpen(self, done: float) -> None:
        """Reduce the spread to what it is when a fraction of the training is done."""
        fallen = min(1.0, done / SHARP_FROM)
        self.spread = self.first_spread * (SHARP / self.first_spread) ** fallen

    def delays(self) -> Tensor:
        """The delay of each synapse in steps, `[units, inputs]`, before it is rounded."""
        return self.max_steps * torch.sigmoid(self.learned["delay"])

    def steps_now(self) -> Tensor:
        """The delay of each synapse in whole steps, as in evaluation."""
        return self.delays().detach().round().long()

    @property
    def kernel_values(self) -> int:
        """How many values the kernel has: of each synapse one for every delay."""
        return self.weight.numel() * (self.max_steps + 1)

    def kernel(self) -> Tensor:
        """What each unit takes of an input `k` steps back, `[units, inputs, max_steps + 1]`."""
        steps = torch.arange(self.max_steps + 1, dtype=self.weight.dtype, device=self.weight.device)
        if not self.training:
            return self.weight[..., None] * (steps == self.steps_now()[..., None])
        near = torch.exp(-0.5 * ((steps - self.delays()[..., None]) / self.spread) ** 2)
        return self.weight[..., None] * near / near.sum(-1, keepdim=True)

    def forward(self, x: Tensor, state: Carried | None = None) -> tuple[Tensor, Carried]:
        """The output of every step, and the last steps of the input."""
        x, after = _with_past(x, state, self.max_steps)
        out = F.conv1d(x.movedim(0, 2), self.kernel().flip(2).to(x.dtype), self.bias)
        return out.movedim(2, 0).contiguous(), after

    def operations(self, x: Tensor, counted: Tensor | None = None) -> float:
        """As `CausalConv.operations`, of `x` `[time, batch, inputs]` with delays rounded."""
        sent = torch.cat((x.new_zeros(1, x.shape[2]), (x != 0).sum(1))).double().cumsum(0)  # before each step
        last = (len(x) - self.steps_now()).clamp(min=0)  # what is sent from here on arrives after the end
        arrived = sent.gather(0, last)
        return float((arrived if counted is None else arrived * counted).sum())

    def extra_repr(self) -> str:
        return f"{list(self.weight.shape)}, max_steps={self.max_steps}"


def _draw(weight: Tensor, bias: Tensor | None) -> None:
    """Weights and bias as torch draws those of its own layers: within 1 / sqrt(inputs of a unit)."""
    bound = 1 / math.sqrt(math.prod(weight.shape[1:]))
    for each in (weight, bias):
        if each is not None and not each.is_meta:
            nn.init.uniform_(each, -bound, bound)


def _with_past(x: Tensor, state: Carried | None, past: int) -> tuple[Tensor, Carried]:
    """The steps of a piece behind those before it, zeros at the start; and the last ones, for the next piece."""
    before = x.new_zeros(past, *x.shape[1:]) if state is None else state.value.to(x.dtype)
    if before.shape != (past, *x.shape[1:]):
        raise SnnError(
            f"network.run: the state of a layer over time should be {[past, *x.shape[1:]]}, found "
            f"{list(before.shape)}. None starts from rest."
        )
    joined = torch.cat((before, x))
    return joined, Carried(joined[len(joined) - past :])
