"""Which length of a time step a NIR file may mean: NIR stores none, and at another one layers fall silent."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from snn_bp.errors import SnnError
from snn_bp.exchange.nir_file import NirFile
from snn_bp.model.network import Network, has_state, neuron_of
from snn_bp.neurons import is_spiking

USUAL = {1e-4: "snnTorch, SpikingJelly", 1e-3: "norse", 1.0: "sinabs, rockpool: time in steps"}
STEPS, SAMPLES, SHARE = 50, 4, 0.2  # of the random spikes that every candidate hears
LEAST, HIGHEST = 1e-3, 0.9  # mean spikes a step of a layer that is alive
MOST_PRODUCTS = 2**26  # of one step of the network, beyond which nothing is tried


def spikes_by_step(file: NirFile, read: Callable[[float], Network]) -> str:
    """Each candidate with the spikes of every layer on random ones, and which of them keep all layers alive."""
    lines, alive = [], []
    for step, who in candidates(file).items():
        found = _spikes(read, step)
        if isinstance(found, list) and found and all(LEAST <= each <= HIGHEST for each in found):
            alive.append(step)
        said = found if isinstance(found, str) else ", ".join(f"{each:.3f}" for each in found) or "no neurons that fire"
        lines.append(f"step_s={step:g} ({who}): {said}")
    kept = " and ".join(f"{step:g}" for step in alive)
    says = {0: "No candidate keeps every layer alive.", 1: f"Only {kept} keeps every layer alive."}
    return (
        f"{says.get(len(alive), f'{kept} keep every layer alive; who wrote the file decides.')} Spikes a step of each "
        f"neuron, layer by layer, when {SHARE:.0%} of the inputs spike at random: {'; '.join(lines)}."
    )


def candidates(file: NirFile) -> dict[float, str]:
    """The steps to try, with who writes so: the usual ones and those at which an input counts with its weight."""
    found = dict(USUAL)
    for node in file.nodes.values():
        r, tau = (node.fields.get(name) for name in ("r", "tau" if "tau" in node.fields else "tau_mem"))
        if not isinstance(r, np.ndarray) or not r.size:
            continue
        time = tau if isinstance(tau, np.ndarray) and tau.size else np.ones(1)
        with np.errstate(all="ignore"):
            unit = float(np.median(time.astype(float))) / float(np.median(r.astype(float)))
        if not (1e-9 < unit < 1e9) or any(math.isclose(unit, known, rel_tol=1e-3) for known in found):
            continue
        if len(found) < len(USUAL) + 3:
            found[float(f"{unit:.6g}")] = f"where r counts once in {node.name!r}"
    return found


def _spikes(read: Callable[[float], Network], step: float) -> list[float] | str:
    """Mean spikes of each layer of the network read so, or why there are none."""
    try:
        network = read(step)
    except SnnError as cause:
        return f"refused, {cause}"
    if _products(network) > MOST_PRODUCTS:
        return "too large to try"
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(STEPS, SAMPLES, *network.input_shape, generator=generator) < SHARE).float()
    with torch.no_grad():
        out, rates, _ = network.rates(x)
    layers = [layer for layer in network.layers if has_state(layer)]
    means = [float(rate.mean()) for rate in rates]
    if layers and layers[-1] is network.layers[-1]:
        means.append(float(out.mean()))
    return [mean for mean, layer in zip(means, layers, strict=True) if is_spiking(neuron_of(layer))]


def _products(network: Network) -> float:
    """How many products one step of a sample takes, at most."""
    total, shape = 0.0, network.input_shape
    for layer, after in zip(network.layers, network.shapes, strict=True):
        places = math.prod(after[1:]) if isinstance(layer, nn.Conv1d | nn.Conv2d) else 1
        total += sum(each.numel() for each in layer.parameters()) * places + math.prod(shape)
        shape = after
    return total
