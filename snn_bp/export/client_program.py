"""Runs a netx file in lava's own client; started by `client.py` in the Python that has lava, never imported by ours.

    python client_program.py FILE.net INPUT.npy OUTPUT.npz INPUT_BITS CLEARED

Needs lava-nc 0.10.0 and lava-dl 0.6.0 on Python 3.10. Of lava-dl only `netx` is used, and of that what loads a
file: training and torch modules, which it imports for other ends, are left out, and with them torch and OpenCV.
"""

# pyright: reportMissingImports=false

import logging
import platform
import sys
import types
from importlib import metadata

import numpy as np

MISSING = 3  # exit code where there is no client


def main(path: str, input_file: str, output_file: str, input_bits: str, cleared: str) -> None:
    """Write `out`, and `u`, `v` and `spikes` of each population, row by row."""
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
    given = np.load(input_file)
    once = {"reset_interval": 1 << 20, "reset_offset": 1} if int(cleared) else {}  # when the first row reaches a layer
    network = hdf5.Network(net_config=path, input_message_bits=int(input_bits), **once)
    rows = len(given) + len(network.layers)
    data = np.zeros((rows, *given.shape[1:]), np.int32)
    data[: len(given)] = given
    data = as_lava(data) if len(network.inp.shape) == 3 else data.reshape(rows, -1).T
    source = io.source.RingBuffer(data=np.ascontiguousarray(data))
    sink = io.sink.RingBuffer(shape=tuple(map(int, network.out.shape)), buffer=rows)
    source.s_out.connect(network.inp)
    network.out.connect(sink.a_in)
    monitors = {}
    for place, layer in enumerate(network.layers):
        for name, target in (("u", layer.neuron.u), ("v", layer.neuron.v), ("spikes", layer.neuron.s_out)):
            monitor = Monitor()
            monitor.probe(target, rows)
            monitors[f"{name}{place}"] = (monitor, layer.neuron.name, target.name)
    network.run(condition=RunSteps(num_steps=rows), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    results = {"out": as_ours(np.moveaxis(sink.data.get(), -1, 0))}
    for key, (monitor, process, name) in monitors.items():
        results[key] = as_ours(np.asarray(monitor.get_data()[process][name]))
    network.stop()
    np.savez(output_file, **results)  # type: ignore[arg-type]


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


def as_lava(data: np.ndarray) -> np.ndarray:
    """`[rows, channel, height, width]` as lava has it: width, height, channel, row."""
    return data.transpose(3, 2, 1, 0)


def as_ours(data: np.ndarray) -> np.ndarray:
    """`[rows, width, height, channel]` as `[rows, channel, height, width]`, flat ones as they are; whole numbers."""
    return (data.transpose(0, 3, 2, 1) if data.ndim == 4 else data).astype(np.int64)


if __name__ == "__main__":
    if sys.argv[1:] == ["--versions"]:
        tell_versions()
    else:
        main(*sys.argv[1:])
