"""The live page of a run: a server for this machine alone, and a page that asks it for the run's rows again and again.

The page holds no figure; a script draws what the server reads from the run's folder at that moment.
"""

import json
import math
import sys
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from snn_bp.errors import SnnError, check_kind, check_number, typed
from snn_bp.files import is_there, read_text
from snn_bp.files.lock import holder
from snn_bp.reports.page import STYLE
from snn_bp.runs.folder import Run
from snn_bp.runs.paths import run_at
from snn_bp.runs.records import results_line
from snn_bp.runtime.status import say

HOST, SECONDS, LINES = "127.0.0.1", 2, 12  # seconds between two looks; lines of the log that are shown
SPLITS = {"train": "training", "validation": "validation"}
TITLES = {"lr": "learning rate", "grad_norm": "gradient norm", "samples_per_s": "recordings per second",
          "seconds": "seconds of the epoch", "wait_seconds": "seconds of waiting for data",
          "peak_memory_mb": "peak memory in MB"}  # fmt: skip


def watch(run: Run, *, port: int | None = None) -> None:
    """Serve a page with the curves of `run` on 127.0.0.1, which follows it while it trains, until Ctrl-C.

    `port` (None): where; by default a free one. Nothing is written into the run's folder.
    """
    with server_of(run, port=port) as server:
        say(f"{run.path} is shown at http://{HOST}:{server.server_address[1]}/ until Ctrl-C")
        server.serve_forever()


def server_of(run: Run, *, port: int | None = None) -> ThreadingTCPServer:
    """The server of the page, bound to its port; raises where that is taken, or where the run has no rows."""
    check_kind("watch: the run", run, Run, "As in watch(Run('runs/mine')).")
    if port is not None:
        check_number("watch: port", port, integer=True, low=1, high=65535)
    if run.is_search():
        raise SnnError(
            f"{run.path}: it holds a search, no training. `snn-bp report {typed(run.path)}` shows its figures."
        )
    try:
        return _Server(run, port or 0)
    except OSError as cause:
        raise SnnError(
            f"watch: port {port or 'free'}: it cannot be listened at ({cause.strerror}). Name another --port, or none "
            "for a free one."
        ) from None


def figures(run: Run) -> dict[str, Any]:
    """What the page shows, as JSON holds it: title, state, epochs asked for, charts, the last lines of the log.

    A chart is a title and lines, each a name and a value for every epoch that is complete; None where there is none.
    """
    asked = run.experiment.train.epochs
    try:
        run_at(run.path)
        rows = run.metrics()
        state = _state(run, len(rows), asked)
    except SnnError as problem:
        rows, state = [], f"cannot be shown: {problem}"
    charts: dict[str, list[dict[str, Any]]] = {}
    for column in dict.fromkeys(name for row in rows for name in row if name != "epoch"):
        split, _, name = column.partition("_")
        title, line = (name, SPLITS[split]) if split in SPLITS else (column, "")
        values = [row.get(column, math.nan) for row in rows]
        seen = [value if math.isfinite(value) else None for value in values]
        charts.setdefault(TITLES.get(title, title.replace("_", " ")), []).append({"name": line, "values": seen})
    return {
        "title": f"Run {run.path.resolve().name}",
        "state": state,
        "epochs": max(asked, len(rows)),
        "charts": [{"title": title, "lines": lines} for title, lines in charts.items()],
        "log": _last_lines(run),
    }


def _state(run: Run, done: int, asked: int) -> str:
    if results := run.results():
        return results_line(results)
    far = f"{done} of {asked} epochs complete"
    return f"in training, {far}" if holder(run.path) else f"not in training, {far}"


def _last_lines(run: Run) -> list[str]:
    file = run.path / "log.txt"
    try:
        return read_text(file).splitlines()[-LINES:] if is_there(file) else []
    except SnnError:
        return []


class _Server(ThreadingTCPServer):
    """Answers on this machine; a page that goes away in between is no error."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, run: Run, port: int) -> None:
        self.run = run
        super().__init__((HOST, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):  # a page of another's asks
            self.send_error(403)
        elif self.path == "/":
            self._answer("text/html", PAGE)
        elif self.path == "/figures":
            self._answer("application/json", json.dumps(figures(self.server.run)))
        else:
            self.send_error(404)

    def _answer(self, kind: str, text: str) -> None:
        content = text.encode(errors="backslashreplace")
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is the user's."""


PAGE = (
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; connect-src 'self';
  style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>Run</title>
<style>"""
    + STYLE
    + """
#charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: 0 1.5rem; }
#charts svg { display: block; width: 100%; height: auto; font-size: 12px; fill: var(--soft); }
#charts path { fill: none; stroke-width: 2; } #charts .axis { stroke: var(--line); stroke-width: 1; }
.line0 { stroke: #1f82c4; border-color: #1f82c4; } .line1 { stroke: #d55e00; border-color: #d55e00; }
path.line1 { stroke-dasharray: 6 3; } #charts path.last { stroke-linecap: round; stroke-width: 7;
  stroke-dasharray: none; }
figcaption span { border-bottom: 2px solid; } figcaption .line1 { border-bottom-style: dashed; }
pre { white-space: pre-wrap; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .8rem; font-size: .85rem; }
</style>
</head>
<body>
<header><h1 id="title">Run</h1><p class="soft" id="state" role="status">asking for the run's figures</p></header>
<main>
<section aria-labelledby="training"><h2 id="training">Training</h2>
<p id="none">No epoch is complete yet.</p><div id="charts"></div></section>
<section aria-labelledby="lines"><h2 id="lines">Last lines of the log</h2><pre id="log"></pre></section>
</main>
<noscript><p>This page takes JavaScript; `snn-bp report` writes one that does not.</p></noscript>
<script>
"use strict";
const WIDTH = 460, HEIGHT = 210, LEFT = 62, RIGHT = 12, TOP = 12, BOTTOM = 24;
const at = name => document.getElementById(name);
const digits = value => value === 0 ? "0" : Math.abs(value) >= 1e4 || Math.abs(value) < 1e-3
  ? value.toExponential(1) : String(Number(value.toPrecision(3)));
function add(parent, name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return parent.appendChild(made);
}
function chart({title, lines}, epochs) {
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  caption.append(`${title}: `);
  lines.forEach((line, number) => {
    const name = document.createElement("span"), value = line.values[line.values.length - 1];
    name.setAttribute("class", `line${number}`);
    name.append(line.name);
    caption.append(number ? ", " : "", ...(line.name ? [name, " "] : []), value === null ? "none" : digits(value));
  });
  const svg = add(figure, "svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": caption.textContent});
  const all = lines.flatMap(line => line.values).filter(value => value !== null);
  let low = Math.min(...all), high = Math.max(...all);
  if (!all.length) [low, high] = [0, 1];
  if (low === high) { const room = Math.abs(low) / 2 || 1; low -= room; high += room; }
  const x = epoch => LEFT + (WIDTH - LEFT - RIGHT) * (epochs > 1 ? (epoch - 1) / (epochs - 1) : .5);
  const y = value => TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low);
  for (const value of [low, (low + high) / 2, high]) {
    add(svg, "path", {class: "axis", d: `M${LEFT} ${y(value)}H${WIDTH - RIGHT}`});
    add(svg, "text", {x: LEFT - 6, y: y(value) + 4, "text-anchor": "end"}, digits(value));
  }
  for (const epoch of new Set([1, epochs]))
    add(svg, "text", {x: x(epoch), y: HEIGHT - 6, "text-anchor": epoch > 1 ? "end" : "middle"}, `epoch ${epoch}`);
  lines.forEach((line, number) => {
    let path = "", pen = "M";
    line.values.forEach((value, index) => {
      if (value === null) { pen = "M"; return; }
      path += `${pen}${x(index + 1).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = "L";
    });
    add(svg, "path", {class: `line${number}`, d: path});
    const index = line.values.length - 1, value = line.values[index];
    if (value !== null) add(svg, "path", {class: `line${number} last`, d: `M${x(index + 1)} ${y(value)}h0`});
  });
  figure.append(caption);
  return figure;
}
let shown = "";
async function look() {
  try {
    const text = await (await fetch("figures")).text();
    if (text !== shown) {
      const found = JSON.parse(text);
      document.title = at("title").textContent = found.title;
      at("state").textContent = found.state;
      at("none").hidden = found.charts.length > 0;
      at("charts").replaceChildren(...found.charts.map(each => chart(each, found.epochs)));
      at("log").textContent = found.log.join("\\n");
      shown = text;
    }
  } catch {
    at("state").textContent = "snn-bp watch has ended; the figures are those of the last look";
    shown = "";
  }
  setTimeout(look, """
    + str(1000 * SECONDS)
    + """);
}
look();
</script>
</body>
</html>
"""
)
