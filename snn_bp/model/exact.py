"""Layers that compute exactly what their class does, which code that reads their weights instead must know.

A subclass, a patched `forward`, a hook (pruning and weight norms are hooks), a parametrisation or a weight of a kind of
its own changes what a layer computes. Such a layer runs by its own forward, and is refused where it would not run.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import parametrize

from snn_bp.errors import SnnError, shown
from snn_bp.kernels.around import PLAIN, holds_plain_numbers, is_untouched
from snn_bp.model.constrained import ConstrainedLinear
from snn_bp.model.modules import Delays, DropoutOverTime, Neurons, SumPool
from snn_bp.model.temporal import CausalConv, DelayedLinear

# what each class computes, as it was when this file was read; a class of torch may be patched later
FORWARDS: dict[type, Callable] = {
    kind: kind.forward
    for kind in (
        nn.Linear, ConstrainedLinear, nn.Conv1d, nn.Conv2d, nn.AvgPool1d, nn.AvgPool2d, nn.MaxPool1d, nn.MaxPool2d,
        SumPool, nn.BatchNorm1d, nn.BatchNorm2d, nn.Flatten, DropoutOverTime, Delays, Neurons,
        nn.LayerNorm, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Upsample, nn.Unflatten, CausalConv, DelayedLinear,
        nn.ParameterDict,
    )
}  # fmt: skip


COUNTS = (torch.int64, torch.bool)  # types of buffers that no kernel computes with
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def has_all_parts(norm: nn.Module) -> bool:
    """Whether a norm has the weight, bias and running statistics that a `BatchNorm()` of ours is built with."""
    parts = (norm._parameters.get("weight"), norm._parameters.get("bias"))
    return all(part is not None for part in (*parts, norm._buffers["running_mean"], norm._buffers["running_var"]))


def has_known_class(layer: nn.Module) -> bool:
    """Whether the layer's class itself, not one below it, is one of those we know."""
    return type(layer) in FORWARDS


def is_exact(layer: nn.Module) -> bool:
    """Whether the layer is one of those we know, down to its parts, and nothing about it was changed."""
    if FORWARDS.get(type(layer)) is not type(layer).forward or not is_untouched(layer):
        return False
    own = layer.__dict__
    if type(layer) in NORMS and not has_all_parts(layer):
        return False
    tensors = (*own["_parameters"].values(), *own["_buffers"].values())
    plain = all(tensor is None or (type(tensor) in PLAIN and tensor.layout is torch.strided) for tensor in tensors)
    return plain and all(is_exact(part) for part in own["_modules"].values())


def runs_here(layer: nn.Module, dtype: torch.dtype) -> bool:
    """Whether a compiled kernel may run in its place: the layer is exact, its numbers of `dtype` and on the CPU."""
    kind, own = type(layer), layer.__dict__  # as bare as can be: every call of a network asks for each of its layers
    if FORWARDS.get(kind) is not kind.forward or not is_untouched(layer):
        return False
    for tensor in own["_parameters"].values():
        if tensor is not None and not holds_plain_numbers(tensor, dtype):
            return False
    for tensor in own["_buffers"].values():
        if tensor is not None and not (holds_plain_numbers(tensor, dtype) or tensor.dtype in COUNTS):
            return False
    return not own["_modules"] or all(runs_here(part, dtype) for part in own["_modules"].values())


def why_strange(layer: nn.Module) -> str | None:
    """What makes a layer another than those we know, and what would make it known; None where nothing does."""
    if is_exact(layer):
        return None
    kind = type(layer)
    if parametrize.is_parametrized(layer):
        names = ", ".join(layer.parametrizations.keys())  # type: ignore[operator, union-attr]
        return (
            f"has a parametrised {names}. torch.nn.utils.parametrize.remove_parametrizations(layer, name) makes it "
            "plain."
        )
    if kind not in FORWARDS:
        kind = type(getattr(layer, "inner", layer))  # a `Module` over time is called through a wrapper
        known = next((f", which is not the {base.__name__} below it" for base in kind.__mro__ if base in FORWARDS), "")
        module = kind.__module__  # a run's copy of the user's code has a prefix, which tells runs apart
        module = module.partition(".")[2] if module.startswith("snn_bp_code_") else module
        return f"is of the class {module}.{kind.__qualname__}{known}, and what that computes is not known here."
    if any((layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)):
        return (
            "has hooks, which may change what it computes. Take them off; a pruned weight is made permanent by "
            "torch.nn.utils.prune.remove(layer, 'weight')."
        )
    if not is_untouched(layer) or FORWARDS[kind] is not kind.forward:
        return "had its forward replaced, and what it computes now is not known here. Put the class's own back."
    if kind in NORMS and not has_all_parts(layer):
        return "has no weight, bias or running statistics. A BatchNorm() has all three."
    for name, part in layer.named_children():
        if (why := why_strange(part)) is not None:
            return f"has a part, {name}, which {why}"
    return "has weights that are not plain tensors (quantised, sparse, of a subclass). Give it ordinary ones."


def check_exact(asker: str, name: str, layer: nn.Module, *kinds: type) -> None:
    """Raise unless the layer is exact, and of one of `kinds` where they are given; the message begins with `asker`."""
    if (why := why_strange(layer)) is not None:
        raise SnnError(f"{asker}: {name} {why}")
    if kinds and type(layer) not in kinds:
        raise SnnError(f"{asker}: {name} has no place here. Known: {', '.join(kind.__name__ for kind in kinds)}.")


def check_whole(asker: str, network: nn.Module, *kinds: type) -> None:
    """Raise unless a network does what its layers do and no more: `kinds` are the classes that do."""
    kind = next((kind for kind in kinds if isinstance(network, kind)), None)
    if kind is None:
        raise SnnError(f"{asker}: it takes a {kinds[0].__name__}, found {shown(network)}.")
    changed = [name for name in ("forward", "run", "rates") if getattr(type(network), name) is not getattr(kind, name)]
    if changed or not is_untouched(network):
        why = f"has a {changed[0]} of its own" if changed else "has hooks, or methods put in place of its own"
        raise SnnError(
            f"{asker}: the network, a {type(network).__qualname__}, {why}; what it does beyond its layers is not known "
            "here. Give a Network itself, without."
        )
