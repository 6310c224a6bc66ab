"""The simulated camera against the figures of its description and against real recordings."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from snn_bp.data import Data, load, saccades
from snn_bp.data.saccades import digit_images, simulate_recordings, trajectory
from snn_bp.errors import SnnError


def test_the_path_rests_at_the_three_positions():
    path = trajectory()

    assert np.allclose(path[[0, 88, 210]], [(-2.6, -1.9), (-0.9, 3.5), (2.8, -1.8)])
    assert abs(np.diff(path, axis=0)).max() < 1  # the camera relies on it


def test_a_digit_depends_on_its_number_alone():
    images, _ = digit_images()

    together = list(simulate_recordings(images[:4]))
    alone = next(simulate_recordings(images[3:4], first=3))

    assert np.array_equal(together[3], alone)


def test_the_compiled_camera_sees_what_an_obvious_one_sees():
    images, _ = digit_images()
    (canvas,), path = saccades._canvases(images[7:8]), trajectory()
    thresholds = np.full((34, 34), 0.165)

    logs = np.log(np.arange(saccades.LOG_CELLS + 2) / saccades.LOG_CELLS + saccades.LOG_OFFSET)
    x, y, t, p = saccades._watch(canvas, path, thresholds, logs, 1.0)

    expected = watch_whole_sensor(canvas, path, thresholds)
    assert abs(len(t) - len(expected)) <= 2  # the table of logarithms may turn a near miss
    order = np.lexsort((x, y, t))
    assert np.allclose(t[order][:100], expected[:100, 0], atol=1e-3)
    seen, counted = np.zeros((2, 34, 34)), np.zeros((2, 34, 34))
    np.add.at(seen, (p, y, x), 1)
    np.add.at(counted, tuple(expected[:, [3, 2, 1]].T.astype(int)), 1)
    assert abs(seen - counted).sum() <= 4


def watch_whole_sensor(canvas, path, thresholds):
    """Rows (t in ms, x, y, p) in order of time: all pixels at every step, exact logarithms."""
    rows, columns = np.mgrid[:34, :34] + saccades.MARGIN
    levels = []
    for right, down in path:
        brightness = map_coordinates(canvas.astype(float), [rows - down, columns - right], order=1)
        levels.append(np.log(brightness + saccades.LOG_OFFSET))
    memory, release, held = levels[0].copy(), np.zeros((34, 34)), np.zeros((34, 34), bool)
    events = []
    for k in range(1, len(path)):
        old, new = levels[k - 1], levels[k]
        freed = held & (release <= k)
        memory[freed] = (old + (release - (k - 1)) * (new - old))[freed]
        held &= ~freed
        change = new - memory
        fires = ~held & (abs(change) > thresholds)
        for y, x in np.argwhere(fires):
            crossing = memory[y, x] + np.sign(change[y, x]) * thresholds[y, x]
            time = k - 1 + (crossing - old[y, x]) / (new[y, x] - old[y, x])
            events.append((time, x, y, change[y, x] > 0))
            release[y, x] = time + 1
        held |= fires
    events = np.array(events)
    return events[np.lexsort((events[:, 1], events[:, 2], events[:, 0]))]


def test_a_blank_image_gives_nothing_but_noise():
    events = next(simulate_recordings(np.zeros((1, 8, 8))))

    assert 60 < len(events) < 160  # 0.3 * 1156 * 0.31 = 107.5, five standard deviations of a Poisson count


def test_events_are_as_many_and_as_balanced_as_described(digits):
    events = digits.parts["train"].events

    assert 3400 < len(events.t) / len(events) < 3760  # about 3,580: a trial's, with another cubic resize
    assert abs(events.p.mean() - 0.5) < 0.01
    assert events.t.min() >= 0 and events.t.max() < 310_000


def test_a_linear_classifier_reads_the_digits_from_counts(digits):
    from sklearn.linear_model import RidgeClassifier

    counts, labels = {}, {}
    for split in digits.ids:
        batches = [digits.batch(split, ids) for ids in digits.batches(split)]
        counts[split] = np.concatenate([x.sum(dim=0).flatten(1).numpy() for x, _ in batches])
        labels[split] = np.concatenate([y.numpy() for _, y in batches])

    classifier = RidgeClassifier(alpha=3000).fit(counts["train"], labels["train"])

    assert classifier.score(counts["test"], labels["test"]) > 0.87


def test_polarity_and_motion_are_those_of_real_recordings(digits, recorded):
    real = load(Data("nmnist", root=str(recorded)), quiet=True)

    curves = {}
    for dataset in (digits, real):
        frames = sum(dataset.batch("train", ids)[0].sum(dim=1) for ids in dataset.batches("train")[:5])
        place = np.arange(34)
        rows, columns = frames.sum(dim=3).numpy() @ place, frames.sum(dim=2).numpy() @ place
        total = frames.sum(dim=(2, 3)).numpy()
        # Which way ON lies from OFF in each step: a digit of the other sign would turn it round.
        curves[dataset.data.name] = [np.diff(axis / total, axis=1)[:, 0] for axis in (rows, columns)]

    busy = np.r_[2:8, 13:18, 23:28]  # the three saccades
    for made, measured in zip(curves["digits"], curves["nmnist"], strict=True):
        assert np.corrcoef(made[busy], measured[busy])[0, 1] > 0.9


@pytest.mark.parametrize("change", ["cut", "label", "ink", "text"])
def test_a_table_of_other_digits_is_refused_by_file(tmp_path, monkeypatch, change):
    table = np.loadtxt(saccades.digits_file(), delimiter=",")
    file = tmp_path / "digits.csv"
    monkeypatch.setattr(saccades, "digits_file", lambda: file)
    if change == "label":
        table[5, -1] = 10
    elif change == "ink":
        table[5, 3] = 16.5
    np.savetxt(file, table[:-1] if change == "cut" else table, delimiter=",")
    if change == "text":
        file.write_text("no digits")

    with pytest.raises(SnnError, match=r"digits\.csv: it (should hold|cannot be read)"):
        saccades.digit_images()
