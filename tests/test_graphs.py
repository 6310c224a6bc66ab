"""Networks with joints against the same of others: SpikingJelly's SEW blocks, and plain modules of torch.

The networks and the comparison stand in `experiments/benchmarks/graphs.py`.
"""

import runpy
from pathlib import Path

import pytest
import torch

GRAPHS = runpy.run_path(str(Path(__file__).parents[1] / "experiments/benchmarks/graphs.py"))


@pytest.mark.parametrize("name", GRAPHS["NETWORKS"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_spikes_are_those_of_the_other_side_and_gradients_agree(name, dtype):
    if "SpikingJelly" in name:
        pytest.importorskip("spikingjelly", reason="SpikingJelly is not installed")

    found = GRAPHS["compare"](name, dtype)

    assert found["least_of_a_layer"] > 0.02
    if dtype == torch.float64:
        assert found["spikes_differ"] == 0
        assert max(found["output_error"], found["gradient_error"]) < 1e-11
    else:  # sums in another order: a potential within rounding of its threshold may spike on one side only
        assert found["spikes_differ"] < 1e-4 * found["neurons_and_steps"]
    assert found["spikes_differ"] > 0 or found["gradient_error"] < 1e-5
