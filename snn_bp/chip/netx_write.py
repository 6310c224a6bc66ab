"""Writes a graph as a netx file (HDF5), which lava-dl's `netx.hdf5.Network` loads and runs."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp.chip.graph import Graph, Population
from snn_bp.chip.netx_rules import check_netx
from snn_bp.errors import SnnError
from snn_bp.files import replace_file

# attributes of the root, which lava never reads
INPUT_BITS, CLEARED, READOUT = "snn_bp_input_bits", "snn_bp_cleared", "snn_bp_readout"
PAUSE = "snn_bp_pause"


def write_netx(graph: Graph, path: str | Path) -> None:
    """Put the graph into the file, whole or not at all; refused where lava's client would not run it as it stands.

    Entries `input`, `conv`, `flatten`, `dense` and `dense_rec`; float32 weights, int64 scalars. How many bits an input
    has, how recordings follow one another and whether the last population is a readout stand in attributes of the
    root: lava asks the user for the first two (`loader.py` writes the script that says them), and runs a readout as
    neurons of threshold 131071.
    """
    import h5py  # only files need it

    path = Path(path)
    try:
        check_netx(graph)
    except SnnError as cause:
        raise SnnError(f"export to {path}: {cause}") from cause
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs[INPUT_BITS] = graph.input_bits
        file.attrs[CLEARED] = int(graph.cleared)
        file.attrs[PAUSE] = graph.pause
        file.attrs[READOUT] = int(graph.populations[-1].readout)
        for number, entry in enumerate(_entries(graph)):
            _write(file.create_group(f"layer/{number}"), entry)
    try:
        replace_file(path, content.getvalue())
    except OSError as cause:
        raise SnnError(f"export to {path}: it cannot be written ({cause.strerror}). Choose another file.") from cause


def _entries(graph: Graph) -> list[dict[str, Any]]:
    """What stands under `layer/`, in order."""
    entries = [{"type": "input", "shape": graph.input_shape}]
    shape = graph.input_shape
    for population in graph.populations:
        if population.kind == "dense" and len(shape) == 3:
            entries.append({"type": "flatten"})
        entries.append(_conv(population) if population.kind == "conv" else _dense(population))
        shape = population.shape
    return entries


def _dense(population: Population) -> dict[str, Any]:
    weight, delay = population.weight, population.delay
    if delay is not None and delay.shape != weight.shape:
        # a single row of delays is of the neurons wherever it could be: those of the inputs are then written in full
        neurons = delay.shape[1] == 1 and len(delay) == len(weight)
        alone = neurons or len(weight) != weight.shape[1]
        delay = delay.ravel() if alone else np.broadcast_to(delay, weight.shape)
    recurrent = population.recurrent is not None
    return {
        "type": "dense_rec" if recurrent else "dense",
        "shape": population.shape,
        "inFeatures": weight.shape[1],
        "outFeatures": weight.shape[0],
        "weight": weight,
        "weight_rec": population.recurrent,
        "bias": population.bias,
        "delay": None if recurrent else delay,  # with recurrence it is zero
        "neuron": _neuron(population),
    }


def _conv(population: Population) -> dict[str, Any]:
    weight = population.weight
    return {
        "type": "conv",
        "shape": population.shape,
        "inChannels": weight.shape[1] * population.groups,
        "outChannels": weight.shape[0],
        "kernelSize": weight.shape[2:],
        "stride": population.stride,
        "padding": population.padding,
        "dilation": population.dilation,
        "groups": population.groups,
        "weight": weight,
        "bias": population.bias,
        "neuron": _neuron(population),
    }


def _neuron(population: Population) -> dict[str, Any]:
    return {
        "type": "CUBA",
        "iDecay": population.current_decay,
        "vDecay": population.voltage_decay,
        "vThMant": population.threshold,
        "refDelay": 1,
        "gradedSpike": False,
    }


def _write(group: Any, entry: dict[str, Any]) -> None:
    for name, value in entry.items():
        if isinstance(value, dict):
            _write(group.create_group(name), value)
        elif isinstance(value, str):
            group[name] = np.array([value], "S10")
        elif name in ("weight", "weight_rec", "bias", "delay") and value is not None:
            group[name] = np.asarray(value, np.float32)
        elif value is not None:
            group[name] = np.asarray(value, bool if isinstance(value, bool) else np.int64)
