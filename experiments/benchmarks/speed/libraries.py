"""Who is measured, and which neuron of ours equals each peer's.

A peer runs in its own usual form, with the surrogate 1 / (1 + 10 |u|)^2, without biases. Its form fixes the reset and
whether gradients flow through it; `equal` names ours for it. The check runs that one, the timing our default.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import util
from typing import Any

from speed import jax_peer, torch_peers
from speed.ours import ours
from speed.steps import Step


@dataclass(frozen=True)
class Library:
    """One row of the table."""

    package: str
    build: Callable[..., Step]
    options: dict[str, Any] = field(default_factory=dict)  # of `build`
    equal: dict[str, Any] = field(default_factory=dict)  # of `ours`
    exact: dict[str, Any] = field(default_factory=dict)  # of `build`, in the check only


ZERO = {"reset": "zero"}
LIBRARIES = {
    "snn_bp": Library("snn_bp", ours),
    "snn_bp, low memory": Library("snn_bp", ours, {"memory": "low"}),
    "snntorch": Library("snntorch", torch_peers.snntorch),
    "snntorch, compiled": Library("snntorch", torch_peers.snntorch, {"compiled": True}),
    "spikingjelly": Library("spikingjelly", torch_peers.spikingjelly, equal=ZERO),
    "norse": Library("norse", torch_peers.norse, equal=ZERO | {"detach": False}),
    "sinabs": Library("sinabs", torch_peers.sinabs, equal=ZERO),
    "spyx": Library(
        "spyx", jax_peer.spyx, equal={"detach": False, "detach_recurrent": False}, exact={"exact": True}
    ),
}  # fmt: skip


def installed() -> list[str]:
    """The libraries found here, ours first."""
    return [name for name, library in LIBRARIES.items() if util.find_spec(library.package)]
