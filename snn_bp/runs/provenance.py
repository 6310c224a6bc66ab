"""Where a run comes from: command, versions, commit, machine, seeds."""

import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from snn_bp.errors import SnnError
from snn_bp.files import is_there, read_bytes, read_object, read_text, write_object
from snn_bp.runs.experiment import Experiment
from snn_bp.runtime.processes import processes

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


def note_resumed(file: Path, experiment: Experiment) -> str | None:
    """Add to `provenance.json` that a run goes on, where program or machine are others; says it in a sentence."""
    now = provenance(experiment, command="snn-bp resume", changes=())
    if not is_there(file):
        return None
    try:
        recorded = read_object(file)
    except SnnError as problem:
        return f"{problem} It is left as it is."
    resumed = recorded.get("resumed")
    resumed = resumed if isinstance(resumed, list) else []
    before = resumed[-1] if resumed and isinstance(resumed[-1], dict) else recorded
    changed = [key for key in ("versions", "commit", "machine") if before.get(key) != now[key]]
    if not changed:
        return None
    entry = {"started": now["started"], **{key: now[key] for key in ("versions", "commit", "machine")}}
    write_object(file, recorded | {"resumed": [*resumed, entry]})
    is_alike = _is_same_but_for_processes(before.get("machine"), now["machine"])
    named = ["processes" if key == "machine" and is_alike else key for key in changed]
    return f"resumed with other {', '.join(named)} than before; provenance.json says which"


def _is_same_but_for_processes(before: Any, now: dict[str, Any]) -> bool:
    """Whether a machine is the one of before, and so many processes are not; each of several has threads of its own."""
    if not isinstance(before, dict) or before.get("processes") == now.get("processes"):
        return False
    same = dict.fromkeys(("processes", "threads"))
    return before | same == now | same


def made_by(file: Path) -> str:
    """Behind an error: which version made the run of this `provenance.json`, where it was another than this one."""
    try:
        versions = read_object(file).get("versions")
    except SnnError:
        return ""
    theirs = versions.get("snn_bp") if isinstance(versions, dict) else None
    ours = version("snn_bp")
    return "" if theirs in (None, ours) else f" The run was made by snn_bp {theirs!s:.40}, this is {ours}."


def note_start(file: Path, record: dict[str, Any]) -> None:
    """Add to `provenance.json` from which weights of another run a training began."""
    if is_there(file):
        write_object(file, read_object(file) | {"start": record})


def machine() -> dict[str, Any]:
    """What the run runs on."""
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    } | ({"processes": count} if (count := processes()) > 1 else {})


def version(package: str) -> str | None:
    """The installed version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the working folder, "+changes" where files differ from it; None outside git.

    Nothing of the repository's own configuration is read, and so nothing that it names (hooks, filters, a monitor of
    the file system) runs: the repository may be somebody else's.
    """
    try:
        top = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if is_there(folder / ".git"))
        folder = top / ".git"
        if folder.is_file():  # a worktree or a submodule
            folder = top / read_text(folder).removeprefix("gitdir:").strip()
        common = folder
        if is_there(folder / "commondir"):
            common = folder / read_text(folder / "commondir").strip()
        head = _head(folder, common)
        return head and head + _changes(head, top=top, folder=folder, objects=common / "objects")
    except (OSError, StopIteration, SnnError):
        return None


def _head(folder: Path, common: Path) -> str | None:
    """The commit that HEAD names, read from the files of git's folder."""
    text = read_text(folder / "HEAD").strip()
    if text.startswith("ref: refs/"):
        name, text = text.removeprefix("ref: "), ""
        if is_there(file := folder / name) or is_there(file := common / name):
            text = read_text(file).strip()
        elif is_there(common / "packed-refs"):
            packed = (line.split(" ") for line in read_text(common / "packed-refs").splitlines())
            text = next((words[0] for words in packed if words[1:] == [name]), "")
    return text if re.fullmatch("[0-9a-f]{40,64}", text) else None


def _changes(head: str, *, top: Path, folder: Path, objects: Path) -> str:
    """ "+changes" where files differ from a commit, asked of git in a folder of its own with no foreign settings."""
    with tempfile.TemporaryDirectory() as own:
        for name in ("refs", "objects"):
            (Path(own) / name).mkdir()
        (Path(own) / "HEAD").write_text(head + "\n", encoding="utf-8")
        written = os.stat(folder / "index")
        (Path(own) / "index").write_bytes(read_bytes(folder / "index", limit_mb=256))
        # git reads anew what changed as late as its index was written: by the copy's own time, it would be too early
        os.utime(Path(own) / "index", ns=(written.st_atime_ns, written.st_mtime_ns))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        ours = {"GIT_DIR": own, "GIT_WORK_TREE": str(top), "GIT_OBJECT_DIRECTORY": str(objects)}
        ours |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
        settings = ("core.fsmonitor=false", f"core.hooksPath={os.devnull}", "core.fileMode=false")
        command = ["git", *(word for setting in settings for word in ("-c", setting)), "status", "--porcelain"]
        command += ["--untracked-files=no", "--ignore-submodules=all"]
        try:
            done = subprocess.run(
                command, env=kept | ours, cwd=top, capture_output=True, timeout=5, check=True,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return " (whether files differ is not known)"
    return "+changes" if done.stdout.strip() else ""


def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory_mb(device: torch.device) -> float:
    """The most memory this process has held so far, on the GPU where it runs there, else in the machine."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    try:
        import resource  # not on Windows
    except ImportError:
        return float("nan")
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
