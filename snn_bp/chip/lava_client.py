"""Runs a netx file in lava's own client, where it is installed: in a process of its own, because it hangs on errors.

lava runs on Python 3.10 only and is archived, so it is no dependency. To have it:

    python3.10 -m venv lava
    lava/bin/pip install lava-nc==0.10.0 h5py matplotlib && lava/bin/pip install --no-deps lava-dl==0.6.0
    export SNN_BP_LAVA_PYTHON=$PWD/lava/bin/python
"""

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from snn_bp.chip.lava_program import MISSING
from snn_bp.chip.loader import TEMPLATE, loader_path, loader_text
from snn_bp.chip.netx_read import read_netx
from snn_bp.errors import SnnError
from snn_bp.runtime.process import run_program

PYTHON = "SNN_BP_LAVA_PYTHON"  # names the Python that has lava; else the one that runs
INSTALL = (
    "In a virtual environment of Python 3.10: pip install lava-nc==0.10.0 h5py matplotlib; pip install --no-deps "
    f"lava-dl==0.6.0. Then set the environment variable {PYTHON} to its python."
)


@dataclass(frozen=True, eq=False)
class ClientRun:
    """What lava's client answered; `potentials` are those *after* reset.

    `out` is `[time, recordings, *shape]`, of each recording the steps in which it reaches the last population:
    spikes, or the potentials of a readout. The others hold every row of the whole run, `[rows, ...]` of each
    population; row r is lava's step r + 1.
    """

    out: np.ndarray
    spikes: tuple[np.ndarray, ...]
    currents: tuple[np.ndarray, ...]
    potentials: tuple[np.ndarray, ...]


def client_missing() -> str | None:
    """Why there is no client to run, with what to install; None where there is one."""
    return None if client_versions() else _no_client()


def client_versions() -> dict[str, str]:
    """The versions of lava-nc, lava-dl and their Python; empty where there is no client."""
    done = _run([str(TEMPLATE), "--versions"], timeout_s=60, folder=None)
    return dict(part.split("=") for part in done[1].split()) if done is not None and done[0] == 0 else {}


def run_client(path: str | Path, x: Tensor | np.ndarray, *, timeout_s: float | None = None) -> ClientRun:
    """Recordings `x` `[time, recordings, *input_shape]` run in lava, one after the other, by the file's loader script.

    It runs as it stands beside the file, if it is the one that `export` writes; where there is none it is made for the
    occasion. Another script in its place is refused, not run.
    """
    path = Path(path).resolve()
    graph = read_netx(path)
    text, beside = loader_text(graph, path), loader_path(path)
    limit_s = 300 + 0.5 * x.shape[1] * (len(x) + graph.pause) if timeout_s is None else timeout_s
    with tempfile.TemporaryDirectory() as folder:
        script = beside
        if not beside.exists():
            script = Path(folder) / beside.name
            script.write_text(text, encoding="utf-8")
            (Path(folder) / path.name).write_bytes(path.read_bytes())
        elif not beside.is_file() or beside.read_bytes() != text.encode():
            raise SnnError(
                f"{beside}: it is not the script that export writes for {path.name}, and is not run. Export the file "
                "anew, or take the script away."
            )
        names = [str(Path(folder) / name) for name in ("recordings.npy", "spikes.npy", "states.npz")]
        np.save(names[0], np.moveaxis(np.asarray(x).astype(np.int32), 1, 0))
        done = _run([str(script), *names], timeout_s=limit_s, folder=folder)
        if done is None:
            raise SnnError(f"{path}: {_no_client()}")
        code, said = done
        if code == MISSING:
            raise SnnError(f"{path}: {_no_client()} It said: {said}")
        if code is None:
            raise SnnError(
                f"{path}: lava gave no answer in {limit_s:g} s, and was ended; it hangs on errors. It said: {said}"
            )
        if code != 0 or not Path(names[2]).is_file():
            raise SnnError(f"{path}: lava failed with code {code}. It said: {said}")
        with np.load(names[2]) as results:
            layers = range(len(graph.populations))
            lists = [tuple(results[f"{name}{index}"] for index in layers) for name in ("spikes", "u", "v")]
        return ClientRun(np.moveaxis(np.load(names[1]), 0, 1), *lists)


def _no_client() -> str:
    return f"no client of lava in {_python()}. {INSTALL}"


def _python() -> str:
    return os.environ.get(PYTHON) or sys.executable


def _run(arguments: list[str], *, timeout_s: float, folder: str | None) -> tuple[int | None, str] | None:
    """Exit code (None: out of time) and the end of what the program said; None where it cannot be started."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = run_program(
        [_python(), "-I", *arguments],  # -I: the program's own folder is no place to import from
        timeout_s=timeout_s, folder=Path(folder) if folder else None, environment=environment,
    )  # fmt: skip
    return None if done is None else (done[0], " ".join(done[1].split())[-500:])
