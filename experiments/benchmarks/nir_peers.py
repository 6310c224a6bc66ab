"""Spikes of our NIR files in other libraries, and of theirs in ours: how many differ.

    python experiments/benchmarks/nir_peers.py

Needs snntorch, norse, spikingjelly and nirtorch beside snn_bp. Networks drawn from a seed hear random spikes; one of
each family, trained on the digits, hears recordings of the test split. Writes experiments/results/nir_peers.json: for
each network and reader the output entries that differ from our network's, or why the reader cannot hold it (NIR's own
equations in double and in single precision among them); likewise for files that the libraries write, compared with the
library itself. sinabs and rockpool are left out: they hold nir at 1.0.4, their neurons subtract the threshold as often
as it fits in a step, and their import runs pip.
"""

import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

from snn_bp import Data, Experiment, SnnError, Train, evaluate
from snn_bp.exchange.nir_read import read_nir
from snn_bp.exchange.nir_replay import replay_nir
from snn_bp.exchange.nir_write import write_nir
from snn_bp.files import write_json
from snn_bp.model.joints import Parallel, Residual
from snn_bp.model.layers import BatchNorm, Conv, Delay, Dense, Flatten, Pool, Recurrent, Spiking
from snn_bp.model.network import Network
from snn_bp.model.start import start_alive
from snn_bp.neurons import IF, LI, LIF, CubaLIF
from snn_bp.runs.provenance import machine, version
from snn_bp.trainer.loop import train

PACKAGES = ("snn_bp", "nir", "nirtorch", "snntorch", "norse", "spikingjelly", "torch", "numpy")
STEP_S, STEPS, BATCH = 1e-4, 100, 4
lif = LIF(beta=0.9, reset="zero")
cuba = CubaLIF(alpha=0.7, beta=0.85, reset="zero")
conv = (Conv(6, 3, padding=1), lif)
head = (Flatten(), Dense(8), LIF(beta=0.8, reset="zero"))
spread = tuple(float(beta) for beta in np.linspace(0.3, 0.97, 32))
NETWORKS: dict[str, tuple[tuple, tuple[int, ...]]] = {
    "MLP, LIF": ((Dense(32), lif, Dense(8), LIF(beta=0.8, reset="zero")), (24,)),
    "MLP, LIF, large": ((Dense(256), lif, Dense(256), lif, Dense(20), lif), (700,)),
    "MLP, LIF, batch norm": ((Dense(32), BatchNorm(), lif, Dense(8), BatchNorm(), lif), (24,)),
    "MLP, CubaLIF": ((Dense(32), cuba, Dense(8), cuba), (24,)),
    "recurrent LIF": ((Dense(32), Recurrent(lif), Dense(8), lif), (24,)),
    "recurrent CubaLIF": ((Dense(32), Recurrent(cuba), Dense(8), cuba), (24,)),
    "Conv2d, sum pool": ((*conv, Pool(2, kind="sum"), Conv(6, 3), lif, *head), (2, 12, 12)),
    "Conv2d, average pool": ((*conv, Pool(2), Conv(6, 3), lif, *head), (2, 12, 12)),
    "Conv1d": ((Conv(6, 3, padding=1, stride=2), lif, *head), (2, 25)),
    "IF": ((Dense(32), IF(reset="zero"), Dense(8), IF(reset="zero")), (24,)),
    "decay of each neuron": ((Dense(32), LIF(beta=spread, reset="zero"), Dense(8), lif), (24,)),
    "decay and threshold of each": ((Dense(32), Spiking(lif, learn=("beta", "threshold")), Dense(8), lif), (24,)),
    "delays": ((Dense(32), lif, Delay(tuple(range(32))), Dense(8), lif), (24,)),
    "LI readout": ((Dense(32), lif, Dense(8), LI(beta=0.9)), (24,)),
    "groups and oblong kernels": (
        (Conv(6, (3, 5), padding=1), lif, Conv(6, 3, groups=3), lif, Conv(6, 3, groups=6), lif, *head), (2, 12, 14)
    ),
    **{f"LIF alone, decay {beta}": ((LIF(beta=beta, reset="zero"),), (200,)) for beta in (0.5, 0.8, 0.9)},
    "IF alone": ((IF(threshold=3, reset="zero"),), (200,)),
    "CubaLIF alone": ((CubaLIF(alpha=0.5, beta=0.75, threshold=2, reset="zero"),), (200,)),
    "sum pool, then LIF": ((*conv, Pool(2, kind="sum"), LIF(beta=0.5, reset="zero"), *head), (2, 12, 12)),
    "residual": ((Dense(32), lif, Residual(Dense(32), lif), Residual(Dense(32), lif), Dense(8), lif), (24,)),
    "residual, convolutions": ((*conv, Residual(*conv, *conv), Residual(*conv), *head), (2, 12, 12)),
    "residual, shortcut": (
        (*conv, Residual(Conv(8, 3, stride=2, padding=1), lif, shortcut=(Conv(8, 1, stride=2), lif)), *head),
        (2, 12, 12),
    ),
    "residual, into neurons": ((Dense(32), lif, Residual(Dense(32)), lif, Dense(8), lif), (24,)),
    "concat": ((Dense(32), lif, Parallel((Dense(16), lif), (), (Dense(8), lif, Dense(8), lif)), Dense(8), lif), (24,)),
    "concat, convolutions": ((*conv, Parallel((), conv, (Conv(4, 5, padding=2), lif)), *conv, *head), (2, 12, 12)),
    "dense skips": ((*conv, Parallel((), conv), Parallel((), conv), *head), (2, 12, 12)),
    "U": ((*conv, Parallel((), (*conv, Parallel((), (*conv, *conv)), *conv)), *conv, *head), (2, 12, 12)),
}  # fmt: skip
cuba_read = CubaLIF(alpha=0.5, beta=0.8, reset="zero")
read = (Dense(10), BatchNorm(), LIF(beta=0.8, reset="zero"))
TRAINED: dict[str, tuple] = {
    "dense": (Flatten(), Dense(64), BatchNorm(), lif, *read),
    "dense, currents": (Flatten(), Dense(64), cuba, Dense(10), cuba_read),
    "convolutions": (Conv(8, 3, padding=1), BatchNorm(), lif, Pool(2, kind="sum"), Flatten(), *read),
    "recurrent": (Flatten(), Dense(48), BatchNorm(), Recurrent(lif, bias=True), *read),
    "delays": (Flatten(), Dense(48), BatchNorm(), lif, Delay(tuple(place % 4 for place in range(48))), *read),
}
RECORDINGS = 24  # of each family
SINGLE = "1 + 0.5**23 is the next number after a threshold of 1: in single precision > needs another one than >="
WALKS = "it runs nodes in the order of a walk from the input: what adds up two branches runs before the second one"
# why a reader cannot hold a network: what its source does, from the table of its faults
CANNOT = {
    ("snntorch", "recurrent LIF"): "its importer leads the input into the recurrent weights",
    ("snntorch", "recurrent CubaLIF"): "its importer leads the input into the recurrent weights",
    ("snntorch", "IF"): "it reads an IF as a leaky neuron of decay 0.9 and wants r = 1",
    ("snntorch", "decay of each neuron"): "it puts the first neuron's input gain into the threshold of all",
    ("snntorch", "decay and threshold of each"): "one threshold for a layer",
    ("snntorch", "delays"): "it has no Delay",
    ("snntorch", "LI readout"): "it has no LI",
    ("norse", "Conv2d, average pool"): "it drops AvgPool2d without a word",
    ("norse", "Conv1d"): "it drops Conv1d without a word",
    ("norse", "delays"): "it drops Delay without a word",
    ("norse", "LI readout"): "it drops LI without a word",
    ("spikingjelly", "decay of each neuron"): "one time constant for a layer",
    ("spikingjelly", "decay and threshold of each"): "one time constant and threshold for a layer",
    ("spikingjelly", "delays"): "it has no Delay",
    **{
        (reader, name): SINGLE
        for reader in ("snntorch", "replay_nir, single")
        for name in ("LIF alone, decay 0.5", "sum pool, then LIF")
    },
    ("snntorch", "IF alone"): "it reads an IF as a leaky neuron of decay 0.9 and wants r = 1",
    **{("norse", f"LIF alone, decay {beta}"): "it ignores the r of a LIF" for beta in (0.5, 0.8, 0.9)},
    ("norse", "sum pool, then LIF"): "it ignores the r of a LIF",
    ("norse", "residual, into neurons"): "it ignores the r of a LIF",
    **{("norse", name): WALKS for name in ("residual, shortcut", "concat", "concat, convolutions", "dense skips", "U")},
    ("snntorch", "recurrent, trained"): "its importer leads the input into the recurrent weights",
    **{(reader, "delays, trained"): "it has no Delay, or drops it" for reader in ("snntorch", "norse", "spikingjelly")},
    ("spikingjelly", "LI readout"): "it has no LI",
}


def snntorch_reads(path: Path, x: Tensor) -> Tensor:
    """snnTorch on one sample after the other: its Flatten counts no batch axis."""
    from snntorch.import_nir import import_from_nir

    samples = []
    for sample in x.unbind(1):
        module, state, out = import_from_nir(nir.read(path)), None, []
        for step in sample:
            value, state = module(step, state)
            out.append(value)
        samples.append(torch.stack(out))
    return torch.stack(samples, 1)


def norse_reads(path: Path, x: Tensor) -> Tensor:
    """norse, told the step, on one sample after the other."""
    import norse.torch as norse  # pyright: ignore[reportMissingImports]

    samples = []
    for sample in x.unbind(1):
        module, state, out = norse.from_nir(nir.read(path), dt=STEP_S), None, []
        for step in sample:
            value, state = module(step, state)
            out.append(value)
        samples.append(torch.stack(out))
    return torch.stack(samples, 1)


def spikingjelly_reads(path: Path, x: Tensor) -> Tensor:
    """SpikingJelly on a batch."""
    from spikingjelly.activation_based.nir_exchange import import_from_nir  # pyright: ignore[reportMissingImports]

    module, state, out = import_from_nir(nir.read(path), dt=STEP_S), None, []
    for step in x:
        value, state = module(step, state)
        out.append(value)
    return torch.stack(out)


READERS: dict[str, Callable[[Path, Tensor], Tensor]] = {
    "snntorch": snntorch_reads,
    "norse": norse_reads,
    "spikingjelly": spikingjelly_reads,
    "read_nir": lambda path, x: read_nir(path)(x),
    "replay_nir": replay_nir,  # in double precision
    "replay_nir, single": partial(replay_nir, precision="single"),
}


def quietly(call: Callable[[], Any]) -> Any:
    """The result without what the libraries print and warn."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        return call()


@torch.no_grad()
def ours(name: str, seed: int, path: Path) -> dict[str, Any]:
    """One of our networks, written and read by each."""
    model, shape = NETWORKS[name]
    generator = torch.Generator().manual_seed(seed)
    x = spikes(shape, generator)
    network = Network(model, shape, seed=seed)
    start_alive(network, x)
    for key, parameter in network.named_parameters():
        if "learned" in key:
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    return written_and_read(name, network.eval(), x, path)


def written_and_read(name: str, network: Network, x: Tensor, path: Path) -> dict[str, Any]:
    """A network written, and how many outputs of each reader differ from its own."""
    wanted = network(x)
    write_nir(network, path, step_s=STEP_S)
    row: dict[str, Any] = {"entries": wanted.numel(), "mean_output": round(float(wanted.mean()), 4)}
    for reader, reads in READERS.items():
        row[reader] = differing(wanted, partial(reads, path, x), spiking=not isinstance(network.model[-1], LI))
        if (reader, name) in CANNOT:
            row[reader] = {"cannot": CANNOT[reader, name], "found": row[reader]}
    return row


def trained(family: str, seed: int, path: Path) -> dict[str, Any]:
    """A network of a family, trained on the digits in floats, on recordings of the test split; and one in integers."""
    data = Data("digits", step_ms=31, steps=10)
    for target in ("float", "loihi"):
        model = TRAINED[family]
        if target == "loihi":  # the chip has no bias in a recurrence
            model = tuple(replace(layer, bias=False) if isinstance(layer, Recurrent) else layer for layer in model)
        settings = Train(epochs=4, lr=5e-3, target=target)
        run = train(Experiment(data, model, settings, seed=seed), path.parent / f"{target} {family}", quiet=True)
        network = run.network()
        if target == "float":
            dataset = run.dataset()
            x, _ = dataset.batch("test", dataset.ids["test"][:RECORDINGS])
            with torch.no_grad():
                row = written_and_read(f"{family}, trained", network, x, path)
            row["test_accuracy"] = evaluate(run, "test").accuracy
        else:
            try:
                write_nir(network, path, step_s=STEP_S)
            except SnnError as cause:
                row["trained in whole numbers"] = str(cause)
    return row


@torch.no_grad()
def theirs(name: str, seed: int, path: Path) -> dict[str, Any]:
    """A network of another library, run there, written by it and read here."""
    make, runs, writes, shape, step_s = WRITERS[name]
    torch.manual_seed(seed)
    network = make()
    x = spikes(shape, torch.Generator().manual_seed(seed))
    quietly(lambda: nir.write(path, writes(network, shape)))
    wanted = quietly(lambda: runs(network, x))
    row: dict[str, Any] = {"entries": wanted.numel(), "mean_output": round(float(wanted.mean()), 4), "step_s": step_s}
    row["read_nir"] = differing(wanted, lambda: read_nir(path, step_s=step_s)(x))
    row["replay_nir"] = differing(wanted, lambda: replay_nir(path, x, step_s=step_s))
    return row


def spikes(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random spikes `[time, batch, *shape]`."""
    return (torch.rand(STEPS, BATCH, *shape, generator=generator) < 0.2).float()


def differing(wanted: Tensor, call: Callable[[], Tensor], *, spiking: bool = True) -> int | str:
    """How many entries differ (potentials: by more than rounding), or what went wrong."""
    try:
        found = quietly(call)
    except Exception as cause:  # a foreign library may raise anything
        return f"{type(cause).__name__}: {str(cause).splitlines()[0][:100] if str(cause) else ''}"
    if found.shape != wanted.shape:
        return f"its output has the shape {list(found.shape)}, ours {list(wanted.shape)}"
    near = 0 if spiking else 1e-5 * float(wanted.abs().max())
    return int(((found - wanted).abs() > near).sum())


def leaky(n: tuple[int, ...], beta: float, threshold: float) -> nn.Module:
    """snnTorch's Leaky with a value for each neuron, as its exporter needs it."""
    import snntorch

    values: dict[str, Any] = {"beta": torch.full(n, beta), "threshold": torch.full(n, threshold)}
    return snntorch.Leaky(**values, reset_mechanism="zero", init_hidden=True)


def synaptic(n: tuple[int, ...], threshold: float) -> nn.Module:
    """snnTorch's Synaptic; its reset in the same step is the one that NIR has."""
    import snntorch

    values: dict[str, Any] = {
        "alpha": torch.full(n, 0.7),
        "beta": torch.full(n, 0.9),
        "threshold": torch.full(n, threshold),
    }
    return snntorch.Synaptic(**values, reset_mechanism="zero", init_hidden=True, reset_delay=False)


def snntorch_runs(network: nn.Module, x: Tensor) -> Tensor:
    """snnTorch, from rest."""
    from snntorch import utils

    utils.reset(network)
    return torch.stack([network(step) for step in x])


def snntorch_writes(network: nn.Module, shape: tuple[int, ...]) -> nir.NIRNode:
    """A graph by snnTorch's exporter."""
    from snntorch.export_nir import export_to_nir

    return export_to_nir(network, torch.zeros(1, *shape), ignore_dims=[0])


def norse_makes() -> nn.Module:
    """Two layers of norse's LIF box, at its usual step of 1 ms."""
    import norse.torch as norse  # pyright: ignore[reportMissingImports]
    from norse.torch.functional.lif_box import LIFBoxParameters  # pyright: ignore[reportMissingImports]

    def cell(n: int, threshold: float) -> nn.Module:
        values: dict[str, Any] = {
            "tau_mem_inv": torch.full((n,), 200.0),
            "v_th": torch.full((n,), threshold),
            "v_leak": torch.zeros(n),
        }
        return norse.LIFBoxCell(LIFBoxParameters(**values), dt=1e-3)

    return norse.SequentialState(nn.Linear(24, 32), cell(32, 0.05), nn.Linear(32, 8), cell(8, 0.02))


def norse_runs(network: nn.Module, x: Tensor) -> Tensor:
    """norse, from rest."""
    state, out = None, []
    for step in x:
        value, state = network(step, state)
        out.append(value)
    return torch.stack(out)


def norse_writes(network: nn.Module, shape: tuple[int, ...]) -> nir.NIRNode:
    """A graph by norse's exporter; it multiplies its time constants by the step (norse #411)."""
    import norse.torch as norse  # pyright: ignore[reportMissingImports]

    return norse.to_nir(network, torch.zeros(shape), dt=1e-3)


def spikingjelly_makes(kind: str) -> nn.Module:
    """A network of SpikingJelly's."""
    from spikingjelly.activation_based import layer, neuron  # pyright: ignore[reportMissingImports]

    leaky = {"v_reset": 0.0, "decay_input": False}
    if kind == "IF":
        first, last = neuron.IFNode(v_threshold=1.0, v_reset=0.0), neuron.IFNode(v_threshold=0.5, v_reset=0.0)
        return nn.Sequential(layer.Linear(24, 32), first, layer.Linear(32, 8), last)
    if kind == "CubaLIF":
        first = neuron.CUBALIFNode(c_decay=0.5, v_decay=0.8, v_threshold=0.5, v_reset=0.0)
        last = neuron.LIFNode(v_threshold=0.3, **leaky)
        return nn.Sequential(layer.Linear(24, 32), first, layer.Linear(32, 8, bias=False), last)
    first, last = (
        neuron.LIFNode(tau=5.0, v_threshold=0.1, v_reset=0.0),
        neuron.LIFNode(tau=4.0, v_threshold=0.1, **leaky),
    )
    if kind == "LIF":
        return nn.Sequential(layer.Linear(24, 32), first, layer.Linear(32, 8), last)
    if kind == "Conv1d":
        return nn.Sequential(layer.Conv1d(2, 4, 3, padding=1), first, layer.Flatten(), layer.Linear(48, 8), last)
    conv = (layer.Conv2d(2, 4, 3, padding=1), first, layer.AvgPool2d(2))
    return nn.Sequential(*conv, layer.Flatten(), layer.Linear(144, 8), last)


def spikingjelly_runs(network: nn.Module, x: Tensor) -> Tensor:
    """SpikingJelly, from rest."""
    from spikingjelly.activation_based import functional  # pyright: ignore[reportMissingImports]

    functional.reset_net(network)
    return torch.stack([network(step) for step in x])


def spikingjelly_writes(network: nn.Module, shape: tuple[int, ...]) -> nir.NIRNode:
    """A graph by SpikingJelly's exporter."""
    from spikingjelly.activation_based.nir_exchange import export_to_nir  # pyright: ignore[reportMissingImports]

    return export_to_nir(network, torch.zeros(1, *shape), dt=STEP_S)


def snntorch_makes(kind: str) -> nn.Module:
    """A network of snnTorch's."""
    if kind == "Leaky":
        return nn.Sequential(nn.Linear(24, 32), leaky((32,), 0.9, 0.7), nn.Linear(32, 8), leaky((8,), 0.8, 0.4))
    if kind == "Synaptic":
        return nn.Sequential(nn.Linear(24, 32), synaptic((32,), 1.0), nn.Linear(32, 8), synaptic((8,), 0.5))
    conv = (nn.Conv2d(2, 4, 3, padding=1), leaky((4, 12, 12), 0.9, 0.5), nn.AvgPool2d((2, 2)))
    return nn.Sequential(*conv, nn.Flatten(), nn.Linear(144, 8), leaky((8,), 0.8, 0.1))


SNNTORCH = (snntorch_runs, snntorch_writes)
JELLY = (spikingjelly_runs, spikingjelly_writes)
# name: make, run, write, shape of the input, the step in seconds by which the file means what the library computes
WRITERS: dict[str, tuple[Callable[[], nn.Module], Callable, Callable, tuple[int, ...], float]] = {
    "snntorch, Leaky": (partial(snntorch_makes, "Leaky"), *SNNTORCH, (24,), 1e-4),
    "snntorch, Synaptic": (partial(snntorch_makes, "Synaptic"), *SNNTORCH, (24,), 1e-4),
    "snntorch, Conv2d and average pool": (partial(snntorch_makes, "Conv2d"), *SNNTORCH, (2, 12, 12), 1e-4),
    "norse, LIF box": (norse_makes, norse_runs, norse_writes, (24,), 1e-6),
    "spikingjelly, LIF": (partial(spikingjelly_makes, "LIF"), *JELLY, (24,), 1e-4),
    "spikingjelly, IF": (partial(spikingjelly_makes, "IF"), *JELLY, (24,), 1e-4),
    "spikingjelly, CubaLIF": (partial(spikingjelly_makes, "CubaLIF"), *JELLY, (24,), 1e-4),
    "spikingjelly, Conv1d": (partial(spikingjelly_makes, "Conv1d"), *JELLY, (2, 12), 1e-4),
    "spikingjelly, Conv2d and average pool": (partial(spikingjelly_makes, "Conv2d"), *JELLY, (2, 12, 12), 1e-4),
}


def main() -> None:
    """Measure and write the result."""
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "left_out": "sinabs, rockpool: nir <= 1.0.4, many spikes a step, reset by subtraction; import runs pip",
        "steps": STEPS,
        "batch": BATCH,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.nir"
        kinds = (("ours", ours, NETWORKS), ("trained", trained, TRAINED), ("theirs", theirs, WRITERS))
        for title, measure, names in kinds:
            result[title] = {}
            for name in names:
                result[title][name] = measure(name, 0, path)
                print(title, name, result[title][name], flush=True)
    write_json(Path(__file__).parents[1] / "results" / "nir_peers.json", result)


if __name__ == "__main__":
    main()
