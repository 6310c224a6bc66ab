"""The training step of spyx on a work: its modules under `jax.lax.scan`, the whole step compiled ahead of time.

spyx gives out the spike of the step before, so a network of n layers of neurons answers n steps late. `exact` adds n
silent steps and drops the first n, which makes it equal to ours; timed it runs as it is.
"""

# pyright: reportMissingImports=false

from typing import Any

import numpy as np
import torch

from speed.steps import Outcome, Step
from speed.works import BETA, SLOPE, THETA, Material, Work


def spyx(work: Work, material: Material, dtype: torch.dtype, *, exact: bool = False) -> Step:
    """Subtracting reset, gradients through the reset."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx
    from spyx import nn as snn

    late = sum(layer in ("lif", "recurrent") for layer in work.plan) if exact else 0
    kind = np.float64 if dtype == torch.float64 else np.float32
    network = _network(work, material, kind)
    padded = [(0, late)] + [(0, 0)] * (material.x.ndim - 1)
    x = jnp.asarray(np.pad(_channels_last(material.x), padded), kind)
    targets = jnp.asarray(material.targets)
    rest = network.initial_state(work.batch)
    rest = jax.tree.map(lambda part: part.astype(kind), rest)
    graph, weights, others = nnx.split(network, _is_weight, ...)

    def loss(weights: Any, x: Any, targets: Any) -> tuple[Any, Any]:
        spikes, _ = snn.run(nnx.merge(graph, weights, others), x, rest)
        return optax.softmax_cross_entropy_with_integer_labels(spikes.sum(0), targets).mean(), spikes

    def neurons(x: Any, pull: Any) -> tuple[Any, Any]:
        spikes, back = jax.vjp(lambda x: snn.run(network, x, rest)[0], x)
        return spikes, back(pull)[0]

    if not work.units:
        pull = jnp.asarray(np.pad(material.pull, [(late, 0), (0, 0), (0, 0)]), kind)
        compiled = jax.jit(neurons).lower(x, pull).compile()

        def run_neurons() -> Outcome:
            spikes, gradient = jax.block_until_ready(compiled(x, pull))
            return spikes, [gradient]

        steps = work.steps
        return Step(run_neurons, lambda done: (np.asarray(done[0])[late:], [np.asarray(done[1][0])[:steps]]))

    compiled = jax.jit(jax.grad(loss, has_aux=True)).lower(weights, x, targets).compile()

    def run() -> Outcome:
        gradients, spikes = jax.block_until_ready(compiled(weights, x, targets))
        return spikes, jax.tree.leaves(gradients)

    def read(done: Outcome) -> tuple[np.ndarray, list[np.ndarray]]:
        return np.asarray(done[0])[late:], _in_torch_layout(work, material, [np.asarray(one) for one in done[1]])

    return Step(run, read)


def _network(work: Work, material: Material, kind: Any) -> Any:
    import jax.numpy as jnp
    from flax import nnx
    from spyx import axn
    from spyx import nn as snn

    surrogate, rngs = axn.superspike(k=SLOPE), nnx.Rngs(0)
    weights = iter(_in_jax_layout(work, material))
    numbers = {"beta": jnp.asarray(BETA, kind), "threshold": THETA, "activation": surrogate, "rngs": rngs}
    layers: list[Any] = []
    shape = list(work.shape[1:] + work.shape[:1])  # channels last
    for layer in work.plan:
        if layer == "dense":
            weight = next(weights)
            made = nnx.Linear(*weight.shape, use_bias=False, rngs=rngs)
            made.kernel = nnx.Param(jnp.asarray(weight, kind))
            shape = [weight.shape[1]]
        elif layer == "conv":
            weight = next(weights)
            *kernel, channels_in, channels = weight.shape
            made = nnx.Conv(channels_in, channels, tuple(kernel), padding="VALID", use_bias=False, rngs=rngs)
            made.kernel = nnx.Param(jnp.asarray(weight, kind))
            shape = [shape[0] - 4, shape[1] - 4, channels]
        elif layer in ("maxpool", "avgpool"):
            made = _pooling(layer)
            shape = [shape[0] // 2, shape[1] // 2, shape[2]]
        elif layer == "flatten":
            made = snn.Flatten()
        elif layer == "recurrent":
            made = snn.RLIF(tuple(shape), **numbers)
            made.recurrent_w = nnx.Param(jnp.asarray(next(weights), kind))
        else:
            made = snn.LIF(tuple(shape), **numbers)
        layers.append(made)
    return snn.Sequential(*layers)


def _pooling(layer: str) -> Any:
    from flax import nnx

    pool = nnx.max_pool if layer == "maxpool" else nnx.avg_pool
    return lambda x: pool(x, (2, 2), strides=(2, 2))


def _is_weight(path: Any, _: Any) -> bool:
    return path[-1] in ("kernel", "recurrent_w")


def _channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 2, -1) if x.ndim == 5 else x


def _in_jax_layout(work: Work, material: Material) -> list[np.ndarray]:
    """`[in, out]`, `[height, width, in, out]`; what follows a flattened image counts its channels last."""
    turned = []
    for weight in material.weights:
        if weight.ndim == 4:
            turned.append(weight.transpose(2, 3, 1, 0))
        elif "flatten" in work.plan:
            turned.append(_image(work, weight).transpose(0, 2, 3, 1).reshape(len(weight), -1).T)
        else:
            turned.append(weight.T)
    return turned


def _in_torch_layout(work: Work, material: Material, gradients: list[np.ndarray]) -> list[np.ndarray]:
    turned = []
    for gradient, weight in zip(gradients, material.weights, strict=True):
        if weight.ndim == 4:
            turned.append(gradient.transpose(3, 2, 0, 1))
        elif "flatten" in work.plan:
            out, channels, height, width = _image(work, weight).shape
            turned.append(gradient.T.reshape(out, height, width, channels).transpose(0, 3, 1, 2).reshape(weight.shape))
        else:
            turned.append(gradient.T)
    return turned


def _image(work: Work, weight: np.ndarray) -> np.ndarray:
    """The weights of the dense layer as `[out, channels, height, width]` of the image it sees flattened."""
    channels = work.units[-2]
    side = round((weight.shape[1] / channels) ** 0.5)
    return weight.reshape(len(weight), channels, side, side)
