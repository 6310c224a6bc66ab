"""What layers of one's own keep in plain attributes, which no process would have of another: refused by name.

A first call may make an attribute, the same whatever comes in: a table, a weight made of others. It may not hang on
what comes in, or on how often. That is tried on copies before a training, and compared over all processes behind the
first and the last step of an epoch and in each evaluation. What is kept in a closure or a global is not seen.
"""

import hashlib
import io
import pickle
import weakref
from collections.abc import Iterable, Mapping
from itertools import chain
from types import FunctionType
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from snn_bp.errors import SnnError
from snn_bp.model.blocks import LayerAt, Path, every_part, parts_of
from snn_bp.model.exact import is_exact
from snn_bp.model.network import Network, deep_copy
from snn_bp.model.plan import apply_stateless
from snn_bp.runs.checkpoint import tensor_digest
from snn_bp.runtime.processes import processes

Key = TypeVar("Key")
Attribute: TypeAlias = tuple[Path, str]  # where its layer stands, and its name there
STEPS, DRAWN = 3, (4, 3)  # steps, and recordings of each input, on which layers are tried
OF_TORCH = frozenset(vars(nn.Module()))  # what each module has


class Kept:
    """The plain attributes of a network's own layers in the course of a training; `made` are those `made_by_calls`."""

    def __init__(self, network: Network, made: set[Attribute], *, is_dealt: bool) -> None:
        self._network, self._made, self._is_dealt = network, made, is_dealt
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """From here on, only calls may change them."""
        self._start, self._is_first_step = attributes_of(self._network), True

    def end_step(self, team: Any, *, has_run: bool, last: bool) -> None:
        """Raise, in all processes, where a step of this epoch has left others in one of them.

        `has_run`: whether this process ran a batch of the step. `last`: no step follows in this epoch.
        """
        if self._is_first_step or last:
            now = attributes_of(self._network)
            changed = changed_between(self._start, now) - self._made
            check_same(self._network, team.of_each((now if has_run else None, changed)), is_dealt=self._is_dealt)
        self._is_first_step = False


def check_same(
    network: Network, of_each: Iterable[tuple[dict[Attribute, str] | None, set[Attribute]]], *, is_dealt: bool = False
) -> None:
    """Raise where attributes differ over processes, or one has found some that calls change.

    None of a process that has called nothing. `is_dealt`: the calls were those of a training on whole batches.
    """
    every, changed = zip(*of_each, strict=True)
    there = [each for each in every if each is not None]
    if found := set(chain(*changed, *(changed_between(there[0], each) for each in there))):
        raise _refusal(network, found, is_dealt=is_dealt)


def made_by_calls(network: Network, *, is_dealt: bool) -> set[Attribute]:
    """The plain attributes that a call makes of the weights alone; raises where one hangs on more, by trying copies."""
    made: set[Attribute] = set()
    for part in not_ours(network):
        for training in (True, False):
            start, *behind = _behind_calls(network, part, training=training)
            if found := set().union(*(changed_between(behind[0], each) for each in behind)):
                raise _refusal(network, {(part.path, name) for name in found}, is_dealt=is_dealt and training)
            made |= {(part.path, name) for name in changed_between(start, behind[0])}
    return made


def not_ours(network: Network) -> list[LayerAt]:
    """The layers that run by a forward which is not known here."""
    return [part for part in every_part(parts_of(network)) if part.role != "joint" and not is_exact(part.layer)]


def called_alone(network: Network, at: LayerAt, layer: nn.Module, x: Tensor) -> Tensor:
    """What a layer, which may be a copy of the one there, makes of `x` `[time, batch, ...]` from rest."""
    weights = (each.dtype for each in layer.parameters() if each.is_floating_point())
    x = x.to(next(weights, torch.get_default_dtype()))
    try:
        return layer(x, None)[0] if at.role in ("neurons", "stateful") else apply_stateless(layer, x)
    except Exception as cause:  # whatever a forward of the user's own raises
        raise SnnError(
            f"train: {network.name(at.path)} does not run on {x.shape[1]} recordings of {len(x)} steps, on which it is "
            f"tried for {processes()} processes ({cause}). A layer that takes any number goes; or train in one process."
        ) from cause


def attributes_of(network: Network) -> dict[Attribute, str]:
    """A digest of each plain attribute of the layers that are not ours."""
    parts = not_ours(network)
    known = _Known(network) if parts else None
    return {(at.path, name): value for at in parts for name, value in _digests(network, at, at.layer, known).items()}


def changed_between(some: Mapping[Key, str], others: Mapping[Key, str]) -> set[Key]:
    """The attributes that two do not have alike."""
    return {name for name in some.keys() | others.keys() if some.get(name) != others.get(name)}


def _behind_calls(network: Network, at: LayerAt, *, training: bool) -> list[dict[str, str]]:
    """The attributes of a layer, and of copies with other weights behind one call, two calls, and the second alone."""
    draw, device = torch.Generator().manual_seed(0), next(network.parameters()).device
    inputs = [torch.rand(STEPS, batch, *at.before, generator=draw) for batch in DRAWN]
    inputs[0] = inputs[0].round()  # spikes, which have no mean or sum in common with numbers
    found = [_digests(network, at, at.layer)]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for order in ((0, 1), (1,)):
            layer = deep_copy(at.layer).train(training)
            for weight in layer.parameters():
                weight.copy_(1.25 * weight + 0.125)
            for number in order:
                torch.manual_seed(number)
                called_alone(network, at, layer, inputs[number].to(device))
                found.append(_digests(network, at, layer))
    return found


def _digests(network: Network, at: LayerAt, layer: nn.Module, known: "_Known | None" = None) -> dict[str, str]:
    """A digest of each plain attribute of a layer, which may be a copy of the one there."""
    found, known = {}, known or _Known(layer)
    for path, module in layer.named_modules():
        for name in vars(module).keys() - OF_TORCH:
            try:
                found[f"{path}.{name}".lstrip(".")] = known.digest(vars(module)[name])
            except Exception as cause:  # whatever pickle meets
                if not type(module).__module__.startswith("torch."):  # what torch keeps there is its own affair
                    raise SnnError(
                        f"train: {network.name(at.path)} keeps in {name} what cannot be compared over "
                        f"{processes()} processes ({cause}). Numbers, tensors, arrays and collections of them go; or "
                        "train in one process."
                    ) from cause
    return found


class _Known:
    """Modules and tensors that are compared elsewhere, or learn: as a value in an attribute they never change."""

    def __init__(self, root: nn.Module) -> None:
        self.modules = {id(module) for module in root.modules()}
        self.storages = {_storage(each) for each in (*root.parameters(), *root.buffers()) if each.numel()}

    def digest(self, value: Any) -> str:
        """The same for equal values, in every process."""
        file = io.BytesIO()
        _Written(file, self).dump(value)
        return hashlib.sha256(file.getvalue()).hexdigest()


class _Written(pickle.Pickler):
    """A pickle to be compared, never read."""

    def __init__(self, file: io.BytesIO, known: _Known) -> None:
        super().__init__(file)
        self._known = known

    def persistent_id(self, value: Any) -> Any:
        """What stands for a value; None: its own pickle."""
        if id(value) in self._known.modules:
            return "module"
        if torch.is_tensor(value):
            if _storage(value) in self._known.storages:
                return "tensor"
            return tensor_digest({"": value.detach().cpu()})
        if isinstance(value, torch.Generator):
            return tensor_digest({"": value.get_state()})
        if isinstance(value, torch.device | weakref.ref):  # each process has a GPU of its own
            return type(value).__name__
        if isinstance(value, FunctionType | type):
            return value.__qualname__
        return sorted(map(self._known.digest, value)) if isinstance(value, set | frozenset) else None


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


def _refusal(network: Network, found: set[Attribute], *, is_dealt: bool) -> SnnError:
    path = min(path for path, _ in found)
    names = ", ".join(sorted(name for at, name in found if at == path))
    lasting = "" if is_dealt else ", what lasts goes in a buffer (self.register_buffer)"
    return SnnError(
        f"train: {network.name(path)} keeps {names} in plain attributes, and each of {processes()} processes comes to "
        f"have its own. What is needed within a call alone goes in a variable of its forward{lasting}; or train in one "
        "process."
    )
