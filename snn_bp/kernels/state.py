"""The state of a layer of neurons: at rest, and as `simulate` returns it."""

from collections.abc import Sequence

from torch import Tensor

from snn_bp.errors import SnnError, shown
from snn_bp.errors.calls import checked_call
from snn_bp.neurons import Neuron, State, check_neuron


@checked_call
def rest(neuron: Neuron, shape: tuple[int, ...], *, like: Tensor) -> State:
    """The state of silence of a `neuron`, `shape` = `[batch, *neurons]`, in the type and on the device of the tensor
    `like`.

    >>> rest(LIF(beta=0.9), (8, 50), like=torch.zeros(1)).v.shape
    torch.Size([8, 50])
    """
    check_neuron(neuron)
    if not isinstance(like, Tensor) or not like.is_floating_point():
        found = like.dtype if isinstance(like, Tensor) else shown(like)
        raise SnnError(f"rest: like should be a tensor of floats, found {found}.")
    try:
        zero = like.new_zeros(shape) if isinstance(shape, tuple | list) and len(shape) else None
    except (TypeError, RuntimeError):
        zero = None
    if zero is None:
        raise SnnError(f"rest: shape should be (batch, *neurons), as (8, 50), found {shown(shape)}.")
    return state_of(neuron, (zero,) * len(neuron.equation.full))


def state_of(neuron: Neuron, full: Sequence[Tensor]) -> State:
    """The state with its names, from its parts in the order of the equation."""
    return type(neuron).kind.state_class(**dict(zip(neuron.equation.full, full, strict=True)))


def potential_of(neuron: Neuron, state: State) -> Tensor:
    """The membrane's potential in a state."""
    return getattr(state, neuron.equation.potential)
