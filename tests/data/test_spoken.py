"""Files of SHD's schema: every usual writing of the same recordings is read, another layout is named."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from snn_bp.data import Data, load
from snn_bp.errors import SnnError


def spoken(root: Path, *, leave_out: str = "", **changes):
    content = {
        "spikes/times": np.array([[0.1, 0.2, 0.7]] * 4, "f4"), "spikes/units": np.array([[1, 5, 9]] * 4, "u2"),
        "labels": np.arange(4) % 2, "extra/keys": [b"no", b"yes"], "extra/speaker": np.zeros(4, "u2"),
    } | {key.replace("__", "/"): value for key, value in changes.items()}  # fmt: skip
    (root / "SHD").mkdir(parents=True)
    for name in ("shd_train.h5", "shd_test.h5"):
        with h5py.File(root / "SHD" / name, "w") as file:
            for key, value in content.items():
                if key != leave_out:
                    file[key] = value
    return load(Data("shd", step_ms=100, steps=10, validation_fraction=0, root=str(root)), quiet=True)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"leave_out": "extra/speaker"},
        {"labels": np.arange(4)[:, None] % 2},
        {"labels": np.arange(4)[None] % 2},
        {"labels": np.array([0.0, 1.0, 0.0, 1.0])},
        {"extra__keys": np.array([[b"no"], [b"yes"]])},
        {"spikes__units": np.array([[1.0, 5.0, 9.0]] * 4)},
        {"spikes__times": np.array([[0.1, 0.2, 0.7]] * 4, "f8")},
    ],
    ids=["usual", "no speakers", "a column", "a row", "floats", "names in a column", "float units", "double"],
)
def test_every_usual_writing_gives_the_same_recordings(cache, tmp_path, changes):
    dataset = spoken(tmp_path, **changes)

    x, labels = dataset.batch("train", range(4))

    assert labels.tolist() == [0, 1, 0, 1] and dataset.class_names == ("no", "yes") and x.shape == (10, 4, 10)
    assert x.sum(1).nonzero().tolist() == [[1, 1], [2, 5], [7, 9]]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"leave_out": "labels"}, "labels is missing. Found: extra, extra/keys"),
        ({"leave_out": "spikes/units"}, "spikes/units is missing"),
        ({"leave_out": "extra/keys"}, "extra/keys is missing"),
        ({"labels": np.zeros((4, 2), int)}, r"labels should be one number a recording, found an array \[4, 2\]"),
        ({"labels": np.array([0, 1, np.nan, 0])}, "labels should be integers, found nan"),
        ({"labels": np.array([0, 1, 0.5, 0])}, r"labels should be integers, found 0\.5"),
        ({"labels": [b"no", b"yes", b"no", b"yes"]}, "labels should be integers, found the type"),
        ({"labels": np.array([0, 1, 2, 0])}, r"row 2: a label lies in 0\.\.1, found 2"),
        ({"labels": np.arange(3) % 2}, "should be as many, found 4, 4 and 3"),
        ({"extra__keys": np.zeros(0, "S3")}, "extra/keys should be the name of each class, found none"),
        ({"spikes__units": np.array([[1, 5, 70_000]] * 4, "i4")}, r"row 0: x lies in 0\.\.65535, found 1\.\.70000"),
        ({"spikes__units": np.array([[1, 5, -1]] * 4, "i2")}, r"row 0: x lies in 0\.\.65535, found -1\.\.5"),
        ({"spikes__times": np.array([[100, 200, 700]] * 4)}, "row 0: spikes/times should be seconds as floats"),
        ({"spikes__times": np.array([[0.1, 0.2, 5000.0]] * 4)}, "row 0: t reaches 83.3 minutes"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)  # fmt: skip
def test_another_layout_is_refused_by_file_and_field(cache, tmp_path, changes, found):
    with pytest.raises(SnnError, match=rf"shd_train\.h5.*{found}") as error:
        spoken(tmp_path, **changes)

    assert "damaged; copy" not in str(error.value)


def test_half_precision_as_the_heidelberg_files_have_it_is_read(cache, tmp_path):
    dataset = spoken(tmp_path, spikes__times=np.full((4, 3), 0.25, "f2"), extra__keys=[b"x", b"x"])

    assert dataset.parts["train"].events.t.tolist() == [250_000] * 12
    assert dataset.batch("train", range(4))[0].sum() == 12
