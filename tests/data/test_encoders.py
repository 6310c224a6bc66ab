"""Encoders: what they make of signals and images, the same for a seed and a recording whatever else is in the batch."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from snn_bp.data import Current, Dataset, Delta, Latency, Rate, Repeat
from snn_bp.errors import SnnError

RNG = np.random.default_rng(2)
SERIES = np.cumsum(RNG.normal(size=(9, 40, 3)), 1)
IMAGES = RNG.random((9, 1, 5, 4))
LABELS = np.arange(9) % 3


def of(x, **how) -> Dataset:
    return Dataset.of(train=(x, LABELS), validation_fraction=0, batch=4, **how)


def crossings(signal: np.ndarray, threshold: float) -> np.ndarray:
    """Level crossings as a delta modulator counts them, one level at a time."""
    steps, channels = signal.shape
    counts = np.zeros((steps, 2 * channels))
    for channel in range(channels):
        level = 0
        for step in range(1, steps):
            moved = (float(np.float32(signal[step, channel])) - float(np.float32(signal[0, channel]))) / threshold
            while moved - level >= 1:
                level += 1
                counts[step, channel] += 1
            while moved - level <= -1:
                level -= 1
                counts[step, channels + channel] += 1
    return counts


@pytest.mark.parametrize("threshold", (0.3, 1.0, 2.5))
def test_delta_counts_the_levels_that_a_signal_crosses(threshold):
    x, _ = of(SERIES, encoder=Delta(threshold)).batch("train", range(9))

    assert x.shape == (40, 9, 6)
    for number in range(9):
        assert np.array_equal(x[:, number].numpy(), crossings(SERIES[number], threshold)), number


def test_delta_follows_the_signal_within_a_threshold():
    x, _ = of(SERIES, encoder=Delta(0.7)).batch("train", range(9))

    followed = 0.7 * torch.cumsum(x[..., :3] - x[..., 3:], 0)
    signal = torch.from_numpy(SERIES).float().transpose(0, 1)
    assert (followed - (signal - signal[:1])).abs().max() < 0.7 + 1e-5


def test_current_is_the_signal_itself():
    plain, encoded = (of(SERIES, **how).batch("train", range(9))[0] for how in ({}, {"encoder": Current()}))

    assert torch.equal(plain, encoded) and torch.equal(plain, torch.from_numpy(SERIES).float().transpose(0, 1))


def test_repeat_shows_the_image_at_every_step():
    dataset = of(IMAGES, encoder=Repeat(6))

    x, _ = dataset.batch("train", [3, 1])

    assert x.shape == (6, 2, 1, 5, 4) and dataset.steps == 6 and dataset.shape == (1, 5, 4)
    assert torch.equal(x, torch.from_numpy(IMAGES[[3, 1]]).float().expand(6, -1, -1, -1, -1))


def test_latency_spikes_once_and_the_sooner_the_larger():
    images = np.array([[[0.0, 0.25, 0.5, 1.0]]] * 9)

    x, _ = of(images, encoder=Latency(5)).batch("train", [0], in_bytes=True)

    assert x.dtype == torch.uint8
    assert x[:, 0, 0].T.tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0]]


def test_rate_spikes_as_often_as_the_value_says():
    levels = np.broadcast_to(np.array([0.0, 4.0, 8.0, 16.0]), (9, 4))

    x, _ = of(levels, encoder=Rate(20_000, largest=16)).batch("train", [0])

    rates = x[:, 0].mean(0)
    assert rates[0] == 0 and rates[3] == 1
    assert abs(rates[1] - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 20_000) and abs(rates[2] - 0.5) < 5 * np.sqrt(0.25 / 20_000)


def test_what_is_drawn_depends_on_recording_and_seed_alone():
    dataset = of(IMAGES, encoder=Rate(30))

    alone, among = dataset.batch("train", [5], seed=1)[0], dataset.batch("train", [2, 5, 8], seed=1)[0]
    other, unseeded = dataset.batch("train", [5], seed=2)[0], dataset.batch("train", [5])[0]

    assert torch.equal(alone[:, 0], among[:, 1]) and torch.equal(alone, dataset.batch("train", [5], seed=1)[0])
    assert not torch.equal(alone, other) and not torch.equal(alone, unseeded)
    assert not torch.equal(among[:, 0], among[:, 1])
    assert torch.equal(unseeded, dataset.batch("train", [5])[0])


@dataclass(frozen=True)
class Own:
    """An encoder of one's own, which draws."""

    noise: float

    def __call__(self, x, rng):
        return x + self.noise * rng.normal(size=x.shape)


@dataclass(frozen=True)
class Odd:
    """One that makes frames of another shape of some recordings."""

    def __call__(self, x, rng):
        return x[: 7 + (x[0, 0] > 0)]


@dataclass(frozen=True)
class Broken:
    """One that makes something else than frames."""

    gives: object

    def __call__(self, x, rng):
        return self.gives


def test_an_encoder_of_ones_own_is_called_with_recording_and_generator():
    first, again = (of(SERIES, encoder=Own(0.5)).batch("train", [4], seed=3)[0] for _ in range(2))
    silent = of(SERIES, encoder=Own(0.0)).batch("train", [4], seed=3)[0]

    assert torch.equal(first, again) and not torch.equal(first, silent)
    assert 0.3 < float((first - silent).std()) < 0.7


def test_series_of_different_lengths_are_encoded_each_on_its_own():
    x = [SERIES[number][: 20 + number] for number in range(9)]
    dataset = of(x, encoder=Delta(0.5))

    frames, _ = dataset.batch("train", range(9))

    mask = dataset.mask("train", range(9))
    assert mask is not None and mask.sum(0).tolist() == list(range(20, 29)) and frames.shape == (28, 9, 6)
    for number in range(9):
        assert np.array_equal(frames[: 20 + number, number].numpy(), crossings(x[number], 0.5))
    assert not frames[~mask].any()


@pytest.mark.parametrize(
    "x, how, message",
    (
        (SERIES, {"encoder": Rate(5)}, r"values lie in 0\.\.1"),
        (SERIES, {"encoder": Delta}, r"Write Delta\("),
        (SERIES, {"encoder": 3}, "should be an encoder"),
        (IMAGES, {"encoder": Delta(0.1)}, r"\[steps, channels\]"),
        (SERIES, {"encoder": Broken("no")}, "should become frames"),
        (SERIES, {"encoder": Broken(np.array([np.nan]))}, "NaN"),
        ([SERIES[0], SERIES[1][:30], *SERIES[2:]], {"encoder": Repeat(3)}, "differ in their steps"),
    ),
)
def test_what_cannot_be_encoded_is_refused(x, how, message):
    with pytest.raises(SnnError, match=message):
        of(x, **how)


def test_frames_of_another_shape_in_one_recording_are_refused_by_number():
    x = np.abs(SERIES)
    x[6] *= -1

    with pytest.raises(SnnError, match="recording 6 of 'train' became"):
        of(x, encoder=Odd()).batch("train", range(9))


@pytest.mark.parametrize(
    "make", (lambda: Delta(0), lambda: Rate(0), lambda: Latency(5, largest=-1), lambda: Repeat(2.5))
)
def test_encoders_check_their_fields(make):
    with pytest.raises(SnnError, match="it should be"):
        make()


def test_the_record_names_the_encoder_and_a_change_of_it():
    from snn_bp.data import describe, first_difference

    record = describe(of(SERIES, encoder=Delta(0.5)))

    assert first_difference(record, of(SERIES, encoder=Delta(0.5))) is None
    assert first_difference(record, of(SERIES, encoder=Delta(0.7))) == (
        "frames: the encoder was Delta threshold=0.5 then, it is Delta threshold=0.7 now"
    )
