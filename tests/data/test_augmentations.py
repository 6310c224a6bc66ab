"""Augmentations: what they make of events, by whose numbers, for which recordings, and where they are refused."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import ClassVar

import numpy as np
import pytest
import torch
from augment_reference import augment_reference, fractions_reference, random_bits
from scipy.stats import binom, poisson

from snn_bp import (
    LIF,
    TET,
    BalancedAccuracy,
    Blend,
    ChannelJitter,
    CountCrossEntropy,
    CountSquaredError,
    CutMix,
    Data,
    Dataset,
    Dense,
    EventDrop,
    Experiment,
    Flatten,
    Flip,
    NoiseEvents,
    SnnError,
    SpatialJitter,
    Targets,
    TimeCrop,
    TimeJitter,
    Train,
)
from snn_bp.data import TonicSet, describe, draws, first_difference
from snn_bp.data.draws import Partners, moves_of
from snn_bp.data.encode import mixed
from snn_bp.model.losses import scores_of
from snn_bp.model.metrics import value_of_parts
from snn_bp.runs.changes import override
from snn_bp.runs.experiment import from_json, to_json
from snn_bp.runtime import capacity
from snn_bp.searches import OfOutput
from snn_bp.trainer.feasibility import check_trainable
from snn_bp.trainer.memory import estimate
from snn_bp.trainer.optimizer import make_optimizer, train_step

CAMERA = np.dtype([("x", int), ("y", int), ("p", int), ("t", int)])
WIDTH, HEIGHT, STEPS, STEP_MS = 12, 9, 6, 1
RNG = np.random.default_rng(7)


def recording(events: int, *, width: int = WIDTH, height: int = HEIGHT, last_us: int = 9000) -> np.ndarray:
    array = np.zeros(events, CAMERA)
    for name, high in (("x", width), ("y", height), ("p", 2 if height > 1 else 1), ("t", last_us)):
        array[name] = RNG.integers(0, high, events)
    return array


SEEN = [recording(n) for n in RNG.integers(40, 90, 24)]
HEARD = [recording(n, width=20, height=1) for n in RNG.integers(40, 90, 24)]
for some in (SEEN, HEARD):  # of those in order only what lies in the window is looked at
    some[::2] = [np.sort(each, order="t") for each in some[::2]]
LABELS = np.arange(24) % 3


def of(recordings=SEEN, *augment, y=LABELS, **how) -> Dataset:
    sensor = (WIDTH, HEIGHT, 2) if recordings is SEEN else (20, 1, 1)
    return Dataset.of(
        train=(recordings, y), sensor=sensor, steps=STEPS, step_ms=STEP_MS, validation_fraction=0.2, batch=8,
        augment=augment, **how,
    )  # fmt: skip


def expected(dataset: Dataset, ids, seed: int) -> torch.Tensor:
    events, ids = dataset.parts["train"].events, np.asarray(ids)
    shape = (1,) * (3 - len(dataset.shape)) + dataset.shape
    moves = moves_of(
        dataset.data, ids, seed=seed, recordings=len(dataset.parts["train"]), has_rows=dataset.sensor[1] > 1
    )
    how = {"downsample": dataset.data.downsample, "binary": dataset.data.binary}
    frames = augment_reference(
        events, ids, dataset._changes("train", ids, seed=seed), steps=STEPS, step_us=1000 * STEP_MS, shape=shape,
        **moves, **how,
    )  # fmt: skip
    return frames.reshape(*frames.shape[:2], *dataset.shape)


EACH = {
    "flip": Flip(), "events": EventDrop(0.9, "events"), "time": EventDrop(0.9, "time"), "area": EventDrop(0.9, "area"),
    "any": EventDrop(1.0), "time jitter": TimeJitter(0.7), "crop": TimeCrop(), "crop at first": TimeCrop(ms=1.5),
    "noise": NoiseEvents(100), "cutmix": CutMix(0.8), "blend": Blend(0.8), "cutmix of a class": CutMix(0.8, "same"),
    "blend of any": Blend(0.8, "any"),
}  # fmt: skip
OF_CAMERAS = EACH | {"jitter": SpatialJitter(1.5)}
OF_ROWS = {name: each for name, each in EACH.items() if name != "flip"} | {"jitter": ChannelJitter(2)}
EVERYTHING = (EventDrop(0.5), TimeJitter(0.7), TimeCrop(), NoiseEvents(100), CutMix(0.8))


@pytest.mark.parametrize("name", [*OF_CAMERAS, "all"])
def test_each_equals_the_reference_on_events_of_a_camera(name):
    augment = (*EVERYTHING, Flip(), SpatialJitter(1)) if name == "all" else (OF_CAMERAS[name],)
    dataset = of(SEEN, *augment, translate_px=2 * (name == "all"), rotate_deg=20.0 * (name == "all"))
    ids = dataset.ids["train"]

    frames = dataset.batch("train", ids, seed=5)[0]

    assert torch.equal(frames, expected(dataset, ids, 5))
    assert torch.equal(dataset.batch("train", ids, seed=5, in_bytes=True)[0].float(), frames)
    assert not torch.equal(frames, dataset.batch("train", ids)[0])


@pytest.mark.parametrize("name", [*OF_ROWS, "all"])
def test_each_equals_the_reference_on_rows_of_channels(name):
    augment = (*EVERYTHING, ChannelJitter(2)) if name == "all" else (OF_ROWS[name],)
    dataset = of(HEARD, *augment, translate_px=2 * (name == "all"), downsample=2, binary=name == "all")
    ids = dataset.ids["train"]

    frames = dataset.batch("train", ids, seed=5)[0]

    assert torch.equal(frames, expected(dataset, ids, 5))
    assert not torch.equal(frames, dataset.batch("train", ids)[0])


@pytest.mark.parametrize("mix", (CutMix(), Blend(), CutMix(classes="same"), Blend(classes="any")))
def test_a_recording_becomes_the_same_whatever_else_is_in_the_batch(mix):
    dataset = of(SEEN, *(each for each in (*EVERYTHING, Flip()) if not isinstance(each, CutMix)), mix)
    first, second, third = dataset.ids["train"][[2, 9, 11]]

    (alone, target), (among, targets), (other, _) = (
        dataset.batch("train", ids, seed=seed)
        for ids, seed in (([first], 3), ([third, first, second, first], 3), ([first], 4))
    )

    assert torch.equal(alone[:, 0], among[:, 1]) and torch.equal(alone[:, 0], among[:, 3])
    assert torch.equal(target[0], targets[1]) and torch.equal(target[0], targets[3])
    assert not torch.equal(alone, other)


def test_one_does_not_change_what_another_draws():
    dataset, ids = of(SEEN, Flip()), of(SEEN).ids["train"]

    alone, among = (each._changes("train", ids, seed=1).drawn for each in (dataset, of(SEEN, *EVERYTHING, Flip())))

    assert np.array_equal(alone["flip"], among["flip"]) and np.array_equal(alone["events"], among["events"])


def test_only_training_recordings_with_a_seed_are_augmented():
    dataset, plain = of(SEEN, *EVERYTHING, test_fraction=0.2), of(SEEN, test_fraction=0.2)

    for split, seed in (("train", None), ("validation", 1), ("test", 1)):
        ids = dataset.ids[split]
        assert torch.equal(dataset.batch(split, ids, seed=seed)[0], plain.batch(split, ids)[0])


def test_the_order_in_which_they_are_given_does_not_matter():
    ids = of().ids["train"]

    there, back = (of(SEEN, *augment).batch("train", ids, seed=2)[0] for augment in (EVERYTHING, EVERYTHING[::-1]))

    assert torch.equal(there, back)


def test_a_transform_that_changes_nothing_changes_nothing():
    dataset, plain = (of(SEEN, *EVERYTHING, **how) for how in ({"transforms": (lambda events: events,)}, {}))
    ids = dataset.ids["train"]

    assert torch.equal(*(each.batch("train", ids, seed=2)[0] for each in (dataset, plain)))


def test_the_second_recording_is_transformed_too():
    dataset = of(SEEN, Blend(1.0), transforms=(lambda events: events[events["t"] >= 2000],))

    frames = dataset.batch("train", dataset.ids["train"], seed=2)[0]

    assert frames[:2].sum() == 0 and frames[2:].sum() > 0


def test_the_second_recording_is_another_of_the_same_class_of_the_training_split():
    dataset = of(SEEN, Blend(1.0))
    ids, labels = dataset.ids["train"], dataset.parts["train"].targets

    partners = np.array([dataset._changes("train", ids, seed=seed).drawn["partner"] for seed in range(300)])

    assert (labels[partners] == labels[ids]).all() and (partners != ids).all()
    for position, sample in enumerate(ids):
        others = ids[(labels[ids] == labels[sample]) & (ids != sample)]
        counts = np.bincount(partners[:, position], minlength=24)[others]
        assert counts.sum() == 300 and counts.min() >= binom.ppf(1e-7, 300, 1 / len(others))


@pytest.mark.parametrize("mix", (CutMix(1.0), Blend(1.0, "any")))
def test_the_second_recording_is_any_other_of_the_training_split_where_classes_are_mixed(mix):
    dataset = of(SEEN, mix)
    ids = dataset.ids["train"]

    partners = np.array([dataset._changes("train", ids, seed=seed).drawn["partner"] for seed in range(600)])

    assert (partners != ids).all()
    for position, sample in enumerate(ids):
        others = ids[ids != sample]
        counts = np.bincount(partners[:, position], minlength=24)[others]
        assert counts.sum() == 600 and counts.min() >= binom.ppf(1e-7, 600, 1 / len(others))


def test_a_recording_that_is_the_only_one_stays_as_it_is():
    partners, ids, drawn = Partners.of(np.array([0, 2, 3]), np.array([1, 0, 0, 2])), np.array([0, 2, 3, 1]), [0.99] * 4

    assert partners.of_each(ids, np.array(drawn)).tolist() == [-1, -1, -1, 2]
    assert partners.of_each(ids, np.array(drawn), "any").tolist() == [3, 3, 0, 3]
    assert Partners.of(np.array([2]), np.zeros(4, int)).of_each(np.array([2, 0]), np.zeros(2), "any").tolist() == [
        -1,
        2,
    ]


# Targets of two classes


@pytest.mark.parametrize(
    ("seen", "mix"),
    [(seen, mix) for seen in ("camera", "row") for mix in (CutMix(0.8), Blend(0.8, "any"))] + [("frames", CutMix(0.8))],
    ids=str,
)
def test_targets_are_the_fractions_of_both_classes_as_by_the_reference(mix, seen):
    dataset = of_frames((2, 5, 7), mix) if seen == "frames" else of(SEEN if seen == "camera" else HEARD, mix)
    size = {"camera": (WIDTH, HEIGHT), "row": (20, 1), "frames": (7, 5)}[seen]
    ids = dataset.ids["train"]

    targets = dataset.batch("train", ids, seed=5)[1]

    drawn = dataset._changes("train", ids, seed=5).drawn
    assert torch.equal(targets, fractions_reference(LABELS.tolist(), drawn, ids, size, 3))
    assert targets.dtype == torch.float32 and 0 < (targets.amax(1) < 1).sum() < len(ids)
    assert (targets.sum(1) == 1).all() and (drawn["fraction"][drawn["partner"] < 0] == 0).all()


def test_targets_stay_labels_without_a_seed_in_other_splits_and_in_one_class():
    mixed_in, of_class = of(SEEN, CutMix()), of(SEEN, CutMix(classes="same"))

    for dataset, split, seed in ((mixed_in, "train", None), (mixed_in, "validation", 1), (of_class, "train", 1)):
        ids = dataset.ids[split]
        assert torch.equal(dataset.batch(split, ids, seed=seed)[1], torch.from_numpy(LABELS[ids]))


def test_of_a_mirrored_recording_both_classes_are_the_others_of_their_pairs():
    plain, mirrored = (
        Dataset.of(
            train=(SEEN, LABELS), targets=Targets("class", ("left", "up", "right")), sensor=(WIDTH, HEIGHT, 2),
            steps=STEPS, step_ms=STEP_MS, augment=(CutMix(), *flip), validation_fraction=0,
        )
        for flip in ((), (Flip(classes=(("left", "right"),)),))
    )  # fmt: skip
    ids = np.arange(24)

    before, after = (each.batch("train", ids, seed=1)[1] for each in (plain, mirrored))

    flipped = torch.from_numpy(mirrored._changes("train", ids, seed=1).drawn["flip"]).bool()
    assert torch.equal(after, torch.where(flipped[:, None], before.flip(1), before)) and 0 < flipped.sum() < 24


@dataclass(frozen=True)
class Mean:
    """A loss of one's own that takes labels."""

    def __call__(self, out, targets):
        return torch.nn.functional.cross_entropy(out.mean(0), targets)


@dataclass(frozen=True)
class Soft(Mean):
    """One that says that it takes fractions too."""

    takes_soft_targets: ClassVar = True


@dataclass(frozen=True)
class SaysSo:
    """One that says so and does not."""

    takes_soft_targets: ClassVar = True

    def __call__(self, out, targets):
        return -out.mean(0).gather(1, targets[:, None]).mean()


@pytest.mark.parametrize(
    ("loss", "mix", "said"),
    [
        (Mean(), CutMix(), r"Mean: CutMix\(p=0.5, classes='any'\) mixes recordings of two .* CutMix\(classes='same'\)"),
        (SaysSo(), CutMix(), r"SaysSo: it breaks on an output .* of the kind 'class' \[2, 3\]"),
        *((loss, mix, "") for loss in (Soft(), TET()) for mix in (CutMix(), CutMix(classes="same"))),
        *((loss, CutMix(classes="same"), "") for loss in (Mean(), SaysSo())),
    ],
    ids=str,
)  # fmt: skip
def test_a_loss_takes_fractions_or_is_refused_by_name(loss, mix, said):
    dataset = of(SEEN, mix)
    experiment = Experiment(dataset.data, (Flatten(), Dense(3), LIF(beta=0.9)), Train(loss=loss))

    with pytest.raises(SnnError, match=said) if said else nullcontext():
        check_trainable(experiment, dataset)


@pytest.mark.parametrize("loss", (CountCrossEntropy(class_weights=(1.0, 2.0, 0.5)), CountSquaredError(), TET(), Soft()))
def test_a_step_learns_from_fractions_and_counts_against_the_larger(loss):
    dataset = of(SEEN, CutMix(1.0))
    config = Train(loss=loss, truncate=4)
    network = Experiment(dataset.data, (Flatten(), Dense(3), LIF(beta=0.9)), config).network(dataset.shape)
    x, targets = dataset.batch("train", dataset.ids["train"], seed=1)
    weights = [weight.clone() for weight in network.parameters()]
    scores = scores_of(loss, network(x))

    step = train_step(network, make_optimizer(network, config), x, targets, config, None, "class", BalancedAccuracy())

    right = scores.argmax(1) == targets.argmax(1)
    assert step.correct == right.sum() and step.samples == len(targets)
    assert value_of_parts(BalancedAccuracy(), step.parts) == BalancedAccuracy()(scores, targets.argmax(1))
    assert step.grad_norm > 0 and not torch.equal(weights[0], next(network.parameters()))


def test_a_search_values_fractions():
    dataset = of(SEEN, CutMix(1.0))
    network = Experiment(dataset.data, (Flatten(), Dense(3), LIF(beta=0.9))).network(dataset.shape).eval()
    x, targets = dataset.batch("train", dataset.ids["train"], seed=1)

    wrong, loss = (OfOutput(kind, CountCrossEntropy())(network, x, targets) for kind in ("accuracy", "loss"))

    assert float(wrong) == pytest.approx(float((network(x).sum(0).argmax(1) != targets.argmax(1)).float().mean()))
    assert torch.equal(loss, CountCrossEntropy()(network(x), targets))


def test_a_mirrored_recording_is_given_the_other_class_of_its_pair():
    targets = Targets("class", ("left", "up", "right"))
    train = (SEEN, LABELS)
    dataset = Dataset.of(
        train=train, targets=targets, sensor=(WIDTH, HEIGHT, 2), steps=STEPS, step_ms=STEP_MS,
        augment=Flip(classes=(("left", "right"),)),
    )  # fmt: skip
    ids = dataset.ids["train"]

    frames, labels = dataset.batch("train", ids, seed=1)

    plain, before = dataset.batch("train", ids)
    flipped = torch.from_numpy(dataset._changes("train", ids, seed=1).drawn["flip"]).bool()
    assert 0 < flipped.sum() < len(ids)
    assert torch.equal(labels, torch.where(flipped, 2 - before, before))
    assert torch.equal(frames, torch.where(flipped.view(1, -1, 1, 1, 1), plain.flip(-1), plain))


def test_a_time_crop_starts_anywhere_and_never_ends_behind_the_recording():
    times = np.zeros(1000, CAMERA)
    times["t"] = np.arange(1000) * 20  # 20 ms, an event in each 20 us
    short = times[:250]
    dataset = Dataset.of(
        train=([times] * 23 + [short], LABELS), sensor=(1, 2, 1), steps=STEPS, step_ms=STEP_MS, augment=TimeCrop(),
        validation_fraction=0,
    )  # fmt: skip

    frames = torch.stack([dataset.batch("train", dataset.ids["train"], seed=seed)[0] for seed in range(5)])

    assert (frames[:, :, :23].sum((1, 3, 4, 5)) == 300).all()
    assert torch.equal(frames[0, :, 23], dataset.batch("train", [23])[0][:, 0])


# Frames


def frames_expected(values: np.ndarray, ids: np.ndarray, changes) -> np.ndarray:
    """Frames that are changed the obvious way, a recording at a time; `values` [recordings, steps, C, H, W]."""
    made = []
    for sample, drawn in zip(ids, changes.drawn, strict=True):
        box = (..., slice(drawn["top"], drawn["bottom"]), slice(drawn["left"], drawn["right"]))
        hole = (..., slice(drawn["hole_top"], drawn["hole_bottom"]), slice(drawn["hole_left"], drawn["hole_right"]))
        whole = values[sample].copy()
        if drawn["partner"] >= 0:
            whole[box] = values[drawn["partner"]][box]
        room = min(drawn["reach"], len(whole) - STEPS)
        start = int(drawn["crop"] * (room + 1)) if room > 0 else 0
        one = whole[start : start + STEPS]
        one[drawn["gap"] : drawn["gap_end"]] = 0
        one[hole] = 0
        made.append(one[..., ::-1] if drawn["flip"] else one)
    return np.stack(made, axis=1)


@pytest.mark.parametrize(
    "augment",
    [(Flip(),), (CutMix(0.8),), (TimeCrop(),), (TimeCrop(ms=4),), (EventDrop(0.9, "time"),), (EventDrop(0.9, "area"),),
     (EventDrop(0.5, "time"), CutMix(0.8), TimeCrop(), Flip())],
    ids=str,
)  # fmt: skip
def test_images_are_changed_as_by_the_reference(augment):
    values = np.random.default_rng(3).random((24, 9, 2, 5, 7), np.float32)
    dataset, ids = of_frames((2, 5, 7), *augment, values=values), np.arange(24)[::2]

    frames = dataset.batch("train", ids, seed=5)[0].numpy()

    assert np.array_equal(frames, frames_expected(values, ids, dataset._changes("train", ids, seed=5)))
    assert not np.array_equal(frames, dataset.batch("train", ids)[0].numpy())
    assert np.array_equal(frames[:, [3]], dataset.batch("train", ids[[3]], seed=5)[0].numpy())


def test_rows_of_channels_in_bytes_are_changed_as_by_the_reference():
    values = np.random.default_rng(3).integers(0, 9, (24, 9, 6), np.uint8)
    dataset, ids = of_frames(6, CutMix(0.8), TimeCrop(), EventDrop(0.5, "area"), values=values), np.arange(24)

    frames = dataset.batch("train", ids, seed=5, in_bytes=True)[0]

    changes = dataset._changes("train", ids, seed=5)
    assert frames.dtype == torch.uint8
    assert np.array_equal(frames.numpy(), frames_expected(values[:, :, None, None], ids, changes)[:, :, 0, 0])


def test_a_crop_of_recordings_that_differ_in_length_leaves_their_masks():
    values = [np.full((steps, 3), steps, np.float32) for steps in (4, 6, 9, 20) * 6]
    dataset, plain = (of_frames(3, *augment, values=values) for augment in ((TimeCrop(),), ()))

    frames, mask = dataset.batch("train", range(24), seed=1)[0], dataset.mask("train", range(24))

    assert torch.equal(mask, plain.mask("train", range(24))) and torch.equal(frames[..., 0] > 0, mask)
    assert torch.equal(frames, plain.batch("train", range(24))[0])


# Numbers


def test_random_bits_are_those_of_splitmix64():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    state = np.array([1234567], np.uint64) + np.array([0x9E3779B97F4A7C15], np.uint64) * np.arange(
        1, 5, dtype=np.uint64
    )

    assert mixed(state).tolist() == published == [random_bits(1234567, number) for number in range(1, 5)]


def test_what_a_seed_gives_stays():
    drawn = draws._numbers(3, draws._FLIP, np.array([0, 5]), 2)

    assert drawn.tolist() == [[0.32982194565867595, 0.9759831449647398], [0.04599735933005289, 0.292430745373392]]


def test_every_bit_of_every_recording_is_even_and_of_no_other():
    ids, count = np.arange(400), 400
    keys = draws._keys(3, 5, ids)[:, None] + np.uint64(0x9E3779B97F4A7C15) * np.arange(1, count + 1, dtype=np.uint64)
    bits = np.unpackbits(mixed(keys).view(np.uint8), axis=None).reshape(len(ids), count, 64)

    low, high = binom.ppf([1e-9, 1 - 1e-9], len(ids) * count, 0.5)
    assert ((bits.sum((0, 1)) >= low) & (bits.sum((0, 1)) <= high)).all()
    low, high = binom.ppf([1e-9, 1 - 1e-9], 64 * count, 0.5)
    differ = (bits[1:] != bits[:-1]).sum((1, 2))  # neighbouring ids
    assert ((differ >= low) & (differ <= high)).all()


@pytest.mark.parametrize("mean", (0.02, 3.0, 2500.0))
def test_counts_of_noise_are_those_of_a_poisson_process(mean):
    least, chances = draws._poisson(mean)
    count = np.arange(least, least + len(chances))

    assert np.allclose(chances, poisson.cdf(count, mean), atol=1e-9)
    assert chances[-1] == pytest.approx(1, abs=1e-9)


def test_noise_comes_as_often_as_asked_for_everywhere_and_at_any_time():
    silent = [np.zeros(0, CAMERA)] * 24
    dataset = Dataset.of(
        train=(silent, LABELS), sensor=(4, 3, 2), steps=5, step_ms=2, augment=NoiseEvents(hz=4000),
        validation_fraction=0,
    )  # fmt: skip

    frames = dataset.batch("train", range(24), seed=0)[0].sum(1)  # [steps, polarities, height, width]

    mean = 24 * 4000 * 0.002 / 2  # of a cell
    low, high = poisson.ppf([1e-9, 1 - 1e-9], mean)
    assert low <= frames.min() and frames.max() <= high
    low, high = poisson.ppf([1e-9, 1 - 1e-9], mean * frames.numel())
    assert low <= frames.sum() <= high


def test_half_of_the_events_of_each_of_two_that_are_blended_stay():
    many = [np.repeat(one, 200) for one in SEEN]
    dataset, ids = of_many(many, Blend(1.0)), np.arange(24)

    frames = dataset.batch("train", ids, seed=0)[0]

    plain = dataset.batch("train", ids)[0].sum((0, 2, 3, 4))
    partner = dataset._changes("train", ids, seed=0).drawn["partner"]
    for number, kept in enumerate(frames.sum((0, 2, 3, 4))):
        low, high = binom.ppf([1e-9, 1 - 1e-9], int(plain[number] + plain[partner[number]]), 0.5)
        assert low <= kept <= high


def test_events_are_dropped_by_the_fraction_that_is_drawn():
    dataset, ids = of_many([np.repeat(one, 200) for one in SEEN], EventDrop(0.8, "events")), np.arange(24)

    frames = dataset.batch("train", ids, seed=0)[0].sum((0, 2, 3, 4))

    fractions = dataset._changes("train", ids, seed=0).drawn["drop"] / 2**27
    assert fractions.max() <= 0.8 and 0.2 < fractions.mean() < 0.6
    for kept, whole, fraction in zip(frames, dataset.batch("train", ids)[0].sum((0, 2, 3, 4)), fractions, strict=True):
        low, high = binom.ppf([1e-9, 1 - 1e-9], int(whole), 1 - fraction)
        assert low <= kept <= high


def of_many(recordings, *augment) -> Dataset:
    return Dataset.of(
        train=(recordings, LABELS), sensor=(WIDTH, HEIGHT, 2), steps=STEPS, step_ms=STEP_MS, augment=augment,
        validation_fraction=0,
    )  # fmt: skip


def test_jitter_is_normal():
    moved = draws._normal(2000.0)

    assert abs(moved.mean()) < 1e-9 and moved.std() == pytest.approx(2000, rel=2e-3)
    assert NormalDist(0, 2000).cdf(moved[3500]) == pytest.approx(3500.5 / 4096, abs=1e-4)  # rounded
    assert len(draws._normal(0.0)) == 0


def test_what_eventdrop_does_is_drawn_evenly():
    recorded = {"image": (34, 34), "window": 310_000, "each_ms": 1000, "partners": None, "ends": None}

    drawn = draws.draw((EventDrop(0.4),), np.arange(4000), seed=1, **recorded).drawn

    spans = (("gap", "gap_end"), ("hole_left", "hole_right"))
    counts = [(drawn["drop"] > 0).sum(), *((drawn[last] > drawn[first]).sum() for first, last in spans)]
    low, high = binom.ppf([1e-9, 1 - 1e-9], 4000, 0.25)
    assert all(low - 60 <= count <= high for count in counts)  # a fraction near 0 is no rectangle
    assert (drawn["gap_end"] - drawn["gap"]).max() <= 0.4 * 310_000 and drawn["gap_end"].max() <= 310_000
    assert (drawn["hole_right"] - drawn["hole_left"]).max() <= 14 and drawn["hole_right"].max() <= 34


# Refusals


HANDS = ("right hand wave", "left hand wave")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Data("digits", augment=Flip()), r"digits: a mirrored recording is wrong, it is no digit\. Leave F"),
        (lambda: Data("nmnist", augment=Flip()), "it is no digit"),
        (lambda: Data("tonic:NMNIST", augment=Flip(classes=(("0 - zero", "1 - one"),))), "it is no digit"),
        (lambda: Data(TonicSet("NMNIST"), augment=Flip()), "it is no digit"),
        (lambda: Data("tonic:ASLDVS", steps=5, step_ms=10, augment=Flip()), "letters are signs of one hand"),
        (lambda: Data("dvs_gesture", augment=Flip()), r"or right hand\. Flip\(classes=\(\('right hand wave', 'left"),
        (lambda: Data("dvs_gesture", augment=Flip(classes=(HANDS,))), r"Flip\(classes=.* is right"),
        (lambda: Data("shd", augment=Flip()), r"shd: Flip is for images, and these are rows of channels\. Leave F"),
        (lambda: Data("shd", augment=SpatialJitter(1)), r"ChannelJitter\(channels=\.\.\.\) is for those"),
        (lambda: Data("nmnist", augment=ChannelJitter(1)), r"SpatialJitter\(px=\.\.\.\) is for cameras"),
        (lambda: of(HEARD, Flip()), "rows of channels"),
        (lambda: of(SEEN, ChannelJitter(2)), "is for rows of channels"),
        (lambda: of_frames(5, EventDrop(0.3)), r"acts on single events, and .* frames\. EventDrop\(\.\.\., by='time'"),
        (lambda: of_frames(5, NoiseEvents(1)), r"NoiseEvents\(hz=1\) acts on single events, .* Leave it out"),
        (lambda: of_frames(5, Flip()), "Flip is for images, and these are rows of channels"),
        (lambda: of_frames((4, 3), CutMix()), "a step has 2 axes here"),
        (lambda: Data("nmnist", augment=(Flip(), Flip())), "Flip is there 2 times"),
        (lambda: Data("nmnist", augment=(Blend(), CutMix())), "both mix a recording with a second one"),
        (lambda: Data("nmnist", augment=EventDrop), r"augment=.*EventDrop|write EventDrop\("),
        (lambda: Data("nmnist", augment=("flip",)), r"augment\.0='flip'.*as EventDrop\(0\.3\); your own go into"),
        (lambda: of(SEEN, CutMix(), y=VECTORS, targets="vector"), "CutMix mixes recordings that have a class each"),
        (lambda: of(SEEN, Flip(), y=VECTORS, targets="vector"), "Flip leaves targets as they are"),
        (lambda: of(SEEN, TimeCrop(), y=MOVING, targets="vector per step"), "every step has a target of its own"),
        (lambda: of(SEEN, Flip(classes=(("0", "lef"),))), "names 'lef'"),
        (lambda: Flip(classes=(("a", "b"), ("b", "c"))), "pairs of names, each name once"),
        (lambda: Flip(classes=(("a", "b", "c"),)), "pairs of names"),
        (lambda: EventDrop(0), r"EventDrop\(fraction=0"),
        (lambda: CutMix(classes="all"), r"CutMix\(classes='all'\): it should be one of 'same', 'any'"),
        (lambda: EventDrop(0.3, by="pixel"), "one of 'any', 'events', 'time', 'area'"),
        (lambda: of_frames(5, TimeCrop(ms=0.4)), r"ms=0\.4\) is shorter than a frame of 2 ms.*TimeCrop\(ms=2\)"),
        (lambda: of_frames(5, TimeCrop(ms=4), step_ms=None), r"how long a frame is .* Give step_ms, or TimeCrop\(\)"),
        (lambda: Data(Filmed(), augment=TimeCrop(ms=4)), r"how long a frame is .* Give step_ms, or TimeCrop\(\)"),
        (lambda: Data(Filmed(), step_ms=5, augment=TimeCrop(ms=4)), "shorter than a frame of 5 ms"),
        (lambda: TimeCrop(ms=0.0004), r"TimeCrop\(ms=0\.0004"),
        (lambda: SpatialJitter(px=0.1), r"SpatialJitter\(px=0\.1"),
        (lambda: ChannelJitter(0.1), r"ChannelJitter\(channels=0\.1"),
        (lambda: TimeJitter(0), r"TimeJitter\(ms=0"),
        (lambda: NoiseEvents(hz=-1), r"NoiseEvents\(hz=-1"),
        (lambda: of(SEEN, Flip(), transforms=lambda events: np.zeros((STEPS, 2, 3, 3))), "augment=.* acts on events"),
    ],
)  # fmt: skip
def test_what_would_be_wrong_is_refused_with_the_reason(make, words):
    with pytest.raises(SnnError, match=words):
        make()


def test_the_least_that_is_taken_changes_something():
    for least in (ChannelJitter(0.14).channels, SpatialJitter(0.14).px, 1000 * TimeJitter(0.001).ms):
        assert draws._normal(least).any() and not draws._normal(0.135).any()


@dataclass(frozen=True)
class Filmed:
    """Frames that do not say how long they are."""

    class_names = ("a", "b")

    def frames(self, part):
        return np.ones((4, 9, 3)), [0, 1, 0, 1]


VECTORS = RNG.random((24, 2)).astype(np.float32)
MOVING = VECTORS[:, None].repeat(STEPS, 1)


def of_frames(shape, *augment, recorded=9, values=None, **how) -> Dataset:
    shape = shape if isinstance(shape, tuple) else (shape,)
    values = np.random.default_rng(3).random((24, recorded, *shape), np.float32) if values is None else values
    return Dataset.of(
        train=(values, LABELS), steps=STEPS, validation_fraction=0.2, augment=augment, **{"step_ms": 2, **how}
    )


def test_every_pair_of_gestures_that_a_mirror_swaps_is_right():
    pairs = (HANDS, ("right arm clockwise", "left arm counter-clockwise"),
             ("left arm clockwise", "right arm counter-clockwise"))  # fmt: skip

    assert Data("dvs_gesture", augment=Flip(classes=pairs)).augment == (Flip(classes=pairs),)


# Records


def test_an_experiment_with_augmentations_comes_back_from_json():
    augment = (Flip(0.3, (("airplane", "cat"),)), EventDrop(0.3, "time"), TimeJitter(2), SpatialJitter(1), TimeCrop(50))
    experiment = Experiment(
        Data("tonic:CIFAR10DVS", augment=(*augment, NoiseEvents(1), CutMix())), (Dense(2), LIF(beta=0.9))
    )

    assert from_json(to_json(experiment)) == experiment
    content = to_json(experiment)
    del content["data"]["augment"][-1]["classes"]  # as it was written before recordings of two classes were mixed
    assert from_json(content).data.augment[-1] == CutMix(classes="same")
    del content["data"]["augment"]  # as it was written before there were any
    assert from_json(content).data == replace(experiment.data, augment=())


def test_an_override_names_augmentations():
    experiment = Experiment(Data("nmnist"), (Dense(2), LIF(beta=0.9)))

    changed, said = override(experiment, ["data.augment=(EventDrop(0.3), TimeJitter(ms=2))"])

    assert changed.data.augment == (EventDrop(0.3), TimeJitter(2)) and "EventDrop(fraction=0.3, by='any')" in said[0]
    changed, _ = override(changed, ["data.augment.1.ms=4", "data.batch=8"])
    assert changed.data.augment == (EventDrop(0.3), TimeJitter(4))
    assert override(changed, ["data.augment=Blend()"])[0].data.augment == (Blend(),)


def test_the_record_says_what_was_augmented():
    dataset, plain = of(SEEN, EventDrop(0.3)), of(SEEN)
    record = describe(dataset)

    assert record["encoding"]["augment"] == ["EventDrop(fraction=0.3, by='any')"]
    assert "augment" not in describe(plain)["encoding"]
    assert first_difference(record, dataset) is None
    for mix, said in ((CutMix(classes="same"), "CutMix(p=0.5)"), (CutMix(), "CutMix(p=0.5, classes='any')")):
        assert describe(of(SEEN, mix))["encoding"]["augment"] == [said]  # of one class as before there were two
    assert "augment" in str(first_difference(record, plain)) and "augment" in str(
        first_difference(describe(plain), dataset)
    )


def test_an_experiment_of_other_augmentations_is_another():
    with pytest.raises(SnnError, match=r"data\.augment is \(\), this data set's"):
        of(SEEN, EventDrop(0.3)).checked(of(SEEN).data)


def test_noise_that_no_memory_holds_is_refused(monkeypatch):
    dataset = Dataset.of(
        train=(SEEN, LABELS), sensor=(WIDTH, HEIGHT, 2), steps=9000, step_ms=STEP_MS, augment=NoiseEvents(100_000)
    )
    monkeypatch.setattr(capacity, "available", lambda: 10**8)

    with pytest.raises(SnnError, match=r"9\d,\d{3},\d{3} events of a recording .* A lower rate of NoiseEvents"):
        dataset.batch("train", [0], seed=0)


def test_the_estimate_of_memory_counts_what_is_mixed_in():
    model = (Flatten(), Dense(3), LIF(beta=0.9))
    plain, mixed_in = (of_frames((2, 5, 7), *augment) for augment in ((), (CutMix(),)))

    first, second = (estimate(Experiment(each.data, model), each) for each in (plain, mixed_in))

    train = len(plain.ids["train"])
    assert second.frames - first.frames == 2 * 9 * train * (2 * 5 * 7) * 5  # both, uncut, as they pass through floats
