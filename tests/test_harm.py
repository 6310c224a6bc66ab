"""Small rounds of the benchmarks that kill and damage: each in a process of its own, since they fork."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "experiments" / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "tried"),
    [("killed.py", ("--kills", "12", "--seed", "5"), 12), ("mutations.py", ("--count", "80", "--seed", "5"), 80)],
)
def test_nothing_killed_or_damaged_is_lost_or_used_in_silence(script, arguments, tried):
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # a fork has no threads of its parent

    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments], capture_output=True, text=True, env=one_thread
    )

    assert done.stdout, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert abs(said.get("of", said.get("trials")) - tried) <= 3  # shares of the kinds are rounded
