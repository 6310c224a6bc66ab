"""The picture of a speed result: a step's time by library, and its growth over time steps and input density."""

# pyright: reportMissingImports=false

from importlib.util import find_spec
from pathlib import Path
from typing import Any

WORKS = ("W1", "W3", "W4")
OURS = "snn_bp"
LONGEST = 12  # times ours: longer bars are cut there, and their number says so
MARKERS, LINES = "os^D", ("-", "--", ":", "-.")


def plot(result: dict[str, Any], file: Path) -> None:
    """One thread: bars, ours black; lines that differ in marker and dash."""
    if not find_spec("matplotlib"):
        print("no picture: matplotlib is not installed")
        return
    import matplotlib  # optional, as the peers are

    matplotlib.use("Agg")
    from matplotlib import pyplot

    times = [row for row in result.get("times", []) if row["threads"] == 1 and row["ms"]]
    works = [work for work in WORKS if any(row["work"] == work for row in times)]
    grown = [key for key in ("steps", "density") if result.get(f"growth_over_{key}")]
    rows = bool(works) + bool(grown)
    if not rows:
        return
    size = 3.7 * max(len(works), len(grown)), 3.0 * rows
    figure = pyplot.figure(figsize=size, layout="constrained")
    parts = figure.subfigures(rows, 1, squeeze=False)[:, 0].tolist()
    if works:
        for axes, work in zip(_panels(parts.pop(0), len(works)), works, strict=True):
            _bars(axes, work, [row for row in times if row["work"] == work])
    if grown:
        for axes, key in zip(_panels(parts.pop(0), len(grown)), grown, strict=True):
            _lines(axes, key, result[f"growth_over_{key}"])
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def _panels(part: Any, count: int) -> list[Any]:
    return part.subplots(1, count, squeeze=False)[0].tolist()


def _bars(axes: Any, work: str, rows: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda row: -row["ms"])
    ours = next((row["ms"] for row in rows if row["library"] == OURS), rows[-1]["ms"])
    end = LONGEST * ours
    colours = ["black" if row["library"].startswith(OURS) else "0.75" for row in rows]
    names, lengths = [row["library"] for row in rows], [min(row["ms"], end) for row in rows]
    bars = axes.barh(names, lengths, color=colours, edgecolor="black")
    labels = [f"{row['ms']:.0f}" + (" (cut)" if row["ms"] > end else "") for row in rows]
    axes.bar_label(bars, labels, padding=2, fontsize=8)
    axes.set_xlim(0, 1.6 * max(lengths))
    axes.set_xlabel("ms of a step, one thread")
    axes.set_title(work)


def _lines(axes: Any, key: str, rows: list[dict[str, Any]]) -> None:
    for place, name in enumerate(dict.fromkeys(row["library"] for row in rows)):
        points = sorted((row[key], row["ms"]) for row in rows if row["library"] == name and row["ms"])
        x = [value if key == "steps" else 100 * value for value, _ in points]
        look = {"marker": MARKERS[place % 4], "linestyle": LINES[place % 4]}
        axes.plot(x, [ms for _, ms in points], color="black" if name == OURS else "0.45", label=name, **look)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the legend
    axes.set_xlabel("time steps" if key == "steps" else "ones in the input, %")
    axes.set_ylabel("ms, W1, one thread")
    axes.legend(fontsize=8, frameon=False, loc="upper left", ncols=3)
