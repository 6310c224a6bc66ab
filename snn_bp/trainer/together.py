"""An evaluation by all processes of a training: each measures whole batches, and the first joins them in their order.

So its figures are those of one process, bit for bit.
"""

from itertools import islice
from typing import Any

import torch
from torch import Tensor

from snn_bp.model.network import Network
from snn_bp.runs.answers import Answers
from snn_bp.runs.evaluation import BatchResult, Evaluation, Measurement
from snn_bp.runtime.processes import processes, rank
from snn_bp.runtime.status import phase
from snn_bp.trainer.distributed import Team
from snn_bp.trainer.kept import attributes_of, changed_between, check_same, not_ours


def evaluate_together(
    network: Network, measurement: Measurement, team: Team | None
) -> tuple[Evaluation, Answers | None] | None:
    """The figures, and the scores where they are kept; None in processes that are not the first.

    A layer that changes a buffer or weight from batch to batch has the first evaluate alone; one that changes a plain
    attribute is refused.
    """
    if team is None:
        return measurement.joined(network, measurement.of_batches(network))
    before = _Tensors(network)
    results = measurement.of_batches(network, slice(rank(), None, processes()))
    mine = list(islice(results, 1))
    attributes = attributes_of(network)
    mine += results
    now = attributes_of(network)
    told = team.of_each((before.have_changed(), now if mine else None, changed_between(attributes, now)))
    check_same(network, [each[1:] for each in told])
    if any(changed for changed, *_ in told):
        before.put_back()
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


class _Tensors:
    """The buffers of a network, and the weights of layers that are not ours, as they were."""

    def __init__(self, network: Network) -> None:
        strange = [module for part in not_ours(network) for module in part.layer.modules()]
        buffers = [(module, *each) for module in network.modules() for each in module.named_buffers(recurse=False)]
        weights = [(module, *each) for module in strange for each in module.named_parameters(recurse=False)]
        self.were: list[tuple[Any, str, Tensor, Tensor]] = [
            (module, name, tensor, tensor.detach().clone()) for module, name, tensor in (*buffers, *weights)
        ]

    def have_changed(self) -> bool:
        """Whether one holds something else now."""
        return not all(torch.equal(getattr(module, name), value) for module, name, _, value in self.were)

    @torch.inference_mode()  # in which an evaluation before this may have made one
    def put_back(self) -> None:
        """Give all what they held."""
        for module, name, tensor, value in self.were:
            setattr(module, name, tensor.copy_(value))
