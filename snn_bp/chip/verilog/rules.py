"""What a circuit can be of a graph; the rest is refused by name."""

import numpy as np

from snn_bp.chip.arithmetic import CIRCUIT_DELAY_HIGH
from snn_bp.chip.graph import DECAY_ONE, Graph, Population, Shape
from snn_bp.chip.netx_rules import conv_shape
from snn_bp.chip.verilog.circuit import RESETS, SHIFTS
from snn_bp.errors import SnnError

PARALLEL_HIGH = 64  # neurons at a time
NEURONS_HIGH = 1 << 20  # in one population


def check_verilog(graph: Graph, *, parallel: int) -> None:
    """Raise where the graph has no circuit."""
    if not isinstance(parallel, int) or isinstance(parallel, bool) or not 1 <= parallel <= PARALLEL_HIGH:
        raise SnnError(f"parallel={parallel!r}: neurons that work at a time, 1 to {PARALLEL_HIGH}. Use parallel=8.")
    if not graph.populations:
        raise SnnError("the graph has no population. Give at least one.")
    if graph.arithmetic.decay not in ("multiply", "shift"):
        raise SnnError(f"a decay by {graph.arithmetic.decay!r} has no circuit. Known: multiply, shift.")
    if graph.arithmetic.overflow not in ("wrap", "saturate"):
        raise SnnError(f"a current that does {graph.arithmetic.overflow!r} has no circuit. Known: wrap, saturate.")
    shape = graph.input_shape
    for index, population in enumerate(graph.populations):
        try:
            _check_population(population, shape, graph)
        except SnnError as cause:
            raise SnnError(f"for a circuit, population {index}: {cause}") from cause
        if population.readout and index + 1 < len(graph.populations):
            raise SnnError(f"for a circuit, population {index}: only the last population can be a readout.")
        shape = population.shape


def _check_population(population: Population, shape: Shape, graph: Graph) -> None:
    weight, size = population.weight, population.size
    if len(population.shape) not in (1, 3) or not 0 < size <= NEURONS_HIGH:
        raise SnnError(
            f"its shape is (n,) or (channels, height, width) with up to {NEURONS_HIGH}, found {population.shape}."
        )
    if population.kind == "conv":
        if conv_shape(population, shape) != population.shape:
            raise SnnError(
                f"weights {list(weight.shape)} on {shape} give neurons {conv_shape(population, shape)}, not "
                f"{population.shape}."
            )
        if population.recurrent is not None or population.delay is not None:
            raise SnnError("a convolution has no recurrence and no delays here. Put them on a dense population.")
    elif weight.shape != (size, int(np.prod(shape))):
        raise SnnError(
            f"{int(np.prod(shape))} inputs and {size} neurons need weights of that shape, found {list(weight.shape)}."
        )
    if population.recurrent is not None and population.recurrent.shape != (size, size):
        raise SnnError(f"recurrent weights are [{size}, {size}], found {list(population.recurrent.shape)}.")
    if population.recurrent is not None and population.readout:
        raise SnnError("a readout sends potentials and no spikes, so it has no recurrence.")
    delay = population.delay
    in_range = delay is None or 0 <= delay.min() <= delay.max() <= CIRCUIT_DELAY_HIGH
    if delay is not None and not (delay.shape == (1, weight.shape[1]) and in_range):
        raise SnnError(
            f"delays are those of the inputs, [1, {weight.shape[1]}], of up to {CIRCUIT_DELAY_HIGH} steps; found "
            f"{list(delay.shape)} of {delay.min()} to {delay.max()}. Use Delay in front of a Dense."
        )
    if population.reset not in RESETS:
        raise SnnError(f"it resets by {population.reset!r}; a circuit knows {', '.join(RESETS)}.")
    if np.min(population.threshold) < 0:
        raise SnnError(f"its threshold is {np.min(population.threshold)}, and must not be negative. Use 1 or more.")
    for decay in (population.current_decay, population.voltage_decay):
        if np.min(decay) < 0 or np.max(decay) > DECAY_ONE:
            raise SnnError(f"decays lie in 0..{DECAY_ONE}, found {np.min(decay)}..{np.max(decay)}.")
        if graph.arithmetic.decay == "shift" and not np.isin(decay, list(SHIFTS)).all():
            raise SnnError("a decay is no shift: 4096 >> k, or 0. Use decay='multiply'.")
    each = population.shape[0]
    for what in ("current_decay", "voltage_decay", "threshold", "bias"):
        values = getattr(population, what)
        if np.ndim(values) and np.shape(values) != (each,):
            raise SnnError(f"{what} has one number or {each}, found {list(np.shape(values))}.")
