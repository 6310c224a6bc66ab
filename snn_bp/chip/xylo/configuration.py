"""`Configuration`: exactly the integers that Xylo gets, and the file that holds them.

Names and shapes are those of `config_from_specification` in Rockpool (devices/xylo, `vA2`), which turns them into what
samna loads onto the chip. Figures are of Xylo Audio 2 (SYNS61201).
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp.errors import SnnError
from snn_bp.files import read_object, replace_file

INPUTS, HIDDEN, OUTPUTS = 16, 1000, 8  # neurons
INPUT_MOST, HIDDEN_MOST, OUTPUT_MOST = 15, 31, 1  # spikes of one neuron in a step
STATE_LOW, STATE_HIGH = -(1 << 15), (1 << 15) - 1  # currents, potentials, biases
WEIGHT_LOW, WEIGHT_HIGH = -128, 127
SHIFT_HIGH = 7  # a weight is shifted to the left by so many bits at most
DASH_HIGH = 15  # ... and what a decay takes to the right
FORMAT = "Xylo configuration 1"
LIMITS = {
    "weights": (WEIGHT_LOW, WEIGHT_HIGH), "weight": (0, SHIFT_HIGH), "dash": (0, DASH_HIGH),
    "threshold": (1, STATE_HIGH), "bias": (STATE_LOW, STATE_HIGH),
}  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class Configuration:
    """Inputs, hidden neurons with one recurrent matrix, and outputs; every array holds integers (int64).

    Outputs get the hidden spikes of the step before. Hidden populations in a row are blocks of the recurrent matrix, in
    order, of the sizes `hidden`; each is a step behind the one before it.
    """

    hidden: tuple[int, ...]
    step_ms: float  # how long a step of the chip lasts
    weights_in: np.ndarray  # [inputs, hidden neurons]: of spikes from outside, up to 15 in a step
    weights_rec: np.ndarray  # [hidden, hidden], from, to: of spikes of the step before, up to 31
    weights_out: np.ndarray  # [hidden, outputs]: the same spikes
    weight_shift_in: int = 0  # a weight counts weight << shift
    weight_shift_rec: int = 0
    weight_shift_out: int = 0
    dash_syn: np.ndarray  # [hidden]: shift of the current's decay
    dash_mem: np.ndarray  # [hidden]: of the membrane's
    threshold: np.ndarray  # [hidden]: a potential that reaches it gives a spike, n times as high n spikes
    bias_hidden: np.ndarray  # [hidden]: added to the membrane in every step, from the first on
    dash_syn_out: np.ndarray  # [outputs], and so on
    dash_mem_out: np.ndarray
    threshold_out: np.ndarray
    bias_out: np.ndarray

    def __post_init__(self) -> None:
        sizes = sum(self.hidden)
        outputs = self.weights_out.shape[-1]
        shapes = {"weights_in": (len(self.weights_in), sizes), "weights_rec": (sizes, sizes)}
        shapes["weights_out"] = (sizes, outputs)
        for name, value in self.specification().items():
            shape = shapes.get(name, () if "shift" in name else (outputs,) if name.endswith("_out") else (sizes,))
            found, (low, high) = np.asarray(value), LIMITS[name.split("_")[0]]
            if found.dtype.kind not in "iu" or found.shape != shape:
                raise SnnError(
                    f"{name}: there should be integers {list(shape)}, found {found.dtype} {list(found.shape)}. Arrays "
                    "are those of one network."
                )
            if found.size and (found.min() < low or found.max() > high):
                raise SnnError(f"{name}: Xylo holds {low}..{high}, found {found.min()}..{found.max()}. Use such.")
            object.__setattr__(self, name, int(found) if found.ndim == 0 else found.astype(np.int64))
        counts = (("inputs", len(self.weights_in), INPUTS), ("hidden neurons", sizes, HIDDEN))
        for name, count, most in (*counts, ("outputs", outputs, OUTPUTS)):
            if not 1 <= count <= most:
                raise SnnError(f"{name}: Xylo has 1..{most}, found {count}. Use fewer.")

    def specification(self) -> dict[str, Any]:
        """What `config_from_specification` takes, by name."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("hidden", "step_ms")}

    @property
    def latency(self) -> int:
        """Steps from an input to the first output it can cause: one for each hidden population."""
        return len(self.hidden)


def write_xylo(configuration: Configuration, path: Path) -> None:
    """Put the configuration into a file of JSON, whole or not at all; weights of neurons get a last dimension of 1.

    The chip has two synapses for each neuron, and `config_from_specification` a dimension for them; the first is used.
    """
    numbers = {name: np.asarray(value) for name, value in configuration.specification().items()}
    for name in ("weights_in", "weights_rec"):
        numbers[name] = numbers[name][..., None]
    lines = [f'  "{name}": {json.dumps(value.tolist())}' for name, value in numbers.items()]
    head = {"format": FORMAT, "step_ms": configuration.step_ms, "hidden": list(configuration.hidden)}
    text = json.dumps(head)[:-1] + ', "specification": {\n' + ",\n".join(lines) + "\n}}\n"
    try:
        replace_file(path, text.encode())
    except OSError as cause:
        raise SnnError(f"export to {path}: it cannot be written ({cause.strerror}). Choose another file.") from cause


def read_xylo(path: Path) -> Configuration:
    """The configuration that a file holds; raises where it is none of `write_xylo`."""
    content = read_object(path)
    try:
        if content["format"] != FORMAT:
            raise SnnError(f"{path}: its format is {content['format']!r}, known is {FORMAT!r}. Export the run again.")
        numbers: dict[str, Any] = {name: np.asarray(value) for name, value in content["specification"].items()}
        for name in ("weights_in", "weights_rec"):
            numbers[name] = numbers[name][..., 0]
        return Configuration(hidden=tuple(content["hidden"]), step_ms=float(content["step_ms"]), **numbers)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as cause:
        if isinstance(cause, SnnError):
            raise SnnError(f"{path}: {cause}") from cause
        raise SnnError(f"{path}: no {FORMAT} ({cause}). Export the run again, to a .xylo file.") from cause


def same(first: Configuration, second: Configuration) -> str | None:
    """None where two configurations hold the same numbers, else the first name that differs, in words."""
    for each in fields(Configuration):
        mine, yours = getattr(first, each.name), getattr(second, each.name)
        if not np.array_equal(mine, yours):
            return f"{each.name}: {mine} and {yours}" if np.ndim(mine) == 0 else f"{each.name}: other numbers"
    return None
