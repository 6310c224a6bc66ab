"""Which length of a time step a NIR file may mean: NIR stores none, and at another one layers fall silent."""

import math
from collections.abc import Callable

import numpy as np
import torch

from snn_bp.errors import SnnError
from snn_bp.exchange.nir_file import NirFile
from snn_bp.exchange.nir_node import NEURONS
from snn_bp.model.blocks import LayerAt, every_part, own_weights, parts_of
from snn_bp.model.network import Network
from snn_bp.neurons import is_spiking

USUAL = {1e-4: "snnTorch, SpikingJelly", 1e-3: "norse", 1.0: "sinabs, rockpool: time in steps"}
STEPS, SAMPLES, FRACTION = 50, 4, 0.2  # how many random spikes every candidate is tried on
LOWEST, HIGHEST = 1e-3, 0.9  # mean spikes a step of a layer that is alive
MAX_PRODUCTS = 2**26  # in one step of the network, beyond which nothing is tried


def spikes_by_step(file: NirFile, read: Callable[[float], Network]) -> str:
    """Each candidate with the spikes of every layer on random ones, and which of them keep all layers alive."""
    lines, alive = [], []
    for step, who in candidates(file).items():
        found = _spikes(read, step)
        if isinstance(found, list) and found and all(LOWEST <= each <= HIGHEST for each in found):
            alive.append(step)
        said = found if isinstance(found, str) else ", ".join(f"{each:.3f}" for each in found) or "no neurons that fire"
        lines.append(f"step_s={step:g} ({who}): {said}")
    kept = " and ".join(f"{step:g}" for step in alive)
    says = {0: "No candidate keeps every layer alive.", 1: f"Only {kept} keeps every layer alive."}
    return (
        f"{says.get(len(alive), f'{kept} keep every layer alive; who wrote the file decides.')} Spikes a step of each "
        f"neuron, layer by layer, when {FRACTION:.0%} of the inputs spike at random: {'; '.join(lines)}."
    )


def candidates(file: NirFile) -> dict[float, str]:
    """The steps to try, with who writes so: the usual ones and those at which an input counts with its weight."""
    steps = dict(USUAL)
    for node in file.nodes.values():
        if node.kind not in NEURONS:
            continue
        try:
            tau = next((node.numbers(name) for name in ("tau", "tau_mem") if name in node.fields), np.ones(1))
            step = float(np.median(tau) / np.median(node.numbers("r")))
        except SnnError:
            continue  # reading the file says what is wrong with the node
        known = any(math.isclose(step, each, rel_tol=1e-3) for each in steps)
        if 1e-9 < step < 1e9 and not known and len(steps) < len(USUAL) + 3:
            steps[float(f"{step:.6g}")] = f"where r counts once in {node.name!r}"
    return steps


def _spikes(read: Callable[[float], Network], step: float) -> list[float] | str:
    """Mean spikes of each layer of the network read so, or why there are none."""
    try:
        network = read(step)
    except SnnError as cause:
        return f"refused, {cause}"
    if sum(_products(part) for part in every_part(parts_of(network))) > MAX_PRODUCTS:
        return "too large to try"
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(STEPS, SAMPLES, *network.input_shape, generator=generator) < FRACTION).float()
    with torch.no_grad():
        activities, _ = network.observe(x)
    return [float(each.spikes.mean()) for each in activities if is_spiking(each.neuron)]


def _products(part: LayerAt) -> float:
    """How many products one step of a sample takes in a layer, at most."""
    positions = math.prod(part.after[1:]) if part.role == "weights" else 1
    return sum(each.numel() for each in own_weights(part).values()) * positions + math.prod(part.before)
