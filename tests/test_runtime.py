"""What snn_bp changes in the process it runs in can be turned off, and the reference says how."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from runs import heard

from snn_bp.errors import SnnError
from snn_bp.runtime.console import guarded
from snn_bp.runtime.gpu import convolve_exactly, seed_torch
from snn_bp.runtime.optimizers import without_compiler
from snn_bp.runtime.process import keep_freed_memory, run_program
from snn_bp.runtime.signals import noted_signals

ROOT = Path(__file__).resolve().parents[1]


def from_cause(cause: BaseException) -> SnnError:
    problem = SnnError("run/data.json: it cannot be written")
    problem.__cause__ = cause
    return problem


@pytest.mark.parametrize(
    "problem, code",
    [
        (SnnError("train.lr=-1: it should be above 0"), 2),
        (FileNotFoundError(errno.ENOENT, "No such file"), 2),
        (from_cause(FileNotFoundError(errno.ENOENT, "No such file")), 2),
        (from_cause(OSError(errno.ENOSPC, "No space left on device")), 3),
        (OSError(errno.EIO, "Input/output error"), 3),
        (MemoryError(), 3),
    ],
    ids=str,
)
def test_what_the_machine_lacks_is_told_from_what_is_wrong_by_the_code(problem, code, capsys):
    def program(*_, **__):
        raise problem

    with pytest.raises(SystemExit) as leaving:
        guarded(program)

    assert leaving.value.code == code and capsys.readouterr().err.startswith("error: ")


def test_every_switch_is_in_the_reference_which_names_no_other():
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "snn_bp").rglob("*.py"))
    switches = set(re.findall(r'is_on\("(\w+)"\)', source))
    page = (ROOT / "notebooks" / "site" / "network.md").read_text(encoding="utf-8")

    assert switches == set(re.findall(r"^\| `SNN_BP_(\w+)` \|", page, re.MULTILINE))
    assert len(switches) == 10


@pytest.mark.slow
def test_waiting_threads_spin_where_the_switch_is_off():
    free = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}

    done = subprocess.run(
        [sys.executable, "-c", "import os, snn_bp; print(os.environ.get('OMP_WAIT_POLICY'))"],
        env=free | {"SNN_BP_SLEEPING_THREADS": "0"}, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout.strip() == "None"


def test_signals_stay_pythons_where_the_switch_is_off(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)

    monkeypatch.setenv("SNN_BP_SIGNALS", "0")
    with noted_signals():
        assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.delenv("SNN_BP_SIGNALS")
    with noted_signals():
        assert signal.getsignal(signal.SIGTERM) is not before


def test_optimizers_keep_their_wrappers_where_the_switch_is_off(monkeypatch):
    assert without_compiler(torch.optim.Adam) is not torch.optim.Adam

    monkeypatch.setenv("SNN_BP_BARE_OPTIMIZERS", "0")

    assert without_compiler(torch.optim.Adam) is torch.optim.Adam


def test_memory_is_given_back_where_the_switch_is_off(monkeypatch):
    monkeypatch.setenv("SNN_BP_KEEP_MEMORY", "0")

    assert keep_freed_memory.__wrapped__() is False


@pytest.mark.slow
@pytest.mark.parametrize("switch", ("0", "1"))
def test_a_command_runs_exit_functions_and_says_its_code_either_way(switch):
    program = "import atexit, sys; from snn_bp.runtime.process import leave; atexit.register(print, 'last'); leave(3)"

    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"SNN_BP_FAST_EXIT": switch}, capture_output=True, text=True
    )

    assert (done.returncode, done.stdout.strip()) == (3, "last")


def test_cudnn_stays_as_torch_has_it_where_the_switch_is_off(monkeypatch):
    with torch.backends.cudnn.flags(allow_tf32=True, deterministic=False):
        convolve_exactly.cache_clear()
        monkeypatch.setenv("SNN_BP_EXACT_CONVOLUTIONS", "0")
        assert not convolve_exactly() and torch.backends.cudnn.allow_tf32
        convolve_exactly.cache_clear()
        monkeypatch.delenv("SNN_BP_EXACT_CONVOLUTIONS")
        assert convolve_exactly() and not torch.backends.cudnn.allow_tf32 and torch.backends.cudnn.deterministic


@pytest.mark.parametrize("has_gpu", [False, True])
def test_torch_draws_as_by_manual_seed_with_a_gpu_and_without(has_gpu, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: has_gpu)
    torch.manual_seed(2**31 - 1)
    expected = torch.rand(3)
    seed_torch(2**31 - 1)

    assert torch.equal(torch.rand(3), expected) and torch.initial_seed() == 2**31 - 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_us_ends_the_program_that_we_run(signum, tmp_path):
    script = f"""
import sys, tempfile
from pathlib import Path
from snn_bp.runtime.process import run_program
with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}) as folder:
    inner = "import os, time; print(os.getpid(), file=open('pid', 'w'), flush=True); time.sleep(60)"
    run_program([sys.executable, "-c", inner], timeout_s=60, folder=Path(folder))
"""
    with heard():
        process = subprocess.Popen([sys.executable, "-c", script])
    while not (found := [path.read_text() for path in tmp_path.glob("*/pid")]) or not found[0].strip():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signum)

    assert process.wait(timeout=60) == 128 + signum
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(found[0]), 0)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_while_a_program_is_started_ends_it_too(tmp_path, monkeypatch):
    start, started = subprocess.Popen, []

    def signalled(*words, **how):
        started.append(start(*words, **how))
        signal.raise_signal(signal.SIGTERM)
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", signalled)

    with pytest.raises(SystemExit):
        run_program([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=60, folder=tmp_path)

    started[0].stdout.close()
    assert started[0].poll() == -signal.SIGKILL and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
