"""What fails in code of the user's own, also in the middle of a run, is one line that names the line it came from."""

import sys
from pathlib import Path

import pytest
import runs
from runs import cli, without_phases

from snn_bp import Run, resume

pytestmark = pytest.mark.usefixtures("few_digits")
few_digits = runs.few_digits
OWN = '''
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from snn_bp import *


@dataclass(frozen=True)
class Late:
    """A loss, a metric or a rule to stop by that breaks once the network says something."""

    higher_is_better, name = True, "late"

    def __call__(self, first, targets=None, mask=None):
        if isinstance(first, list):
            return first[7]
        if first.abs().sum() > 0:
            raise KeyError("no such sensor")
        return F.cross_entropy(first.mean(0) if first.dim() == 3 else first, targets)


class Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, kind):
        ctx.kind = kind
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        if ctx.kind == "missing":
            return gradient, {}["missing"]
        return {"shape": (gradient[:1], None), "count": gradient, "type": (3.0, None)}[ctx.kind]


class Breaks(nn.Module):
    def __init__(self, when):
        super().__init__()
        self.when = when

    def forward(self, x):
        if self.when in ("missing", "shape", "count", "type"):
            return Gate.apply(x, self.when)
        if self.when == "in place":
            x = x.exp()
            x += 1
            return x
        return x @ x[:3] if self.when == "built" else {}[self.when] if self.when and len(x) > 10 else x


experiment = Experiment(
    Data("digits", step_ms=104, steps=3, batch=32, downsample=2),
    (Flatten(), Dense(10), Module(Breaks, ""), LIF(beta=0.7)),
    Train(epochs=2),
)
'''
BREAKING = {  # what is changed, and what is told
    "train.loss=Late()": ("KeyError: 'no such sensor'", '`raise KeyError("no such sensor")`'),
    "train.metric=Late()": ("KeyError: 'no such sensor'", '`raise KeyError("no such sensor")`'),
    "train.stop=Late()": ("IndexError: list index out of range", "`return first[7]`"),
    "model.2.args=('built',)": ("model.2 Module(Breaks, 'built')", "`return x @ x[:3] if"),
    "model.2.args=('missing',)": ("KeyError: 'missing'", '{}["missing"]'),
    "model.2.args=('shape',)": ("invalid gradient", "code of your own: Gate (", "set_detect_anomaly(True)"),
    "model.2.args=('count',)": ("incorrect number of gradients (expected 2, got 1)", "code of your own: Gate ("),
    "model.2.args=('type',)": ("got float", "Gate (", "Breaks (", "set_detect_anomaly(True)"),
    "model.2.args=('in place',)": ("modified by an inplace operation", "Breaks (", "set_detect_anomaly(True)"),
    "model.2.args=('trained',)": ("KeyError: 'trained'", "`return x @ x[:3] if"),
}


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("snn_bp.runtime.status.LONG", 3600.0)
    (tmp_path / "own.py").write_text(OWN)
    return Path("own.py")


def failing(file: Path, change: str, monkeypatch, capsys) -> str:
    words = ["train", str(file), change, "--out", "run"]
    monkeypatch.setattr(sys, "argv", ["snn-bp", *words])
    with pytest.raises(SystemExit) as leaving:
        cli.guarded(cli.app, words)
    assert leaving.value.code == 2
    return without_phases(capsys.readouterr().err)


@pytest.mark.parametrize("change", BREAKING)
def test_what_breaks_is_told_with_its_line(change, file, monkeypatch, capsys):
    errors = failing(file, change, monkeypatch, capsys)

    assert errors.startswith("error: ") and errors.count("\n") == 1 and "Traceback" not in errors
    assert [part for part in (*BREAKING[change], "own.py, line ") if part not in errors] == [], errors


def test_a_run_that_broke_stands_where_it_was_saved_and_python_raises_what_was_raised(file, monkeypatch, capsys):
    failing(file, "train.stop=Late()", monkeypatch, capsys)

    assert [row["epoch"] for row in Run("run").metrics()] == [1]
    with pytest.raises(IndexError):
        resume("run", quiet=True)


def test_the_whole_way_to_it_is_shown_where_it_is_asked_for(file, monkeypatch):
    monkeypatch.setenv("SNN_BP_SHORT_ERRORS", "0")

    with pytest.raises(IndexError):
        cli.guarded(cli.app, ["train", str(file), "train.stop=Late()", "--out", "run"])
