"""Spikes of our networks in compilers and software of chips: how many differ.

    python experiments/benchmarks/nir_chips.py

Networks drawn from a seed hear random spikes; three that are trained on the digits hear recordings of the test split.
Each is exported, read by every tool that is found here, and compared with our network in every output and step; a tool
that is missing is named with what it needs. Writes experiments/results/nir_chips.json. The pages snn_mlir.md,
spinnaker2.md and hls4ml.md of notebooks/site say how to come by the tools, and with which settings they read us:

    snn-mlir      PyPI; snn-opt of its repository (SNN_OPT=...), LLVM 22 (MLIR_DIR=.../lib/cmake/mlir), a C compiler
    hls4ml        PyPI; takes the network of `to_snntorch`
    py-spinnaker2 gitlab.com/spinnaker2/py-spinnaker2; its Brian2 backend, no board. Never run here: by its source
"""

import copy
import importlib
import math
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nir
import numpy as np
import torch
from nir_peers import NETWORKS, TRAINED, differing, spikes
from torch import Tensor, nn

from snn_bp import Data, Experiment, SnnError, Train
from snn_bp.exchange.nir_write import write_nir
from snn_bp.exchange.snntorch import to_snntorch
from snn_bp.files import write_json
from snn_bp.model.layers import Dense
from snn_bp.model.network import Network
from snn_bp.model.start import start_alive
from snn_bp.neurons import LIF
from snn_bp.runs.provenance import machine, version
from snn_bp.trainer.loop import train

PACKAGES = ("snn_bp", "nir", "snn-mlir", "hls4ml", "py-spinnaker2", "snntorch", "torch", "numpy")
STEP_S = 1.0  # snn-mlir takes the r of an IF for its input gain, which is 1 / step
SAMPLES, RECORDINGS = 2, 4
DRAWN = (
    "MLP, LIF", "MLP, LIF, weights of int8", "MLP, LIF, large", "MLP, LIF, batch norm", "MLP, CubaLIF", "IF",
    "MLP, LIF, subtract_before_leak",
    "recurrent LIF", "recurrent CubaLIF", "Conv2d, sum pool", "decay of each neuron", "delays", "residual",
)  # fmt: skip
early = LIF(beta=0.9, reset="subtract_before_leak")
NETWORKS["MLP, LIF, subtract_before_leak"] = ((Dense(32), early, Dense(8), early), (24,))
FITTED = ("dense", "dense, currents", "recurrent")


def write(network: Network, path: Path) -> None:
    """The file; this reset is what NIR up to 1.0.5 means."""
    write_nir(network, path, step_s=STEP_S, compatible="1.0.4" if early in network.model else None)


def for_snn_mlir(path: Path) -> None:
    """The same network as snn-mlir reads it: r = tau / step in each LIF and LI, and no Flatten behind the input.

    It reads the step out of r, and so takes r = 1 for a decay of 0; weights here are divided by 1 - beta for that r.
    """
    graph = nir.read(path)
    nodes, edges = graph.nodes, graph.edges
    for name, node in list(nodes.items()):
        if isinstance(node, nir.LIF | nir.LI):
            gain = STEP_S / node.tau * node.r
            by_row = gain.reshape(len(gain), -1)[:, 0].astype(float)  # one decay for each channel
            node.r = node.tau / STEP_S
            before: Any  # weighted sums
            for before in (nodes[source] for source, target in edges if target == name):
                before.weight = (before.weight * by_row.reshape(-1, *[1] * (before.weight.ndim - 1))).astype(np.float32)
                if hasattr(before, "bias"):
                    before.bias = (before.bias * by_row).astype(np.float32)
        elif isinstance(node, nir.Flatten) and ("input", name) in edges:
            nodes["input"] = nir.Input(input_type={"input": node.output_type["output"]})
            edges = [("input" if source == name else source, target) for source, target in edges if target != name]
            del nodes[name]
    nir.write(path, nir.NIRGraph(nodes, edges))


def snn_mlir_runs(
    network: Network, x: Tensor, folder: Path, *, quantize: bool = False, passes: tuple[str, ...] = ()
) -> Tensor:
    """The program that snn-mlir compiles, on one recording after the other; `passes` go before its own of memref."""
    snn_mlir = importlib.import_module("snn_mlir")
    runs = importlib.import_module("snn_mlir._run")
    at = runs._MLIR_OPT_PASSES.index("-finalize-memref-to-llvm")
    listed = [*runs._MLIR_OPT_PASSES[:at], *passes, *runs._MLIR_OPT_PASSES[at:]]
    write(network, folder / "net.nir")
    for_snn_mlir(folder / "net.nir")
    (folder / "net.nir.json").unlink()
    samples = []
    for sample in x.unbind(1):
        np.savetxt(folder / "input.csv", sample.flatten(1).numpy(), fmt="%d", delimiter=",")
        try:
            with patch.object(runs, "_MLIR_OPT_PASSES", listed):
                results = snn_mlir.run_folder(folder, quantize=quantize)
        except subprocess.CalledProcessError as cause:
            said = cause.stderr.decode().splitlines()[0].partition("error: ")[2]
            raise SnnError(f"{Path(cause.cmd[0]).name}: {said}") from None
        rows = np.loadtxt(results, delimiter=",", ndmin=2)
        samples.append(torch.from_numpy(rows).float())
    return torch.stack(samples, 1)


def in_whole_numbers(network: Network, x: Tensor, folder: Path) -> Tensor:
    """What snn-mlir's int8 program does, in whole numbers of numpy, for dense layers one behind the other.

    Weights are whole multiples of 2**-k, states of 2**-12, decays 4096ths; a product with a decay rounds down.
    """
    snn_mlir = importlib.import_module("snn_mlir")
    write(network, folder / "net.nir")
    for_snn_mlir(folder / "net.nir")
    layers = list(snn_mlir.parse_graph(folder / "net.nir"))
    snn_mlir.quantize_layers(layers)
    out = x.flatten(2).numpy().astype(np.int64)
    for dense, neurons in zip(layers[::2], layers[1::2], strict=True):
        i = out @ dense.int8_weights.astype(np.int64).T + (0 if dense.bias is None else dense.int32_bias)
        i = i << (12 - dense.w_scale)
        alpha = getattr(neurons, "cur_decay_scaled", 0)
        beta = neurons.vol_decay_scaled if alpha else neurons.decay_scaled
        current, v, steps = np.zeros_like(i[0]), np.zeros_like(i[0]), []
        for step in i:
            current = (alpha * current >> 12) + step
            v = (beta * v >> 12) + current
            steps.append(v > neurons.threshold_scaled)
            v = np.where(steps[-1], 0, v)
        out = np.stack(steps).astype(np.int64)
    return torch.from_numpy(out).float()


def hls4ml_runs(network: Network, x: Tensor, folder: Path, *, precision: str) -> Tensor:
    """hls4ml's compiled model of the network in snnTorch, called once for each step, and built anew for a recording."""
    if early in network.model:  # what hls4ml makes of snnTorch's "subtract"
        model = tuple(LIF(beta=0.9, reset="subtract") if layer == early else layer for layer in network.model)
        weights, network = network.state_dict(), Network(model, network.input_shape).eval()
        network.load_state_dict(weights)
    convert = importlib.import_module("hls4ml.converters").convert_from_pytorch_model
    config = importlib.import_module("hls4ml.utils").config_from_pytorch_model
    samples = []
    for number, sample in enumerate(x.unbind(1)):
        model, shape = to_snntorch(network), network.input_shape
        if isinstance(model[0], nn.Flatten):  # it would flatten in the order row, column, channel
            model, shape, sample = model[1:], (math.prod(shape),), sample.flatten(1)
        settings = config(model, input_shape=shape, default_precision=precision, backend="Vitis")
        built = convert(model, hls_config=settings, output_dir=str(folder / str(number)), backend="Vitis")
        built.compile()
        samples.append(torch.stack([torch.from_numpy(built.predict(step[None].numpy())) for step in sample]))
    return torch.stack(samples, 1)


def spinnaker2_runs(network: Network, x: Tensor, folder: Path) -> Tensor:
    """SpiNNaker2's software, in its Brian2 backend, weights as it scales and rounds them for the chip."""
    s2_nir = importlib.import_module("spinnaker2.s2_nir")
    backend = importlib.import_module("spinnaker2.brian2_sim").Brian2Backend()
    write(network, folder / "net.nir")
    reset = s2_nir.ResetMethod.SUBTRACT if early in network.model else s2_nir.ResetMethod.ZERO
    integrator = s2_nir.IntegratorMethod.FORWARD
    settings = s2_nir.ConversionConfig(dt=STEP_S, conn_delay=0, scale_weights=True, reset=reset, integrator=integrator)
    net, (enters,), (leaves,) = s2_nir.from_nir(nir.read(folder / "net.nir"), settings)
    samples = []
    for sample in x.flatten(2).unbind(1):
        net.reset()
        enters.params = {n: sample[:, n].nonzero()[:, 0].tolist() for n in range(sample.shape[1])}
        backend.run(net, len(sample), quantize_weights=True)
        out = torch.zeros(len(sample), leaves.size)
        for n, steps in leaves.get_spikes().items():
            out[list(map(int, steps)), n] = 1
        samples.append(out)
    return torch.stack(samples, 1)


def in_127ths(network: Network, x: Tensor) -> Tensor:
    """Our network with the weights that py-spinnaker2's `scale_weights` asks for: whole 127ths of the largest."""
    rounded = copy.deepcopy(network)
    for parameter in rounded.parameters():
        if parameter.ndim > 1:
            unit = parameter.abs().max() / 127
            parameter.copy_((parameter / unit).round() * unit)
    return rounded(x)


TOOLS: dict[str, Callable[[Network, Tensor, Path], Tensor]] = {
    "snn-mlir, float": snn_mlir_runs,
    "snn-mlir, float, more passes": partial(
        snn_mlir_runs, passes=("-expand-strided-metadata", "-lower-affine", "-convert-arith-to-llvm")
    ),
    "snn-mlir, int8": partial(snn_mlir_runs, quantize=True),
    "hls4ml, float": partial(hls4ml_runs, precision="float"),
    "hls4ml, ap_fixed<16,6>": partial(hls4ml_runs, precision="ap_fixed<16,6>"),
    "hls4ml, ap_fixed<32,12>": partial(hls4ml_runs, precision="ap_fixed<32,12>"),
    "py-spinnaker2": spinnaker2_runs,
}


def missing(tool: str) -> str | None:
    """What a tool lacks to run here."""
    first = tool.partition(",")[0]
    name = {"snn-mlir": "snn_mlir", "py-spinnaker2": "spinnaker2"}.get(first, first)
    if find_spec(name) is None:
        return "is not installed"
    if name == "snn_mlir" and not importlib.import_module(name).toolchain_available():
        return "snn-opt, mlir-opt, mlir-translate, llc or a C compiler is not found"
    return None


@torch.no_grad()
def compared(network: Network, x: Tensor) -> dict[str, Any]:
    """How many outputs of each tool differ from the network's own."""
    wanted = network(x)
    row: dict[str, Any] = {"entries": wanted.numel(), "mean_output": round(float(wanted.mean()), 4)}
    if "BatchNorm" not in str(network.model):
        row["ours, weights in 127ths"] = differing(wanted, lambda: in_127ths(network, x))
    for tool, runs in TOOLS.items():
        if (reason := missing(tool)) is not None:
            row[tool] = {"not run": reason}
            continue
        with tempfile.TemporaryDirectory() as folder:
            row[tool] = differing(wanted, lambda runs=runs, at=Path(folder): runs(network, x, at))
        if tool == "snn-mlir, int8" and isinstance(row[tool], int) and "Recurrent" not in str(network.model):
            with tempfile.TemporaryDirectory() as folder:
                theirs = runs(network, x, Path(folder))
                row["int8, in numpy"] = differing(theirs, lambda at=Path(folder): in_whole_numbers(network, x, at))
    return row


@torch.no_grad()
def drawn(name: str, seed: int) -> dict[str, Any]:
    """A network from a seed, on random spikes."""
    model, shape = NETWORKS[name.removesuffix(", weights of int8")]
    x = spikes(shape, torch.Generator().manual_seed(seed))[:, :SAMPLES]
    network = Network(model, shape, seed=seed)
    start_alive(network, x)
    if name.endswith("int8"):
        for parameter in network.parameters():
            bits = 6 - parameter.abs().max().clamp(min=1e-3).log2().ceil()  # so that the largest is 32 to 64 steps
            parameter.copy_((parameter * 2**bits).round() / 2**bits)
    return compared(network.eval(), x)


def trained(family: str, seed: int, folder: Path) -> dict[str, Any]:
    """A network trained on the digits, on recordings of the test split."""
    data = Data("digits", step_ms=31, steps=10, binary=True, downsample=2)
    run = train(Experiment(data, TRAINED[family], Train(epochs=4, lr=5e-3), seed=seed), folder / family, quiet=True)
    dataset = run.dataset()
    x, _ = dataset.batch("test", dataset.ids["test"][:RECORDINGS])
    return compared(run.network(), x)


def main() -> None:
    """Measure and write the result."""
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "not_run": {tool: reason for tool in TOOLS if (reason := missing(tool)) is not None},
        "drawn": {},
        "trained": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for kind, names, measure in (
            ("drawn", DRAWN, lambda name: drawn(name, 0)),
            ("trained", FITTED, lambda name: trained(name, 0, Path(folder))),
        ):
            for name in names:
                result[kind][name] = measure(name)
                print(kind, name, result[kind][name], flush=True)
    write_json(Path(__file__).parents[1] / "results" / "nir_chips.json", result)


if __name__ == "__main__":
    main()
