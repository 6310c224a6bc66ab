"""Runs the netx file beside this script in Lava's own client: recordings in a row go in, spikes come out.

    python SCRIPT RECORDINGS.npy SPIKES.npy [STATES.npz]
    python SCRIPT --versions

RECORDINGS.npy is `[recordings, time, *INPUT_SHAPE]`, all equally long: 1 for an event and 0 for none, or counts of
events in 0 .. 2**INPUT_BITS - 1. An image has the order channel, row, column; a file that takes it flat takes it in
that order too. SPIKES.npy is `[recordings, time, *output shape]`: step t is what the last layer sends for the input of
step t (a file whose last layer is read out gives its potentials, in 64ths of a weight). STATES.npz holds, if asked for,
u, v and spikes of every layer in every row.

Timing: a synapse takes a step, so what layer n does with the input of row r stands in row r + n + 1. One recording
follows the other after PAUSE rows without input, in which spikes under way arrive; the registers of each layer are
cleared in the row in which a recording reaches it, by `reset_interval = time + PAUSE` and `reset_offset = 1`. Without
`input_message_bits` the client takes counts as ones.

Needs lava-nc 0.10.0 and lava-dl 0.6.0 on Python 3.10. Of lava-dl only `netx` is used, and of that what loads a
file: training and torch modules, which it imports for other ends, are left out, and with them torch and OpenCV.
"""

# pyright: reportMissingImports=false

import logging
import platform
import sys
import types
from importlib import metadata
from pathlib import Path

import numpy as np

FILE = "chip.net"
INPUT_SHAPE = (1,)
INPUT_BITS = 0
CLEARED = True
PAUSE = 0
READOUT = False

MISSING = 3  # exit code where there is no client


def main(recordings_file: str, spikes_file: str, states_file: str | None = None) -> None:
    """Read recordings, write spikes, and where asked `u`, `v` and `spikes` of each layer, row by row."""
    leave_out_training()
    try:
        from lava.lib.dl.netx import hdf5
        from lava.magma.core.run_conditions import RunSteps
        from lava.magma.core.run_configs import Loihi2SimCfg
        from lava.proc import io
        from lava.proc.monitor.process import Monitor
    except ImportError as cause:
        print(cause, file=sys.stderr)
        raise SystemExit(MISSING) from cause
    sys.modules["lava.lib.dl.netx.sequential_modules"].__file__ = hdf5.__file__  # lava asks each module for its folder
    logging.getLogger().setLevel(logging.ERROR)
    recordings = np.load(recordings_file)
    count, time = checked(recordings).shape[:2]
    long = time + PAUSE
    how = {"reset_interval": long, "reset_offset": 1} if CLEARED else {}
    network = hdf5.Network(
        net_config=str(Path(__file__).with_name(FILE)), input_message_bits=INPUT_BITS, **how
    )  # fmt: skip
    layers = len(network.layers)
    rows = count * long + layers  # the last recording comes out of the last layer so much later
    given = np.zeros((rows, *recordings.shape[2:]), np.int32)
    for number, recording in enumerate(recordings):
        given[number * long : number * long + time] = recording
    given = as_lava(given) if len(network.inp.shape) == 3 else given.reshape(rows, -1).T
    source = io.source.RingBuffer(data=np.ascontiguousarray(given))
    sink = io.sink.RingBuffer(shape=tuple(map(int, network.out.shape)), buffer=rows)
    source.s_out.connect(network.inp)
    network.out.connect(sink.a_in)
    monitors = {}
    for place, layer in enumerate(network.layers):
        targets = {"u": layer.neuron.u, "v": layer.neuron.v, "spikes": layer.neuron.s_out}
        wanted = targets if states_file else ["v"] if READOUT and place == layers - 1 else []
        for name in wanted:
            monitor = Monitor()
            monitor.probe(targets[name], rows)
            monitors[f"{name}{place}"] = (monitor, layer.neuron.name, targets[name].name)
    network.run(condition=RunSteps(num_steps=rows), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    out = as_ours(np.moveaxis(sink.data.get(), -1, 0))
    states = {key: as_ours(np.asarray(of.get_data()[process][name])) for key, (of, process, name) in monitors.items()}
    network.stop()
    if READOUT:
        out = states[f"v{layers - 1}"]
    begins = [number * long + layers for number in range(count)]
    np.save(spikes_file, np.stack([out[begin : begin + time] for begin in begins]))
    if states_file:
        np.savez(states_file, **states)  # type: ignore[arg-type]


def checked(recordings: np.ndarray) -> np.ndarray:
    """The recordings, if they are of the file's shape and whole numbers that its input takes."""
    highest = 2**INPUT_BITS - 1 if INPUT_BITS else 1
    if recordings.ndim != 2 + len(INPUT_SHAPE) or recordings.shape[2:] != INPUT_SHAPE or not len(recordings):
        raise SystemExit(f"RECORDINGS should be [recordings, time, *{INPUT_SHAPE}], found {list(recordings.shape)}.")
    if not np.array_equal(recordings, np.clip(np.trunc(recordings), 0, highest)):
        raise SystemExit(f"RECORDINGS should hold whole numbers in 0..{highest}, found others.")
    return recordings


def tell_versions() -> None:
    """Print what is installed."""
    try:
        found = {name: metadata.version(name) for name in ("lava-nc", "lava-dl", "h5py")}
    except metadata.PackageNotFoundError as cause:
        print(cause, file=sys.stderr)
        raise SystemExit(MISSING) from cause
    print(f"lava-nc={found['lava-nc']} lava-dl={found['lava-dl']} lava-python={platform.python_version()}")


def leave_out_training() -> None:
    """Stand-ins for what netx imports and a file of integrate-and-fire neurons does not need."""
    for name in ("slayer", "slayer.neuron", "slayer.neuron.rf", "netx.sequential_modules"):
        module = types.ModuleType(f"lava.lib.dl.{name}")
        sys.modules[module.__name__] = module
    sys.modules["lava.lib.dl.slayer.neuron.rf"].neuron_params = None  # type: ignore[attr-defined]


def as_lava(rows: np.ndarray) -> np.ndarray:
    """`[rows, channel, height, width]` as lava has it: width, height, channel, row."""
    return rows.transpose(3, 2, 1, 0)


def as_ours(rows: np.ndarray) -> np.ndarray:
    """`[rows, width, height, channel]` as `[rows, channel, height, width]`, flat ones as they are; whole numbers."""
    return (rows.transpose(0, 3, 2, 1) if rows.ndim == 4 else rows).astype(np.int64)


if __name__ == "__main__":
    if sys.argv[1:] == ["--versions"]:
        tell_versions()
    elif len(sys.argv) in (3, 4):
        main(*sys.argv[1:])
    else:
        raise SystemExit(__doc__)
