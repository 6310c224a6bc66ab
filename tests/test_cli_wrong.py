"""Wrong command lines of the kinds that people type: each is one line on standard error that says what would work."""

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from runs import cli, tiny, without_phases

from snn_bp import Dense, Run
from snn_bp.data.beside import SPLITS
from snn_bp.files import write_json
from snn_bp.reports.listing import KEYS
from snn_bp.runs.experiment import to_json
from snn_bp.runtime import status
from snn_bp.searches.loop import MethodName
from snn_bp.searches.objective import Kind

# a line, and what its error holds: what was typed, what was found, what would work
WRONG = {
    # commands and options
    "": ("Missing command", "snn-bp --help"),
    "trian mine.py": ("'trian'", "Did you mean 'train'?"),
    "TRAIN mine.py": ("'TRAIN'", "snn-bp --help"),
    "fit mine.py": ("'fit'", "snn-bp --help"),
    "help": ("'help'", "snn-bp --help"),
    "--versoin": ("--versoin", "--version"),
    "-v": ("-v", "snn-bp --help"),
    # what is trained
    "train": ("file", "snn-bp train --help"),
    "train nothing.py": ("nothing.py: there is no such file", "experiments/digits.py"),
    "train empty": ("empty/experiment.json: there is no such file", "experiments/digits.py"),
    "train syntax.py": ("syntax.py", "SyntaxError"),
    "train nothing_in_it.py": ("nothing_in_it.py", "experiment = Experiment(...)"),
    "train raises.py": ("raises.py", "ZeroDivisionError", "line 2"),
    "train broken.json": ("broken.json", "not JSON"),
    "train dense.json": ("dense.json", '{"is": "Experiment"}'),
    "train events.npy": ("events.npy", "An experiment is a Python file"),
    "train results.json": ("results.json", '{"is": "Experiment"}'),
    "train mine.py mine.py": ("'mine.py'", "key=value"),
    # sweeps
    "sweep": ("'file'", "snn-bp sweep --help"),
    "sweep mine.py": ("KEY=A,B", "snn-bp sweep --help"),
    "sweep mine.py seed=0": ("2 to 10,000 runs, found 1", "seed=0..4", "snn-bp train"),
    "sweep mine.py seed": ("'seed'", "key=a,b"),
    "sweep mine.py seed=3..0": ("3..0", "upwards", "seed=0..4"),
    "sweep mine.py train.lrr=1,2": ("'lrr'", "Did you mean 'lr'?"),
    "sweep mine.py train.lr=1e-3,fast": ("lr='fast'", "a number"),
    "sweep mine.py --seed 0..4": ("--seed", "key=value"),
    "sweep mine.py seed=0..4 --jobs 0": ("--jobs", "1"),
    "sweep mine.py 'train.lr=log(1e-4,1e-2)'": ("log(1e-4,1e-2)", "--trials"),
    "sweep mine.py train.lr=1e-4,1e-2 --trials 5": ("train.lr=choice(1e-4,1e-2)",),
    "sweep mine.py seed=0..2 --trials 5": ("a space", "train.lr=log(1e-4,1e-2)"),
    "sweep mine.py 'train.lr=log(1e-4,1e-2)' --trials 1": ("--trials", "from 2 up"),
    "sweep mine.py 'train.lr=log(1e-4,1e-2)' --trials 5 --list": ("--list", "Leave one"),
    "sweep mine.py seed=0,1 data.validation_fraction=0 --list": ("no validation split", "validation_fraction above 0"),
    "sweep mine.py data.split_seed=0,1 --list": ("split_seed=0 and data.split_seed=1", "one value"),
    "sweep mine.py seed=0,1 --out started": ("started: a run is here", "another --out"),
    "sweep mine.py 'train.lr=log(1e-4,1e-2)' --trials 5 --out started": ("started: a run is here", "another --out"),
    "plan mine.py --events 1e9 --recordings 1.5": ("--recordings 1.5", "an integer"),
    "plan mine.py --recordings 10": ("--recordings goes with --events", "Give both"),
    # recordings
    "data": ("Missing command", "snn-bp data --help"),
    "data biuld shd": ("'biuld'", "Did you mean 'build'?"),
    "data build": ("FILE|NAME", "snn-bp data build --help"),
    "data build shdd": ("'shdd'", "Did you mean 'shd'?"),
    "data build nothing.py": ("nothing.py: there is no such file", "experiments/digits.py"),
    "data build shd rooot=/data": ("'rooot=/data'", "data.key=value"),
    "data build shd data.rooot=/data": ("'rooot'", "Did you mean 'root'?"),
    "data build mine.py data.rooot=/data": ("'rooot'", "Did you mean 'root'?"),
    "data check shdd": ("'shdd'", "Did you mean 'shd'?"),
    "data check folder": ("'folder'", "Known: nmnist"),
    "data check nothing.py": ("nothing.py: there is no such file", "experiments/digits.py"),
    "data check shd data.steps=4": ("data.steps=4", "data.root=FOLDER"),
    "data check --hash": ("archives of one set", "data check nmnist --hash"),
    "data check digits --hash": ("made here", "Leave --hash out"),
    "data check shd data.root=nowhere": ("'nowhere'", "there is no such folder"),
    # changes
    "train mine.py --epochs 5": ("--epochs", "key=value"),
    "train mine.py --lr=1e-3": ("--lr", "key=value"),
    "train mine.py lr=1e-3": ("'lr'", "Did you mean 'train.lr'?"),
    "train mine.py epochs=5": ("'epochs'", "Did you mean 'train.epochs'?"),
    "train mine.py batch=5": ("'batch'", "Did you mean 'data.batch'?"),
    "train mine.py train.lrr=1": ("'lrr'", "Did you mean 'lr'?"),
    "train mine.py trian.lr=1": ("'trian'", "Did you mean 'train'?"),
    "train mine.py train.lr": ("'train.lr'", "key=value"),
    "train mine.py =1": ("'=1'", "key=value"),
    "train mine.py train.lr=": ("lr=''", "a number"),
    "train mine.py train.lr=fast": ("lr='fast'", "a number"),
    "train mine.py train.lr=-1": ("lr=-1", "a number above 0"),
    "train mine.py train.lr=nan": ("lr='nan'", "a number above 0"),
    "train mine.py train.lr=1e999": ("lr=inf", "a number above 0"),
    "train mine.py train.lr=0,001": ("lr='0,001'", "a number"),
    "train mine.py train.epochs=0": ("epochs=0", "an integer from 1 up"),
    "train mine.py train.epochs=2.5": ("epochs=2.5", "an integer"),
    "train mine.py train.epochs=99999999999": ("epochs=99999999999", "largest"),
    "train mine.py train.device=gpu": ("device", "cuda"),
    "train mine.py train.optimizer=adamm": ("'adamm'", "Did you mean"),
    "train mine.py train.metric=acuracy": ("'acuracy'", "Accuracy()"),
    "train mine.py train.loss=CountCrossEntropi()": ("CountCrossEntropi", "Did you mean 'CountCrossEntropy'?"),
    "train mine.py 'train.surrogate=ATan(slope=-1)'": ("slope=-1", "a positive number"),
    "train mine.py data.name=digit": ("'digit'", "Did you mean 'digits'?"),
    "train mine.py data.batch=-5": ("batch=-5", "from 1 up"),
    "train mine.py data.batch=yes": ("batch='yes'", "an integer"),
    "train mine.py data.binary=maybe": ("binary='maybe'", "True or False"),
    "train mine.py data.step_ms=0.00015": ("step_ms=0.00015", "0.001..1000000"),
    "train mine.py data.downsample=5": ("downsample=5", "1, 2, 17, 34"),
    "train mine.py model.99.units=3": ("'99'", "0..6"),
    "train mine.py model.-1.units=3": ("'-1'", "0..6"),
    "train mine.py 'model.1=Dens(7)'": ("Dens", "Did you mean 'Dense'?"),
    "train mine.py 'model.1=Dense()'": ("Dense", "units"),
    "train mine.py 'model.1=Dense(-7)'": ("units=-7", "from 1 up"),
    "train mine.py model.3.beta=1.3": ("beta=1.3", "0..1"),
    "train mine.py model.4.units=9": ("9", "10 classes"),
    "train mine.py 'model=()'": ("the model is empty", "Dense(10)"),
    "train mine.py seed=-1": ("seed=-1", "in 0.."),
    "train mine.py seed=1.5": ("seed=1.5", "an integer"),
    # where it goes
    "train mine.py --out": ("--out", "--help lists"),
    "train mine.py --otu x": ("--otu", "--out"),
    "train mine.py --dryrun": ("--dryrun", "--dry-run"),
    "train mine.py --out mine.py": ("mine.py", "another --out"),
    "train mine.py --out mine.py/run": ("mine.py/run", "another --out"),
    "train mine.py --out full": ("full", "not an empty folder", "another --out"),
    "train mine.py --out started": ("started: a run is here already", "snn-bp resume started"),
    "train mine.py --out /dev/null/run": ("/dev/null/run", "another --out"),
    # runs
    "resume": ("run", "snn-bp resume --help"),
    "resume nowhere": ("nowhere", "it is not there", "snn-bp list"),
    "resume mine.py": ("mine.py", "it is a file", "snn-bp list"),
    "resume empty": ("empty", "experiment.json is missing", "snn-bp list"),
    "resume started --restrat": ("--restrat", "--restart"),
    "resume broken": ("broken/experiment.json", "not JSON"),
    "resume searched --restart": ("searched", "Search again with another --out"),
    "clean nowhere": ("nowhere", "snn-bp list"),
    "train mine.py --log": ("--log", "argument"),
    "train mine.py --log tensorbord": ("--log='tensorbord'", "Did you mean 'tensorboard'?"),
    "resume searched --log tensorboard": ("searched", "a search is not logged", "Leave --log out"),
    "watch": ("run", "snn-bp watch --help"),
    "watch nowhere": ("nowhere", "no run is here", "snn-bp list"),
    "watch searched": ("searched", "a search, no training", "snn-bp report searched"),
    "watch started --port 0": ("--port=0", "1..65535"),
    "watch started --port web": ("--port", "valid integer"),
    "evaluate nowhere": ("nowhere", "snn-bp list"),
    "evaluate started": ("started/checkpoints/best.safetensors", "no such checkpoint", "snn-bp resume started"),
    "evaluate started --splitt test": ("--splitt", "--split"),
    "evaluate started --split tset": ("'tset'", "Did you mean 'test'?"),
    "evaluate started --split all": ("'all'", "test, validation, train"),
    "evaluate started --checkpoint first": ("'first'", "last, previous, best"),
    "evaluate started more": ("more", "snn-bp evaluate --help"),
    "report nowhere": ("nowhere", "snn-bp list"),
    "report started --plotss": ("--plotss", "--plots"),
    "list nowhere": ("nowhere", "snn-bp list FOLDER"),
    "list mine.py": ("mine.py", "snn-bp list FOLDER"),
    "list . --sort speed": ("'speed'", "run, date, data, metric"),
    "compare": ("runs", "snn-bp compare --help"),
    "compare nowhere": ("nowhere", "snn-bp list"),
    "compare empty": ("empty", "snn-bp list"),
    "compare started --out table.xls": ("table.xls", ".csv or .json"),
    # recordings
    "predict started": ("files", "snn-bp predict --help"),
    "predict started nothing.npy": ("nothing.npy", "new/*.npy"),
    "predict started empty": ("empty: it is a folder", "new/*.npy"),
    "predict started events.npy --out answers.xls": ("answers.xls", ".csv or .json"),
    "predict started events.npy --out nowhere/a.csv": ("nowhere/a.csv: there is no folder nowhere", "another --out"),
    "compare started --out nowhere/a.html": ("nowhere/a.html: there is no folder nowhere", "another --out"),
    "init nowhere": ("nowhere", "no such folder"),
    "init mine.py": ("mine.py", "it is a file"),
    "init empty": ("no recordings are below it", ".npy"),
    "cache --clean soon": ("--clean", "number"),
    "cache --clean -1": ("-1", "0 or more"),
    "cache --clean nan": ("nan", "a number"),
    # instruments
    "doctor nothing.py": ("nothing.py: there is no such file",),
    "doctor empty": ("empty", "snn-bp list"),
    "gradcheck mine.py --recordings 0": ("--recordings=0", "from 1 up"),
    "gradcheck mine.py --recordings four": ("--recordings", "integer"),
    "search mine.py --method gaa": ("'gaa'", "Did you mean 'ga'?"),
    "search mine.py --objective los": ("'los'", "Did you mean 'loss'?"),
    "search mine.py --budget -5": ("--budget=-5", "from 1 up"),
    "search mine.py --population 0": ("--population=0", "from 1 up"),
    "search mine.py --spike-penalty nan": ("nan", "a number"),
    "search mine.py --spike-penalty -1": ("-1", "from 0 up"),
    # exported files
    "export started": ("file", "snn-bp export --help"),
    "export started a.txt": ("a.txt", ".net", ".nir"),
    "export started a.net --samples 0": ("--samples=0", "from 1 up"),
    "export started a.net --step 1e-3": ("a.net", "Leave it out"),
    "export started a.nir --step 0": ("--step=0", "above 0"),
    "export started a.nir --step nan": ("--step=nan", "above 0"),
    "export started a.nir --compatible 2": ("--compatible='2'", "Known: 1.0.4"),
    "export started a.net --parallel 8": ("a.net", "--parallel is for .v files"),
    "export started a.v --parallel 0": ("--parallel=0", "from 1 up"),
    "export started nowhere/a.v --no-verify": ("nowhere/a.v", "folder"),
    "verify started no.v": ("no.v", "snn-bp export RUN no.v"),
    "verify started no.net --simulator vcs": ("--simulator='vcs'", "iverilog"),
    "verify started no.net --simulator iverilog": ("no.net", "--simulator is for .v files"),
    "verify started no.net --synthesis spartan": ("--synthesis='spartan'", "ecp5"),
    "export started nowhere/a.nir": ("nowhere/a.nir", "folder"),
    "verify started a.net": ("a.net", "snn-bp export RUN a.net"),
    "verify started mine.py": ("mine.py", ".net", ".nir"),
    "verify started no.net": ("no such checkpoint", "snn-bp resume started"),
    "verify started no.net --lava -1": ("--lava=-1", "from 0 up"),
}
AS_PROGRAMS = ("trian mine.py", "train mine.py --otu x", "evaluate started --split tset")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files and folders of the kinds that lines name."""
    root = tmp_path_factory.mktemp("lines")
    texts = {
        "mine.py": f"from snn_bp import *\nexperiment = {tiny()!r}\n", "syntax.py": "experiment = (",
        "nothing_in_it.py": "x = 3", "raises.py": "x = 3\nx / 0\n", "broken.json": "{", "full/notes.txt": "mine",
        "results.json": '{"epochs": 2}', "no.net": "no netx", "broken/experiment.json": "{",
    }  # fmt: skip
    for name, text in texts.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    (root / "empty").mkdir()
    write_json(root / "dense.json", to_json(Dense(3)))
    np.save(root / "events.npy", np.zeros((3, 4)))
    Run.create(tiny(), root / "started", command="", changes=())
    shutil.copytree(root / "started", root / "searched")
    write_json(root / "searched" / "asked.json", {})
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_line_is_one_error_that_helps(line, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["snn-bp", *shlex.split(line)])
    monkeypatch.setattr(status, "LONG", math.inf)  # phases that last on a busy machine have lines of their own
    before = contents(folder)

    with pytest.raises(SystemExit) as leaving:
        cli.guarded(cli.app, shlex.split(line))

    errors = without_phases(capsys.readouterr().err)
    assert leaving.value.code == 2
    assert errors.startswith("error: ") and errors.count("\n") == 1 and "Traceback" not in errors
    assert [part for part in WRONG[line] if part not in errors] == [], errors
    assert len(errors) < 400 and not re.search(r" object at 0x|<class|\\n", errors)
    assert contents(folder) == before


@pytest.mark.parametrize("line", AS_PROGRAMS)
def test_it_is_so_for_the_program(line, folder):
    done = subprocess.run(
        [sys.executable, "-m", "snn_bp", *shlex.split(line)], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (2, "")
    errors = without_phases(done.stderr)
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert all(part in errors for part in WRONG[line])


def test_words_that_options_take_are_those_that_functions_know(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    known = {
        "evaluate started --split": SPLITS,
        "list . --sort": KEYS,
        "search mine.py --method": get_args(MethodName),
        "search mine.py --objective": get_args(Kind),
    }
    for line, words in known.items():
        with pytest.raises(SystemExit):
            cli.guarded(cli.app, [*line.split(), "-"])
        said = capsys.readouterr().err
        assert set(said.partition("Known: ")[2].strip().rstrip(".").split(", ")) == set(words), said
