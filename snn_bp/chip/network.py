"""`OnChip`: a network whose forward pass is in the integers of a chip or circuit, while it trains and after."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from snn_bp.chip.arithmetic import FOR_XYLO, Target, hardware_of
from snn_bp.chip.forward import SLOPE_RESCALED, run_chip
from snn_bp.chip.rules import chip_blocks, name_of, neurons_of
from snn_bp.chip.xylo.forward import run_xylo
from snn_bp.chip.xylo.rules import xylo_blocks
from snn_bp.errors import SnnError
from snn_bp.errors.calls import checked_call
from snn_bp.model.blocks import Block, Path, parts_of
from snn_bp.model.masks import check_mask, mean_of
from snn_bp.model.network import Activity, Network, NetworkState, Visited, check_network
from snn_bp.model.overview import overview, overview_html
from snn_bp.model.plan import apply_stateless
from snn_bp.neurons import State

INTEGERS = "integers, as the chip"


@checked_call
class OnChip(nn.Module):
    """A network in integers: the layers and weights of `network`, and the same calls.

    `target` ("loihi") says in whose: "loihi", "fpga", a `Fixed(...)` or "xylo". Refused where that cannot hold the
    network. Recordings run whole: the state after one is empty, and none can be given. `floats` is the network below,
    in floats. `freeze_norm=True`: norms use their running statistics while training too, as on the chip, and no longer
    move them.

    >>> network = Network((Dense(8), LIF(beta=0.9, reset="zero")), (4,))
    >>> OnChip(network)(torch.ones(10, 3, 4)).shape
    torch.Size([10, 3, 8])
    """

    floats: Network

    def __init__(self, network: Network, target: Target = "loihi") -> None:
        super().__init__()
        check_network("OnChip", network)
        self.hardware = FOR_XYLO if target == "xylo" else hardware_of(target)
        self.__dict__["floats"] = network  # no submodule: names in a checkpoint are those of the network
        self.layers = network.layers
        self.model, self.input_shape, self.output_shape = network.model, network.input_shape, network.output_shape
        self.shapes, self.surrogate = network.shapes, network.surrogate
        self.freeze_norm = False
        self._blocks()  # refuses what the target cannot hold
        self.train(network.training)

    __repr__, _repr_html_ = overview, overview_html  # type: ignore[assignment] - the first has another name

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The output of every step, from rest."""
        return self.run(x, mask=mask)[0]

    def run(
        self, x: Tensor, state: NetworkState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, NetworkState]:
        """The output of every step, and no state."""
        out, _, after = self.rates(x, state, mask)
        return out, after

    def rates(
        self, x: Tensor, state: NetworkState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor], NetworkState]:
        """As `run`, and between its two values the mean output of each neuron of every layer but the last.

        `mask` `[time, batch]` is True where a recording has a step; means and norms count those only.
        """
        if mask is not None:
            check_mask(x, mask, parts_of(self), self.name)
        outs = [(block, out) for block, out, _, _ in self._run(x, state, mask)]
        last = len(self.layers) - 1
        return outs[-1][1], [mean_of(out, mask) for block, out in outs if block.indexes[-1] != last], ()

    @torch.no_grad()
    def plan(self, x: Tensor) -> list[str]:
        """In words, how the layers run on `x` and which fraction of each one's input is not zero: a line a block."""
        lines, x = [], self.in_floats(x)
        for block, out, _, _ in self._run(x):
            names = " - ".join(self.name(index) for index in block.indexes)
            lines.append(f"{names}: {INTEGERS}; {float((x != 0).float().mean()):.1%} of its input is not zero")
            x = out
        return lines

    def observe(self, x: Tensor, state: NetworkState | None = None) -> tuple[list[Activity], NetworkState]:
        """What every layer of neurons did, potentials included; the last one's spikes are the output."""
        activities, after = [], []
        for block, out, potentials, grid in self._run(x, state):
            potentials = potentials / grid.scale
            activities.append(Activity(name_of(self, block), neurons_of(block).neuron, out, potentials))
            after.append(State(v=potentials[-1], s=out[-1]))
        return activities, tuple(after)

    def walk(self, x: Tensor, state: NetworkState | None = None, *, potentials: bool = False) -> Iterator[tuple]:
        """Each layer with its output; (output, state, potentials) where it has state, whether asked for or not.

        Layers without state give what they do in floats, from the spikes that reach them in integers.
        """
        for part, _, out in self.visit(x, state, potentials=potentials):
            yield part.layer, out

    def visit(self, x: Tensor, state: NetworkState | None = None, *, potentials: bool = False) -> Iterator[Visited]:
        """As `walk`: each layer where it stands, with what enters it and its output."""
        x = self.in_floats(x)
        for block, out, membrane, grid in self._run(x, state):
            for part in block.parts[:-1]:
                training, entering = part.layer.training, x
                x = apply_stateless(part.layer.eval(), x)  # norms have followed this input already
                part.layer.train(training)
                yield Visited(part, entering, x)
            membrane = membrane / grid.scale
            yield Visited(block.parts[-1], x, (out, State(v=membrane[-1], s=out[-1]), membrane))
            x = out

    def _run(self, x: Tensor, state: NetworkState | None = None, mask: Tensor | None = None) -> Iterator[tuple]:
        if state is not None and not (isinstance(state, tuple) and len(state) == 0):
            raise SnnError("network.run: in integers a recording runs whole, spikes are under way between its steps.")
        x = self.in_floats(x)
        if not x.shape[1]:
            raise SnnError(f"network.run: in integers there should be a recording at least, found {list(x.shape)}.")
        if x.dtype in (torch.float16, torch.bfloat16):
            raise SnnError(
                f"{self.hardware.where}: weights are {x.dtype}, which holds no integers of its states' bits. Use "
                "network.float()."
            )
        run = run_xylo if self.hardware == FOR_XYLO else run_chip
        return run(self, x, batch_statistics=self.training and not self.freeze_norm, mask=mask)

    def _blocks(self) -> list[Block]:
        return xylo_blocks(self) if self.hardware == FOR_XYLO else chip_blocks(self)

    def train(self, mode: bool = True) -> "OnChip":
        """Training or evaluation mode, of the network in floats too; training asks for surrogates that fit the grid."""
        for block in self._blocks() if mode else ():
            if neurons_of(block).surrogate.per != "threshold":
                raise SnnError(f"{self.hardware.where}, {name_of(self, block)}: its {SLOPE_RESCALED}")
        self.floats.train(mode)
        self.training = mode
        return self

    def name(self, where: int | Path) -> str:
        """What a message calls the layer at an index."""
        return self.floats.name(where)

    def parameters_of(self, where: int | Path) -> dict[str, nn.Parameter]:
        """The parameters of the layer at an index, as `named_parameters` names them."""
        return self.floats.parameters_of(where)

    def learned_by_neurons(self) -> set[str]:
        """Which parameters are decays, thresholds and delays, not of synapses."""
        return self.floats.learned_by_neurons()

    def in_floats(self, x: Tensor) -> Tensor:
        """The input, checked, bytes turned into floats as wide as the weights."""
        return self.floats.in_floats(x)

    def check_input(self, x: Tensor) -> None:
        """Raise unless `x` is `[time, batch, *input_shape]`, in floats as wide as the weights or in bytes."""
        self.floats.check_input(x)
