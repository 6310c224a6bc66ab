"""Where a run comes from: command, versions, commit, machine, seeds."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from snn_bp.experiment import Experiment

PACKAGES = ("snn_bp", "torch", "numpy", "numba", "tonic", "snntorch", "scikit-learn", "safetensors")


def provenance(experiment: Experiment, *, command: str, changes: Sequence[str]) -> dict[str, Any]:
    """What `provenance.json` of a run folder holds."""
    return {
        "command": command,
        "changes": list(changes),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "commit": commit(),
        "machine": machine(),
        "seeds": {"experiment": experiment.seed, "split": experiment.data.split_seed},
    }


def machine() -> dict[str, Any]:
    """What the run runs on."""
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def version(package: str) -> str | None:
    """The installed version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the working folder, "+changes" where files differ from it; None outside git."""
    try:
        asked = {"capture_output": True, "text": True, "timeout": 5, "check": True}
        head = subprocess.run(["git", "rev-parse", "HEAD"], **asked).stdout.strip()
        dirty = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **asked).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if dirty else "")


def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory_mb(device: torch.device) -> float:
    """The most memory this process has held so far: of the GPU where it runs there, else of the machine."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    try:
        import resource  # not on Windows
    except ImportError:
        return float("nan")
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
