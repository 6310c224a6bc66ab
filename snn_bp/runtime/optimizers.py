"""torch's optimizers without the wrappers that import its compiler, 1.7 s of every start."""

import inspect
from collections.abc import Callable

import torch

from snn_bp.runtime import is_on

_WRAPPED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def without_compiler(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """The optimizer with its methods bare: hooks on its steps are not called. `SNN_BP_BARE_OPTIMIZERS`."""
    if not is_on("BARE_OPTIMIZERS"):
        return kind
    bare = {name: inspect.unwrap(getattr(kind, name)) for name in _WRAPPED}
    return type(kind.__name__, (kind,), bare | {"step": torch.no_grad()(inspect.unwrap(kind.step))})
