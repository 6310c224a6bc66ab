"""The live page: what it serves, to whom, that it follows a run, and that it leaves the run's folder alone."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import runs
from runs import tiny

from snn_bp import Run, SnnError, training
from snn_bp.files import append
from snn_bp.reports import live

few_digits, finished = runs.few_digits, runs.finished


@contextmanager
def served(run, **how):
    """The address of a run's page."""
    with live.server_of(run, **how) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def got(address, **headers):
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60) as answer:
        return answer.headers, answer.read().decode()


def refused(address, **headers):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        got(address, **headers)
    with refusal.value as answer:
        return answer.code


def test_the_page_asks_for_figures_that_are_the_rows_of_the_run(finished):
    rows, before = finished.metrics(), sorted(finished.path.rglob("*"))

    with served(finished) as address:
        headers, page = got(f"{address}/")
        found = json.loads(got(f"{address}/figures")[1])

    assert headers["Content-Type"] == "text/html; charset=utf-8" and 'fetch("figures")' in page
    charts = {chart["title"]: {line["name"]: line["values"] for line in chart["lines"]} for chart in found["charts"]}
    assert charts["accuracy"] == {
        "training": [row["train_accuracy"] for row in rows],
        "validation": [row["validation_accuracy"] for row in rows],
    }
    assert charts["spike rate"] == {"": [row["spike_rate"] for row in rows]}
    assert found["epochs"] == 2 and found["state"].startswith("test accuracy ") and len(found["log"]) > 2
    assert sorted(finished.path.rglob("*")) == before


def test_it_needs_nothing_from_elsewhere():
    assert re.findall(r"(?:src|href)=.(?!data:)|https?://(?!www.w3.org/2000/svg)|@import", live.PAGE) == []


def test_it_follows_a_run_from_its_first_row_to_its_results(few_digits, tmp_path):
    states, complete = [], []
    for event in training(tiny(), tmp_path / "run", quiet=True):
        if event.batch in (1, event.batches):
            found = live.figures(Run(tmp_path / "run"))
            states.append(found["state"])
            complete.append([len(line["values"]) for chart in found["charts"] for line in chart["lines"]])
    far = [f"in training, {done} of 2 epochs complete" for done in (0, 1, 1, 2)]

    assert states == far
    assert [set(each) for each in complete] == [set(), {1}, {1}, {2}]
    assert live.figures(Run(tmp_path / "run"))["state"].startswith("test accuracy ")


def test_a_stopped_run_says_so_and_half_a_row_is_not_there_yet(few_digits, tmp_path):
    for event in training(tiny(epochs=3), tmp_path / "run", quiet=True):
        if event.row:
            break
    append(tmp_path / "run/metrics.csv", b"2,0.5")

    found = live.figures(Run(tmp_path / "run"))

    assert found["state"] == "not in training, 1 of 3 epochs complete" and found["epochs"] == 3
    assert len(found["charts"][0]["lines"][0]["values"]) == 1


def test_a_figure_that_is_no_number_is_left_out_of_its_curve(finished, monkeypatch):
    rows = [{"epoch": 1.0, "train_loss": math.nan}, {"epoch": 2.0, "train_loss": 0.5, "lr": math.inf}]
    monkeypatch.setattr(Run, "metrics", lambda run: rows)

    charts = json.loads(json.dumps(live.figures(finished), allow_nan=False))["charts"]

    assert [(chart["title"], chart["lines"][0]["values"]) for chart in charts] == [
        ("loss", [None, 0.5]), ("learning rate", [None, None]),
    ]  # fmt: skip


def test_rows_that_cannot_be_read_are_a_sentence_on_the_page(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    run = Run(tmp_path / "run", trust_code=True)
    (run.path / "metrics.csv").write_text("nothing\n")

    found = live.figures(run)

    assert found["charts"] == [] and found["state"].startswith("cannot be shown: ") and "metrics.csv" in found["state"]
    shutil.rmtree(run.path)
    assert live.figures(run)["state"].startswith(f"cannot be shown: {run.path}: no run is here, it is not there")


def test_only_pages_of_its_own_may_ask_and_only_for_what_there_is(finished):
    with served(finished) as address:
        assert refused(f"{address}/figures", Host="elsewhere.example") == 403  # a name that leads here, from a page
        assert refused(f"{address}/experiment.json") == refused(f"{address}/../../etc/passwd") == 404
        assert got(f"{address}/figures", Host=address.removeprefix("http://").replace("127.0.0.1", "localhost"))


def test_a_port_that_is_taken_and_a_search_are_refused(finished, tmp_path):
    with served(finished) as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(SnnError, match=rf"port {port}.*in use.*another --port"):
            live.server_of(finished, port=port)
    with pytest.raises(SnnError, match="port"):
        live.watch(finished, port=70000)
    shutil.copytree(finished.path, tmp_path / "run")
    (tmp_path / "run/asked.json").write_text("{}")
    with pytest.raises(SnnError, match="holds a search, no training"):
        live.watch(Run(tmp_path / "run", trust_code=True))


@pytest.mark.slow
def test_ctrl_c_ends_the_command_with_130(finished):
    command = [sys.executable, "-m", "snn_bp", "watch", str(finished.path)]
    with runs.heard():
        started = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    with started as running:
        assert running.stdout is not None
        address = re.search(r"http://127.0.0.1:\d+/", running.stdout.readline())
        assert address and "Run finished" not in got(address[0])[1]
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)

    said = runs.without_phases(errors)
    assert running.returncode == 130 and said.count("\n") == 1 and said.startswith("stopped.")


@pytest.mark.skipif(shutil.which("node") is None, reason="the page's script is run by node, which is not installed")
def test_the_script_of_the_page_draws_gaps_and_equal_values(tmp_path):
    script = live.PAGE.partition("<script>")[2].partition("</script>")[0]
    page = """
    class Node { constructor(name) { this.name = name; this.parts = []; this.set = {}; }
      setAttribute(key, value) { this.set[key] = String(value); }
      appendChild(part) { this.parts.push(part); return part; }
      append(...parts) { this.parts.push(...parts); }
      get textContent() { return this.parts.map(part => typeof part === "string" ? part : part.textContent).join(""); }
      set textContent(text) { this.parts = [text]; } }
    const document = {createElementNS: (_, name) => new Node(name), createElement: name => new Node(name)};
    """
    drawn = """
    const of = lines => chart({title: "loss", lines}, 3);
    const all = node => typeof node === "string" ? [] : [node, ...node.parts.flatMap(all)];
    const made = of([{name: "training", values: [1, null, 2]}, {name: "validation", values: [2, 2, null]}]);
    const flat = of([{name: "", values: [0, 0]}]), none = of([{name: "", values: [null]}]);
    const paths = node => all(node).filter(each => each.name === "path" && /^line/.test(each.set.class))
      .map(each => each.set.d);
    console.log(JSON.stringify([made, flat, none].map(node => [node.parts.at(-1).textContent, paths(node),
      all(node).some(each => Object.values(each.set).some(value => /NaN|Infinity/.test(value)))])));
    """
    file = Path(tmp_path / "page.js")
    file.write_text(page + script.replace("\nlook();", "\n") + drawn)

    done = subprocess.run(["node", str(file)], capture_output=True, text=True, check=True, timeout=60)

    made, flat, none = json.loads(done.stdout)
    assert made[0] == "loss: training 2, validation none" and flat[0] == "loss: 0" and none[0] == "loss: none"
    assert made[1] == ["M62.0 186.0M448.0 12.0", "M448 12h0", "M62.0 12.0L255.0 12.0"]  # a gap is no line
    assert not any(broken for _, _, broken in (made, flat, none))
