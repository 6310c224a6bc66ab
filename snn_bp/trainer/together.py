"""An evaluation by all processes of a training: each measures whole batches, and the first joins them in their order.

So its figures are those of one process, bit for bit.
"""

from typing import Any

import torch
from torch import Tensor

from snn_bp.model.network import Network
from snn_bp.runs.answers import Answers
from snn_bp.runs.evaluation import BatchResult, Evaluation, Measurement
from snn_bp.runtime.processes import processes, rank
from snn_bp.runtime.status import phase
from snn_bp.trainer.distributed import Team


def evaluate_together(
    network: Network, measurement: Measurement, team: Team | None
) -> tuple[Evaluation, Answers | None] | None:
    """The figures, and the scores where they are kept; None in processes that are not the first.

    A layer that keeps something from batch to batch, in a buffer, has the first evaluate alone.
    """
    if team is None:
        return measurement.joined(network, measurement.of_batches(network))
    buffers = _Buffers(network)
    mine = list(measurement.of_batches(network, slice(rank(), None, processes())))
    if any(team.of_each(buffers.have_changed())):
        buffers.put_back()
        return measurement.joined(network, measurement.of_batches(network)) if team.is_first else None
    with phase("waiting for what the other processes measure"):
        of_each = _gathered(mine, team)
    if not team.is_first:
        return None
    numbers = range(len(measurement.batches))
    return measurement.joined(network, (of_each[number % len(of_each)][number // len(of_each)] for number in numbers))


def _gathered(mine: list[BatchResult], team: Team) -> list[list[BatchResult]]:
    """What each process measured, in the first; nothing in the others."""
    of_each: list[Any] | None = [None] * processes() if team.is_first else None
    torch.distributed.gather_object(mine, of_each)
    return of_each or []


class _Buffers:
    """The buffers of a network as they were."""

    def __init__(self, network: Network) -> None:
        self.were: list[tuple[Any, str, Tensor, Tensor]] = [
            (module, name, buffer, buffer.clone())
            for module in network.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]

    def have_changed(self) -> bool:
        """Whether one holds something else now."""
        return not all(torch.equal(getattr(module, name), value) for module, name, _, value in self.were)

    @torch.inference_mode()  # in which an evaluation before this may have made one
    def put_back(self) -> None:
        """Give all what they held."""
        for module, name, buffer, value in self.were:
            setattr(module, name, buffer.copy_(value))
