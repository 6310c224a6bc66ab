"""What a network sees, does and answers: the picture on README's first screen.

    python experiments/benchmarks/first_look.py

Trains the default experiment in steps of 10 ms instead of 52, and draws one recording of its test split: the events,
the spikes of the last hidden layer, and how often each output neuron has fired up to each moment. Writes
experiments/results/first_look.png.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from snn_bp import Run, trace, train
from snn_bp.files import replace_file
from snn_bp.reports.plots.style import LINES, figure, png_bytes, styled
from snn_bp.runs.changes import override
from snn_bp.runs.experiment_file import read_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPERIMENTS = Path(__file__).parents[1]
STEP_MS, STEPS, FRAMES = 10, 31, 6
CHANGES = [f"data.step_ms={STEP_MS}", f"data.steps={STEPS}"]
RECORDING = 0  # of the test split


@styled
def picture(run: Run) -> "Figure":
    """Frames above; below them, on one axis of time, the spikes of the last hidden layer and the output's counts."""
    x, targets = run.batch("test")
    x, targets = x[:, RECORDING : RECORDING + 1], targets[RECORDING : RECORDING + 1]
    *_, hidden, output = trace(run.network(), x, targets).layers
    drawn = figure(8, 4.3)
    top, bottom = drawn.subfigures(2, 1, squeeze=False, height_ratios=(1, 2.7))[:, 0]

    top.suptitle("events of one recording: white where it became brighter, black where darker", fontsize=10)
    for axis, frame in zip(top.subplots(1, FRAMES), np.array_split(x[:, 0].numpy(), FRAMES), strict=True):
        seen = frame.sum(0)
        axis.imshow(seen[1] - seen[0], cmap="gray", vmin=-3, vmax=3, interpolation="nearest")
        axis.set_axis_off()

    spikes, counts = bottom.subplots(2, 1, sharex=True)
    steps, neurons = np.nonzero(hidden.spikes[:, 0].numpy())
    spikes.plot((steps + 0.5) * STEP_MS, neurons, "|", color="black", markersize=3)
    spikes.set_title(f"spikes of the {hidden.spikes.shape[2]} neurons of the last hidden layer", loc="left")
    spikes.set_ylabel("neuron")

    scores = np.pad(output.spikes[:, 0].numpy().cumsum(0), ((1, 0), (0, 0)))
    true = int(targets)
    for index in sorted(range(scores.shape[1]), key=lambda index: index == true):
        look = {"color": LINES[0][0], "linewidth": 2.4} if index == true else {"color": "#8c8c8c", "linewidth": 0.9}
        counts.plot(np.arange(STEPS + 1) * STEP_MS, scores[:, index], **look)
    counts.annotate(f"class {true}, true", (STEPS * STEP_MS, scores[-1, true]), (4, 0), textcoords="offset points",
                    color=LINES[0][0], va="center", annotation_clip=False)  # fmt: skip
    counts.set_title("spikes of each output neuron so far: the most are the answer", loc="left")
    counts.set_ylabel("spikes")
    counts.set_xlabel("ms")
    counts.set_xlim(0, STEPS * STEP_MS)
    return drawn


def main() -> None:
    """Train, draw and write."""
    with tempfile.TemporaryDirectory() as folder:
        experiment, _ = override(read_file(EXPERIMENTS / "digits.py"), CHANGES)
        run = train(experiment, Path(folder) / "run")
        replace_file(file := EXPERIMENTS / "results" / "first_look.png", png_bytes(picture(run)))
    print(f"the run's folder was a temporary one and is gone; the picture is {file}")


if __name__ == "__main__":
    main()
