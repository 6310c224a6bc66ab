"""Runs a netx file in lava's own client, where it is installed: in a process of its own, because it hangs on errors.

lava runs on Python 3.10 only and is archived, so it is no dependency. To have it:

    python3.10 -m venv lava
    lava/bin/pip install lava-nc==0.10.0 h5py matplotlib && lava/bin/pip install --no-deps lava-dl==0.6.0
    export SNN_BP_LAVA_PYTHON=$PWD/lava/bin/python
"""

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from snn_bp.errors import SnnError
from snn_bp.export.client_program import MISSING

PYTHON = "SNN_BP_LAVA_PYTHON"  # names the Python that has lava; else the one that runs
PROGRAM = Path(__file__).with_name("client_program.py")
INSTALL = (
    "In a virtual environment of Python 3.10: pip install lava-nc==0.10.0 h5py matplotlib; pip install --no-deps "
    f"lava-dl==0.6.0. Then set the environment variable {PYTHON} to its python."
)


@dataclass(frozen=True, eq=False)
class ClientRun:
    """What lava's client answered for one sample; row r is its step r + 1. `potentials` are those *after* reset.

    `out` is `[rows, *output_shape]`, the spikes of the last population; the others hold an array for each population.
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
    done = _run(["--versions"], timeout_s=60, folder=None)
    return dict(part.split("=") for part in done[1].split()) if done is not None and done[0] == 0 else {}


def run_client(
    path: str | Path, x: Tensor | np.ndarray, *, input_bits: int = 0, cleared: bool = False, timeout_s: float = 300,
) -> ClientRun:  # fmt: skip
    """The file run in lava for one sample `x` `[time, *input_shape]`, for time + populations rows as `simulate` does.

    `input_bits` and `cleared` are those of the file's graph; lava cannot read them there.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise SnnError(f"{path}: there is no such file.")
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "input.npy", Path(folder) / "output.npz"
        np.save(given, np.asarray(x).astype(np.int32))
        done = _run(
            [str(path), str(given), str(answer), str(input_bits), str(int(cleared))], timeout_s=timeout_s, folder=folder
        )
        if done is None:
            raise SnnError(f"{path}: {_no_client()}")
        code, said = done
        if code == MISSING:
            raise SnnError(f"{path}: {_no_client()} It said: {said}")
        if code is None:
            raise SnnError(
                f"{path}: lava gave no answer in {timeout_s} s, and was ended; it hangs on errors. It said: {said}"
            )
        if code != 0 or not answer.is_file():
            raise SnnError(f"{path}: lava failed with code {code}. It said: {said}")
        with np.load(answer) as results:
            layers = sum(key.startswith("u") for key in results)
            lists = [tuple(results[f"{name}{place}"] for place in range(layers)) for name in ("spikes", "u", "v")]
            return ClientRun(results["out"], *lists)


def _no_client() -> str:
    return f"no client of lava in {_python()}. {INSTALL}"


def _python() -> str:
    return os.environ.get(PYTHON) or sys.executable


def _run(arguments: list[str], *, timeout_s: float, folder: str | None) -> tuple[int | None, str] | None:
    """Exit code (None: out of time) and the end of what the program said; None where it cannot be started."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        process = subprocess.Popen(
            [_python(), "-I", str(PROGRAM), *arguments],  # -I: the program's own folder is no place to import from
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=folder, env=environment, start_new_session=True,
        )  # fmt: skip
    except OSError:
        return None
    code: int | None = None
    try:
        said, _ = process.communicate(timeout=timeout_s)
        code = process.returncode
    except subprocess.TimeoutExpired:
        _end(process)
        said, _ = process.communicate()
    finally:
        _end(process)
    return code, " ".join(said.decode(errors="replace").split())[-500:]


def _end(process: subprocess.Popen) -> None:
    """End the program and the processes it started, which are a group of their own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()
