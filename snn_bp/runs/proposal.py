"""An experiment's file for a folder of recordings, as `snn-bp init` writes it: what was found, and a model to start."""

import math
import re
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from snn_bp.data import Folder
from snn_bp.data.survey import Survey
from snn_bp.errors import SnnError, nearest
from snn_bp.files import replace_file
from snn_bp.runs.changes import parse
from snn_bp.runs.paths import new_experiment_at

STEPS = 30  # steps of a recording at most: enough for a motion, few enough to train in minutes
COARSEST_MS = 100.0
LONGEST_SIDE = 64  # pixels along an image that the network sees, where a whole number of pixels can be joined
DENSE_PIXELS = 32 * 32  # up to here every pixel is connected; larger images are convolved
FEW_GROUPS = 5  # below, whole groups are too coarse to split by
NAMES = (  # names of the package that a file may use, in the order of an import
    "LI", "LIF", "BatchNorm", "BinaryCrossEntropy", "Conv", "Data", "Dense", "Experiment", "Flatten", "Folder", "Pool",
    "Tau", "Train",
)  # fmt: skip
FEW_RECORDINGS = 500  # below, smaller batches make more updates


def file_name(folder: Path) -> str:
    """The name of the file for a folder, which shadows no module of Python's."""
    name = re.sub(r"\W+", "_", folder.resolve().name, flags=re.ASCII).strip("_").lower() or "recordings"
    taken = name[0].isdigit() or name in sys.stdlib_module_names or name in ("snn_bp", "torch", "numpy")
    return f"{'my_' * taken}{name}.py"


def folder_fields(changes: Sequence[str]) -> dict[str, Any]:
    """Fields of `Folder` from texts such as `columns=txyp`."""
    known = [field.name for field in fields(Folder) if field.name not in ("root", "step_ms", "window_ms")]
    values = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise SnnError(f"{change!r}: how files are read is said by key=value, as columns=txyp.")
        if key not in known:
            raise SnnError(f"{change!r}: a folder has no {key!r}. {nearest(key, known)}")
        values[key] = parse(text, at=change)
    return values


def write_proposal(survey: Survey, file: Path) -> str:
    """Write the file, and say what was found in a line."""
    new_experiment_at(file)
    replace_file(file, proposed(survey, file.stem).encode())
    return f"{file}: {_counted(survey)} of {survey.source.sensor[0]}x{survey.source.sensor[1]} pixels"


def proposed(survey: Survey, name: str) -> str:
    """The text of an experiment's file for what a survey found; `name` is the file's, without its ending."""
    if len(survey.targets.names) < 2:
        raise SnnError(
            f"{survey.source.root}: its recordings are of one class, {', '.join(survey.targets.names)!r}. A network "
            "tells two or more apart: a folder for each, or a table with file and label."
        )
    width, height, _ = survey.source.sensor
    lasting_ms = float(np.quantile(survey.durations_ms, 0.9))
    nice = (round(mantissa * 10.0**power, 3) for power in range(-3, 2) for mantissa in (1, 2, 5))
    step_ms = next((step for step in nice if step * STEPS >= lasting_ms), COARSEST_MS)
    steps = min(STEPS, math.ceil(lasting_ms / step_ms))
    joined = _downsample(width, height)
    model = _model(width // joined, height // joined, survey, f"Tau({_number(5 * step_ms)})")
    labels = ", loss=BinaryCrossEntropy()" if survey.targets.kind == "labels" else ""
    body = f"""\
        experiment = Experiment(
            data=Data(
                {_recordings(survey)}
                {_split(survey)}
                {_comment(_lengths(survey, step_ms, steps))}
                step_ms={_number(step_ms)},
                steps={steps},
                batch={16 if survey.recordings < FEW_RECORDINGS else 32},
                downsample={joined},  # {width}x{height} pixels become {width // joined}x{height // joined}
            ),
            model=(
                # neurons forget in five steps, and are reset to 0 as on chips
                {model}
            ),
            train=Train(epochs=20, lr=5e-3{labels}),
        )
    """
    names = [name for name in NAMES if re.search(rf"\b{name}\(", body)]
    head = f'''\
        """{_counted(survey)}; `snn-bp init` looked at them on {time.strftime("%Y-%m-%d")}.

            snn-bp train {name}.py --dry-run     # shapes, memory and time
            snn-bp train {name}.py               # train.epochs=5 behind it changes that
            snn-bp report runs/{name}            # a page of results
        """

        from snn_bp import {", ".join(names)}, main

    '''
    end = '\n\nif __name__ == "__main__":\n    main(experiment)\n'
    return textwrap.dedent(head).rstrip() + "\n\n" + textwrap.dedent(body).rstrip() + end


def _recordings(survey: Survey) -> str:
    """The arguments of `Data` that say which recordings, and how the sensor was found."""
    source = survey.source
    settings = [each for each in fields(source) if each.name not in ("root", "sensor")]
    more = {each.name: value for each in settings if (value := getattr(source, each.name)) != each.default}
    root, sensor = _text(source.root), f"sensor={source.sensor}"
    said = f"# {survey.sensor_from}"
    if not more:
        return _lines('"folder",', f"root={root},", f"{sensor},  {said}")
    options = "".join(f", {name}={_text(value) if isinstance(value, str) else value}" for name, value in more.items())
    return _lines(f"Folder({root}, {sensor}{options}),  {said}")


def _split(survey: Survey) -> str:
    if survey.splits["test"]:
        count = survey.splits["test"]
        return f"# {count} recordings are the test split, by their folder or table"
    if len(survey.groups) >= FEW_GROUPS:
        note = f"# of {len(survey.groups)} groups (who was recorded) none is on two sides of a split"
        return _lines(f'split_by="group",  {note}', "test_fraction=0.2,")
    drawn = "test_fraction=0.2,  # of each class, drawn by split_seed"
    if not survey.groups:
        return drawn
    names = ", ".join(map(_text, survey.groups))
    note = (
        f"Groups (who was recorded): {names}. They are too few to split by; if they are the classes, a table says so."
    )
    return _lines(drawn, _comment(note))


def _lengths(survey: Survey, step_ms: float, steps: int) -> str:
    half, most = (_number(float(each)) for each in np.quantile(survey.durations_ms, (0.5, 0.9)))
    rate = np.median(survey.events / survey.durations_ms) * 1000
    counts = [f"{_text(label)} {count}" for label, count in survey.counts.items()]
    window = f"{steps} steps of {_number(step_ms)} ms hold {_number(steps * step_ms)} ms."
    return (
        f"Recordings by class: {', '.join(counts[:20])}{', ...' * (len(counts) > 20)}. Of the {survey.read} files that "
        f"were read half last up to {half} ms, nine of ten up to {most} ms; half have up to "
        f"{np.median(survey.events):,.0f} events, {rate:,.0f} a second. {window} Shorter steps see faster motion, more "
        "steps see more of a recording; both take longer."
    )


def _downsample(width: int, height: int) -> int:
    """How many pixels are joined along a side: as few as bring the longer one to `LONGEST_SIDE`."""
    divisors = [count for count in range(1, min(width, height) // 8 + 1) if width % count == height % count == 0] or [1]
    return next((count for count in divisors if max(width, height) // count <= LONGEST_SIDE), divisors[-1])


def _model(width: int, height: int, survey: Survey, tau: str) -> str:
    """The lines of a small model."""
    neurons = f'BatchNorm(), LIF(beta={tau}, reset="zero")'
    readout = f"BatchNorm(), LI(beta={tau})" if survey.targets.kind == "labels" else neurons
    last = f"*(Dense({len(survey.targets.names)}), {readout}),  # an output for each {_kind(survey)}"
    if width * height <= DENSE_PIXELS or min(width, height) < 12:
        return _lines("Flatten(),", f"*(Dense(128), {neurons}),", last)
    stride = max(1, round(max(width, height) / 32))
    return _lines(
        f"*(Conv(16, {max(5, stride)}, stride={stride}, padding=2), {neurons}),", "Pool(2),",
        f"*(Conv(32, 3, padding=1), {neurons}),", "Pool(2),", "Flatten(),", last,
    )  # fmt: skip


def _kind(survey: Survey) -> str:
    return "label" if survey.targets.kind == "labels" else "class"


def _counted(survey: Survey) -> str:
    names = len(survey.targets.names)
    return f"{survey.recordings} recordings of {names} {'labels' if _kind(survey) == 'label' else 'classes'}"


def _lines(*lines: str) -> str:
    return ("\n" + 16 * " ").join(lines)


def _comment(sentences: str) -> str:
    return _lines(*(f"# {line}" for line in textwrap.wrap(sentences, 100, break_long_words=False)))


def _text(value: str) -> str:
    """A text as one writes it in Python, on one line."""
    written = repr(value)
    return f'"{written[1:-1]}"' if written[0] == "'" and '"' not in written else written


def _number(value: float) -> str:
    return f"{value:.10g}" if value == round(value, 3) else f"{value:.3g}" if value < 100 else f"{value:.0f}"
