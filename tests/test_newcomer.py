"""The newcomer's path: README's commands, as they stand there, from the first line to one's own recordings exported.

They run by the `snn-bp` that PATH finds, in an empty folder. `.ci/run` puts an environment first that holds nothing
but the built wheel.
"""

import csv
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "data"))
from event_files import moving_bar

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MINUTES = 10  # on two cores


def commands(heading: str) -> list[str]:
    """The lines of the first block of commands below a heading."""
    block = re.search(r"```bash\n(.*?)```", README.partition(f"\n{heading}\n")[2], flags=re.DOTALL)
    assert block, f"README has no commands below {heading}"
    return block[1].splitlines()


def run(command: str) -> None:
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
def test_readme_leads_from_its_first_line_to_ones_own_network_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    shutil.copy(ROOT / "experiments" / "digits.py", tmp_path / "experiments")
    rng, new = np.random.default_rng(0), {}
    for direction in ("down", "left", "right", "up"):
        for number in range(14):
            file = tmp_path / "recordings" / direction / f"{number}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, moving_bar(direction, rng))
        new[f"{direction}.npy"] = direction
        (tmp_path / "new").mkdir(exist_ok=True)
        np.save(tmp_path / "new" / f"{direction}.npy", moving_bar(direction, rng))
    began = time.monotonic()

    install, _, digits = commands("<!-- setup -->")[0].partition(" && ")
    assert install.startswith("pip install")
    for command in (digits, "snn-bp report runs/digits", *commands("## Your own recordings")):
        run(command)
    minutes = (time.monotonic() - began) / 60

    results = [json.loads((tmp_path / "runs" / name / "results.json").read_text()) for name in ("digits", "recordings")]
    assert results[0]["test"]["accuracy"] > 0.95 and results[1]["test"]["accuracy"] >= 0.9
    assert all((tmp_path / "runs" / name / "report.html").is_file() for name in ("digits", "recordings"))
    assert (tmp_path / "recordings.nir").is_file()
    with open(tmp_path / "answers.csv", newline="") as file:
        answers = {Path(row["recording"]).name: row["prediction"] for row in csv.DictReader(file)}
    assert sum(answers[name] == direction for name, direction in new.items()) >= 3
    assert minutes < MINUTES
    print(f"from the installed package to the answers: {minutes:.1f} minutes")


def test_every_step_of_the_path_is_in_readme():
    assert "snn-bp report runs/digits" in README
    named = [re.findall(r"snn-bp (\w+)", line)[0] for line in commands("## Your own recordings")]
    assert named == ["init", "train", "report", "export", "predict"]
