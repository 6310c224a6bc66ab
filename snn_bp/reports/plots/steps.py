"""One recording step by step: a slider over its input, the potentials and spikes of every layer, and the scores.

It is one piece of HTML without a script or an address in it: a slider whose own handler moves what is there. So it
works in a notebook with or without a kernel, in one that is only looked at, and as a file.
"""

import base64
import io
import json
from dataclasses import field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from snn_bp.errors import SnnError, as_path, check_number
from snn_bp.errors.calls import checked_dataclass
from snn_bp.files import replace_file
from snn_bp.model.activity import spikes_in
from snn_bp.model.network import Activity
from snn_bp.neurons import is_spiking
from snn_bp.reports.plots.recordings import recording_of
from snn_bp.reports.plots.style import light_half

if TYPE_CHECKING:
    from snn_bp.reports.plots.pictures import Scene

CLASSES = 12  # at most, whose scores have a bar: the highest ones
SHADES = 32  # in which potentials are drawn


@checked_dataclass(frozen=True)
class Steps:
    """A recording with a slider over its time steps, as HTML; a notebook shows it as a cell's last line."""

    title: str
    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        return self.html

    def write(self, file: Path | str) -> None:
        """Write it to `file`, an `.html` that needs nothing else."""
        file = as_path("steps: the file", file)
        if file.suffix != ".html":
            raise SnnError(f"{file}: the steps of a recording are written as .html.")
        replace_file(file, self.page())

    def page(self) -> bytes:
        """The content of such a file."""
        head = f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>{escape(self.title)}</title>'
        head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
        look = "<style>:root{color-scheme:light dark}body{font:1rem/1.4 system-ui,sans-serif;margin:1rem}</style>"
        return f"{head}{look}<main>{self.html}</main></html>\n".encode(errors="backslashreplace")


@torch.no_grad()
def steps_of(scene: "Scene", *, neurons: int = 64) -> Steps:
    """The first recording of a scene, with up to `neurons` of each layer, evenly spaced."""
    check_number("steps: neurons", neurons, integer=True, low=1)
    options, (x, out) = scene.options, scene.first
    target = options["target"]
    loss = None if target is None else options["loss"]
    frames, scores, names = recording_of(x, out, 0, loss, options["class_names"])
    is_finite = np.isfinite(scores).all() and np.isfinite(frames).all()
    frames, scores = (np.where(np.isfinite(values), values, 0) for values in (frames, scores))
    layers = [_layer(each, neurons) for each in scene.network.observe(x)[0]]
    highest = np.argsort(-(scores.sum(0) if loss is None else scores[-1]), kind="stable")[:CLASSES].tolist()
    shown = sorted(highest if target is None or target in highest else [*highest[:-1], target])
    low = min(float(scores[:, shown].min()), 0.0)
    moving = {
        "ms": options["step_ms"],
        "scores": [[float(f"{value:.4g}") for value in row] for row in scores[:, shown].tolist()],
        "low": low,
        "spread": float(scores[:, shown].max()) - low or 1.0,
        "best": [shown.index(best) if best in shown else -1 for best in scores.argmax(1).tolist()],
        "spikes": [[None if sent is None else round(sent[step]) for *_, sent in layers] for step in range(len(scores))],
    }
    scored = "output of the step" if loss is None else "scores up to the step"
    scored += "" if is_finite else ", 0 where they are not finite"
    scored += f", the {len(shown)} highest of {len(names)}" * (len(shown) < len(names))
    grid, across = _input(frames)
    return Steps(scene.title, _html(
        title=scene.title, input=_png(grid), across=across, down=grid.shape[0] // frames.shape[1] if across else 0,
        shape=frames.shape[1:], frames=len(frames), layers=layers, scored=scored, moving=moving,
        names=[(names[index], index == target) for index in shown], count=len(scores),
        first=int(np.abs(frames).reshape(len(frames), -1).sum(1).argmax()),
    ))  # fmt: skip


def _layer(layer: Activity, neurons: int) -> tuple[str, str, int, list[float] | None]:
    """Potentials over time as a picture, spikes black in it, what it shows, its rows, and all spikes of each step."""
    potentials = layer.potentials[:, 0].flatten(1).float().cpu().numpy()
    total = potentials.shape[1]
    shown = np.linspace(0, total - 1, min(neurons, total)).astype(int)
    chosen = np.where(np.isfinite(potentials), potentials, 0)[:, shown].T
    low, high = np.quantile(chosen, (0.01, 0.99)).tolist()
    shades = np.clip((chosen - low) / ((high - low) or 1.0) * (SHADES - 1), 0, SHADES - 1).astype(np.uint8)
    part = f"{total} neurons" if total == len(shown) else f"{len(shown)} of {total} neurons"
    caption = f"{layer.name}: {part}, a row each. Potential from {low:.3g} (light) to {high:.3g} (dark)"
    palette = [*(light_half("YlOrBr")(np.linspace(0, 1, SHADES), bytes=True)[:, :3].ravel().tolist()), 0, 0, 0]
    if not is_spiking(layer.neuron):
        return _png(shades, palette), caption, len(shown), None
    fired = layer.spikes[:, 0].flatten(1)
    shades[fired[:, shown].T.cpu().numpy() != 0] = SHADES
    sent = spikes_in(layer.neuron, fired).sum(1).tolist()
    return _png(shades, palette), f"{caption}, spikes black", len(shown), sent


def _input(frames: np.ndarray) -> tuple[np.ndarray, int]:
    """The frames in a grid as one picture, as many in a row as are given too; a row of channels over time in one."""
    largest = float(np.quantile(np.abs(frames[frames != 0]), 0.99)) if frames.any() else 1.0
    lowest = -largest if frames.min() < 0 else 0.0
    shades = np.clip((frames - lowest) / (largest - lowest) * 255, 0, 255).astype(np.uint8)
    shades = shades if lowest else 255 - shades
    if frames.ndim == 2:
        return shades.T, 0
    across = int(np.ceil(np.sqrt(len(shades))))
    rows = -(-len(shades) // across)
    empty = np.full((rows * across - len(shades), *shades.shape[1:]), 128 if lowest else 255, np.uint8)
    height, width = shades.shape[1:]
    grid = np.concatenate([shades, empty]).reshape(rows, across, height, width)
    return grid.transpose(0, 2, 1, 3).reshape(rows * height, across * width), across


def _png(values: np.ndarray, palette: list[int] | None = None) -> str:
    """Bytes `[rows, columns]`, shades of grey or numbers of colours, as the address of a picture."""
    from PIL import Image  # comes with matplotlib

    picture, content = Image.fromarray(values), io.BytesIO()
    if palette is not None:
        picture.putpalette(palette)
    picture.save(content, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _html(*, moving: dict[str, Any], **content: Any) -> str:
    """The piece of HTML; nothing in what it is given is taken for markup."""
    from jinja2 import Environment, StrictUndefined  # comes with torch

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    data, handler = json.dumps(moving, separators=(",", ":")), " ".join(HANDLER.split())
    template = environment.from_string(TEMPLATE)
    return template.render(moving=moving, data=data, style=STYLE, handler=handler, **content)


STYLE = """
.snn-steps{max-width:46rem;font-size:.9rem;line-height:1.4}.snn-steps figure{margin:.6rem 0}
.snn-steps label{display:flex;flex-wrap:wrap;gap:.2rem .7rem;align-items:center}
.snn-steps input{flex:1 1 14rem;min-width:0}.snn-steps output{font-variant-numeric:tabular-nums;min-width:9rem}
.snn-top{display:flex;flex-wrap:wrap;gap:0 1.5rem;align-items:flex-start}.snn-scores{flex:1 1 15rem}
.snn-row{display:grid;grid-template-columns:minmax(4rem,9rem) 1fr 4.5rem;gap:.5rem;align-items:center}
.snn-row>*:last-child{text-align:right;font-variant-numeric:tabular-nums}
.snn-row>*:first-child{overflow-wrap:anywhere}
.snn-row i{display:block;height:.7rem;background:#1f82c4;min-width:1px}
.snn-row.best{font-weight:700}.snn-row.best i{background:#d55e00}
.snn-window{position:relative;overflow:hidden;border:1px solid #8c8c8c;background:#fff}
.snn-window img{display:block;width:100%;height:100%;max-width:none;margin:0;image-rendering:pixelated}
.snn-cursor{position:absolute;top:0;bottom:0;box-shadow:inset 0 0 0 2px #1f82c4;min-width:2px}
"""

HANDLER = """
const root = this.closest('.snn-steps'), t = +this.value, d = JSON.parse(root.dataset.steps), n = d.scores.length;
const each = (name, change) => root.querySelectorAll(name).forEach(change);
const ms = d.ms ? ', ' + +(t * d.ms).toPrecision(6) + ' ms' : '';
root.querySelector('output').textContent = t + ' of ' + (n - 1) + ms;
each('.snn-cursor', e => { e.style.left = t / n * 100 + '%'; });
each('.snn-row', (e, k) => { const s = d.scores[t][k]; e.classList.toggle('best', k == d.best[t]);
  e.children[1].firstElementChild.style.width = (s - d.low) / d.spread * 100 + '%';
  e.lastElementChild.textContent = s; });
each('.snn-sent', (e, k) => { e.textContent = d.spikes[t][k]; });
each('.snn-frames', e => { const a = +e.dataset.across, f = Math.min(t, e.dataset.frames - 1);
  e.style.transform = 'translate(' + -(f % a) * 100 / a + '%,' + -Math.floor(f / a) * 100 / e.dataset.down + '%)'; });
"""

TEMPLATE = """
{%- macro strip(picture, caption, rows, part=100) %}
<div class="snn-window" style="height:{{ [[rows * 4, 40] | max, 200] | min }}px">
<img style="width:{{ part }}%" src="{{ picture }}" alt="{{ caption }}">
<i class="snn-cursor" style="left:{{ first / count * 100 }}%;width:{{ 100 / count }}%"></i></div>
{% endmacro -%}
<div class="snn-steps" data-steps="{{ data }}">
<style>{{ style | safe }}</style>
<strong>{{ title }}</strong>
<label>step <input type="range" min="0" max="{{ count - 1 }}" value="{{ first }}" oninput="{{ handler }}">
<output>{{ first }} of {{ count - 1 }}{{ ", %g ms" | format(first * moving['ms']) if moving['ms'] }}</output></label>
<div class="snn-top">
{% if across %}
<figure><div class="snn-window" style="width:13rem;aspect-ratio:{{ shape[1] }}/{{ shape[0] }}">
<img class="snn-frames" data-across="{{ across }}" data-down="{{ down }}" data-frames="{{ frames }}"
style="width:{{ across * 100 }}%;height:{{ down * 100 }}%;transform:translate({{ -(first % across) * 100 / across }}%,{{
 -(first // across) * 100 / down }}%)" alt="Events of the step" src="{{ input }}"></div>
<figcaption>input</figcaption></figure>
{% endif %}
<div class="snn-scores">
{% for name, wanted in names %}
<div class="snn-row{{ ' best' if loop.index0 == moving['best'][first] }}">
<span>{{ name }}{{ ', true' if wanted }}</span>
{% set score = moving['scores'][first][loop.index0] %}
<span><i style="width:{{ (score - moving['low']) / moving['spread'] * 100 }}%"></i></span>
<span>{{ "%.4g" | format(score) }}</span></div>
{% endfor %}
<small>{{ scored }}</small>
</div>
</div>
{% if not across %}
<figure>{{ strip(input, "Input over time", shape[0], frames / count * 100) }}
<figcaption>input: {{ shape[0] }} channels, a row each</figcaption></figure>
{% endif %}
{% for picture, caption, rows, sent in layers %}
<figure>{{ strip(picture, caption, rows) }}
<figcaption>{{ caption }}{% if moving['spikes'][first][loop.index0] is not none %}, in this step:
<span class="snn-sent">{{ moving['spikes'][first][loop.index0] }}</span>{% endif %}</figcaption></figure>
{% endfor %}
</div>
"""
