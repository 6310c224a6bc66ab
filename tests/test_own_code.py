"""Own code in an experiment: named in JSON, copied by definitions, run where it is trusted, and nowhere else."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import assert_same_run, few_digits, json_of
from typer.testing import CliRunner

from snn_bp import Run, SnnError, resume, train, training
from snn_bp.cli import app
from snn_bp.files import write_object
from snn_bp.reports import sections
from snn_bp.reports.listing import listing
from snn_bp.runs.changes import override
from snn_bp.runs.definitions import hashes
from snn_bp.runs.experiment import from_json, to_json
from snn_bp.runs.experiment_file import read_file, read_names
from snn_bp.runs.own_code import Code

few_digits = few_digits
MINE = '''"""An experiment with a layer, a joint, a loss and a transform of its own."""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

import parts
from parts import Gain as _Gain, unused
from snn_bp import LIF, BatchNorm, Data, Dense, Experiment, Flatten, Train, main

SOFT = 0.5
SOFT = SOFT / 2 + 0.0
TABLE = {}
TABLE["soft"] = SOFT


def spread(out: torch.Tensor) -> torch.Tensor:
    return (out - out.mean()).square().mean() * TABLE["soft"]


@dataclass(frozen=True)
class TET:
    """Cross entropy at every step."""

    weight: float = 0.05

    def __call__(self, out, targets):
        experiment = out.flatten(0, 1)  # a local name that stands at the top of the file too
        each = F.cross_entropy(experiment, targets.repeat(len(out)))
        return (1 - self.weight) * each + self.weight * spread(out)

    def scores(self, out):
        return out.mean(0)


@dataclass(frozen=True)
class Gain:
    factor: float = parts.ONE

    def build(self, shape):
        return _Gain(self.factor)


@dataclass(frozen=True)
class Thinned:
    keep: float = 0.5

    def __call__(self, events):
        return events[: math.ceil(len(events) * self.keep)]


RATE = 5e-3
experiment = Experiment(
    Data("digits", step_ms=104, steps=3, downsample=2, batch=32, transforms=(Thinned(0.9),)),
    (Flatten(), Dense(12), Gain(1.5), BatchNorm(), LIF(beta=0.7), Dense(10), BatchNorm(), LIF(beta=0.7)),
    Train(epochs=2, lr=RATE, loss=TET(weight=0.1)),
)
main(experiment)
'''
PARTS = """from torch import nn
import torch

ONE = 1.0
print("imported")


class Gain(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))

    def forward(self, x):
        return x * self.factor


def unused():
    raise AssertionError
"""


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """An experiment file, one beside it, and a cache of the user's own."""
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    (folder / "parts.py").write_text(PARTS)
    return folder / "mine.py"


def another_user(monkeypatch, tmp_path):
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "cache of another"))


def test_own_values_are_named_by_file_and_come_back(mine):
    experiment = read_file(mine)

    content = json.loads(json.dumps(to_json(experiment)))

    assert content["train"]["loss"] == {"is": "mine.py:TET", "weight": 0.1}
    assert content["model"][2] == {"is": "mine.py:Gain", "factor": 1.5}
    assert content["data"]["transforms"] == [{"is": "mine.py:Thinned", "keep": 0.9}]
    code = Code.of(experiment)
    assert to_json(from_json(content, code.load(mine.parent))) == content


def test_the_copy_has_what_the_values_stand_on_and_neither_experiment_nor_program(mine):
    code = Code.of(read_file(mine))

    assert set(code.files) == {"mine.py", "parts.py"}
    for name in ("TET", "spread", "SOFT", "TABLE", "Gain", "Thinned", "math", "_Gain"):
        assert f"mine.py:{name}" in code.hashes
    for name in ("experiment", "RATE", "unused", "Data", "main"):
        assert f"mine.py:{name}" not in code.hashes
    assert set(code.hashes) - set(hashes({"mine.py": code.files["mine.py"]})) == {
        "parts.py:Gain", "parts.py:ONE", "parts.py:nn", "parts.py:torch",
    }  # fmt: skip
    assert "print" not in code.files["parts.py"]


def test_a_changed_rate_changes_no_definition_and_a_changed_helper_does(mine):
    before = Code.of(read_file(mine)).hashes

    mine.write_text(MINE.replace("RATE = 5e-3", "RATE = 1e-3").replace("epochs=2", "epochs=9"))
    same = Code.of(read_file(mine)).hashes
    mine.write_text(MINE.replace(".square().mean()", ".abs().mean()"))
    other = Code.of(read_file(mine)).hashes

    assert same == before
    assert {name for name in before if before[name] != other[name]} == {"mine.py:spread"}


@pytest.mark.slow
def test_a_run_with_own_code_trains_stops_and_resumes_to_the_same_bits(mine, few_digits, tmp_path):
    experiment = read_file(mine)
    whole = train(experiment, tmp_path / "whole", quiet=True)
    again = train(experiment, tmp_path / "again", quiet=True)

    (again.path / "results.json").unlink()
    (again.path / "checkpoints/last.safetensors").unlink()  # goes on from the epoch before
    mine.unlink()
    (mine.parent / "parts.py").unlink()
    resumed = resume(tmp_path / "again", quiet=True)

    assert_same_run(resumed, whole)
    assert whole.network().layers[2].factor.item() != 1.5  # it learned
    assert json_of(whole.path / "experiment.json")["code"] == Code.of(whole.experiment).hashes


@pytest.mark.slow
def test_a_changed_definition_in_the_run_is_named(mine, few_digits, tmp_path):
    run = train(override(read_file(mine), ["train.epochs=1"])[0], tmp_path / "run", quiet=True)
    file = run.path / "code/mine.py"
    text = file.read_text()

    for changed, told in (
        (text.replace("* TABLE", "/ TABLE"), "mine.py:spread was changed"),
        (text + "\nimport os\n", "mine.py:os was added"),
        (text.replace('TABLE["soft"] = SOFT', ""), "mine.py:TABLE was changed|mine.py:TABLE"),
    ):
        file.write_text(changed)
        with pytest.raises(SnnError, match=told):
            resume(run.path, quiet=True)
    file.unlink()
    with pytest.raises(SnnError, match=r"mine\.py:F is missing since the run began, and 12 more"):
        Run(run.path)


@pytest.mark.slow
def test_the_page_of_a_run_lists_own_definitions(mine, few_digits, tmp_path):
    run = train(override(read_file(mine), ["train.epochs=1"])[0], tmp_path / "run", quiet=True)

    section = sections.configuration(run)

    (table,) = (each for each in section.folded if each.head == ("definition", "hash"))
    assert dict(table.rows) == {name: digest[:8] for name, digest in Code.of(read_file(mine)).hashes.items()}
    assert any("TET(weight=0.1)" in value for _, value in section.tables[1].rows)


@pytest.mark.slow
def test_a_run_stands_where_another_of_the_same_code_is_removed(mine, few_digits, tmp_path):
    experiment = override(read_file(mine), ["train.epochs=1"])[0]
    first, second = (train(experiment, tmp_path / name, quiet=True) for name in ("first", "second"))
    shutil.rmtree(first.path)

    again = Run(second.path)

    assert Code.of(again.experiment).hashes == Code.of(experiment).hashes
    assert to_json(again.experiment) == to_json(experiment)


def test_code_of_anothers_run_is_run_only_when_trusted(mine, few_digits, tmp_path, monkeypatch):
    run = train(override(read_file(mine), ["train.epochs=1"])[0], tmp_path / "run", quiet=True)
    theirs = tmp_path / "theirs"
    shutil.copytree(run.path, theirs)
    for name in ("mine.py", "parts.py"):  # the copy is theirs: its text differs, and so do its hashes
        file = theirs / "code" / name
        file.write_text(file.read_text() + f"\nopen({str(tmp_path / 'ran')!r}, 'w').close() if True else None\n")
    with pytest.raises(SnnError, match="was added"):
        Run(theirs)
    shutil.rmtree(theirs)
    shutil.copytree(run.path, theirs)
    another_user(monkeypatch, tmp_path)

    with pytest.raises(SnnError, match=r"this user's `train` did not write: mine\.py \(.*TET.*--trust-code"):
        Run(theirs)
    said = CliRunner().invoke(app, ["evaluate", str(theirs)])
    assert isinstance(said.exception, SnnError)
    assert not (tmp_path / "ran").exists()

    assert Run(theirs, trust_code=True).network().layers[2].factor.item() > 0
    assert Run(theirs).experiment.train.loss.weight == 0.1  # trusted from now on


def test_a_list_of_trusted_code_that_others_can_write_counts_for_nothing(mine):
    code = Code.of(read_file(mine))
    code.trust(mine.parent)
    assert code.is_trusted()

    (file,) = (mine.parents[1] / "cache").glob("trusted-code-*")
    file.chmod(0o622)

    assert not code.is_trusted()


def test_a_change_reaches_own_fields_and_names_own_classes(mine):
    experiment, own = read_names(mine)

    changed, said = override(experiment, ["train.loss.weight=0.3", "model.2=Gain(factor=2)"], own)

    assert changed.train.loss.weight == 0.3 and type(changed.train.loss) is type(experiment.train.loss)
    assert changed.model[2] == own["Gain"](2)
    assert said[0] == "train.loss.weight=0.3 (was 0.1)"
    with pytest.raises(SnnError, match="Did you mean 'weight'"):
        override(experiment, ["train.loss.weigth=0.3"])
    with pytest.raises(SnnError, match=r"TETT is not a type of snn_bp\. Did you mean 'TET'"):
        override(experiment, ["train.loss=TETT()"], own)


@pytest.mark.slow
def test_a_script_without_a_guard_trains_once(mine, tmp_path):
    arguments = [
        sys.executable,
        "mine.py",
        "--out",
        str(tmp_path / "run"),
        "train.epochs=1",
        "train.loss=TET(weight=0.2)",
    ]

    done = subprocess.run(arguments, cwd=mine.parent, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert Run(tmp_path / "run").experiment.train.loss.weight == 0.2
    assert done.stdout.count("imported") == 1 and done.stdout.count("run folder") == 0
    assert done.stdout.count("test accuracy") == 1


REFUSED = {
    "not frozen": ("@dataclass(frozen=True)\nclass TET", "@dataclass\nclass TET", "TET can change: write @dataclass"),
    "no dataclass": ("@dataclass(frozen=True)\nclass TET", "class TET", "TET"),
    "not called": ("def __call__(self, out, targets)", "def loss(self, out, targets)", r"TET lacks __call__\(\)"),
    "not built": ("def build(self", "def make(self", r"Gain lacks build\(\), or branches\(\) and combine\(\)"),
    "on top of ours": ("class Gain:\n", "class Gain(Flatten):\n", "Gain is a class of its own on top of Flatten"),
    "a file's folder": ("TABLE[\"soft\"]\n", "TABLE[__file__]\n", "spread reads __file__"),
    "within a function": ("    experiment = out", "    import parts\n        experiment = out", "imports parts within"),
    "no definition alone": ("SOFT = 0.5", "SOFT = Data('digits').batch / 0", "division by zero"),
    "a list": ("loss=TET(weight=0.1)", "loss=TET(weight=[0.1])", r"TET\(weight=...\): \[0.1\] would not come back"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_stand_in_an_experiment_is_refused_in_a_sentence(case, mine, few_digits, tmp_path):
    old, new, told = REFUSED[case]
    assert old in MINE
    mine.write_text(MINE.replace(old, new))

    with pytest.raises(SnnError, match=told):
        train(read_file(mine), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run/experiment.json").exists()


def test_a_class_within_a_function_is_refused():
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Local:
        def __call__(self, out, targets):
            return out.mean()

    with pytest.raises(SnnError, match="defined within a function"):
        to_json(Local())


@pytest.mark.slow
def test_a_notebook_is_a_file_of_its_cells():
    program = """
import sys, types
main = sys.modules["__main__"]
assert not hasattr(main, '__file__')
main.In = ["", "from dataclasses import dataclass\\nimport torch", "RATE = 3.0\\n%time x", "RATE = 3.0",
    "@dataclass(frozen=True)\\nclass Mine:\\n    weight: float = RATE\\n"
    "    def __call__(self, out, targets):\\n        return out.mean()"]
for cell in main.In:
    try:
        exec(cell, vars(main))
    except SyntaxError:
        pass
from snn_bp.runs.experiment import to_json
from snn_bp.runs.own_code import Code
print(to_json(Mine()), sorted(Code.of((Mine(),)).hashes))
main.In.append("class Mine: pass")
exec(main.In[-1], vars(main))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == (
        "{'is': 'notebook.py:Mine', 'weight': 3.0} ['notebook.py:Mine', 'notebook.py:RATE', 'notebook.py:dataclass']"
    )


@pytest.mark.slow
def test_what_was_typed_at_a_prompt_is_refused():
    program = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Mine:
    def __call__(self, out, targets):
        return out.mean()
from snn_bp.runs.own_code import Code
Code.of((Mine(),))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert "typed at a prompt" in done.stderr


def test_modules_of_torch_are_named_and_nothing_else_of_it():
    from snn_bp.runs.own_code import Loaded

    assert to_json(torch.nn.LayerNorm) == {"named": "torch.nn:LayerNorm"}
    assert from_json({"named": "torch.nn:LayerNorm"}) is torch.nn.LayerNorm
    assert from_json(to_json(torch.nn.functional.relu)) is torch.nn.functional.relu
    for name in ("torch:load", "torch.nn:init", "os:system", "torch.nn.functional:torch", "torch.nn:Module.apply"):
        with pytest.raises(SnnError):
            Loaded({}).find(name)


EVERYTHING = '''from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from snn_bp import LI, LIF, Data, Dense, Experiment, Module, Residual, Tau, Train


@dataclass(frozen=True)
class Lines:
    """Rising and falling lines, a source of frames."""

    count: int = 40
    class_names = ("up", "down")
    step_ms = 2

    def frames(self, part):
        draw, labels = np.random.default_rng(3 if part == "train" else 4), np.arange(self.count) % 2
        ramp = np.where(labels == 0, 1, -1)[:, None, None] * np.linspace(-1, 1, 12)[None, :, None] * np.ones((1, 1, 5))
        return (ramp + draw.normal(0, 0.3, ramp.shape)).astype(np.float32), labels


@dataclass(frozen=True)
class Sign:
    level: float = 0.2

    def __call__(self, x, rng):
        return (np.abs(x) > self.level) * np.sign(x) + rng.normal(0, 0.01, x.shape)


@dataclass(frozen=True)
class Soft:
    def __call__(self, out, targets):
        return F.cross_entropy(out.mean(0), targets)


@dataclass(frozen=True)
class Brier:
    name = "brier"
    higher_is_better = False

    def __call__(self, scores, targets):
        return float((scores.softmax(1) - F.one_hot(targets, scores.shape[1])).square().sum(1).mean())


@dataclass(frozen=True)
class Late:
    epoch: int = 3

    def __call__(self, history):
        return len(history) >= self.epoch


class Gate(torch.nn.Module):
    def __init__(self, units):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(units))

    def forward(self, x):
        return x * torch.sigmoid(self.weight)


@dataclass(frozen=True)
class Leak:
    """A layer with a time constant of its own."""

    tau: Tau = Tau(20)
    decay: float = 0.0

    def at_step(self, step_ms):
        return replace(self, decay=float(np.exp(-step_ms / self.tau.ms)))

    def build(self, shape):
        return Scale(self.decay)


class Scale(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


experiment = Experiment(
    Data(Lines(), encoder=Sign(0.3), batch=8, validation_fraction=0.25),
    (Dense(8), Module(Gate, 8), Leak(), LIF(beta=0.9), Residual(Dense(8), LIF(beta=0.8)), Dense(2), LI(beta=Tau(20))),
    Train(epochs=5, loss=Soft(), metric=Brier(), stop=Late(), lr=1e-2),
)
'''


def test_a_run_in_which_all_is_ones_own_resumes_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "all.py"
    file.write_text(EVERYTHING)
    experiment = read_file(file)
    whole = train(experiment, tmp_path / "whole", quiet=True)

    for number, _ in enumerate(training(experiment, tmp_path / "left", quiet=True)):
        if number == 6:
            break
    file.unlink()
    resumed = resume(tmp_path / "left", quiet=True)

    assert_same_run(resumed, whole)
    assert whole.results()["epochs"] == 3 and "Late(epoch=3)" in whole.results()["ended"]
    assert whole.results()["test"]["metric"] == "brier"
    shutil.copytree(whole.path, tmp_path / "worse")
    results = whole.results()
    results["test"]["metrics"]["brier"] += 0.1
    write_object(tmp_path / "worse/results.json", results)
    listed = [Path(each.run).name for each in listing(tmp_path, sort="metric").entries]  # a lower one is better
    assert listed.index("whole") < listed.index("worse") and listing(tmp_path).entries[0].higher_is_better is False
    names = {name.partition(":")[2] for name in json_of(whole.path / "experiment.json")["code"]}
    assert {"Lines", "Sign", "Soft", "Brier", "Late", "Gate", "Leak", "Scale"} <= names
    assert whole.network().layers[2].factor == pytest.approx(math.exp(-2 / 20))


@pytest.mark.parametrize(
    ("text", "told"),
    [("def f(:", "does not parse"), ("(" * 5000, "does not parse"), ("x = 1\n" * 300_000, "more than")],
)
def test_code_that_train_never_wrote_is_refused_before_it_is_run(text, told, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code/mine.py").write_text(text)

    with pytest.raises(SnnError, match=told):
        Code.read(tmp_path / "code", {})
