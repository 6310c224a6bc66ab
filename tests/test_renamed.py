"""Experiments that an older version wrote are read; in a user's own text an old name is told today's."""

import importlib
import json
from dataclasses import replace

import pytest
import runs
from runs import DIGITS, assert_same_run, tiny, training

from snn_bp import LIF, Data, Delay, Dense, Dropout, Experiment, Flatten, SnnError, Train
from snn_bp.errors.renamed import RENAMED
from snn_bp.files import json_sha256
from snn_bp.runs.changes import override
from snn_bp.runs.experiment import CONSTRUCTORS, from_json, from_json_text, to_json
from snn_bp.runs.experiment_file import read_file
from snn_bp.runs.records import shape_of

few_digits = runs.few_digits

# the experiment.json and the encoding in data.json of a run of 0.1.0 at e28446b
EXPERIMENT = """
{"is": "Experiment",
 "data": {"is": "Data", "name": "digits", "step_ms": 104, "steps": 3, "batch": 64, "root": null, "downsample": 2,
          "binary": false, "shift": 1, "turn": 5.0, "validation": 0.2, "split_seed": 0, "transforms": []},
 "model": [{"is": "Dropout", "share": 0.2}, {"is": "Delay", "steps": 1, "learn": false, "most": 30},
           {"is": "Dense", "units": 10, "bias": true},
           {"is": "LIF", "beta": 0.8, "threshold": 1.0, "reset": "zero", "detach_reset": true}],
 "train": {"is": "Train", "epochs": 4, "target": "loihi", "settle": 0.5},
 "seed": 3}
"""
ENCODING = """
{"encoding": {"format": 1, "step_us": 104000, "steps": 3, "shape": [2, 17, 17], "downsample": 2, "binary": false,
  "shift": 1, "turn": 5.0, "transforms": [],
  "sha256": "893a29114f40c1c67972bb1afcc2eed717a1441653f2ea16639fa5f2da406046"}}
"""
TODAY = Experiment(
    data=Data(
        "digits", step_ms=104, steps=3, batch=64, downsample=2, translate_px=1, rotate_deg=5.0, validation_fraction=0.2
    ),
    model=(Dropout(p=0.2), Delay(1, max_steps=30), Dense(10), LIF(beta=0.8, reset="zero")),
    train=Train(epochs=4, target="loihi", freeze_norm=0.5),
    seed=3,
)
OLD = [(kind, old, new) for kind, names in RENAMED.items() for old, new in names.items()]


def test_an_experiment_of_an_older_version_is_read_as_it_was():
    assert from_json_text(EXPERIMENT) == TODAY
    assert from_json(to_json(TODAY)) == TODAY


def test_the_shape_in_an_older_data_json_is_read(tmp_path):
    (tmp_path / "data.json").write_text(ENCODING)

    assert shape_of(tmp_path / "data.json") == (2, 17, 17)


def with_old_names(content):
    """What an older version wrote for the same experiment."""
    if isinstance(content, list):
        return [with_old_names(item) for item in content]
    if not isinstance(content, dict):
        return content
    old = {new: name for name, new in RENAMED.get(content.get("is"), {}).items()}
    return {old.get(name, name): with_old_names(value) for name, value in content.items()}


@pytest.mark.usefixtures("few_digits")
def test_a_run_whose_folder_has_old_names_resumes_to_the_same_weights(tmp_path, monkeypatch):
    def stop(rows, metric):
        raise InterruptedError

    experiment = replace(
        tiny(data=replace(DIGITS, translate_px=1, validation_fraction=0.2)),
        model=(Dropout(0.2), Flatten(), Dense(10), LIF(beta=0.7)),
    )
    whole = training.train(experiment, tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        folder = importlib.import_module("snn_bp.runs.folder")
        patch.setattr(folder, "content_of", lambda e: (with_old_names(to_json(e)), None))
        patch.setattr(training, "is_best", stop)
        with pytest.raises(InterruptedError):
            training.train(experiment, tmp_path / "stopped", quiet=True, save_seconds=0)
    text = (tmp_path / "stopped" / "experiment.json").read_text()

    run = training.resume(tmp_path / "stopped", quiet=True)

    assert all(f'"{name}"' in text for name in ("validation", "shift", "turn", "share", "settle"))
    assert_same_run(run, whole)


@pytest.mark.parametrize(("kind", "old", "new"), OLD)
def test_a_new_name_is_a_field_and_the_old_one_is_none(kind, old, new):
    names = CONSTRUCTORS[kind].__dataclass_fields__

    assert new in names and old not in names


@pytest.mark.parametrize(
    ("change", "new"),
    [
        ("data.validation=0.1", "validation_fraction"),
        ("data.shift=2", "translate_px"),
        ("data.turn=2", "rotate_deg"),
        ("train.settle=0.1", "freeze_norm"),
        ("model.0.share=0.1", "p"),
        ("model.0=Dropout(share=0.1)", "p"),
    ],
)
def test_an_override_by_an_old_name_is_told_the_new_one(change, new):
    with pytest.raises(SnnError, match=f"It is called '{new}' now"):
        override(TODAY, [change])


def test_an_experiment_file_with_an_old_name_is_told_the_new_one(tmp_path):
    (tmp_path / "mine.py").write_text("from snn_bp import Dropout\nDropout(share=0.1)\n")

    with pytest.raises(SnnError, match=r"'share'\. It is called 'p' now\. .*line 2"):
        read_file(tmp_path / "mine.py")


def test_a_field_under_both_names_is_refused():
    with pytest.raises(SnnError, match=r"model\.0: Dropout: it has 'share' and 'p', which are one"):
        from_json({"is": "Experiment", "model": [{"is": "Dropout", "share": 0.1, "p": 0.2}]})


def test_the_identity_of_a_run_is_that_of_its_file():
    assert json_sha256(json.loads(EXPERIMENT)) != json_sha256(to_json(TODAY))  # so a checkpoint asks for the file's
