"""One training by the processes that torchrun started: what each does for all, and shards of batches.

Every process draws the same order of batches of `data.batch` and takes the same steps; all evaluate, and the first
alone writes the run folder and speaks. So a run goes on with any number of processes. Where a step has a batch for each
they are dealt whole (`trainer/dealt.py`); else each runs a shard of all, joined by torch's DistributedDataParallel.
"""

import atexit
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from snn_bp.data import Dataset
from snn_bp.errors import SnnError
from snn_bp.model.blocks import LayerAt, every_part, parts_of
from snn_bp.model.exact import is_exact
from snn_bp.model.masks import takes_statistics
from snn_bp.model.network import Network, deep_copy
from snn_bp.model.shard import Shard, gather, in_shard, rows_of
from snn_bp.model.signatures import takes
from snn_bp.model.targets import Piece
from snn_bp.runs.training_options import Train
from snn_bp.runtime import process
from snn_bp.runtime.processes import (
    MEETING,
    address,
    arrive,
    arrived,
    check_counted,
    ends_first,
    has_agent,
    is_first,
    processes,
    rank,
    store,
)
from snn_bp.runtime.status import phase
from snn_bp.trainer.amounts import Amount, amount_of
from snn_bp.trainer.dealt import Dealt, as_first, check_dealt, is_same, take_buffers, takes_whole
from snn_bp.trainer.kept import Kept, called_alone, made_by_calls, not_ours

WAIT = timedelta(days=1)  # others wait while the first looks at the layers; that one has ended is noticed at once
CLOSE, DRAWN, STEPS = 1e-5, 6, 4  # to which two figures agree; recordings and steps on which a loss or layer is tried
LOST = ("gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL")
Value = TypeVar("Value")


class Team:
    """The processes of one training, joined; of this one its shard of each batch, and what they tell each other."""

    def __init__(self, config: Train) -> None:
        self.is_first, self.device = is_first(), device_of(config)
        self.has_begun = False
        self.dealt: Dealt | None = None  # where batches are dealt whole
        self._kept: Kept | None = None  # None: no layer is of the user's own
        self._parallel: nn.Module | None = None
        self._shard: Shard | None = None
        self._counts = torch.zeros(0)  # what the shards of each piece count for, a row a process
        self._amount: Amount | None = None

    def tell(self, value: Any) -> None:
        """Let the others have a value; the first process calls it, the others `awaited`."""
        torch.distributed.broadcast_object_list([value], device=torch.device("cpu"))

    def awaited(self) -> Any:
        """What the first process tells."""
        values = [None]
        torch.distributed.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]

    def begin_run(self, value: Any) -> None:
        """Let the others take part from here on: what they go on from."""
        self.has_begun = True
        self.tell(value)

    def agreed(self, decide: Callable[[], Value]) -> Value:
        """What is so for the first process."""
        if not self.is_first:
            return self.awaited()
        self.tell(value := decide())
        return value

    def largest(self, number: int) -> int:
        """The largest of all processes' numbers."""
        return int(gather(torch.tensor([number])).max())

    def of_each(self, value: Any) -> list[Any]:
        """The value of each process, in order."""
        values = [None] * processes()
        torch.distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        gather(torch.zeros(1))

    def load(self, loaded: Callable[[], Dataset]) -> Dataset:
        """What is loaded, and where nobody has kept it yet also made, by one process of each machine first."""
        if self.is_first:
            self.tell("load")
        dataset = loaded() if (leads := os.environ.get("LOCAL_RANK", "0") == "0") else None
        self.wait()
        return dataset if leads and dataset is not None else loaded()

    def join(self, network: Network, config: Train, dataset: Dataset) -> str:
        """Let the processes train this network together, from the weights of the first; how they do, in words."""
        is_dealt = takes_whole(config)
        if not_ours(network):
            made = self.agreed(lambda: made_by_calls(network, is_dealt=is_dealt))
            self._kept = Kept(network, made, is_dealt=is_dealt)
        if is_dealt:
            self.dealt = Dealt(network, self.of_each)
            return f"{processes()} processes, whole batches: {config.accumulate} make a step, and each runs its own"
        self._amount = amount_of(config.loss, dataset)
        warnings.filterwarnings("ignore", "Grad strides do not match")  # as they need not on axes of length 1
        as_first(network.buffers())  # statistics of norms, which stay the same in all processes from here on
        parallel = nn.parallel.DistributedDataParallel
        now = takes(parallel.__init__, "forward_sync_buffers")  # torch 2.12 on, which warns of the older name
        options: dict[str, Any] = {"forward_sync_buffers" if now else "broadcast_buffers": False}
        self._parallel = parallel(_Rates(network), find_unused_parameters=_leaves_some_out(network), **options)
        return f"{processes()} processes, each a part of every batch"

    def begin_epoch(self, network: Network) -> None:
        """Let layers that are not ours have the weights and buffers of the first process, which looks at them."""
        if not (parts := not_ours(network)):
            return
        as_first(weight for part in parts for weight in part.layer.parameters())
        held = self.agreed(lambda: [{name: each.cpu() for name, each in part.layer.named_buffers()} for part in parts])
        if not self.is_first:
            for part, buffers in zip(parts, held, strict=True):
                take_buffers(part.layer, buffers)
        if self._kept is not None:
            self._kept.begin_epoch()

    def end_step(self, *, batches: int, last: bool) -> None:
        """Behind a step of so many batches, the `last` of an epoch or not: raise where a layer came to differ."""
        if self._kept is not None:
            self._kept.end_step(self, has_run=self.dealt is None or rank() < batches, last=last)

    def rows(self, batch: int) -> slice:
        """The recordings of a batch of so many that this process runs."""
        return rows_of(batch, rank=rank(), processes=processes())

    def begin_batch(self, batch: int, *, seed: int) -> None:
        """From here on, a batch of so many recordings is trained, of which this process has its shard."""
        self._shard = Shard(batch, rank=rank(), processes=processes(), seed=seed, device=self.device)

    def begin(
        self, parts: Sequence[Piece], lengths: Sequence[int], targets: Tensor, mask: Tensor | None
    ) -> list[Piece]:
        """The pieces of a batch, each with what it counts for in the whole batch of all processes."""
        assert self._shard is not None and self._amount is not None
        counted, start = [], 0
        for part, length in zip(parts, lengths, strict=True):
            there = length * len(targets) if mask is None else int(mask[start : start + length].sum())
            counted.append((self._amount(part.targets, part.mask), part.count, there))
            start += length
        values = torch.tensor(counted, dtype=torch.float64)
        self._counts = gather(values * 0 if self._shard.is_empty else values)
        of_all = self._counts[:, :, 1].sum(0)
        return [
            part._replace(fraction=float(n / of_all.sum().clamp(min=1))) for part, n in zip(parts, of_all, strict=True)
        ]

    def rates(self, x: Tensor, state: Any, *mask: Tensor, joins: bool) -> tuple[Tensor, list[Tensor], Any]:
        """As `network.rates` on a shard; its backward pass joins the gradients of all processes if it `joins`."""
        parallel: Any = self._parallel
        with in_shard(self._shard), nullcontext() if joins else parallel.no_sync():
            return parallel(x, state, *mask)

    def part_of_loss(self, loss: Tensor, piece: int) -> Tensor:
        """The loss of a shard as it counts, so that the mean over processes is the loss of the whole batch."""
        amounts = self._counts[:, piece, 0]
        return loss * float(amounts[rank()] * processes() / amounts.sum().clamp(min=1e-300))

    def means(self, rates: list[Tensor], piece: int) -> list[Tensor]:
        """Mean outputs over the recordings of all processes, of those over a shard."""
        if not rates:
            return rates
        counts = self._counts[:, piece, 2].to(rates[0])
        found = (
            gather(torch.cat([rate.flatten() for rate in rates])) * (counts / counts.sum().clamp(min=1))[:, None]
        ).sum(0)
        parts = found.split([rate.numel() for rate in rates])
        return [part.view_as(rate) for part, rate in zip(parts, rates, strict=True)]

    def totals(self, loss: float, rate: float, *sums: float) -> tuple[float, float, list[float]]:
        """Loss and mean rate of the whole batch, and sums over its recordings."""
        assert self._shard is not None
        counts = [0.0 if self._shard.is_empty else each for each in (self._shard.size, *sums)]
        found = gather(torch.tensor([loss, rate, *counts], dtype=torch.float64))
        mean_rate = float((found[:, 1] * found[:, 2]).sum() / found[:, 2].sum())
        return float(found[:, 0].mean()), mean_rate, found[:, 3:].sum(0).tolist()


@contextmanager
def joined_processes(config: Train) -> Iterator[Team | None]:
    """Within the block, the processes that torchrun started are joined; None where this is the only one."""
    check_counted()
    if processes() == 1:
        yield None
        return
    try:
        if not torch.distributed.is_initialized():
            _join(device_of(config))
        found = Team(config)
        yield found
        if found.is_first and not found.has_begun:
            found.tell(None)  # there is nothing to do
    except BaseException as cause:
        ends_first()  # ahead of the others, which notice that this one has ended
        if not _is_lost(cause):
            raise
        raise SnnError(
            "a process of this training has ended, and all stop. What was saved is kept: `snn-bp resume RUN` goes on, "
            "with any number of processes."
        ) from cause


def device_of(config: Train) -> torch.device:
    """The device of this process among several: one GPU each; raises where there are fewer."""
    kind, _, index = config.device.partition(":")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind != "cuda":
        return torch.device(config.device if kind != "cpu" else "cpu")
    local, there = int(os.environ.get("LOCAL_WORLD_SIZE", processes())), torch.cuda.device_count()
    if index or local > there:
        raise SnnError(
            f"train.device={config.device!r}: {local} processes on a machine with {there} GPUs, of which each takes "
            f"one. Use train.device=auto with --nproc-per-node {max(1, there)}, or train.device=cpu."
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank())))


def check_together(network: Network, config: Train, dataset: Dataset) -> None:
    """Raise unless several processes can train it as one would."""
    made_by_calls(network, is_dealt=takes_whole(config))
    if takes_whole(config):
        check_dealt(network)
        return
    amount_of(config.loss, dataset)
    strange = {part.path for part in not_ours(network)}
    for part in every_part(parts_of(network)):
        known = part.role == "joint" or (part.role == "norm" and is_exact(part.layer))
        if takes_statistics(part.layer) and not known:
            raise SnnError(
                f"train: {network.name(part.path)} takes statistics of a batch, of which each of {processes()} "
                "processes has a part. BatchNorm() takes those of all, LayerNorm() of each step alone; or train in one "
                f"process, or whole batches in each by train.accumulate={processes()}."
            )
        if part.path in strange and _mixes(network, part):
            raise SnnError(
                f"train: what {network.name(part.path)} makes of a recording, or keeps, hangs on others of its batch, "
                f"of which each of {processes()} processes has a part. A layer that sees each recording by itself "
                f"goes; or train in one process, or whole batches in each by train.accumulate={processes()}."
            )


def _mixes(network: Network, at: LayerAt) -> bool:
    """Whether a layer in training gives for a recording, or keeps, what hangs on others in its batch."""
    x = torch.rand(STEPS, DRAWN, *at.before, generator=torch.Generator().manual_seed(0)).round()
    outs, keeps = [], []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for given in (x, torch.cat([x[:, :1], 1 - x[:, 1:]], 1)):
            layer = deep_copy(at.layer).train()
            torch.manual_seed(0)
            outs.append(called_alone(network, at, layer, given).reshape(STEPS, DRAWN, -1)[:, 0])
            keeps.append([*layer.parameters(), *layer.buffers()])
    return not (torch.allclose(*outs, rtol=CLOSE, atol=CLOSE, equal_nan=True) and all(map(is_same, *keeps)))


class _Rates(nn.Module):
    """A network whose forward is what training calls: torch joins gradients of what a forward has used."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, *given: Any) -> tuple[Tensor, list[Tensor], Any]:
        return self.network.rates(*given)


def _join(device: torch.device) -> None:
    """Join the processes to the end of the program; raises where this torch cannot.

    One run may follow another. Nothing is left in between: gloo's thread may still hold a tensor of the last call, and
    waits for the interpreter to let go of it, which in turn would wait for that thread to end.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        raise SnnError(
            f"train: torchrun started {processes()} processes, and this torch has no torch.distributed with gloo to "
            "join them. Train in one process, or install a torch that has it."
        )
    options: dict[str, Any] = {}
    if device.type == "cuda":
        torch.cuda.set_device(device)
        options["device_id"] = device
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    _meet()
    torch.distributed.init_process_group(
        backend, store=store(), rank=rank(), world_size=processes(), timeout=WAIT, **options
    )
    atexit.register(_leave_others)


def _leave_others() -> None:
    """Leave the others where a program ends by itself: torch aborts one with a thread of gloo, and nccl warns."""
    if not process.leaving and torch.distributed.is_initialized():
        time.sleep(0.2)  # in which that thread lets go of what it holds
        torch.distributed.destroy_process_group()


def _meet() -> None:
    """Wait until all processes are there, which Ctrl-C and SIGTERM end; raises where they do not come."""
    began, count = time.monotonic(), processes()
    patience = (WAIT if has_agent() else MEETING).total_seconds()
    with phase(f"waiting for {count} processes at {address()}", total=count, of_each=not has_agent()) as shown:
        while store() is None:
            if is_first() or has_agent() or time.monotonic() - began > patience:
                raise SnnError(
                    f"train: process {rank()} of {count} does not reach the others at {address()}, which MASTER_ADDR "
                    "and MASTER_PORT say. torchrun sets them; for one process, `unset RANK WORLD_SIZE`."
                )
            time.sleep(0.05)
        arrive()
        while (here := arrived()) < count:
            if time.monotonic() - began > patience:
                raise SnnError(
                    f"train: {here} of {count} processes came to {address()} in {patience:.0f} s. torchrun starts all; "
                    "for one process, `unset RANK WORLD_SIZE`."
                )
            shown.done = here
            time.sleep(0.05)


def _is_lost(cause: BaseException) -> bool:
    """Whether an error says that another process is not there any more."""
    is_known = isinstance(cause, RuntimeError) and any(word in str(cause) for word in LOST)
    return is_known or (not isinstance(cause, SnnError) and isinstance(cause, torch.distributed.DistError))


def _leaves_some_out(network: Network) -> bool:
    """Whether a forward pass leaves out some of the weights that learn."""
    probe = deep_copy(network).train()
    weights = [weight for weight in probe.parameters() if weight.requires_grad]
    out, _, _ = probe.rates(torch.zeros(2, 2, *network.input_shape, device=weights[0].device, dtype=weights[0].dtype))
    return any(grad is None for grad in torch.autograd.grad(out.sum(), weights, allow_unused=True))
