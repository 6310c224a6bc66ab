"""A neuron of the user's own in an experiment: named, copied, trained, stopped and gone on with, looked at, counted."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import runs
import torch
from runs import assert_same_run, json_of
from typer.testing import CliRunner

from snn_bp import (
    LI,
    LIF,
    CountCrossEntropy,
    Dense,
    FirstSpike,
    MaxCrossEntropy,
    MembraneCrossEntropy,
    Network,
    Run,
    SnnError,
    Tau,
    predict,
    resume,
    start_alive,
    train,
    training,
    use_backend,
)
from snn_bp.cli import app
from snn_bp.equations.arithmetic import detach, spike
from snn_bp.model.losses import check_loss
from snn_bp.neurons import counts_spikes, neuron
from snn_bp.reports import sections
from snn_bp.runs import own_code
from snn_bp.runs.changes import override
from snn_bp.runs.evaluation import count_activity, layer_activity
from snn_bp.runs.experiment import from_json, to_json
from snn_bp.runs.experiment_file import read_file, read_names
from snn_bp.runs.own_code import Code

few_digits = runs.few_digits
MINE = '''"""An experiment whose neurons are its own."""
import snn_bp
from snn_bp import LI, BatchNorm, Data, Dense, Experiment, Flatten, MembraneCrossEntropy, Parallel
from snn_bp import Recurrent, Residual, Spiking, Tau, Train, main
from snn_bp.equations.arithmetic import detach, spike
from snn_bp.neurons import neuron as kind_of_neuron
from parts import DECAYS, eased
import parts

SLOW = 100.0
SLOW = SLOW * 2


def cleared(v, s):
    return v * (1 - detach(s)) * parts.KEPT


@kind_of_neuron(decays=DECAYS, positive=("threshold",))
def MyNeuron(v, w, s, x, *, beta, rho=Tau(SLOW), a=0.1, b=0.2, threshold=1.0, hard: bool = True):
    """LIF with an adaptation."""
    w = rho * w + eased(v, a) + b * s
    v = beta * (cleared(v, s) if hard else v) + x - w
    return v, w, spike(v - threshold, threshold)


@snn_bp.neurons.neuron(decays="beta")
def Reader(v, m, x, *, beta=0.9):
    """A readout with a state more."""
    m = beta * m + (1 - beta) * x
    v = v + m
    return v, m, v


LR = 5e-3
experiment = Experiment(
    Data("digits", step_ms=104, steps=3, downsample=2, batch=32),
    (
        *(Flatten(), Dense(12), BatchNorm(), MyNeuron(beta=Tau(200))),
        Residual(Dense(12), BatchNorm(), Spiking(MyNeuron(beta=0.8), learn=("beta", "a"))),
        Parallel((Dense(6), MyNeuron(beta=0.5, hard=False)), (Dense(4), MyNeuron(beta=0.5))),
        *(Dense(8), Recurrent(MyNeuron(beta=0.7))),
        *(Dense(10), Reader()),
    ),
    Train(epochs=2, lr=LR, loss=MembraneCrossEntropy()),
)
if __name__ == "__main__":
    main(experiment)
'''
PARTS = """SHARE, KEPT = 0.5, 1.0
DECAYS = ("beta", "rho")
print("imported")


def eased(v, a):
    return SHARE * a * v


def unused():
    raise AssertionError
"""


def written(folder: Path) -> Path:
    """The experiment file, and one beside it."""
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    (folder / "parts.py").write_text(PARTS)
    return folder / "mine.py"


def trust_in(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the list of trusted code stand in a folder; recordings stay in the cache that all tests share."""
    patch.setattr(own_code, "cache_folder", lambda: folder)


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """An experiment file of a user who trusts nobody yet."""
    trust_in(monkeypatch, tmp_path / "cache")
    return written(tmp_path / "lab")


@pytest.fixture
def plain():
    """Steps run one after the other in torch: nothing is compiled."""
    with use_backend("reference"):
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one epoch, to read only."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch, runs.loading(runs.few), use_backend("reference"):
        trust_in(patch, folder / "cache")
        experiment = override(read_file(written(folder / "lab")), ["train.epochs=1"])[0]
        yield train(experiment, folder / "run", quiet=True)


def test_own_neurons_are_named_by_file_wherever_they_stand_and_come_back(mine):
    experiment = read_file(mine)

    content = json.loads(json.dumps(to_json(experiment)))

    model = content["model"]
    assert model[3] == {
        "is": "mine.py:MyNeuron", "beta": {"is": "Tau", "ms": 200}, "rho": {"is": "Tau", "ms": 200.0},
        "a": 0.1, "b": 0.2, "threshold": 1.0, "hard": True,
    }  # fmt: skip
    assert model[4]["layers"][2]["neuron"]["is"] == model[5]["rows"][0][1]["is"] == model[7]["neuron"]["is"]
    assert model[9] == {"is": "mine.py:Reader", "beta": 0.9}
    code = Code.of(experiment)
    back = from_json(content, code.load(mine.parent))
    assert to_json(back) == content
    assert str(back.model[3].equations()) == str(experiment.model[3].equations())


def test_the_copy_has_what_the_steps_and_their_decorators_stand_on_and_nothing_else(mine):
    code = Code.of(read_file(mine))

    assert set(code.files) == {"mine.py", "parts.py"}
    names = {name for name in code.hashes if name.startswith("mine.py:")}
    assert names == {
        f"mine.py:{name}" for name in ("MyNeuron", "Reader", "cleared", "SLOW", "DECAYS, eased", "parts", "snn_bp",
                                       "kind_of_neuron", "Tau", "detach, spike")
    }  # fmt: skip
    assert {name for name in code.hashes if name not in names} == {
        "parts.py:DECAYS", "parts.py:KEPT, SHARE", "parts.py:eased",
    }  # fmt: skip
    assert "print" not in code.files["parts.py"]


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("mine.py", "+ b * s", "- b * s", {"mine.py:MyNeuron"}),
        ("mine.py", "SLOW * 2", "SLOW * 3", {"mine.py:SLOW"}),
        ("mine.py", "1 - detach(s)", "2 - detach(s)", {"mine.py:cleared"}),
        ("parts.py", "SHARE * a", "SHARE + a", {"parts.py:eased"}),
        ("parts.py", "0.5, 1.0", "0.5, 0.9", {"parts.py:KEPT, SHARE"}),
        ("parts.py", '("beta", "rho")', '("rho", "beta")', {"parts.py:DECAYS"}),
        ("mine.py", "LR = 5e-3", "LR = 1e-3", set()),
    ],
)
def test_a_change_in_what_a_step_reads_changes_its_hash(file, old, new, named, mine):
    before = Code.of(read_file(mine)).hashes
    sys.modules.pop("parts", None)

    text = (mine.parent / file).read_text()
    assert old in text
    (mine.parent / file).write_text(text.replace(old, new))
    after = Code.of(read_file(mine)).hashes

    assert {name for name in before if before[name] != after.get(name)} == named


def test_overrides_reach_parameters_and_name_own_kinds(mine):
    experiment, own = read_names(mine)

    changed, said = override(
        experiment,
        [
            "model.3.beta=0.8",
            "model.5.1.1=MyNeuron(beta=Tau(20), hard=no)",
            "model.4.0.2.neuron.a=0.3",
            "model.9.beta=0.5",
        ],
        own,
    )

    assert changed.model[3] == own["MyNeuron"](beta=0.8)
    assert changed.model[5].rows[1][1] == own["MyNeuron"](beta=Tau(20), hard=False)
    assert changed.model[4].layers[2].neuron.a == 0.3 and changed.model[9] == own["Reader"](beta=0.5)
    assert said[0] == "model.3.beta=0.8 (was Tau(ms=200))"
    for change, told in (
        ("model.3.betta=0.8", "there is no 'betta'. Did you mean 'beta'"),
        ("model.3.beta=1.8", r"MyNeuron\(beta=1.8\): a decay lies in 0..1"),
        ("model.3.threshold=Tau(20)", "a time constant becomes a decay; threshold is none"),
        ("model.3=MyNeuron(beta=0.7, bb=1)", "MyNeuron: there is no 'bb'"),
        ("model.3=MyNeuron()", "'beta' is missing"),
        ("model.3=MyNeuon(beta=0.7)", "Did you mean 'MyNeuron'"),
    ):
        with pytest.raises(SnnError, match=told):
            override(experiment, [change], own)


def test_a_changed_step_is_named_when_a_run_goes_on(trained, tmp_path):
    run = Path(shutil.copytree(trained.path, tmp_path / "run"))
    file = run / "code/mine.py"
    text = file.read_text()

    for changed, told in (
        (text.replace("+ b * s", "- b * s"), "mine.py:MyNeuron was changed"),
        (text.replace('decays="beta"', "decays=()"), "mine.py:Reader was changed"),
        (text.replace("SLOW * 2", "SLOW * 4"), "mine.py:SLOW was changed"),
    ):
        assert changed != text
        file.write_text(changed)
        with pytest.raises(SnnError, match=told):
            resume(run, quiet=True)


def test_own_neurons_of_anothers_run_are_not_run_unasked(trained, tmp_path, monkeypatch):
    theirs = tmp_path / "theirs"
    shutil.copytree(trained.path, theirs)
    trust_in(monkeypatch, tmp_path / "cache of another")

    with pytest.raises(SnnError, match=r"this user's `train` did not write: mine\.py \(.*MyNeuron.*--trust-code"):
        Run(theirs)
    said = CliRunner().invoke(app, ["evaluate", str(theirs)])
    assert isinstance(said.exception, SnnError)

    assert Run(theirs, trust_code=True).network().layers[3].neuron.b == 0.2
    assert Run(theirs).experiment.model[3].b == 0.2  # trusted from now on


@pytest.mark.slow
def test_a_run_of_own_neurons_stops_and_resumes_to_the_same_bits_without_its_file(mine, few_digits, plain, tmp_path):
    experiment = read_file(mine)
    whole = train(experiment, tmp_path / "whole", quiet=True)

    for number, _ in enumerate(training(experiment, tmp_path / "left", quiet=True)):
        if number == 6:
            break
    mine.unlink()
    (mine.parent / "parts.py").unlink()
    resumed = resume(tmp_path / "left", quiet=True)

    assert_same_run(resumed, whole)
    started, learned = (
        dict(network.named_parameters()) for network in (experiment.network((2, 8, 8)), whole.network())
    )
    names = [name for name in learned if name.endswith(("learned.beta", "learned.a"))]
    assert len(names) == 2 and all((learned[name] != started[name]).any() for name in names)
    assert json_of(whole.path / "experiment.json")["code"] == Code.of(whole.experiment).hashes


def test_the_page_has_the_equation_of_each_kind_once(trained):
    section = sections.neurons(trained)

    titles = [formula.title for formula in section.formulas]
    assert titles == ["MyNeuron, layers 3, 4.0.2, 5.1.1, 7", "MyNeuron, layer 5.0.1", "Reader, layer 9"]
    lines = [row[0] for row in section.folded[0].rows]
    assert "w[t] = rho * w[t-1] + 0.5 * a * v[t-1] + b * s[t-1]" in lines
    assert "d_w[t] = rho * d_w[t+1] - d_v[t]" in lines
    assert section.formulas[0].parts[0][1][0][1].startswith("<math><mo>=</mo>")


@neuron(decays=("beta",))
def Several(v, s, x, *, beta=0.5):
    """Up to three spikes in a step."""
    v = beta * v + x - s
    return v, spike(v - 1) + spike(v - 2) + spike(v - 3)


@neuron(decays=("beta",))
def Sized(v, s, x, *, beta=0.5):
    """Spikes as large as the membrane."""
    v = beta * v * (1 - (s > 0)) + x
    return v, spike(v - 1) * v


@neuron(decays=("beta",))
def Mean(v, n, x, *, beta=0.5):
    """A readout with two states."""
    n = beta * n + x
    v = v + n
    return v, n, v


@neuron(decays=("beta",))
def Plain(v, s, x, *, beta=0.5):
    v = beta * v + x - detach(s)
    return v, spike(v - 1)


@neuron
def Runaway(v, s, x, *, c=3.0):
    v = (v + c) ** 4 + x
    return v, spike(v - 1)


def one_layer(neuron, *behind) -> tuple[Network, torch.Tensor]:
    network = Network((neuron, *behind), (5,), seed=0)
    return network, torch.linspace(0, 3.4, 6 * 4 * 5).reshape(6, 4, 5)


def test_several_spikes_of_a_step_are_counted_and_each_output_is_one_operation_a_weight(plain):
    network, x = one_layer(Several(), Dense(7, bias=False), LI(beta=0.5))
    spikes, operations = {}, {}

    count_activity(network, x, spikes, operations)

    out = network.layers[0](x)[0]
    assert out.max() == 3 and out.sum() > (out > 0).sum()
    assert spikes == {network.name((0,)): float(out.sum())}
    assert operations == {network.name((1,)): float((out > 0).sum()) * 7}


def test_a_spike_with_a_size_counts_once(plain):
    network, x = one_layer(Sized(), Dense(7, bias=False), LI(beta=0.5))
    spikes = {}

    count_activity(network, x, spikes, {})

    out = network.layers[0](x)[0]
    assert counts_spikes(Several()) and counts_spikes(LIF(beta=0.9)) and not counts_spikes(Sized())
    assert spikes == {network.name((0,)): float((out != 0).sum())} != {network.name((0,)): float(out.sum())}


def test_a_neuron_of_several_spikes_is_saturated_by_its_steps_not_its_spikes(plain):
    network, _ = one_layer(Several(beta=0.0))
    x = torch.zeros(4, 2, 5)
    x[::2] = 2.5  # two spikes in every other step; the spikes before are taken off in the others

    (row,) = layer_activity(network, x)

    assert row["rate"] == 1.0 and row["saturated"] == 0.0 and row["silent"] == 0.0


def test_losses_ask_for_what_own_neurons_give():
    spiking, graded, readout = (Network((Dense(3), each), (5,)) for each in (Plain(), Sized(), Mean()))

    for loss in (CountCrossEntropy(), MembraneCrossEntropy()):
        for network in (spiking, graded, readout):
            check_loss(loss, network)
    check_loss(FirstSpike(), spiking)
    check_loss(MaxCrossEntropy(), readout)
    check_loss(MaxCrossEntropy(), graded)
    with pytest.raises(SnnError, match=r"MaxCrossEntropy.*the last layer \(Plain\) gives spikes"):
        check_loss(MaxCrossEntropy(), spiking)
    with pytest.raises(SnnError, match=r"FirstSpike.*the last layer \(Mean\) does not"):
        check_loss(FirstSpike(), readout)
    with pytest.raises(SnnError, match=r"FirstSpike.*0 or 1, and the last layer \(Sized\) gives other values"):
        check_loss(FirstSpike(), graded)


def test_weights_in_front_of_own_neurons_are_scaled_as_in_front_of_lif(plain):
    x = torch.rand(9, 30, 20, generator=torch.Generator().manual_seed(1))
    own, known = (
        Network((Dense(40), kind, Dense(30), kind, Dense(4), LI(beta=0.9)), (20,), seed=3)
        for kind in (Plain(beta=0.8), LIF(beta=0.8))
    )

    start_alive(own, x)
    start_alive(known, x)

    for mine, theirs in zip(own.parameters(), known.parameters(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-7)


def test_a_neuron_that_leaves_all_bounds_by_itself_is_refused_by_name(plain):
    network = Network((Dense(4), Runaway(), Dense(2), LI(beta=0.5)), (3,))

    with pytest.raises(SnnError, match=r"start_alive: Runaway\(c=3.0\) does not stay finite"):
        start_alive(network, torch.rand(30, 2, 3))


REFUSED = {
    "within a function": ("def one():\n    @neuron\n    def N(v, s, x, *, b=1.0):\n        v = b * v + x\n        "
                          "return v, spike(v - 1)\n    return N()\nvalue = one()\n", "defined within a function"),
    "by a call": ("def step(v, s, x, *, b=1.0):\n    v = b * v + x\n    return v, spike(v - 1)\nN = neuron(step)\n"
                  "value = N()\n", "write @neuron above `def step`"),
    "twice": ("@neuron\ndef N(v, s, x, *, b=1.0):\n    return v + b * x, spike(v - 1)\nvalue = N()\n@neuron\n"
              "def N(v, s, x, *, b=1.0):\n    return v - b * x, spike(v - 1)\n", "another one of this name"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_neuron_that_a_copy_would_not_have_is_refused(case, tmp_path):
    text, told = REFUSED[case]
    file = tmp_path / "odd.py"
    head = "from snn_bp import *\nfrom snn_bp.neurons import neuron\nfrom snn_bp.equations.arithmetic import spike\n"
    tail = "experiment = Experiment(Data('digits'), (Flatten(), Dense(10), value))\n"
    file.write_text(head + text + tail)

    with pytest.raises(SnnError, match=told):
        to_json(read_file(file))


SMALL = '''"""A small experiment with a neuron of its own."""
from snn_bp import Data, Dense, Experiment, Flatten, Spiking, Train, main
from snn_bp import LI, BatchNorm, MembraneCrossEntropy
{source}

experiment = Experiment(
    Data("digits", step_ms=104, steps=3, downsample=2, batch=64),
    (Flatten(), Dense(12), BatchNorm(), Spiking(Lab(beta=0.8), learn=("beta",)), Dense(10), LI(beta=0.9)),
    Train(epochs=1, lr=5e-3, loss=MembraneCrossEntropy()),
)
if __name__ == "__main__":
    main(experiment)
'''
KIND = '''from snn_bp.equations.arithmetic import detach, spike
from snn_bp.neurons import neuron


@neuron(decays=("beta", "rho"))
def Lab(v, w, s, x, *, beta, rho=0.9, b=0.2):
    """LIF with an adaptation."""
    w = rho * w + b * s
    v = beta * v * (1 - detach(s)) + x - w
    return v, w, spike(v - 1)
'''
LOOKS = """
import json, sys
from snn_bp import Run, check_gradients, compare, diagnose, evaluate, predict, report, trace
run = Run(sys.argv[1])
network, dataset, loss = run.network(), run.dataset(), run.experiment.train_at_step().loss
x, targets = dataset.batch("validation", dataset.batches("validation")[0][:4])
seen = trace(network, x, targets, loss=loss)
found = {
    "same": evaluate(run).record() == run.results()["test"],
    "spikes": evaluate(run).spikes,
    "doctor": [str(each) for each in diagnose(run).findings],
    "layers": [layer.name for layer in seen.layers],
    "gradients": check_gradients(network, x, targets, loss=loss).ok,
    "page": report(run).read_text().count("<math>"),
    "groups": len(compare([run]).groups),
    "own": type(network.layers[3].neuron).__module__.startswith("snn_bp_code_"),
}
print(json.dumps(found))
"""


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """A process of Python; raises with what it said where it fails."""
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
@pytest.mark.parametrize("where", ["in the file", "in a file beside it"])
def test_a_program_trains_and_a_fresh_process_looks_at_the_run(where, tmp_path):
    source = KIND if where == "in the file" else "from kinds import Lab"
    (tmp_path / "small.py").write_text(SMALL.format(source=source))
    (tmp_path / "kinds.py").write_text(KIND)
    python("small.py", "--out", "run", "train.lr=4e-3", "model.3.neuron.b=0.3", cwd=tmp_path)
    (tmp_path / "small.py").unlink()
    (tmp_path / "kinds.py").unlink()

    found = json.loads(python("-c", LOOKS, "run", cwd=tmp_path).stdout.splitlines()[-1])

    file = "small.py" if where == "in the file" else "kinds.py"
    layer = json_of(tmp_path / "run/experiment.json")["model"][3]
    assert layer["neuron"] == {"is": f"{file}:Lab", "beta": 0.8, "rho": 0.9, "b": 0.3}
    assert found["same"] and found["gradients"] and found["own"] and found["groups"] == 1
    assert list(found["spikes"]) == [name for name in found["layers"] if "Lab" in name]
    assert found["page"] >= 18  # nine lines, left and right
    assert not [each for each in found["doctor"] if "gradient" in each]


@pytest.mark.slow
def test_cells_of_a_notebook_define_a_neuron():
    program = f"""
import sys
main = sys.modules["__main__"]
main.In = ["", "JUMP = 0.3", {KIND.replace("b=0.2", "b=JUMP")!r}]
for number, cell in enumerate(main.In):
    exec(compile(cell, f"<cell {{number}}>", "exec"), vars(main))
from snn_bp.runs.experiment import to_json
from snn_bp.runs.own_code import Code
print(to_json(Lab(beta=0.5)), sorted(Code.of((Lab(beta=0.5),)).hashes))
"""

    done = python("-c", program, cwd=Path.cwd())

    assert done.stdout.strip() == (
        "{'is': 'notebook.py:Lab', 'beta': 0.5, 'rho': 0.9, 'b': 0.3} "
        "['notebook.py:JUMP', 'notebook.py:Lab', 'notebook.py:detach, spike', 'notebook.py:neuron']"
    )


@pytest.mark.slow
def test_a_neuron_typed_at_a_prompt_runs_and_is_refused_by_name_in_a_run():
    program = f"{KIND}\nimport torch\nfrom snn_bp import simulate\nfrom snn_bp.runs.own_code import Code\n"
    program += "print(simulate(Lab(beta=0.5), torch.ones(3, 1, 1))[0].shape)\nCode.of((Lab(beta=0.5),))\n"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert "[3, 1, 1]" in done.stdout and "typed at a prompt" in done.stderr


def test_a_run_predicts_with_its_own_neurons(trained, plain):
    draw, recordings = np.random.default_rng(0), []
    for _ in range(3):
        events = np.zeros(300, [("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "u1")])
        events["t"] = np.sort(draw.integers(0, 300_000, 300))
        events["x"], events["y"], events["p"] = draw.integers(0, 34, 300), draw.integers(0, 34, 300), 1
        recordings.append(events)

    said = predict(trained, recordings)

    assert said.scores.shape == (3, 10) and torch.isfinite(said.scores).all()
    assert predict(trained, recordings[1:2]).scores.allclose(said.scores[1:2], rtol=1e-5)
