"""Reads a netx file (HDF5) as a graph: ours, and those of lava-dl's slayer. A file is not trusted.

What lava's client would ignore, change or crash on is refused by name. Every size is checked before data is read;
links to other files and filters that need a plug-in are refused; nothing in a file is ever run.
"""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp.chip.graph import Graph, Pair, Population, Shape
from snn_bp.chip.netx_rules import check_netx
from snn_bp.chip.netx_write import CLEARED, INPUT_BITS, PAUSE, READOUT
from snn_bp.errors import SnnError

MOST_ENTRIES = 1000
MOST_EXPANSION = 100  # bytes of a data set for each byte of the file
NAME_BYTES = 64
HEAP_BYTES = 1 << 20  # in which a word is looked for; HDF5 makes heaps of 4096
FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, fletcher32, lzf: the ones that h5py itself brings
NOT_IN_LAVA = ("pool", "average", "convT", "unpool", "concat", "dense_comp")
TYPES = "It takes input, conv, flatten, dense and dense_rec"


def read_netx(path: str | Path) -> Graph:
    """The graph in a file; one `SnnError` where it is no netx file, is damaged, or holds what lava would not run."""
    import h5py  # only files need it

    path = Path(path)
    if not path.is_file():
        raise SnnError(f"{path}: there is no such file.")
    try:
        with h5py.File(path, "r") as file:
            graph = _graph(file, MOST_EXPANSION * path.stat().st_size)
            check_netx(graph)
    except SnnError as cause:
        raise SnnError(f"{path}: {cause}") from cause
    except Exception as cause:  # whatever h5py raises from a damaged file
        raise SnnError(f"{path}: it is no netx file or is damaged ({cause}). Export it anew.") from cause
    return graph


def _graph(file: Any, most: int) -> Graph:
    layers = _Entry(file, "", most).group("layer")
    count = len(layers.group_of)
    if not 1 <= count <= MOST_ENTRIES:
        raise SnnError(f"layer/ has {count} entries, and should have 1 to {MOST_ENTRIES}.")
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
    if _attribute(file, READOUT, 0):
        populations[-1] = replace(populations[-1], readout=True)
    return Graph(
        input_shape=input_shape,
        populations=tuple(populations),
        input_bits=_attribute(file, INPUT_BITS, 0),
        cleared=bool(_attribute(file, CLEARED, 0)),
        pause=_attribute(file, PAUSE, 0),
    )


def _input(entry: "_Entry") -> Shape:
    if entry.has("neuron"):
        raise SnnError(
            f"{entry.name}: an input with neurons, which lava connects to nothing. Write it without 'neuron'."
        )
    return tuple(entry.whole("shape").ravel().tolist())


def _dense(entry: "_Entry", *, recurrent: bool) -> Population:
    size = int(np.prod(entry.whole("shape"), dtype=object))
    weight = entry.whole("weight")
    if entry.has("weight_rec") != recurrent:
        raise SnnError(f"{entry.name}: 'weight_rec' belongs to the type 'dense_rec', and to no other.")
    back = entry.whole("weight_rec") if recurrent else None
    if weight.ndim == 1 and size > 0 and weight.size % size == 0:  # as older files of slayer have it
        weight = weight.reshape(size, -1)
        back = back.reshape(size, -1) if back is not None else None
    if weight.ndim != 2 or len(weight) != size:
        raise SnnError(f"{entry.name}: {size} neurons need weights [{size}, in], found {list(weight.shape)}.")
    bias = entry.whole("bias") if entry.has("bias") else None
    if bias is not None and bias.size == 1:
        bias = np.full(size, bias.item())
    return Population(
        shape=(size,), weight=weight, bias=bias, recurrent=back, delay=_delay(entry, weight), **_neuron(entry)
    )


def _delay(entry: "_Entry", weight: np.ndarray) -> np.ndarray | None:
    if not entry.has("delay"):
        return None
    delay = entry.whole("delay")
    if delay.ndim == 0:
        return delay.reshape(1, 1)
    if delay.shape == weight.shape:
        return delay
    if delay.shape == (len(weight),):  # of the neurons, before of the inputs
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
    weight = entry.whole("weight")
    if weight.ndim == 5 and weight.shape[4] == 1:  # as slayer has it
        weight = weight[..., 0]
    if weight.ndim != 4:
        raise SnnError(f"{entry.name}: weights are [out, in, height, width], found {list(weight.shape)}.")
    groups = entry.whole("groups")
    if groups.ndim:
        raise SnnError(f"{entry.name}: 'groups' should be one number, found {list(groups.shape)}; lava crashes on it.")
    return Population(
        shape=tuple(entry.whole("shape").ravel().tolist()),
        weight=weight,
        bias=entry.whole("bias") if entry.has("bias") else None,
        stride=_pair(entry, "stride"),
        padding=_pair(entry, "padding"),
        dilation=_pair(entry, "dilation"),
        groups=groups.item(),
        **_neuron(entry),
    )


def _pair(entry: "_Entry", name: str) -> Pair:
    values = entry.whole(name)
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
    if neuron.has("gradedSpike") and neuron.whole("gradedSpike", kinds="biuf").any():
        raise SnnError(f"{neuron.name}: graded spikes, which lava's integrate-and-fire neurons do not send.")
    if neuron.has("refDelay") and (neuron.whole("refDelay") > 1).any():
        raise SnnError(
            f"{neuron.name}: a refractory period of {neuron.whole('refDelay').max()} steps, which lava ignores."
        )
    names = {"current_decay": "iDecay", "voltage_decay": "vDecay", "threshold": "vThMant"}
    return {ours: _number(neuron.whole(theirs, kinds="iu")) for ours, theirs in names.items()}


def _number(values: np.ndarray) -> int | np.ndarray:
    return values.item() if values.size == 1 else values


def _attribute(file: Any, name: str, default: int) -> int:
    """A small whole number among the root's attributes."""
    if name not in file.attrs:
        return default
    found = file.attrs.get_id(name)
    if found.shape != () or found.dtype.kind not in "iu":
        raise SnnError(f"the attribute {name} should be one whole number.")
    return int(file.attrs[name])


def _word_in_heap(found: Any) -> bytes:
    """The one string of variable length in a data set, read from the file's global heap byte by byte.

    HDF5's own reader goes round in circles where a heap is damaged. The layout is that of the HDF5 file format, version
    2.0 and later, "Global Heap"; with addresses of 8 bytes and from the file's start, as every program writes them.
    """
    offset = found.id.get_offset()
    if offset is None or found.file.userblock_size or found.file.id.get_create_plist().get_sizes() != (8, 8):
        raise SnnError(f"{found.name} is a string that is not stored plainly.")
    with Path(found.file.filename).open("rb") as raw:
        raw.seek(offset)
        length, address, wanted = struct.unpack("<IQI", raw.read(16))
        raw.seek(address)
        signature, size = struct.unpack("<4s4xQ", raw.read(16))
        end, place = address + min(size, HEAP_BYTES), address + 16
        while signature == b"GCOL" and place < end:
            raw.seek(place)
            number, size = struct.unpack("<H6xQ", raw.read(16))
            if number == wanted:
                return raw.read(min(length, size, NAME_BYTES + 1))
            if number == 0:  # the free rest
                break
            place += 16 + -(-size // 8) * 8
    raise SnnError(f"{found.name} is a string that is not in the file.")


class _Entry:
    """A group of the file, which gives its members only after a look at what they are."""

    def __init__(self, group: Any, name: str, most: int) -> None:
        self.group_of, self.name, self.most = group, name, most

    def has(self, member: str) -> bool:
        """Whether it has the member, of whatever kind."""
        return self.group_of.get(member, getlink=True) is not None

    def group(self, member: str, hint: str = "") -> "_Entry":
        """A group in it."""
        import h5py  # only files need it

        found = self._member(member, hint)
        if not isinstance(found, h5py.Group):
            raise SnnError(f"{self._path(member)} should be a group.")
        return _Entry(found, self._path(member), self.most)

    def text(self, member: str) -> str:
        """A word."""
        import h5py  # only files need it

        found = self._data(member)
        text = h5py.check_string_dtype(found.dtype)
        if text is None or found.shape not in ((), (1,)) or (text.length or 0) > NAME_BYTES:
            raise SnnError(f"{self._path(member)} should be one word, found {found.dtype} {list(found.shape)}.")
        value = np.asarray(found[()]).item() if text.length else _word_in_heap(found)
        word = value.rstrip(b"\0").decode("ascii")
        if len(word) > NAME_BYTES:
            raise SnnError(f"{self._path(member)} should be one word, found {len(word)} letters.")
        return word

    def whole(self, member: str, *, kinds: str = "iuf") -> np.ndarray:
        """Whole numbers of at most 32 bits; of a type among `kinds`."""
        found = self._data(member)
        if found.dtype.kind not in kinds:
            wanted = "an integer type" if "f" not in kinds else "numbers"
            raise SnnError(
                f"{self._path(member)} should have {wanted}, found {found.dtype}; lava would hang or crash on it."
            )
        values = np.asarray(found[()])
        if not bool((np.abs(values.astype(np.float64)) < 2**31).all()) or not bool((values == np.trunc(values)).all()):
            raise SnnError(f"{self._path(member)} should hold whole numbers of 32 bits; lava would cut off the rest.")
        return values.astype(np.int64)

    def _data(self, member: str) -> Any:
        """A data set that lies in this file and is no larger than the file can explain."""
        import h5py  # only files need it

        found = self._member(member)
        if not isinstance(found, h5py.Dataset):
            raise SnnError(f"{self._path(member)} should be a data set.")
        made = found.id.get_create_plist()
        filters = {made.get_filter(number)[0] for number in range(made.get_nfilters())}
        if found.is_virtual or made.get_external_count() or not filters <= FILTERS:
            raise SnnError(f"{self._path(member)}: its data lie elsewhere, or need a plug-in. Store them plainly.")
        size = max(int(np.prod(shape, dtype=object)) for shape in (found.shape or (), found.chunks or ()))
        if found.shape is None or size == 0 or size * found.dtype.itemsize > self.most:
            raise SnnError(
                f"{self._path(member)}: a data set {list(found.shape or ())} of {found.dtype} in a file of "
                f"{self.most // MOST_EXPANSION} bytes. It is empty, or was never written."
            )
        return found

    def _member(self, member: str, hint: str = "") -> Any:
        import h5py  # only files need it

        link = self.group_of.get(member, getlink=True)
        if link is None:
            raise SnnError(f"{self._path(member)} is missing. {hint or 'lava needs it.'}")
        if not isinstance(link, h5py.HardLink):
            raise SnnError(f"{self._path(member)} is a link to elsewhere. Store it in its place.")
        return self.group_of[member]

    def _path(self, member: str) -> str:
        return f"{self.name}/{member}".lstrip("/")
