"""What a network in integers is made for: a target becomes an arithmetic and the limits of its numbers."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from snn_bp.chip.graph import BIAS_HIGH, DELAY_HIGH, THRESHOLD_HIGH
from snn_bp.errors import SnnError, shown
from snn_bp.errors.calls import checked_dataclass
from snn_bp.errors.fields import Within, check_fields
from snn_bp.kernels.fixed import LOIHI, Arithmetic
from snn_bp.neurons.leaky import RESETS

CIRCUIT_DELAY_HIGH = 255  # steps; Loihi's are 62
HEADROOM = 5  # bits between the largest weight and the largest state: measured, experiments/results/fixed.json


@checked_dataclass(frozen=True)
class Fixed:
    """The fixed-point arithmetic of a circuit of one's own, as an FPGA has it: a target of training, `train.target`.

    Weights are two's complement; current and membrane saturate at both ends, and a neuron fires strictly above its
    threshold. `train.target="fpga"` is `Fixed()`.

    Parameters:
        weight_bits (8): of a weight, 4..8.
        state_bits (16): of the synaptic current and of the membrane, 12..24.
        decay ("shift"): v - (v >> k), rounded down, which needs no multiplier: decays are 1 - 2^-k, k = 0..12, or 1;
            "multiply": v * d >> 12 toward zero, decays are 4096ths.
        fraction_bits (None): binary places of a state below a step of a weight; None: what the weight leaves of the
            state, five bits apart.

    >>> Fixed(weight_bits=6).arithmetic.fraction_bits
    5
    """

    weight_bits: Annotated[int, Within(4, 8)] = 8
    state_bits: Annotated[int, Within(12, 24)] = 16
    decay: Literal["shift", "multiply"] = "shift"
    fraction_bits: Annotated[int | None, Within(0, 20)] = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.weight_bits + self.arithmetic.fraction_bits > self.state_bits:
            raise SnnError(
                f"Fixed(fraction_bits={self.fraction_bits}): a weight of {self.weight_bits} bits and as many more do "
                f"not fit a state of {self.state_bits}. At most {self.state_bits - self.weight_bits} do."
            )

    @property
    def arithmetic(self) -> Arithmetic:
        """How a neuron computes."""
        left = max(0, self.state_bits - self.weight_bits - HEADROOM)
        return Arithmetic(
            self.state_bits, left if self.fraction_bits is None else self.fraction_bits, self.decay, "saturate"
        )


Target: TypeAlias = Literal["float", "loihi", "fpga", "xylo"] | Fixed


@dataclass(frozen=True)
class Hardware:
    """What holds a network in integers, and which numbers it can hold."""

    name: str  # as messages call it
    target: str  # what to train with, as a message says it
    arithmetic: Arithmetic
    weights: tuple[int, int]  # lowest and highest
    bias_high: int  # ... and with a minus the lowest, in the arithmetic's units
    threshold_high: int
    longest_delay: int
    resets: tuple[str, ...]
    scale_of_each: bool = False  # whether each neuron may have a scale of its own, else all of a layer have one

    @property
    def where(self) -> str:
        """How refusals begin."""
        return f"for {self.name}"

    @property
    def fine(self) -> int:
        """How many steps of a bias or threshold are one of a weight."""
        return self.arithmetic.unit // self.arithmetic.held


@dataclass(frozen=True)
class Apart:
    """A chip whose rules, arithmetic and forward pass are a room of their own, `chip/xylo/`."""

    name: str
    target: str

    @property
    def where(self) -> str:
        """How refusals begin."""
        return f"for {self.name}"


FOR_XYLO = Apart("Xylo", 'target="xylo"')
FOR_LOIHI = Hardware(
    "Loihi", 'target="loihi"', LOIHI, (-128, 127), BIAS_HIGH, THRESHOLD_HIGH, DELAY_HIGH, resets=("zero",)
)


def hardware_of(target: Target) -> Hardware:
    """The hardware that a target stands for; raises for what is none that is known here."""
    if target == "loihi":
        return FOR_LOIHI
    if target == "fpga":
        return hardware_of(Fixed())
    if isinstance(target, Fixed):
        arithmetic, half = target.arithmetic, 1 << (target.weight_bits - 1)
        said = "'fpga'" if target == Fixed() else str(target)
        return Hardware(
            "an FPGA", f"target={said}", arithmetic, (-half, half - 1), bias_high=arithmetic.highest,
            threshold_high=arithmetic.highest // 2, longest_delay=CIRCUIT_DELAY_HIGH, resets=RESETS, scale_of_each=True,
        )  # fmt: skip
    raise SnnError(
        f"target={shown(target)}: no network in integers is made for it. Use 'loihi', 'fpga', Fixed(...) or 'xylo'."
    )
