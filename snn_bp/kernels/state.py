"""The state of a layer of neurons: at rest, and as `simulate` returns it."""

from torch import Tensor

from snn_bp.errors import SnnError, shown
from snn_bp.kernels.bind import Constants
from snn_bp.neurons import FullState, Neuron, State


def rest(neuron: Neuron, shape: tuple[int, ...], *, like: Tensor) -> State:
    """The state of silence, `shape` = `[batch, *neurons]`, in the type and on the device of `like`."""
    constants = Constants.of(neuron)
    if not isinstance(like, Tensor) or not like.is_floating_point():
        found = like.dtype if isinstance(like, Tensor) else shown(like)
        raise SnnError(f"rest: like should be a tensor of floats, found {found}.")
    try:
        zero = like.new_zeros(shape)
    except (TypeError, RuntimeError):
        raise SnnError(f"rest: shape should be (batch, *neurons), as (8, 50), found {shown(shape)}.") from None
    return state_of(FullState(zero, zero, zero, zero), constants)


def state_of(full: FullState, constants: Constants) -> State:
    """The state without the components that the neuron lacks."""
    return State(
        v=full.v,
        s=full.s if constants.spiking else None,
        i=full.i if constants.current else None,
        a=full.a if constants.adapts else None,
    )
