"""How all figures look, and how they become files: matplotlib's `Figure` alone, no pyplot, no backend chosen.

Lines differ in dash and marker as well as in colour, colour maps rise in luminance throughout: a grey print says the
same. Text and axes are black, which `svg_bytes` turns into the reader's own colour of text.
"""

import io
import itertools
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = {"font.size": 10, "axes.titlesize": 10, "svg.hashsalt": "snn_bp", "axes.spines.top": False,
         "axes.spines.right": False, "legend.frameon": False, "figure.constrained_layout.use": True}  # fmt: skip
# after Okabe & Ito's colours for colour-blind readers: all show on white and on black
LINES = (("#1f82c4", "-", "o"), ("#d55e00", "--", "s"), ("#009e73", "-.", "^"), ("#cc79a7", ":", "D"),
         ("#56b4e9", (0, (5, 1, 1, 1)), "v"), ("#e69f00", (0, (1, 1)), "x"))  # fmt: skip
SEQUENTIAL = "cividis"  # its luminance rises throughout, for all who see colours differently
Drawing = TypeVar("Drawing", bound=Callable[..., Any])
DARK = (
    "<style>svg{color:#000;fill:currentColor}@media (prefers-color-scheme:dark){svg{color:#e6e6e6}}"
    "@media print{svg{color:#000}}</style>"
)


def styled(draw: Drawing) -> Drawing:
    """The function, run under our style whatever the user's settings are; these stay as they were."""

    @wraps(draw)
    def drawing(*arguments: Any, **named: Any) -> Any:
        from matplotlib import style  # heavy: where a picture is asked for

        with style.context(["default", STYLE]):
            return draw(*arguments, **named)

    return drawing  # type: ignore[return-value]


def figure(width: float, height: float) -> "Figure":
    """An empty figure, sizes in inches."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), layout="constrained")
    vars(drawn)["_repr_png_"] = partial(png_bytes, drawn, dpi=100)  # what a notebook asks a value for
    return drawn


def short(name: str, letters: int) -> str:
    """A name that fits: where it has more letters, its beginning, which has a layer's index."""
    return name if len(name) <= letters else f"{name[: letters - 3].rstrip(' .,')}..."


def whole_ticks(axis, count: int = 2) -> None:
    """Ticks at integers alone, also where there is one point."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    axis.xaxis.set_major_locator(FixedLocator([1]) if count == 1 else MaxNLocator("auto", integer=True))
    if count == 1:
        axis.set_xlim(0.5, 1.5)


def line_styles() -> Iterator[dict[str, Any]]:
    """What tells one line from the next, without end."""
    for color, dash, marker in itertools.cycle(LINES):
        yield {"color": color, "linestyle": dash, "marker": marker, "markersize": 4, "linewidth": 1.6}


def light_half(name: str):
    """The lighter part of a colour map: black dots stay visible on all of it, in grey too."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps[name](np.linspace(0, 0.6, 256)))


@styled
def png_bytes(drawn: "Figure", *, dpi: int = 120) -> bytes:
    """The figure on white, for a file."""
    content = io.BytesIO()
    drawn.savefig(content, format="png", dpi=dpi, facecolor="white")
    return content.getvalue()


@styled
def svg_bytes(drawn: "Figure") -> bytes:
    """The figure without background, its black in the colour of text: dark on light, light on dark."""
    content = io.BytesIO()
    drawn.savefig(content, format="svg", dpi=120, transparent=True, metadata={"Date": None, "Creator": None})
    text = content.getvalue().decode()
    start = text.index(">", text.index("<svg")) + 1
    return (text[:start] + DARK + text[start:].replace("#000000", "currentColor")).encode()
