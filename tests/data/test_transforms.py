"""tonic's transforms: the cache stays as it is, batches stay pure, and JSON brings them back."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from snn_bp.data import Data, load, transform_from_json, transform_to_json
from snn_bp.errors import SnnError

tonic_transforms = pytest.importorskip("tonic.transforms")
SENSOR = (34, 34, 2)

TRANSFORMS = [
    tonic_transforms.Denoise(filter_time=10_000),
    tonic_transforms.CropTime(min=1000, max=20_000),
    tonic_transforms.TimeJitter(std=50.5, sort_timestamps=True),
    tonic_transforms.DropEvent(p=(0.1, 0.3)),
    tonic_transforms.Downsample(spatial_factor=0.5),
    tonic_transforms.ToFrame(sensor_size=SENSOR, n_time_bins=31),
    tonic_transforms.Compose([tonic_transforms.MergePolarities(), tonic_transforms.RefractoryPeriod(delta=500)]),
]


def load_digits(*transforms, **changes):
    return load(Data("digits", transforms=transforms, **changes), quiet=True)


def overwrite(events):
    for field in events.dtype.names:
        events[field] = 0
    return events


def test_the_identity_changes_nothing(digits):
    plain, _ = digits.batch("train", [4, 2])

    assert torch.equal(load_digits(lambda events: events).batch("train", [4, 2])[0], plain)


def test_a_transform_that_overwrites_its_events_leaves_the_cache_alone(digits):
    before, _ = digits.batch("train", [4])

    overwritten, _ = load_digits(overwrite).batch("train", [4])

    assert overwritten[0, 0, 0, 0, 0] == before.sum()
    assert torch.equal(digits.batch("train", [4])[0], before)


def test_other_types_of_fields_do(digits):
    def to_floats(events):
        floats = np.empty(len(events), dtype=[(field, np.float32) for field in "ptyx"])
        for field in "ptyx":
            floats[field] = events[field][::-1]
        return floats

    assert torch.equal(load_digits(to_floats).batch("test", [1, 7])[0], digits.batch("test", [1, 7])[0])


def test_events_moved_off_the_sensor_or_out_of_time_are_dropped(digits):
    def move(events):
        events["x"] -= 3
        events["t"] += 300_000
        return events

    counts = load_digits(move).batch("train", [0])[0]

    events = digits.parts["train"].events
    first = slice(0, events.offsets[1])
    assert counts.sum() == ((events.x[first] >= 3) & (events.t[first] < 10_000)).sum()


def test_a_transform_that_remembers_meets_each_recording_afresh():
    crop = tonic_transforms.CropTime()  # sets its end by the first recording it meets

    dataset = load_digits(crop)
    together, _ = dataset.batch("train", [0, 1, 2])
    alone, _ = dataset.batch("train", [2])

    assert crop.max is None
    assert torch.equal(together[:, 2], alone[:, 0])


def test_random_transforms_depend_on_id_and_seed_alone():
    dataset = load_digits(tonic_transforms.DropEvent(p=0.5))
    before = np.random.get_state()[1].copy()

    together, alone = dataset.batch("train", [0, 7], seed=1)[0], dataset.batch("train", [7], seed=1)[0]
    other, unseeded = dataset.batch("train", [7], seed=2)[0], dataset.batch("train", [7])[0]

    assert torch.equal(together[:, 1], alone[:, 0]) and not torch.equal(other, alone)
    assert torch.equal(unseeded, dataset.batch("train", [7])[0])
    assert np.array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        (tonic_transforms.MergePolarities(), (1, 34, 34)),
        (tonic_transforms.CenterCrop(sensor_size=SENSOR, size=20), (2, 20, 20)),
        (tonic_transforms.RandomCrop(sensor_size=SENSOR, target_size=(20, 10)), (2, 10, 20)),
        (tonic_transforms.Downsample(spatial_factor=0.5), (2, 17, 17)),
        (tonic_transforms.Downsample(sensor_size=SENSOR, target_size=(17, 8)), (2, 8, 17)),
        (tonic_transforms.Compose([tonic_transforms.MergePolarities()]), (1, 34, 34)),
        (tonic_transforms.ToFrame(sensor_size=SENSOR, n_time_bins=31), (2, 34, 34)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_shapes_follow_what_transforms_do_to_the_sensor(transform, shape):
    dataset = load_digits(transform)

    x, _ = dataset.batch("train", [0, 1])

    assert dataset.shape == shape and x.shape == (31, 2, *shape) and x.dtype == torch.float32
    assert x.sum() > 0


def test_halving_by_tonic_or_by_us_is_the_same(digits):
    theirs = load_digits(tonic_transforms.Downsample(spatial_factor=0.5))
    fine = digits.batch("test", [3])[0]

    assert torch.equal(theirs.batch("test", [3])[0], fine.reshape(31, 1, 2, 17, 2, 17, 2).sum(dim=(4, 6)))


def test_frames_equal_tonics(recorded):
    frame = tonic_transforms.ToFrame(sensor_size=SENSOR, time_window=10_000, start_time=0, end_time=310_000)
    plain = load(Data("nmnist", root=str(recorded)), quiet=True)
    theirs = load(Data("nmnist", root=str(recorded), transforms=(frame,)), quiet=True)
    ids = np.arange(0, 340, 17)

    assert torch.equal(plain.batch("train", ids)[0], theirs.batch("train", ids)[0])


def test_frames_of_channels_equal_tonics(recorded):
    frame = tonic_transforms.ToFrame(sensor_size=(140, 1, 1), time_window=10_000, start_time=0, end_time=1_000_000)
    plain = load(Data("shd", root=str(recorded / "fsdd")), quiet=True)
    theirs = load(Data("shd", root=str(recorded / "fsdd"), transforms=(frame,)), quiet=True)

    assert theirs.shape == (1, 140)
    assert torch.equal(plain.batch("test", [0, 8])[0], theirs.batch("test", [0, 8])[0][:, :, 0])


@pytest.mark.parametrize(
    "changes", [{"translate_px": 1}, {"binary": True}, {"downsample": 2}], ids=lambda changes: next(iter(changes))
)
def test_what_acts_on_events_is_refused_for_frames(changes):
    with pytest.raises(SnnError, match="makes frames"):
        load_digits(tonic_transforms.ToFrame(sensor_size=SENSOR, n_time_bins=31), **changes)


def test_another_number_of_frames_is_refused_with_the_one_found():
    with pytest.raises(SnnError, match=r"steps=12.*n_time_bins=31"):
        load_digits(tonic_transforms.ToFrame(sensor_size=SENSOR, n_time_bins=12))


def test_what_is_neither_events_nor_frames_is_refused():
    with pytest.raises(SnnError, match="ToFrame"):
        load_digits(lambda events: list(events))


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
def test_transforms_come_back_from_json(transform):
    described = json.loads(json.dumps(transform_to_json(transform)))

    again = transform_from_json(described)

    assert type(again) is type(transform) and transform_to_json(again) == described


def test_what_json_cannot_hold_is_refused():
    for transform in (overwrite, lambda events: events, tonic_transforms.NumpyAsType(dtype=np.dtype("f4"))):
        with pytest.raises(SnnError, match=r"tonic\.transforms|JSON"):
            transform_to_json(transform)


def test_an_unknown_transform_in_json_names_the_nearest():
    with pytest.raises(SnnError, match="'Denoise'"):
        transform_from_json({"name": "Denois", "filter_time": 3})


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("p", -1, "p of an event became -1"),
        ("p", 2, r"p of an event became 2.*0\.\.1"),
        ("x", np.nan, "x of an event became nan"),
        ("t", np.inf, "t of an event became inf"),
    ],
)
def test_what_no_event_can_become_is_refused(digits, field, value, found):
    def spoil(events):
        wide = events.astype([(name, float) for name in events.dtype.names])
        wide[field][1] = value
        return wide

    with pytest.raises(SnnError, match=f"transforms: {found}"):
        replace(digits, data=replace(digits.data, transforms=(spoil,))).batch("train", [0])


def test_events_that_lost_a_field_are_refused(digits):
    without = replace(digits, data=replace(digits.data, transforms=(lambda events: events[["x", "y", "t"]],)))

    with pytest.raises(SnnError, match="have no p"):
        without.batch("train", [0])
