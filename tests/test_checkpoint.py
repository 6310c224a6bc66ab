"""A checkpoint gives back what went in, or is refused in one line; nothing in it is ever unpickled."""

import json
import os
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import runs
import torch
from runs import assert_same_run, damage, few, loading, same_weights, tiny, training
from safetensors import safe_open
from safetensors.torch import save_file

from snn_bp import ALIF, CubaLIF, Data, Dense, Experiment, Network, Recurrent, Run, SnnError, Spiking, Train
from snn_bp.files import json_sha256
from snn_bp.runs.checkpoint import CONTENT, Checkpoint, checkpoint_bytes, read_checkpoint, text_digest
from snn_bp.runs.experiment import to_json

few_digits, finished = runs.few_digits, runs.finished

MODEL = (
    Dense(4),
    Spiking(ALIF(beta=0.8, rho=0.9, kappa=0.3), learn=("beta", "kappa", "threshold")),
    Dense(5),
    Recurrent(CubaLIF(alpha=0.5, beta=0.7)),
)
HOW = {
    "adam": Train(optimizer="adam"),
    "adamw": Train(optimizer="adamw"),
    "sgd with momentum": Train(optimizer="sgd", momentum=0.9, nesterov=True),
    "sgd without momentum": Train(optimizer="sgd", momentum=0),
}
EXPERIMENT = Experiment(Data("digits"), MODEL, HOW["adamw"])


def trained(how: Train, noise: Any) -> tuple[Network, torch.optim.Optimizer, Checkpoint]:
    """A network after two steps of the optimizer, and its checkpoint."""
    network = Network(MODEL, (3,))
    optimizer = training.make_optimizer(network, how)
    for seed in range(2):
        training.train_step(network, optimizer, noise(5, 4, 3, seed=seed, scale=3), torch.arange(4), how)
    sums, metrics = training.Tally(loss=0.1, correct=3, samples=4, seconds=0.3).record(), [{"epoch": 1, "lr": 1 / 3}]
    position = {"epoch": 1, "batch": 2, "sums": sums, "metrics": metrics, "seconds": 0.1, "tables": {"a": [3, "b"]}}
    return network, optimizer, Checkpoint(network.state_dict(), optimizer.state_dict(), **position)


def identity(experiment: Experiment) -> str:
    """What `experiment.json` of such a run is known by."""
    return json_sha256(to_json(experiment))


@pytest.fixture
def good(noise, tmp_path) -> Path:
    """A good checkpoint file of `EXPERIMENT`."""
    file = tmp_path / "good.safetensors"
    file.write_bytes(checkpoint_bytes(trained(EXPERIMENT.train, noise)[2], identity(EXPERIMENT)))
    return file


def read(file: Path, experiment: Experiment = EXPERIMENT) -> Checkpoint:
    """`read_checkpoint`, with every way to unpickle closed."""

    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("something was unpickled")

    with pytest.MonkeyPatch.context() as patch:
        for place in ("pickle.load", "pickle.loads", "pickle.Unpickler", "pickle._Unpickler", "torch.load"):
            patch.setattr(place, refuse)
        return read_checkpoint(file, identity(experiment))


def assert_refused(file: Path, *, told: str = "") -> None:
    """Raise unless the file is refused in one line that names it."""
    with pytest.raises(SnnError) as refusal:
        read(file)
    assert str(file) in str(refusal.value) and told in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_a_checkpoint_returns_as_it_was(how, noise, tmp_path):
    experiment = Experiment(Data("digits"), MODEL, how)
    network, optimizer, checkpoint = trained(how, noise)
    (tmp_path / "file").write_bytes(checkpoint_bytes(checkpoint, identity(experiment)))

    again = read(tmp_path / "file", experiment)

    assert same_weights(again.weights, network.state_dict())
    groups = json.loads(json.dumps(optimizer.state_dict()["param_groups"]))  # Adam's betas become a list
    assert again.optimizer["param_groups"] == groups
    state = optimizer.state_dict()["state"]
    assert again.optimizer["state"].keys() == state.keys()
    for index, entries in state.items():
        entry = again.optimizer["state"][index]
        assert entry.keys() == entries.keys()
        for name, value in entries.items():
            assert torch.equal(entry[name], value) if isinstance(value, torch.Tensor) else entry[name] == value
    for part in ("epoch", "batch", "sums", "metrics", "seconds", "tables"):
        assert getattr(again, part) == getattr(checkpoint, part)


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_an_optimizer_from_a_checkpoint_makes_the_same_next_step(how, noise, tmp_path):
    experiment = Experiment(Data("digits"), MODEL, how)
    network, optimizer, checkpoint = trained(how, noise)
    (tmp_path / "file").write_bytes(checkpoint_bytes(checkpoint, identity(experiment)))
    again = read(tmp_path / "file", experiment)
    other = Network(MODEL, (3,), seed=1)
    other.load_state_dict(again.weights)
    other_optimizer = training.make_optimizer(other, how)
    other_optimizer.load_state_dict(again.optimizer)

    x, targets = noise(5, 4, 3, seed=7, scale=3), torch.arange(4)
    for pair in ((network, optimizer), (other, other_optimizer)):
        training.train_step(*pair, x, targets, how)

    assert same_weights(network.state_dict(), other.state_dict())


def test_a_truncated_checkpoint_is_refused_wherever_it_ends(good):
    content = good.read_bytes()

    for length in (0, 1, 7, 8, 9, 100, len(content) // 3, len(content) // 2, len(content) - 100, len(content) - 1):
        good.write_bytes(content[:length])
        assert_refused(good)
    good.write_bytes(content + b"\0")
    assert_refused(good)


def test_no_changed_byte_goes_unseen(good):
    content, draw = good.read_bytes(), random.Random(0)
    header = 8 + int.from_bytes(content[:8], "little")
    places = [*range(8), *draw.sample(range(8, header), 150), *draw.sample(range(header, len(content)), 50)]
    before = read(good)

    for place in places:
        changed = bytearray(content)
        changed[place] ^= draw.randrange(1, 256)
        good.write_bytes(bytes(changed))
        try:
            after = read(good)
        except SnnError as refusal:
            assert "\n" not in str(refusal)
            continue
        assert content[place : place + 1] == b" ", place  # only padding may differ
        assert same_weights(after.weights, before.weights) and after.metrics == before.metrics


def test_what_is_no_checkpoint_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "victim",))

    file = tmp_path / "file"
    save_file({"weights/x": torch.zeros(3)}, file)
    assert_refused(file, told="header is missing")
    save_file({"weights/x": torch.zeros(3)}, file, metadata={"format": "pt"})
    assert_refused(file, told="header is missing")
    for content in (b"", b"x", b"\x80\x04.", b"{}", pickle.dumps(Bomb()), bytes(1000), b"\xff" * 1000):
        file.write_bytes(content)
        assert_refused(file, told="truncated or damaged")
    torch.save({"bomb": Bomb()}, file)
    assert_refused(file, told="truncated or damaged")
    assert not (tmp_path / "victim").exists()
    assert_refused(tmp_path / "missing", told="no such checkpoint")
    assert_refused(tmp_path)


def test_a_checkpoint_of_another_experiment_is_refused(good):
    other = Experiment(EXPERIMENT.data, EXPERIMENT.model, EXPERIMENT.train, seed=1)

    with pytest.raises(SnnError, match="another experiment"):
        read(good, other)


def forge(file: Path, header: str, *, extra: dict[str, torch.Tensor] | None = None) -> None:
    """Give the file another header, its checksum made to fit."""
    with safe_open(file, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    save_file(tensors | (extra or {}), file, metadata={"snn_bp": header, "sha256": text_digest(header)})


def header_of(file: Path) -> dict[str, Any]:
    """The JSON in the header."""
    with safe_open(file, framework="pt") as opened:
        return json.loads(opened.metadata()["snn_bp"])


@pytest.mark.parametrize("header", ["", "x", "[]", "3", "null", '"x"', "{}", "[" * 100_000, '{"format": 1}', "\x00"])
def test_a_hostile_header_is_refused(header, good):
    forge(good, header)

    assert_refused(good)


@pytest.mark.parametrize("name", CONTENT)
def test_a_header_with_a_part_missing_or_of_another_type_is_refused(name, good):
    header = header_of(good)

    for value in (None, "x", {"x": 1}, [1], 1.5):
        if not isinstance(value, CONTENT[name]) or name in ("experiment", "tensors"):
            forge(good, json.dumps(header | {name: value}))
            assert_refused(good)
    del header[name]
    forge(good, json.dumps(header))
    assert_refused(good)


def test_another_format_is_named(good):
    forge(good, json.dumps({"format": 99}))

    assert_refused(good, told="format 99")


def test_a_header_without_its_checksum_is_refused(good):
    with safe_open(good, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        metadata = opened.metadata()
    save_file(tensors, good, metadata={"snn_bp": metadata["snn_bp"]})

    assert_refused(good, told="checksum")


def test_the_same_bytes_as_another_type_are_refused(good):
    name = "weights/layers.0.weight"
    with safe_open(good, framework="pt") as opened:
        other = opened.get_tensor(name).view(torch.int32)

    forge(good, json.dumps(header_of(good)), extra={name: other})

    assert_refused(good, told="damaged")


@pytest.mark.parametrize("name", ["foreign", "optimizer/x/step", "optimizer/0"])
def test_tensors_that_do_not_belong_are_refused(name, good):
    forge(good, json.dumps(header_of(good)), extra={name: torch.zeros(2)})

    assert_refused(good, told="damaged")


# Within a run


@pytest.fixture
def halfway(tmp_path, monkeypatch) -> Run:
    """A run that broke off in its second epoch, with two good checkpoints."""
    steps = 0

    def step(*arguments: Any) -> Any:
        nonlocal steps
        if (steps := steps + 1) > 7:
            raise InterruptedError
        return real(*arguments)

    real = training.train_step
    with loading(few), monkeypatch.context() as patch:
        patch.setattr(training, "train_step", step)
        with pytest.raises(InterruptedError):
            training.train(tiny(), tmp_path / "halfway", quiet=True, save_seconds=0)
    return Run(tmp_path / "halfway")


@pytest.mark.usefixtures("few_digits")
def test_where_the_last_checkpoint_is_damaged_the_previous_is_used_and_said(halfway, finished, capsys):
    damage(halfway.path / "checkpoints" / "last.safetensors")

    resumed = training.resume(halfway.path)

    printed = capsys.readouterr().out
    assert "last.safetensors: the checkpoint is damaged" in printed and "The one before it is used." in printed
    assert "resumed at epoch 2, batch 2" in printed  # last stood behind batch 2
    assert "The one before it is used." in (resumed.path / "log.txt").read_text()
    assert same_weights(resumed.load("last").weights, finished.load("last").weights)


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("how", ("damaged", "missing", "folder missing", "of another experiment", "a pipe", "a folder"))
def test_where_no_checkpoint_serves_nothing_starts_over_unless_it_is_asked_for(how, halfway, finished):
    folder = halfway.path / "checkpoints"
    for name in ("last", "previous", "best"):
        file = folder / f"{name}.safetensors"
        if how == "damaged":
            file.write_bytes(file.read_bytes()[:-1])
        elif how != "of another experiment":
            file.unlink()
        if how == "a pipe":
            os.mkfifo(file)
        if how == "a folder":
            file.mkdir()
    if how == "folder missing":
        folder.rmdir()
    if how == "of another experiment":
        experiment = json.loads((halfway.path / "experiment.json").read_text())
        experiment["train"]["epochs"] = 3
        (halfway.path / "experiment.json").write_text(json.dumps(experiment))
    before = sorted((file, file.read_bytes()) for file in halfway.path.rglob("*") if file.is_file())

    with pytest.raises(SnnError, match=r"Nothing was changed.*--restart") as refusal:
        training.resume(halfway.path, quiet=True)

    assert "\n" not in str(refusal.value)
    assert sorted((file, file.read_bytes()) for file in halfway.path.rglob("*") if file.is_file()) == before
    again = training.resume(halfway.path, quiet=True, restart=True)
    if how != "of another experiment":
        assert_same_run(again, finished)
    assert (again.path / "before-1" / "metrics.csv").is_file()


def test_a_new_start_keeps_the_weights_of_before(halfway, finished):
    before = (halfway.path / "checkpoints" / "last.safetensors").read_bytes()

    with loading(few):
        again = training.resume(halfway.path, quiet=True, restart=True)

    assert (again.path / "before-1" / "checkpoints" / "last.safetensors").read_bytes() == before
    assert_same_run(again, finished)


def first_format(run: Run, name: str) -> None:
    """Write a checkpoint anew as the first format had it: every row within, nothing of files of rows."""
    file = run.path / "checkpoints" / f"{name}.safetensors"
    header = header_of(file)
    epochs = range(header["epoch"])
    whole = [{key: int(value) if key == "epoch" else value for key, value in row.items()} for row in run.metrics()]
    header["metrics"] = whole[: len(epochs)]
    header["layers"] = [row for row in run.layers() if row["epoch"] <= len(epochs)]
    for name in ("seconds", "tables", "version"):
        del header[name]
    forge(file, json.dumps(header | {"format": 1}))


@pytest.mark.usefixtures("few_digits")
def test_a_run_of_the_first_format_goes_on(halfway, finished):
    for name in ("last", "previous"):
        first_format(halfway, name)
    for name in ("metrics.csv", "layers.jsonl"):  # the first format wrote them behind the checkpoint
        (halfway.path / name).unlink()

    assert_same_run(training.resume(halfway.path, quiet=True), finished)


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("missing", ("best", "best and previous"))
def test_a_best_checkpoint_that_is_lost_is_made_anew_from_the_same_epoch(missing, finished, tmp_path, capsys):
    run = Run(shutil.copytree(finished.path, tmp_path / "run"))
    best = run.load("best")
    assert best.epoch == 2
    damage(run.path / "checkpoints" / "best.safetensors")
    if missing != "best":
        (run.path / "checkpoints" / "previous.safetensors").unlink()

    training.resume(run.path)

    assert same_weights(run.load("best").weights, best.weights) and run.load("best").epoch == 2
    assert "made anew from 'last'" in capsys.readouterr().out


@pytest.mark.usefixtures("few_digits")
def test_a_best_checkpoint_that_stands_nowhere_else_is_replaced_by_the_last_and_the_results_say_so(
    halfway, monkeypatch
):  # fmt: skip
    monkeypatch.setattr(training, "is_best", lambda rows, *rest: len(rows) == 1)  # the first epoch stays the best
    (halfway.path / "checkpoints" / "best.safetensors").unlink()

    run = training.resume(halfway.path, quiet=True)

    results = run.results()
    assert results is not None and results["best_epoch"] == 2
    assert "no such checkpoint. Evaluated: the last epoch" in results["notes"][-1]
    assert same_weights(run.load("best").weights, run.load("last").weights)


def test_a_checkpoint_costs_the_same_however_many_rows_there_are(finished, tmp_path):
    run = Run(shutil.copytree(finished.path, tmp_path / "run"))
    (run.path / "results.json").unlink()
    checkpoint = run.load("last")
    run.cut_tables(checkpoint)
    for epoch in range(3, 300):
        run.add_rows({"epoch": epoch, "train_loss": 0.1}, [{"epoch": epoch, "layer": "layer 1", "rate": 0.1}])
    checkpoint.tables = run.marks()

    run.save(checkpoint)

    sizes = [(run.path / "checkpoints" / f"{name}.safetensors").stat().st_size for name in ("previous", "last")]
    assert abs(sizes[1] - sizes[0]) < 100 and len(run.metrics()) == 299


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("name", ("metrics.csv", "layers.jsonl"))
def test_rows_that_were_altered_or_taken_away_stop_a_run_and_what_stands_behind_the_checkpoint_goes(
    name, halfway, finished
):  # fmt: skip
    whole = (halfway.path / name).read_bytes()
    for changed in (whole[:-3], whole.replace(b"1", b"2", 1), None):
        (halfway.path / name).unlink()
        if changed is not None:
            (halfway.path / name).write_bytes(changed)
        with pytest.raises(SnnError, match=f"{name}.*--restart"):
            training.resume(halfway.path, quiet=True)
    (halfway.path / name).write_bytes(whole + b"2,0.5,half a ro")

    assert_same_run(training.resume(halfway.path, quiet=True), finished)


def test_a_write_cut_short_leaves_the_checkpoint_before(halfway):
    folder = halfway.path / "checkpoints"
    before = halfway.load("last")
    (folder / "last.safetensors.writing").write_bytes((folder / "last.safetensors").read_bytes()[:500])

    checkpoint, problems = halfway.latest()

    assert checkpoint is not None and same_weights(checkpoint.weights, before.weights) and not problems


def test_between_two_renames_the_previous_checkpoint_is_found(halfway):
    (halfway.path / "checkpoints" / "last.safetensors").unlink()  # killed after `last` became `previous`

    checkpoint, problems = halfway.latest()

    assert checkpoint is not None and (checkpoint.epoch, checkpoint.batch) == (1, 1) and not problems


def test_another_checkpoint_in_the_place_of_the_best_is_refused_and_made_good(finished, tmp_path):
    run = Run(shutil.copytree(finished.path, tmp_path / "run"))
    weights = run.load("best").weights
    folder = run.path / "checkpoints"
    shutil.copy(folder / "previous.safetensors", folder / "best.safetensors")

    with pytest.raises(SnnError, match="another checkpoint"):
        run.network("best")
    resumed = training.resume(run.path, quiet=True)

    assert same_weights(resumed.load("best").weights, weights)


def test_rows_missing_from_a_finished_run_are_missed(finished, tmp_path):
    run = Run(shutil.copytree(finished.path, tmp_path / "run"))
    (run.path / "layers.jsonl").unlink()

    with pytest.raises(SnnError, match=r"layers\.jsonl: it is missing"):
        run.layers()
