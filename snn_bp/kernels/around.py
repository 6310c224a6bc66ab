"""What of torch stands around an operation: transforms that a compiled kernel cannot pass on, and all that watches.

Compiled kernels give first derivatives of plain tensors. Under `torch.func`, forward-mode differentiation, a counter of
operations or hooks on every module the torch reference runs in their place, which all of these see through; what is
only known in the backward pass is refused there.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch  # type: ignore[attr-defined]
from torch.autograd import forward_ad
from torch.nn.modules import module as modules
from torch.utils._device import DeviceContext

from snn_bp.errors import SnnError

PLAIN = (Tensor, nn.Parameter)  # a subclass of them computes by its own rules
# torch's tables of hooks on every module; they are filled and emptied, never replaced
BEFORE, AFTER = modules._global_forward_pre_hooks, modules._global_forward_hooks
BEFORE_BACKWARD, AFTER_BACKWARD = modules._global_backward_pre_hooks, modules._global_backward_hooks
REFERENCE = 'Run the forward pass within use_backend("reference"), which can.'


def is_transformed() -> bool:
    """Whether torch.func (grad, vjp, jvp, vmap) or forward-mode differentiation is under way."""
    if torch.compiler.is_compiling():
        return False  # torch's compiler has its own ways, and does not read what is asked here
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_watched() -> bool:
    """Whether something sees each operation or each call of a module: a counter, a tracer, hooks on every module."""
    if torch.compiler.is_compiling():
        return False
    if BEFORE or AFTER or BEFORE_BACKWARD or AFTER_BACKWARD or torch._C._len_torch_dispatch_stack():
        return True
    if torch._C._get_tracing_state() is not None:
        return True
    modes = torch._C._len_torch_function_stack()
    return modes > 0 and not all(  # `set_default_device` watches nothing
        isinstance(torch._C._get_function_stack_at(n), DeviceContext) for n in range(modes)
    )


def is_plain(*tensors: Tensor) -> bool:
    """Whether these are tensors that compute by torch's own rules, and nothing traces or sees what is done to them."""
    return all(type(each) in PLAIN for each in tensors) and not torch.compiler.is_compiling() and not is_watched()


def is_readable(tensor: Tensor) -> bool:
    """Whether its numbers can be looked at here: on the CPU, and nothing compiles, transforms or watches."""
    return tensor.is_cpu and is_plain(tensor) and not is_transformed()


def has_hooks_on_every_module() -> bool:
    """Whether torch calls a hook around every module."""
    return bool(BEFORE or AFTER or BEFORE_BACKWARD or AFTER_BACKWARD)


def holds_plain_numbers(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether a kernel on the CPU may read this tensor's memory as numbers of `dtype`."""
    strided = tensor.layout is torch.strided
    return type(tensor) in PLAIN and tensor.dtype == dtype and tensor.is_cpu and strided and not tensor.is_neg()


def first_derivatives(what: str, instead: str = REFERENCE) -> Callable[[Callable], Callable]:
    """A decorator for the backward pass of `what`: it gives first derivatives, one at a time, and refuses others."""

    def decorate(backward: Callable) -> Callable:
        @functools.wraps(backward)
        def checked(ctx: Any, *gradients: Tensor | None) -> Any:
            check_backward(what, gradients, instead)
            return backward(ctx, *(None if each is None else each.resolve_neg() for each in gradients))

        return checked

    return decorate


def check_backward(what: str, gradients: tuple[Tensor | None, ...], instead: str = REFERENCE) -> None:
    """Raise where a backward pass is asked for more than first derivatives of plain tensors."""
    if torch.is_grad_enabled():
        raise SnnError(
            f"{what}: a gradient of a gradient was asked for (create_graph=True), the compiled kernel gives first "
            f"derivatives only. {instead}"
        )
    for gradient in gradients:
        if gradient is not None and (is_transformed() or _functorch.is_legacy_batchedtensor(gradient)):
            raise SnnError(
                f"{what}: a batch of gradients was asked for at once (is_grads_batched, vectorize or vmap over a "
                f"backward pass), the compiled kernel takes one. {instead}"
            )


CALL, CALLED = nn.Module.__call__, nn.Module._call_impl
REPLACEABLE = frozenset(  # what stands among a module's own attributes only where somebody put it there
    (
        "forward", "__call__", "_call_impl", "_compiled_call_impl", "_slow_forward", "_conv_forward",
        "_check_input_dim", "parameters_now", "observe", "_run", "_exact", "steps_now",
        "weight", "bias", "running_mean", "running_var",  # by pruning, weight norms, generated weights
    )
)  # fmt: skip


def is_untouched(module: nn.Module) -> bool:
    """Whether calling the module does what its class says: no hooks, no methods put in place of its own."""
    own = module.__dict__
    return (
        REPLACEABLE.isdisjoint(own)
        and not (own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"])
        and not own["_backward_pre_hooks"]
        and nn.Module.__call__ is CALL
        and nn.Module._call_impl is CALLED
    )
