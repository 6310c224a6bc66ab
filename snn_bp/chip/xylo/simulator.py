"""Runs a configuration in `xylosim`, the chip's own simulator in C++, where it is installed.

It comes as C++ source, which takes a compiler, so it is no dependency.
"""

from importlib.metadata import version

import numpy as np

from snn_bp.chip.xylo.configuration import Configuration
from snn_bp.chip.xylo.replay import Replay
from snn_bp.errors import SnnError

INSTALL = "pip install 'snn_bp[xylo]' builds it from its source, with a C++ compiler"


def simulator_missing() -> str | None:
    """Why there is no simulator to run, with what to install; None where there is one."""
    try:
        from xylosim.v2 import XyloLayer  # type: ignore  # noqa: F401 - an extra
    except ImportError as cause:
        return f"xylosim cannot be imported ({cause}). {INSTALL}."
    return None


def simulator_version() -> str:
    """Which version of xylosim there is."""
    return version("xylosim")


def run_simulator(configuration: Configuration, x: np.ndarray) -> Replay:
    """As `replay.simulate`, of the simulator; recordings one after the other, each from rest."""
    if missing := simulator_missing():
        raise SnnError(missing)
    from xylosim.v2 import XyloLayer, XyloSynapse  # type: ignore - an extra

    given, sizes = configuration, sum(configuration.hidden)

    def synapses(weights: np.ndarray) -> list[list]:
        return [[XyloSynapse(to, 0, int(row[to])) for to in np.flatnonzero(row)] for row in weights]

    kept = [synapses(each) for each in (given.weights_in, given.weights_rec, given.weights_out)]  # it holds pointers
    layer = XyloLayer(
        synapses_in=kept[0], synapses_rec=kept[1], synapses_out=kept[2], aliases=[[] for _ in range(sizes)],
        threshold=given.threshold.tolist(), threshold_out=given.threshold_out.tolist(), has_bias=True,
        bias=given.bias_hidden.tolist(), bias_out=given.bias_out.tolist(), weight_shift_inp=given.weight_shift_in,
        weight_shift_rec=given.weight_shift_rec, weight_shift_out=given.weight_shift_out,
        dash_mem=given.dash_mem.tolist(), dash_mem_out=given.dash_mem_out.tolist(),
        dash_syns=given.dash_syn[:, None].tolist(), dash_syns_out=given.dash_syn_out[:, None].tolist(), name="",
    )  # fmt: skip
    recordings = []
    for recording in np.moveaxis(x.astype(int), 1, 0):
        layer.reset_all()
        out = np.array(layer.evolve(recording.tolist()))
        states = (layer.rec_i_syn, layer.rec_v_mem, layer.rec_i_syn_out, layer.rec_v_mem_out)
        i, v, i_out, v_out = (np.array(state).T for state in states)
        recordings.append((np.array(layer.rec_recurrent_spikes), i, v, out, i_out, v_out))
    return Replay(*(np.stack(each, axis=1).astype(np.int64) for each in zip(*recordings, strict=True)))
