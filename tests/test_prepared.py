"""The process that a sweep's runs are forks of: a fork is what a new process would be, and no kill stops a sweep."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from runs import assert_same_run, tiny

from snn_bp import Run
from snn_bp.runtime.prepared import LOST, Forked, Prepared
from snn_bp.searches import jobs, processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is a prepared process on Linux alone")

SELF = """
import atexit, gc, json, os, random, signal, sys, threading, warnings
import beside, numpy, torch
state = {
    "arguments": sys.argv[1:], "all arguments": sys.orig_argv[3:], "path": sys.path, "folder": os.getcwd(),
    "environment": [f"{name}={value}" for name, value in sorted(os.environ.items())],
    "is session": os.getsid(0) == os.getpid(), "beside": beside.__file__,
    "handlers": [str(signal.getsignal(number)) for number in signal.valid_signals()],
    "blocked": list(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
    "main": sorted(vars(sys.modules["__main__"])), "warnings": len(warnings.filters), "gc": gc.isenabled(),
    "streams": [[str(each.encoding), each.errors, each.line_buffering] for each in (sys.stdout, sys.stderr)],
    "files": sorted(os.readlink(f"/proc/self/fd/{each}").rstrip("0123456789 (deleted)")
                    for each in range(64) if os.path.exists(f"/proc/self/fd/{each}")),
    "threads": threading.active_count(), "torch": [torch.get_num_threads(), torch.cuda.is_initialized()],
}
drawn = [random.random(), numpy.random.random(), torch.rand(1).item()]
atexit.register(lambda: print(json.dumps([state, drawn]), file=sys.stderr))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with an experiment, `small.py`, and one that says what it runs in, `self.py`."""
    path = tmp_path_factory.mktemp("prepared")
    (path / "small.py").write_text(f"from snn_bp import *\nexperiment = {tiny(epochs=1)!r}\n")
    (path / "beside.py").write_text("")
    (path / "self.py").write_text(SELF)
    for name, end in (("raises", "1 / 0"), ("exits", "os._exit(7)"), ("killed", "os.kill(os.getpid(), 9)")):
        (path / f"{name}.py").write_text(f"import os\n{end}\n")
    return path


@pytest.fixture(scope="module")
def prepared(folder) -> Iterator[Prepared]:
    """A prepared process that is ready."""
    with begun(folder / "small.py") as found:
        yield found


def environment() -> dict[str, str]:
    """That of a run of two at a time; pytest writes into its own."""
    mine = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return mine | {"OMP_NUM_THREADS": "1"}


def begun(file: Path) -> Prepared:
    found = Prepared(file)
    found.begin(environment())
    assert until(lambda: not found.is_preparing())
    return found


def until(is_so: Callable[[], object], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(is_so())


def forked(prepared: Prepared, words: list[str], own: dict[str, str] | None = None) -> tuple[int, str]:
    """The code and the errors of `snn-bp` as a fork."""
    with tempfile.TemporaryFile() as errors:
        run = prepared.fork(words, own or {}, errors.fileno())
        assert run is not None
        run.wait()
        errors.seek(0)
        return run.returncode or 0, errors.read().decode()


def new(words: list[str], own: dict[str, str] | None = None) -> tuple[int, str]:
    """The same as a process that a sweep starts where nothing is prepared."""
    with tempfile.TemporaryFile() as errors:
        done = subprocess.run(
            [*processes.program(), *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
            env=environment() | (own or {}), start_new_session=True,
        )  # fmt: skip
        errors.seek(0)
        return done.returncode, errors.read().decode()


def is_alive(process: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.slow
def test_a_fork_runs_in_what_a_new_process_runs_in(prepared, folder):
    words, own = ["train", str(folder / "self.py"), "seed=3"], {"CUDA_VISIBLE_DEVICES": "5", "OMP_NUM_THREADS": "2"}
    (code, first), (_, second), (code_of_new, said) = (
        forked(prepared, words, own),
        forked(prepared, words),
        new(words, own),
    )
    (state, drawn), (of_second, drawn_then), (of_new, _) = (
        json.loads(each.splitlines()[-1]) for each in (first, second, said)
    )

    assert state.keys() == of_new.keys()
    for name in state:
        assert state[name] == of_new[name], name
    assert first.splitlines()[-2] == said.splitlines()[-2] and code == code_of_new == 2
    assert "CUDA_VISIBLE_DEVICES=5" in state["environment"] and state["arguments"] == words
    assert "CUDA_VISIBLE_DEVICES=5" not in of_second["environment"]
    assert (state["torch"][0], of_second["torch"][0]) == (2, 1)
    assert not {*drawn} & {*drawn_then}


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, code",
    [
        (["train", "small.py", "train.lrr=1"], 2),
        (["train", "raises.py"], 2),
        (["train", "exits.py"], 7),
        (["train", "killed.py"], -9),
    ],
    ids=["refused", "raises", "exits", "killed"],
)
def test_a_fork_ends_as_a_new_process_does(words, code, prepared, folder):
    words = [str(folder / word) if word.endswith(".py") else word for word in words]

    (mine, first), (theirs, second) = forked(prepared, words), new(words)

    assert mine == theirs == code
    errors = [[line for line in said.splitlines() if line.startswith("error: ")] for said in (first, second)]
    assert errors[0] == errors[1] and len(errors[0]) == (code == 2)  # a slow start says that it is starting, too


@pytest.mark.slow
def test_a_fork_trains_the_run_of_a_new_process_whichever_way_it_leaves(prepared, folder, tmp_path):
    words = ["train", str(folder / "small.py"), "--out"]

    for switch in ("0", "1"):
        assert forked(prepared, [*words, str(tmp_path / switch)], {"SNN_BP_FAST_EXIT": switch})[0] == 0
    assert new([*words, str(tmp_path / "new")])[0] == 0

    for switch in ("0", "1"):
        assert_same_run(Run(tmp_path / switch), Run(tmp_path / "new"))


@pytest.mark.slow
def test_what_asks_a_fork_to_stop_lets_it_save(prepared, folder, tmp_path):
    with tempfile.TemporaryFile() as errors:
        run = at_work(prepared, folder, tmp_path / "run", errors.fileno())
        run.terminate()
        run.wait()
        errors.seek(0)
        said = errors.read().decode()

    assert run.returncode == 128 + signal.SIGTERM and "stopped and saved" in said
    run.terminate()  # nothing is there any more
    run.kill()


def at_work(prepared: Prepared, folder: Path, out: Path, errors: int) -> Forked:
    """A long run behind its first epoch."""
    run = prepared.fork(["train", str(folder / "small.py"), "train.epochs=900", "--out", str(out)], {}, errors)
    assert run is not None
    assert until(lambda: (out / "metrics.csv").exists() and (out / "metrics.csv").read_text().count("\n") > 1)
    return run


@pytest.mark.slow
def test_a_run_outlives_the_prepared_process_and_still_stops_when_asked(folder, tmp_path):
    with begun(folder / "small.py") as prepared, tempfile.TemporaryFile() as errors:
        run = at_work(prepared, folder, tmp_path / "run", errors.fileno())
        prepared._process.kill()
        assert until(lambda: not prepared.is_there()) and prepared.fork(["--version"], {}, errors.fileno()) is None
        assert run.poll() is None
        run.terminate()
        run.wait()
        errors.seek(0)

        assert run.returncode == LOST and "stopped and saved" in errors.read().decode()
        prepared.begin(environment())
        assert not prepared.is_there()  # once


def test_a_process_that_is_never_ready_is_not_waited_for(folder, monkeypatch):
    monkeypatch.setattr("snn_bp.runtime.prepared.READY_S", 0.0)

    with Prepared(folder / "small.py") as prepared:
        prepared.begin(environment())

        assert not prepared.is_preparing() and not prepared.is_there()


@pytest.mark.slow
def test_a_sweep_goes_on_without_its_prepared_process_and_repeats_what_nobody_saw_end(folder, tmp_path, monkeypatch):
    runs = jobs.jobs_of(folder / "small.py", ["seed=0..3"], tmp_path)
    begin_run, begun_runs = Prepared.fork, []

    def killed_with_the_first(self, words, own, errors):
        begun_runs.append(begin_run(self, words, own, errors))
        if len(begun_runs) == 2:
            self._process.kill()
            begun_runs[0].kill()
        return begun_runs[-1]

    monkeypatch.setattr(Prepared, "fork", killed_with_the_first)
    with Prepared(folder / "small.py") as prepared:
        failed = processes.train_all(runs, folder / "small.py", tmp_path, prepared=prepared, parallel=2, quiet=True)

    assert failed == [] and all(run.results() for run in runs)
    assert [each is not None for each in begun_runs] == [True, True, False, False, False]


@pytest.mark.slow
@pytest.mark.parametrize("is_ready", [True, False])
def test_nothing_stays_of_a_sweep_that_is_killed_but_its_run(is_ready, folder, tmp_path):
    program = f"""
import os, sys, time
from pathlib import Path
from snn_bp.runtime.prepared import Prepared
prepared = Prepared(Path({str(folder / "small.py")!r}))
prepared.begin(dict(os.environ))
while {is_ready} and prepared.is_preparing():
    time.sleep(0.01)
words = ["train", {str(folder / "small.py")!r}, "train.epochs=5", "--out", {str(tmp_path / "run")!r}]
run = prepared.fork(words, {{}}, 2) if {is_ready} else None
print(prepared._process.pid, run._number if run else 0, flush=True)
time.sleep(100)
"""
    sweep = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    process, run = map(int, sweep.stdout.readline().split())
    assert is_alive(process) and is_alive(run) == is_ready
    sweep.kill()
    sweep.communicate()

    assert until(lambda: not is_alive(process))
    if is_ready:
        assert until(lambda: not is_alive(run)) and Run(tmp_path / "run").results()


def test_it_starts_ahead_of_all_that_a_sweep_imports_and_ends_with_one_that_is_refused(folder, tmp_path):
    begins = (
        "import os, sys; from snn_bp.runtime.prepared import Prepared; begin = Prepared.begin\n"
        "def told(self, environment): print('torch' in sys.modules, flush=True); begin(self, environment)\n"
        "Prepared.begin = told; from snn_bp.cli import entry; entry()"
    )
    words = ["sweep", str(folder / "small.py"), "seed=0,0", "--jobs", "2", "--out", str(tmp_path / "out")]
    mark = {"SNN_BP_MARK": str(tmp_path)}

    done = subprocess.run([sys.executable, "-c", begins, *words], env=os.environ | mark, capture_output=True, text=True)

    assert done.returncode == 2 and "0 stands there twice" in done.stderr
    assert done.stdout.split() == ["False"]
    assert until(lambda: not any(is_marked(each, tmp_path) for each in Path("/proc").glob("[0-9]*")))


def is_marked(process: Path, mark: Path) -> bool:
    with suppress(OSError):
        return f"SNN_BP_MARK={mark}\0".encode() in (process / "environ").read_bytes()
    return False


@pytest.mark.slow
def test_what_stands_beside_an_experiment_is_imported_not_the_library_of_its_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc", None)  # a test before may have imported the library's
    del sys.modules["pydoc"]
    (tmp_path / "pydoc.py").write_text("here = True\n")
    (tmp_path / "mine.py").write_text(
        f"from pydoc import here\nfrom snn_bp import *\nexperiment = {tiny(epochs=1)!r}\n"
    )
    runs = jobs.jobs_of(tmp_path / "mine.py", ["seed=0,1"], tmp_path / "out")

    with begun(tmp_path / "mine.py") as prepared:
        assert not prepared.is_there()
        assert processes.train_all(runs, tmp_path / "mine.py", tmp_path / "out", prepared=prepared, quiet=True) == []
    assert all(run.results() for run in runs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line, loses", [("", False), ("threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", True)]
)
def test_a_process_with_threads_of_its_own_is_not_forked(line, loses):
    program = (
        f"import os, threading, time; from snn_bp.searches.forking import loses_threads, prepare; prepare(); {line}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{program}print(loses_threads(), flush=True); os._exit(0)"],
        capture_output=True,
        text=True,
    )

    assert done.stdout.split() == [str(loses)], done.stderr


def test_the_switch_and_other_systems_leave_every_run_a_new_process(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    for patch in (
        lambda: monkeypatch.setenv("SNN_BP_FORKED_RUNS", "0"),
        lambda: monkeypatch.setattr(sys, "platform", "darwin"),
    ):
        with monkeypatch.context():
            patch()
            with Prepared(tmp_path / "mine.py") as prepared:
                prepared.begin({})

                assert not prepared.is_preparing() and prepared.fork(["train"], {}, 2) is None
        monkeypatch.delenv("SNN_BP_FORKED_RUNS", raising=False)
