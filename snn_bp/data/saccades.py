"""`digits`: scikit-learn's handwritten digits, seen by a simulated event camera in three saccades.

Pixel model: Rebecq et al. 2018 (ESIM), Hu et al. 2021 (v2e). The positions were measured on real N-MNIST
recordings (Orchard et al. 2015), but this is not N-MNIST: the images are other people's digits of 8x8 pixels.
"""

import importlib.util
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from snn_bp.errors import SnnError
from snn_bp.kernels.lazy import kernel

SIDE = 34
DURATION_MS = 310
TRAINING = 1437  # the first of 1,797, in the order of the writers: the test part holds other hands
IMAGE = 20  # side of the digit on the sensor
MARGIN = 6  # px of ground around the canvas, more than the digit ever moves
BLUR = 0.45  # px
LOG_OFFSET = 0.35
LOG_CELLS = 2048  # in the table of logarithms, read with linear interpolation: within 3e-7
CONTRAST, MISMATCH = 0.165, 0.12
REFRACTORY_MS = 1.0
AT_ONCE = 64  # recordings waiting in memory
JITTER_US = 300.0
NOISE_RATE = 0.3  # events per pixel and second
NOISE_ON = 0.6
SENSOR_SEED = 0

REST = (-2.6, -1.9)  # px from the centre, x and y
MOVES = (  # axis, from, to, start and end in ms
    ("y", -1.9, 3.5, 8, 80),
    ("x", -2.6, -0.9, 40, 82),
    ("x", -0.9, 2.8, 95, 200),
    ("y", 3.5, -1.8, 116, 190),
    ("x", 2.8, -2.4, 222, 300),
)


def digits_file() -> Path:
    """scikit-learn's table of the images, found without importing it, which takes seconds; it may not be there."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise SnnError("digits: the images come with scikit-learn, which is not installed. pip install scikit-learn.")
    return Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"


def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 images [n, 8, 8] of ink, 0..1, and their labels, in the order of the writers."""
    if digits_file().exists():
        try:
            table = np.loadtxt(digits_file(), delimiter=",")
        except (OSError, EOFError, ValueError) as cause:
            raise SnnError(f"{digits_file()}: it cannot be read ({cause}). Install scikit-learn anew.") from cause
        known = table.shape == (1797, 65) and set(np.unique(table[:, -1])) == set(range(10))
        if not known or not np.isin(table[:, :-1], np.arange(17)).all():
            raise SnnError(
                f"{digits_file()}: it should hold 1,797 rows of 64 values in 0..16 and a label in 0..9, found "
                f"{list(table.shape)} with values in {table.min():g}..{table.max():g}. Install scikit-learn anew."
            )
        return table[:, :-1].reshape(-1, 8, 8) / 16, table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    digits: Any = load_digits()  # a Bunch, which its types deny
    return digits.images / 16, digits.target


def simulate_recordings(images: np.ndarray, *, first: int = 0) -> Iterator[np.ndarray]:
    """Events (x, y, t in us, p: 1 where it got brighter) of each image [n, 8, 8] of ink, 0..1.

    Noise is drawn from the number of the image, counted from `first`.
    """
    path = trajectory()
    thresholds = np.random.default_rng(SENSOR_SEED).normal(1, MISMATCH, (SIDE, SIDE)).clip(0.5, 2) * CONTRAST
    logs = np.log(np.arange(LOG_CELLS + 2) / LOG_CELLS + LOG_OFFSET)
    canvases = _canvases(images)

    def record(n: int) -> np.ndarray:
        rng = np.random.default_rng((SENSOR_SEED, first + n))
        return _add_noise(*_watch(canvases[n], path, thresholds, logs, REFRACTORY_MS), rng=rng)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        waiting = deque[Future[np.ndarray]]()
        try:
            for n in range(len(canvases)):
                waiting.append(pool.submit(record, n))
                if len(waiting) == AT_ONCE:
                    yield waiting.popleft().result()
            for recording in waiting:
                yield recording.result()
        finally:
            pool.shutdown(cancel_futures=True)


def trajectory() -> np.ndarray:
    """Position [ms, (x, y)] of the image on the sensor, in pixels from its centre."""
    path = np.tile(np.array(REST), (DURATION_MS + 1, 1))
    for axis, start, stop, begin, end in MOVES:
        u = ((np.arange(DURATION_MS + 1) - begin) / (end - begin)).clip(0, 1)
        moved = start + (stop - start) * u * u * (3 - 2 * u)
        column = "xy".index(axis)
        path[begin:, column] = moved[begin:]
    return path


def _canvases(images: np.ndarray) -> np.ndarray:
    """Brightness of what the sensor may see: a dark digit on bright ground, as in real recordings."""
    enlarged = interpolate(torch.from_numpy(images)[:, None], size=(IMAGE, IMAGE), mode="bicubic")
    ink = enlarged.clamp(0, 1)[:, 0].numpy()
    border = (SIDE - IMAGE) // 2 + MARGIN
    ink = np.pad(ink, ((0, 0), (border, border), (border, border)))
    distance = np.subtract.outer(np.arange(ink.shape[1]), np.arange(ink.shape[1]))
    blur = np.exp(-0.5 * (distance / BLUR) ** 2) * (abs(distance) <= 1)  # two pixels off it is 5e-5
    blur /= blur.sum(axis=0)
    return (1 - blur @ ink @ blur.T).astype(np.float32)


def _add_noise(
    x: np.ndarray, y: np.ndarray, t_ms: np.ndarray, p: np.ndarray, *, rng: np.random.Generator
) -> np.ndarray:
    """The events jittered and joined by stray ones, in order of time."""
    stray = rng.poisson(NOISE_RATE * SIDE * SIDE * DURATION_MS / 1000)
    t = np.concatenate([t_ms * 1000 + rng.normal(0, JITTER_US, len(t_ms)), rng.uniform(0, DURATION_MS * 1000, stray)])
    events = np.empty(len(t), dtype=[("x", np.uint8), ("y", np.uint8), ("t", np.int32), ("p", np.uint8)])
    events["x"] = np.concatenate([x, rng.integers(0, SIDE, stray)])
    events["y"] = np.concatenate([y, rng.integers(0, SIDE, stray)])
    events["p"] = np.concatenate([p, rng.random(stray) < NOISE_ON])
    events["t"] = t.clip(0, DURATION_MS * 1000 - 1)
    return events[np.argsort(events["t"], kind="stable")]


def _watch(
    canvas: np.ndarray, path: np.ndarray, thresholds: np.ndarray, logs: np.ndarray, refractory: float
) -> tuple[np.ndarray, ...]:
    """Noiseless events (x, y, t in ms, p) of one canvas moved along `path`, in steps of 1 ms."""
    most = thresholds.size * len(path)  # a pixel fires at most once a step: the refractory period is one step
    events = tuple(np.empty(most, dtype) for dtype in (np.uint8, np.uint8, np.float64, np.uint8))
    level = np.full(thresholds.shape, logs[-2])  # log intensity at the last step, now of the ground
    memory = level.copy()  # log intensity memorised at the last event
    release = np.full(thresholds.shape, -1.0)  # when a pixel held in reset memorises anew; negative: not held
    rows, columns = (np.flatnonzero((canvas < 1).any(axis=axis)) for axis in (1, 0))
    ink = (rows[0], rows[-1], columns[0], columns[-1]) if len(rows) else (len(canvas), 0, len(canvas), 0)
    count = _fire(*events, canvas, path, thresholds, logs, refractory, MARGIN, level, memory, release, *ink)
    return tuple(part[:count] for part in events)


@kernel()
def _fire(
    x, y, t, p, canvas, path, thresholds, logs, refractory, margin, level, memory, release, top, bottom, left, right
):
    """Fill the first of `x, y, t, p` with events; how many."""
    count, side = 0, len(thresholds)
    fineness = len(logs) - 2  # cells of the table between dark and bright
    for k in range(len(path)):
        if k > 0 and path[k, 0] == path[k - 1, 0] and path[k, 1] == path[k - 1, 1]:
            continue
        up, back = margin - path[k, 1], margin - path[k, 0]  # pixel (0, 0) of the sensor on the canvas
        down, over = np.float32(up - int(up)), np.float32(back - int(back))
        # Elsewhere is ground, now and one step ago: nothing moves a whole pixel in a step.
        for row in range(max(0, top - int(up) - 2), min(side, bottom - int(up) + 2)):
            upper, lower = canvas[row + int(up)], canvas[row + int(up) + 1]
            for column in range(max(0, left - int(back) - 2), min(side, right - int(back) + 2)):
                c = column + int(back)
                above = upper[c] + over * (upper[c + 1] - upper[c])
                below = lower[c] + over * (lower[c + 1] - lower[c])
                entry = (above + down * (below - above)) * fineness
                cell = np.int32(entry)
                new = logs[cell] + (entry - cell) * (logs[cell + 1] - logs[cell])
                old = level[row, column]
                level[row, column] = new
                if k == 0:
                    memory[row, column] = new
                    continue
                if release[row, column] >= 0:
                    if release[row, column] > k:
                        continue
                    memory[row, column] = old + max(0.0, release[row, column] - (k - 1)) * (new - old)
                    release[row, column] = -1.0
                change = new - memory[row, column]
                threshold = thresholds[row, column]
                if abs(change) <= threshold:
                    continue
                crossing = memory[row, column] + (threshold if change > 0 else -threshold)
                time = k - 1 + (crossing - old) / (new - old)
                x[count], y[count], t[count], p[count] = column, row, time, change > 0
                count += 1
                release[row, column] = time + refractory
    return count
