"""NeuroBench's own counters on seven networks beside the figures that `evaluate` gives: they should be equal.

    pip install --no-deps neurobench    # its own would change torch; it needs snntorch beside it
    python experiments/benchmarks/neurobench_counters.py

Each network hears random inputs in three batches, drawn from a seed: in ours, and as `to_snntorch` writes it in
NeuroBench's `Benchmark`. A fifth of the weights is set to 0, so that connections are sparse. `Footprint` is compared
with that of snnTorch's modules less the buffers of its neurons, which hold thresholds, decays and states that ours have
outside; how many bytes those are stands beside it. The artificial network, of which `ann_of` makes such, is torch's own
modules in NeuroBench too. Writes experiments/results/neurobench_counters.json: the figures of
both, and the names of those that differ. Exits with 1 where one does, with a line where NeuroBench is not installed.
"""

import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snn_bp import LI, LIF, ATan, BatchNorm, Conv, CubaLIF, Dense, Flatten, Module, Network, Pool, Recurrent
from snn_bp.exchange.snntorch import to_snntorch
from snn_bp.files import write_json
from snn_bp.model.modules import Neurons
from snn_bp.model.neurobench import Counters
from snn_bp.runs.evaluation import count_activity
from snn_bp.runs.provenance import machine, version

RESULT = Path(__file__).resolve().parents[1] / "results" / "neurobench_counters.json"
PACKAGES = ("snn_bp", "neurobench", "snntorch", "torch", "numpy")
STEPS, BATCHES = 20, (5, 5, 3)
lif = LIF(beta=0.9, threshold=0.3)
relu = Module(nn.ReLU)
cuba = CubaLIF(alpha=0.7, beta=0.8, threshold=0.3)
NETWORKS: dict[str, tuple[tuple, tuple[int, ...], str]] = {  # layers, shape of a step, and what it hears
    "dense": ((Dense(32), lif, Dense(8), lif), (24,), "spikes"),
    "convolution": (
        (Conv(6, 3, padding=1, stride=2), lif, Conv(8, 3, groups=2), lif, Pool(2), Flatten(), Dense(8), lif),
        (2, 17, 13),
        "spikes",
    ),
    "recurrent": ((Dense(32), Recurrent(lif), Dense(8), lif), (24,), "spikes"),
    "norm": ((Conv(6, 3), BatchNorm(), lif, Flatten(), Dense(16), BatchNorm(), lif), (2, 8, 9), "noise"),
    "current-based": ((Dense(32), cuba, Dense(8), cuba), (24,), "counts"),
    "readout": ((Dense(32), lif, Dense(8), LI(beta=0.9)), (24,), "spikes"),
    "artificial": (
        (Conv(6, 3), BatchNorm(), relu, Pool(2), Flatten(), Dense(16), relu, Dense(8), Module(nn.Identity)),
        (2, 10, 9),
        "counts",
    ),
}


def network_and_batches(name: str) -> tuple[Network, list[Tensor]]:
    """A network with weights that are 0 among them, and batches `[time, batch, ...]`."""
    layers, shape, heard = NETWORKS[name]
    network = Network(layers, shape, surrogate=ATan(per="potential")).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() > 1:
                weight *= torch.rand(weight.shape, generator=generator) > 0.2
    batches = []
    for samples in BATCHES:
        x = torch.rand(STEPS, samples, *shape, generator=generator)
        made = {"spikes": (x < 0.2).float(), "noise": x - 0.5, "counts": (x < 0.1).float() + (x < 0.005).float()}
        batches.append(made[heard])
    return network, batches


@torch.no_grad()
def ours(network: Network, batches: list[Tensor]) -> dict[str, Any]:
    """What `evaluate` would say."""
    counters = Counters()
    for x in batches:
        count_activity(network, x, {}, {}, counters=counters)
    return counters.figures(network, sum(BATCHES))


@torch.no_grad()
def theirs(network: Network, batches: list[Tensor]) -> tuple[dict[str, Any], int]:
    """What NeuroBench says of the network in snnTorch, and how many bytes of its footprint lie in neurons' buffers."""
    import snntorch
    import snntorch.utils
    from neurobench.benchmarks import Benchmark  # pyright: ignore[reportMissingImports]
    from neurobench.metrics.static import ConnectionSparsity, Footprint, ParameterCount  # pyright: ignore[reportMissingImports]
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations  # pyright: ignore[reportMissingImports]
    from neurobench.models import SNNTorchModel  # pyright: ignore[reportMissingImports]

    class Stepped(SNNTorchModel):
        """NeuroBench's own takes networks that give a pair; that of `to_snntorch` gives spikes alone."""

        def __call__(self, data: Tensor) -> Tensor:
            snntorch.utils.reset(self.net)
            outs = [self.net(x) for x in data.unbind(1)]
            return torch.stack([out[-1] if isinstance(out, tuple) else out for out in outs], 1)

    class Batches(list):
        dataset = range(sum(BATCHES))

    spikes = any(isinstance(layer, Neurons) for layer in network.layers)
    net = to_snntorch(network) if spikes else nn.Sequential(*network.layers)
    neurons = [module for module in net.modules() if isinstance(module, snntorch.SpikingNeuron)]
    buffers = [buffer for module in neurons for buffer in module.buffers(recurse=False)]
    in_neurons = sum(buffer.numel() * buffer.element_size() for buffer in buffers)
    data: Any = Batches((x.transpose(0, 1), torch.zeros(x.shape[1])) for x in batches)
    counters = [[ParameterCount, Footprint, ConnectionSparsity], [ActivationSparsity, SynapticOperations]]
    return Benchmark(Stepped(net), data, [], [], counters).run(quiet=True), in_neurons  # type: ignore[arg-type]


def compared(name: str) -> dict[str, Any]:
    """The figures of both, and which differ."""
    network, batches = network_and_batches(name)
    mine, (found, in_neurons) = ours(network, batches), theirs(network, batches)
    less = found | {"Footprint": found["Footprint"] - in_neurons}
    # a mean over batches of means has another order of the sum
    differ = [key for key in mine if mine[key] != less[key] and key != "ActivationSparsity"]
    differ += ["ActivationSparsity"] * (abs(mine["ActivationSparsity"] - found["ActivationSparsity"]) > 1e-12)
    return {"ours": mine, "NeuroBench": found, "bytes of buffers in its neurons": in_neurons, "differ": differ}


def main() -> int:
    if find_spec("neurobench") is None:
        print("neurobench is not installed: nothing is compared. pip install --no-deps neurobench")
        return 0
    networks = {name: compared(name) for name in NETWORKS}
    for name, row in networks.items():
        print(f"{name}: {'equal' if not row['differ'] else row}; {row['ours']['SynapticOperations']}")
    versions = {name: version(name) for name in PACKAGES}
    write_json(
        RESULT, {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions, "networks": networks}
    )
    return int(any(row["differ"] for row in networks.values()))


if __name__ == "__main__":
    sys.exit(main())
