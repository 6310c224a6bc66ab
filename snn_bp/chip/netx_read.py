"""Reads a netx file (HDF5) as a graph: ours, and those of lava-dl's slayer. A file is not trusted.

What lava's client would ignore, change or crash on is refused by name. `files/hdf5.py` reads the bytes, in a process of
its own; nothing in a file is ever run.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from snn_bp.chip.graph import Graph, Pair, Population, Shape
from snn_bp.chip.netx_rules import check_netx
from snn_bp.chip.netx_write import CLEARED, INPUT_BITS, PAUSE, READOUT
from snn_bp.errors import SnnError
from snn_bp.files.hdf5 import read_hdf5

Entries: TypeAlias = dict[str, Any]  # as `read_hdf5` gives them
MAX_LAYERS = 1000
NAME_LENGTH = 64
NOT_IN_LAVA = ("pool", "average", "convT", "unpool", "concat", "dense_comp")
TYPES = "It takes input, conv, flatten, dense and dense_rec"


def read_netx(path: str | Path) -> Graph:
    """The graph in a file; one `SnnError` where it is no netx file, is damaged, or holds what lava would not run."""
    entries = read_hdf5(path, attributes=(INPUT_BITS, CLEARED, PAUSE, READOUT))
    try:
        graph = _graph(entries)
        check_netx(graph)
    except SnnError as cause:
        raise SnnError(f"{path}: {cause}") from cause
    return graph


def _graph(entries: Entries) -> Graph:
    layers = _Entry(entries, "").group("layer")
    count = len({name.split("/")[2] for name in entries if name.startswith("/layer/")})
    if not 1 <= count <= MAX_LAYERS:
        raise SnnError(f"layer/ has {count} entries, and should have 1 to {MAX_LAYERS}.")
    shape: Shape | None = None
    input_shape: Shape | None = None
    flat = False
    populations: list[Population] = []
    for number in range(count):
        entry = layers.group(str(number), "Entries are numbered from 0 without a gap.")
        kind = entry.text("type")
        if flat and kind not in ("dense", "dense_rec"):
            raise SnnError(f"{entry.name}: {kind!r} stands behind 'flatten'; lava flattens only in front of 'dense'.")
        if kind == "input":
            if populations or shape:
                raise SnnError(f"{entry.name}: lava ignores an input that is not the first entry.")
            shape = input_shape = _input(entry)
        elif kind == "flatten":
            if shape is None or len(shape) != 3:
                raise SnnError(f"{entry.name}: 'flatten' stands behind neurons {shape}; lava flattens only images.")
            flat = True
        elif kind in ("dense", "dense_rec"):
            population = _dense(entry, recurrent=kind == "dense_rec")
            if populations and shape and len(shape) == 3 and not flat:
                raise SnnError(f"{entry.name}: a dense entry behind a convolution needs a 'flatten' entry between.")
            shape = shape or population.weight.shape[1:]
            input_shape, flat = input_shape or shape, False
            populations.append(population)
            shape = population.shape
        elif kind == "conv":
            if shape is None:
                raise SnnError(f"{entry.name}: a convolution needs an 'input' entry that says the input's shape.")
            populations.append(_conv(entry))
            shape = populations[-1].shape
        else:
            does = "does not load" if kind in NOT_IN_LAVA else "silently leaves out"
            raise SnnError(f"{entry.name}: the type {kind!r}, which lava {does}. {TYPES}.")
    if flat:
        raise SnnError(f"layer/{count - 1}: nothing stands behind 'flatten'.")
    if not populations or input_shape is None:
        raise SnnError("there are no neurons in it.")
    if _attribute(entries, READOUT):
        populations[-1] = replace(populations[-1], readout=True)
    return Graph(
        input_shape=input_shape,
        populations=tuple(populations),
        input_bits=_attribute(entries, INPUT_BITS),
        cleared=bool(_attribute(entries, CLEARED)),
        pause=_attribute(entries, PAUSE),
    )


def _input(entry: "_Entry") -> Shape:
    if entry.has("neuron"):
        raise SnnError(
            f"{entry.name}: an input with neurons, which lava connects to nothing. Write it without 'neuron'."
        )
    return tuple(entry.integers("shape").ravel().tolist())


def _dense(entry: "_Entry", *, recurrent: bool) -> Population:
    size = int(np.prod(entry.integers("shape"), dtype=object))
    weight = entry.integers("weight")
    if entry.has("weight_rec") != recurrent:
        raise SnnError(f"{entry.name}: 'weight_rec' belongs to the type 'dense_rec', and to no other.")
    back = entry.integers("weight_rec") if recurrent else None
    if weight.ndim == 1 and size > 0 and weight.size % size == 0:  # as older files of slayer have it
        weight = weight.reshape(size, -1)
        back = back.reshape(size, -1) if back is not None else None
    if weight.ndim != 2 or len(weight) != size:
        raise SnnError(f"{entry.name}: {size} neurons need weights [{size}, in], found {list(weight.shape)}.")
    bias = entry.integers("bias") if entry.has("bias") else None
    if bias is not None and bias.size == 1:
        bias = np.full(size, bias.item())
    return Population(
        shape=(size,), weight=weight, bias=bias, recurrent=back, delay=_delay(entry, weight), **_neuron(entry)
    )


def _delay(entry: "_Entry", weight: np.ndarray) -> np.ndarray | None:
    if not entry.has("delay"):
        return None
    delay = entry.integers("delay")
    if delay.ndim == 0:
        return delay.reshape(1, 1)
    if delay.shape == weight.shape:
        return delay
    if delay.shape == (len(weight),):  # one for each neuron goes before one for each input
        return delay[:, None]
    if delay.shape == (weight.shape[1],):
        return delay[None]
    raise SnnError(
        f"{entry.name}: delays {list(delay.shape)} fit neither the neurons nor the inputs of weights "
        f"{list(weight.shape)}."
    )


def _conv(entry: "_Entry") -> Population:
    if entry.has("delay"):
        raise SnnError(f"{entry.name}: delays on a convolution, which lava ignores. Put them on a dense entry.")
    weight = entry.integers("weight")
    if weight.ndim == 5 and weight.shape[4] == 1:  # as slayer has it
        weight = weight[..., 0]
    if weight.ndim != 4:
        raise SnnError(f"{entry.name}: weights are [out, in, height, width], found {list(weight.shape)}.")
    groups = entry.integers("groups")
    if groups.ndim:
        raise SnnError(f"{entry.name}: 'groups' should be one number, found {list(groups.shape)}; lava crashes on it.")
    return Population(
        shape=tuple(entry.integers("shape").ravel().tolist()),
        weight=weight,
        bias=entry.integers("bias") if entry.has("bias") else None,
        stride=_pair(entry, "stride"),
        padding=_pair(entry, "padding"),
        dilation=_pair(entry, "dilation"),
        groups=groups.item(),
        **_neuron(entry),
    )


def _pair(entry: "_Entry", name: str) -> Pair:
    values = entry.integers(name)
    if values.shape not in ((), (2,)):
        raise SnnError(f"{entry.name}: {name!r} should be one number or (height, width), found {list(values.shape)}.")
    height, width = np.broadcast_to(values, 2).tolist()
    return height, width


def _neuron(entry: "_Entry") -> dict[str, Any]:
    """Decays and threshold; lava never reads the `wgtExp`, `theta`, `tauRho`, `scaleRho` of older files."""
    if not entry.has("neuron"):
        raise SnnError(f"{entry.name}: it has no 'neuron', for which lava takes one that never fires. Write one.")
    neuron = entry.group("neuron")
    kind = neuron.text("type")
    if kind not in ("CUBA", "LOIHI"):
        raise SnnError(f"{neuron.name}: the type {kind!r}; only 'CUBA' and 'LOIHI' are integrate-and-fire neurons.")
    if neuron.has("messageBits"):
        raise SnnError(f"{neuron.name}: 'messageBits', on which lava crashes. Leave it out.")
    if neuron.has("gradedSpike") and neuron.integers("gradedSpike", kinds="biuf").any():
        raise SnnError(f"{neuron.name}: graded spikes, which lava's integrate-and-fire neurons do not send.")
    if neuron.has("refDelay") and (neuron.integers("refDelay") > 1).any():
        raise SnnError(
            f"{neuron.name}: a refractory period of {neuron.integers('refDelay').max()} steps, which lava ignores."
        )
    names = {"current_decay": "iDecay", "voltage_decay": "vDecay", "threshold": "vThMant"}
    return {ours: neuron.integers(theirs, kinds="iu") for ours, theirs in names.items()}


def _attribute(entries: Entries, name: str) -> int:
    """A small integer among the root's attributes, 0 where it is not there."""
    value = entries.get(f"@{name}", np.array(0))
    if not isinstance(value, np.ndarray) or value.shape != () or value.dtype.kind not in "iu":
        raise SnnError(f"the attribute {name} should be one integer.")
    return int(value)


class _Entry(NamedTuple):
    """A group of the file, which gives its members only after a look at what they are."""

    entries: Entries
    name: str  # without the slash in front

    def has(self, member: str) -> bool:
        """Whether it has the member, of whatever kind."""
        return f"/{self._path(member)}" in self.entries

    def group(self, member: str, hint: str = "lava needs it.") -> "_Entry":
        """A group in it."""
        if self._member(member, hint) is not None:
            raise SnnError(f"{self._path(member)} should be a group.")
        return _Entry(self.entries, self._path(member))

    def text(self, member: str) -> str:
        """A word."""
        value = self._member(member)
        word = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(word, str) or len(word) > NAME_LENGTH:
            raise SnnError(f"{self._path(member)} should be one word of at most {NAME_LENGTH} letters.")
        return word.rstrip("\0")

    def integers(self, member: str, *, kinds: str = "iuf") -> np.ndarray:
        """Integers of at most 32 bits; of a type among `kinds`."""
        values = self._member(member)
        if not isinstance(values, np.ndarray):
            raise SnnError(f"{self._path(member)} should be a data set of numbers.")
        if values.dtype.kind not in kinds:
            wanted = "an integer type" if "f" not in kinds else "numbers"
            raise SnnError(
                f"{self._path(member)} should have {wanted}, found {values.dtype}; lava would hang or crash on it."
            )
        if not values.size:
            raise SnnError(f"{self._path(member)}: a data set {list(values.shape)}, which is empty.")
        if not bool((np.abs(values.astype(np.float64)) < 2**31).all()) or not bool((values == np.trunc(values)).all()):
            raise SnnError(f"{self._path(member)} should hold integers of 32 bits; lava would cut off the rest.")
        return values.astype(np.int64)

    def _member(self, member: str, hint: str = "lava needs it.") -> Any:
        if not self.has(member):
            raise SnnError(f"{self._path(member)} is missing. {hint}")
        return self.entries[f"/{self._path(member)}"]

    def _path(self, member: str) -> str:
        return f"{self.name}/{member}".lstrip("/")
