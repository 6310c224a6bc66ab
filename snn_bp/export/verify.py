"""`verify`: proof that a file does what the network does, spike for spike, on recordings of a split."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from snn_bp.chip import run_chip
from snn_bp.errors import SnnError, check_choice, check_number
from snn_bp.export.client import run_client
from snn_bp.export.graph import Graph, Population, same
from snn_bp.export.lava import write_netx
from snn_bp.export.lava_read import read_netx
from snn_bp.export.limits import CHIPS, fit
from snn_bp.export.nir_read import read_nir
from snn_bp.export.nir_replay import replay_nir
from snn_bp.export.nir_write import write_nir
from snn_bp.export.quantize import quantize
from snn_bp.export.simulate import simulate
from snn_bp.files import make_folder, replace_file, write_json
from snn_bp.kernels.fixed import UNIT
from snn_bp.network import Network, neuron_of
from snn_bp.neurons import is_spiking
from snn_bp.plots import weight_histogram
from snn_bp.plots.style import png_bytes
from snn_bp.run import Run

SAMPLES = 256
NOT_TESTED = "Silicon was not tested: the arithmetic is that of the chip's published models."


@dataclass(frozen=True)
class Proof:
    """What `verify` found; `holds` says whether the file's spikes are the network's."""

    file: str
    split: str
    samples: int
    accuracy: dict[str, float]  # of each stage on the same recordings
    difference: str | None  # where file and network first differ, in words
    compared: int  # outputs of neurons, step by step
    spikes: dict[str, float] = field(default_factory=dict)  # of each population, for one inference
    operations: dict[str, float] = field(default_factory=dict)  # synaptic, likewise
    weights: dict[str, dict[int, int]] = field(
        default_factory=dict
    )  # how often each whole number stands in a population
    chips: dict[str, str] = field(default_factory=dict)
    client: str | None = None  # what Lava's own client said, where it was asked
    note: str = NOT_TESTED

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return self.difference is None

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"holds": self.holds, **asdict(self)}

    def __str__(self) -> str:
        lines = [f"{self.file} on {self.samples} recordings of {self.split}:"]
        lines += [f"  accuracy {name:10} {value:.4f}" for name, value in self.accuracy.items()]
        for name, count in self.spikes.items():
            lines.append(
                f"  {name}: {count:.1f} spikes, {self.operations[name]:.0f} synaptic operations for each inference"
            )
        for name, said in self.chips.items():
            lines.append(f"  {name}: {said}")
        if self.client:
            lines.append(f"  Lava's client: {self.client}")
        found = f"all {self.compared:,} outputs of neurons are equal" if self.holds else f"DIFFERENT: {self.difference}"
        return "\n".join((*lines, f"  {found}", f"  {self.note}"))


def export(
    run: Run,
    file: Path | str,
    *,
    split: str = "test",
    samples: int = SAMPLES,
    checkpoint: str = "best",
    proof: bool = True,
) -> Proof | None:
    """Write the run's network to `file`, `.net` or `.nir`, and verify it unless told not to.

    A `.net` file holds the integers of a network trained with `train.target="loihi"`, or of another rounded now.
    """
    file = Path(file)
    kind = kind_of(file)
    if proof:
        _recordings(run, split, samples)  # refused before anything is written
    if kind == "netx":
        write_netx(for_chip(run, checkpoint)[1], file)
    else:
        network = run.network(checkpoint)
        if network.target != "float":
            raise SnnError(
                f"export to {file}: the run was trained in the chip's whole numbers, whose shifts NIR does not have. "
                "Export it to a .net file, or train with train.target=float for NIR."
            )
        write_nir(network, file)
    return verify(run, file, split=split, samples=samples, checkpoint=checkpoint) if proof else None


def verify(
    run: Run, file: Path | str, *, split: str = "test", samples: int = SAMPLES, checkpoint: str = "best", lava: int = 0
) -> Proof:
    """Replay recordings of a split through the run's network and through what `file` (`.net` or `.nir`) holds.

    Of a `.net` file every spike of every layer is compared, of its integers replayed and of the network in whole
    numbers; of a `.nir` file the outputs of the network, of the one read back, and of NIR's own equations. `lava`
    recordings go through Lava's real client too, where it is installed. The proof is written to the run's
    folder `export/`, with a picture of the weights on their grid. Raises where the file cannot be read.
    """
    file = Path(file)
    kind = kind_of(file)
    if lava and kind != "netx":
        raise SnnError(f"{file}: Lava's client reads .net files only. Leave out --lava.")
    ids = _recordings(run, split, samples)
    batches = [run.dataset().batch(split, ids[start : start + 64]) for start in range(0, len(ids), 64)]
    prove = _verify_netx if kind == "netx" else _verify_nir
    proof = prove(run, checkpoint, file, batches)
    proof = replace(proof, split=split, samples=len(ids))
    if lava:
        said, difference = _ask_client(file, torch.cat([x for x, _ in batches], dim=1)[:, :lava])
        proof = replace(proof, client=said, difference=proof.difference or difference)
    folder = run.path / "export"
    make_folder(folder)
    write_json(folder / f"{file.name}.json", proof.record())
    if proof.weights:
        replace_file(folder / f"{file.name}.png", png_bytes(weight_histogram(proof.weights)))
    return proof


def _recordings(run: Run, split: str, samples: int) -> np.ndarray:
    """The ids of up to so many recordings of a split."""
    check_number("samples", samples, whole=True, low=1)
    dataset = run.dataset()
    check_choice("split", split, dataset.ids)
    if not len(dataset.ids[split]):
        raise SnnError(f"verify: the {split!r} split of {dataset.data.name} is empty here. Use --split train.")
    return dataset.ids[split][:samples]


def kind_of(file: Path) -> str:
    """Which format a file's name asks for."""
    kinds = {".net": "netx", ".nir": "nir"}
    if file.suffix not in kinds:
        raise SnnError(f"{file}: the ending says the format, .net (Lava netx, Loihi) or .nir (NIR).")
    return kinds[file.suffix]


def for_chip(run: Run, checkpoint: str = "best") -> tuple[Network, Graph]:
    """The run's network in whole numbers, and the integers it uses."""
    experiment = run.experiment
    trained = run.network(checkpoint)
    if experiment.train.target == "float":
        rounded = {"target": "loihi", "truncate": None, "autocast": None, "memory": "full"}
        surrogate = replace(experiment.train.surrogate, per="threshold")  # the grid rescales potentials; nothing learns
        chip = replace(experiment, train=replace(experiment.train, **rounded, surrogate=surrogate))
        network = chip.network(run.shape()).eval()
        network.load_state_dict(trained.state_dict())
    else:
        network = trained
    return network, quantize(trained, input_bits=0 if run.experiment.data.binary else 8)


def _verify_netx(run: Run, checkpoint: str, file: Path, batches: Sequence[tuple[Tensor, Tensor]]) -> Proof:
    whole, graph = for_chip(run, checkpoint)
    held = read_netx(file)
    difference = same(graph, held)
    if difference is not None:
        difference = f"the file does not hold the integers of {run.path}: {difference}"
    flat = Network(whole.model, whole.input_shape, surrogate=whole.surrogate).eval()
    flat.load_state_dict(whole.state_dict())
    votes = run.experiment.train.loss.votes
    right = {"float": 0, "quantised": 0, "integer": 0}
    spikes, met = np.zeros(len(held.populations)), np.zeros(len(held.populations))
    names, compared, total = [], 0, 0
    first = held.latency if held.cleared else 0  # rows before the input reaches the last population
    for x, targets in batches:
        replay = simulate(held, x, record=True)
        with torch.no_grad():
            floats, ran = flat(x), list(run_chip(whole, x, cleared=held.cleared))
        outs = {"float": floats, "quantised": ran[-1][1][first:], "integer": torch.from_numpy(replay.out[first:])}
        for name, out in outs.items():
            right[name] += int((votes(out.to(x.dtype)).argmax(1) == targets).sum())
        names = [whole.name(block.places[-1]) for block, *_ in ran]
        sent = x.numpy()
        for place, (population, (_, out, potentials, _)) in enumerate(zip(held.populations, ran, strict=True)):
            mine, theirs = replay.spikes[place], out
            if population.readout:
                mine, theirs = replay.potentials[place], potentials * UNIT
            difference = difference or first_difference(mine, theirs.numpy(), layer=names[place], first=total)
            compared += mine.size
            spikes[place] += replay.spikes[place].sum()
            met[place] += _operations(population, sent, replay.spikes[place])
            sent = replay.spikes[place]
        total += len(targets)
    fits = {chip: fit(held, chip) for chip in CHIPS}
    return Proof(
        file=str(file), split="", samples=total, difference=difference, compared=compared,
        accuracy={name: count / total for name, count in right.items()},
        spikes=dict(zip(names, (spikes / total).tolist(), strict=True)),
        operations=dict(zip(names, (met / total).tolist(), strict=True)),
        weights={name: _histogram(population.weight) for name, population in zip(names, held.populations, strict=True)},
        chips={name: " ".join((f"{sum(on.cores)} cores at least.", *on.problems)) for name, on in fits.items()},
    )  # fmt: skip


def _verify_nir(run: Run, checkpoint: str, file: Path, batches: Sequence[tuple[Tensor, Tensor]]) -> Proof:
    network, back = run.network(checkpoint), read_nir(file).eval()
    votes, spiking = run.experiment.train.loss.votes, is_spiking(neuron_of(network.layers[-1]))
    right = {"trained": 0, "read back": 0, "equations": 0}
    difference, compared, total = None, 0, 0
    for x, targets in batches:
        with torch.no_grad():
            outs = {"trained": network(x), "read back": back(x)}
        outs["equations"] = replay_nir(file, x).to(x.dtype)
        for name, out in outs.items():
            right[name] += int((votes(out).argmax(1) == targets).sum())
            if name == "equations" and not spiking and np.allclose(out, outs["trained"], rtol=1e-4, atol=1e-5):
                compared += out.numel()  # potentials, summed in another order
            elif name != "trained":
                difference = difference or first_difference(
                    out.numpy(), outs["trained"].numpy(), layer=f"output, {name}", first=total
                )
                compared += out.numel()
        total += len(targets)
    return Proof(
        file=str(file), split="", samples=total, difference=difference, compared=compared,
        accuracy={name: count / total for name, count in right.items()},
        note="Compared: the network, the network read back, and NIR's equations on the file. Other readers may differ.",
    )  # fmt: skip


def first_difference(mine: np.ndarray, theirs: np.ndarray, *, layer: str, first: int = 0) -> str | None:
    """Where two outputs `[time, batch, ...]` first differ, in words."""
    if mine.shape != theirs.shape:
        return f"{layer}: shapes {list(mine.shape)} and {list(theirs.shape)}"
    differing = np.argwhere(mine != theirs)
    if not len(differing):
        return None
    step, sample, *neuron = differing[0].tolist()
    found, wanted = (values[tuple(differing[0])].item() for values in (mine, theirs))
    return (
        f"{layer}, step {step}, neuron {tuple(neuron)}, recording {first + sample}: {found:.9g} in the file, "
        f"{wanted:.9g} in the network ({len(differing)} of {mine.size} differ)"
    )


def _ask_client(file: Path, x: Tensor) -> tuple[str, str | None]:
    """What Lava's client says to recordings `[time, batch, ...]`, and where it first differs from our replay."""
    held = read_netx(file)
    replay, compared = simulate(held, x, record=True), 0
    for sample in range(x.shape[1]):
        ran = run_client(file, x[:, sample], input_bits=held.input_bits, cleared=held.cleared)
        for place in range(len(held.populations)):
            fired = replay.spikes[place][:, sample]
            pairs = {
                "spikes": (fired, ran.spikes[place]),
                "currents": (replay.currents[place][:, sample], ran.currents[place]),
                "potentials": (replay.potentials[place][:, sample] * (1 - fired), ran.potentials[place]),
            }
            for name, (mine, theirs) in pairs.items():
                compared += mine.size
                layer = f"Lava's client, {name} of population {place}"
                difference = first_difference(mine[:, None], theirs[:, None], layer=layer, first=sample)
                if difference is not None:
                    return "it differs", difference
    return f"all {compared:,} spikes, currents and potentials of {x.shape[1]} recordings are equal", None


def _operations(population: Population, sent: np.ndarray, spikes: np.ndarray) -> float:
    """How many weights the spikes `sent` to a population `[time, batch, ...]` meet, and its own `spikes`."""
    active = sent != 0
    if population.stride is None:
        own = 0 if population.recurrent is None else float(spikes[:-1].sum()) * population.size
        return float(active.sum()) * population.size + own
    rows = torch.from_numpy(active.reshape(-1, *sent.shape[2:])).float()
    kernel = torch.ones(population.groups, *population.weight.shape[1:])
    met = F.conv2d(rows, kernel, None, population.stride, population.padding, population.dilation, population.groups)
    return float(met.double().sum()) * population.shape[0] / population.groups


def _histogram(weights: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(weights, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))
