"""`Dataset`: recordings in three splits, given batch by batch as frames."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, cast, get_args

import numpy as np
import torch
from torch import Tensor

from snn_bp.data.augmentations import Blend, CutMix, check_recordings, check_targets
from snn_bp.data.beside import of_steps
from snn_bp.data.catalogue import IN_MEMORY, DataSetInfo, Sensor
from snn_bp.data.description import Data
from snn_bp.data.draws import Partners, draw, moves_of, targets_changed
from snn_bp.data.encode import Changes, Events, encode, fetch_events
from snn_bp.data.encoders import Encoder
from snn_bp.data.frames import CachedFrames
from snn_bp.data.in_memory import has_events, info_in_memory, listed_parts, parts_in_memory, targets_in_memory
from snn_bp.data.mapped import fetch
from snn_bp.data.notes import notes_of
from snn_bp.data.raw import as_array
from snn_bp.data.splits import Pool, draw_splits
from snn_bp.data.store import CachedEvents
from snn_bp.data.transforms import apply_transforms, check_frames, flatten, shape_after, structured
from snn_bp.data.values import TRANSFORM, augmented, shape_of_values, values_of
from snn_bp.data.window import Inside, inside, up_to
from snn_bp.errors import SnnError, check_choice, check_flag, check_kind, check_number, check_seed, shown
from snn_bp.errors.calls import checked_call
from snn_bp.model.targets import Targets
from snn_bp.runtime.capacity import check_room
from snn_bp.runtime.screen import html_table, on_screen

CachedPart = CachedEvents | CachedFrames
NAMED = 10  # classes in a line
_SHUFFLE = 0  # a stream of random numbers drawn from one seed, as `TRANSFORM` is


@checked_call
@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Recordings split in three, given as frames; `load` makes one, and `Dataset.of` from what lies in memory.

    The ids of "train" and "validation" number the recordings of the training part, those of "test" the test
    part. "test" may be empty: nothing is taken from one part to fill another, unless the description asks for it; both
    parts are the same recordings then.

    Fields:
        data: the description, an experiment's `data`.
        info: what those who recorded the set state of it.
        shape: of one time step: (C, H, W), or (N,) for a row of channels.
        targets: what recordings are labelled with.
        ids: for each split, the recordings in it.
        notes: what is odd about them, in sentences.
        sensor: as frames are counted, after transforms and before downsampling.
        parts: the recordings of "train" and "test"; `versions`: of the libraries that made them.
        recorded_steps (0): that the longest recording has, where all are frames.

    >>> x = np.random.default_rng(0).random((12, 5, 4)) < 0.3  # [recordings, steps, channels]
    >>> dataset = Dataset.of(train=(x, np.arange(12) % 2), test_fraction=0.25, step_ms=2)
    >>> frames, targets = dataset.batch("train", dataset.ids["train"][:3])
    >>> frames.shape, {split: len(ids) for split, ids in dataset.ids.items()}  # [time, batch, channels]
    (torch.Size([5, 3, 4]), {'train': 6, 'validation': 2, 'test': 4})
    """

    data: Data
    info: DataSetInfo
    shape: tuple[int, ...]
    targets: Targets
    ids: dict[str, np.ndarray]
    notes: tuple[str, ...]
    sensor: Sensor
    parts: dict[str, CachedPart]
    versions: dict[str, str]
    recorded_steps: int = 0

    @classmethod
    @checked_call
    def of(
        cls, train: Any, test: Any = None, *, targets: Targets | str | None = None, names: Any = None,
        groups: Any = None, sensor: Any = None, **description: Any,
    ) -> "Dataset":  # fmt: skip
        """Recordings that lie in memory, to be handed to `train(experiment, out, dataset=...)`.

        Parameters:
            train: `(x, y)` or `(x, y, lengths)`, x `[recordings, steps, ...]` as an array, a tensor or a list of
                arrays; or a torch Dataset, a list or a generator of `(x, target)`. Events are structured arrays of x,
                y, t (microseconds) and p, with their `sensor` and `steps=`.
            test (None): likewise.
            targets (None): what they are asked for, a `Targets` or one of its kinds; None: integers are classes.
            names (None), groups (None): an entry for each training recording, or dictionaries of "train" and "test".
            sensor (None): (width, height, polarities) of events, in pixels.
            description: everything else is a field of `Data`: `step_ms=`, `batch=`, `encoder=`, `validation_fraction=`,
                ...

        The experiment takes the description from here: `Experiment(dataset.data, ...)`. To go on with such a run,
        hand the data set in again; that it is the same is checked by its hash.

        >>> Dataset.of(train=(np.zeros((8, 20, 3)), np.arange(8) % 2), step_ms=1, batch=4).shape
        (3,)
        """
        content = listed_parts(train, test, names=names, groups=groups)
        events, asked = has_events(content), targets_in_memory(targets, content)
        info = info_in_memory(sensor, events=events)
        parts = parts_in_memory(content, asked, info, events=events)
        return assemble(Data(IN_MEMORY, **description), parts, asked, info)

    def checked(self, data: Data) -> "Dataset":
        """This data set by `data`, an experiment's; raises unless that is its description.

        A value of one's own may be that of the run's copy of the code: it is the same where it is written the same.
        """
        check_kind("dataset: the description", data, Data, "As in Experiment(dataset.data, ...).")
        for field in fields(Data):
            asked, mine = getattr(data, field.name), getattr(self.data, field.name)
            if asked != mine and repr(asked) != repr(mine):
                raise SnnError(
                    f"dataset: the experiment's data.{field.name} is {shown(asked)}, this data set's {shown(mine)}. "
                    f"Make it by Dataset.of(..., {field.name}=...) as the experiment has it, and the experiment by "
                    "Experiment(dataset.data, ...)."
                )
        return replace(self, data=data)

    def __str__(self) -> str:
        return "\n".join([self._summary(), *(f"  {name:12}{count:>8}" for name, count in self._rows()), *self.notes])

    def __repr__(self) -> str:
        return on_screen(str(self))

    def _repr_html_(self) -> str:
        return html_table(self._summary(), ("split", "recordings"), self._rows(), notes=self.notes)

    def _summary(self) -> str:
        width = "" if self.data.step_ms is None else f" of {self.data.step_ms:g} ms"
        named = ", ".join(self.class_names[:NAMED]) + ", ..." * (self.classes > NAMED)
        return f"{self.data.name}: {self.steps} steps{width}, each {list(self.shape)}; {self.targets.kind}: {named}"

    def _rows(self) -> list[tuple[str, str]]:
        return [(split, f"{len(ids):,}") for split, ids in self.ids.items()]

    @property
    def classes(self) -> int:
        """How many outputs a network should have: one for each class, label or number."""
        return self.targets.outputs

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each of them."""
        return self.targets.names

    @property
    def steps(self) -> int:
        """How many frames a recording becomes."""
        return self.data.steps or self.recorded_steps

    @property
    def has_events(self) -> bool:
        """Whether recordings are events that are counted, not values."""
        return hasattr(self.parts["train"], "events")

    @property
    def in_bytes(self) -> bool:
        """Whether frames are made as bytes."""
        train = self.parts["train"]
        plain = not self.data.transforms and self.data.encoder is None
        return plain and (isinstance(train, CachedEvents) or train.frames.dtype == np.uint8)

    @property
    def can_be_read_ahead(self) -> bool:
        """Whether a thread may make batches: transforms and encoders of others may use what the process shares."""
        is_ours = type(self.data.encoder) in (*get_args(Encoder), type(None))
        return type(self) is Dataset and not self.data.transforms and is_ours

    @cached_property
    def window(self) -> dict[str, Inside]:
        """How much of each part lies in the window that is encoded, before transforms; nothing where all are frames."""
        return {
            part: inside(cached.events, self.data.window_us, cached.beside.spans)
            for part, cached in self.parts.items()
            if isinstance(cached, CachedEvents)
        }

    def batches(self, split: str, *, seed: int | None = None) -> list[np.ndarray]:
        """Ids of each batch, the last one maybe short; in order, or shuffled by a seed."""
        ids = self._split(split)
        if seed is not None:
            check_seed("batches: seed", seed)
            ids = np.random.default_rng((seed, _SHUFFLE)).permutation(ids)
        return [ids[start : start + self.data.batch] for start in range(0, len(ids), self.data.batch)]

    def batch(self, split: str, ids: Any, *, seed: int | None = None, in_bytes: bool = False) -> tuple[Tensor, Tensor]:
        """Frames [steps, len(ids), *shape], floats or where asked for and possible bytes, and targets [len(ids), ...].

        With a seed, training recordings are augmented, shifted and turned, and random transforms and encoders drawn
        anew. What a recording becomes depends on its id and the seed alone, not on its neighbours in the batch. Where
        augmentations mix classes, targets are then the fraction of each, floats [len(ids), classes].
        """
        part, ids = self._cached(split), self._checked_ids(split, ids)
        if seed is not None:
            check_seed("batch: seed", seed)
        check_flag("batch: in_bytes", in_bytes)
        changes = self._changes(split, ids, seed=seed)
        targets = torch.from_numpy(of_steps(self._targets_of(part, ids, changes), self.steps, self.targets))
        if not isinstance(part, CachedEvents):
            sources, steps = ids, self.steps
            if changes is not None:
                sources, steps = changes.with_partners(ids), max(self.steps, self.recorded_steps)  # a crop needs them
            self._check_room(sources, in_bytes=in_bytes and part.frames.dtype == np.uint8)
            frames = values_of(
                self.data, part, sources, steps=steps, recorded=self.recorded_steps, shape=self.shape,
                seed=seed if split == "train" else None, in_bytes=in_bytes, source=repr(split),
            )  # fmt: skip
            return frames if changes is None else augmented(frames, changes, steps=self.steps), targets
        events, drawn = self._events(split, changes), seed if split == "train" else None
        moves = moves_of(self.data, ids, seed=drawn, recordings=len(part), has_rows=self.sensor[1] > 1)
        if not self.data.transforms or not len(ids):
            return self._encode(events, ids, moves=moves, changes=changes, in_bytes=in_bytes), targets
        sources = ids if changes is None else changes.with_partners(ids)
        changed = [self._transformed(events, sample, seed=seed) for sample in sources.tolist()]
        if changed[0].dtype.names is None:
            for sample, frames in zip(ids, changed, strict=True):
                check_frames(frames, (self.data.steps, *self.shape), source=f"recording {sample} of {split!r}")
            return torch.from_numpy(np.stack(changed, axis=1)).float(), targets
        flat = flatten(changed, events.labels[sources], like=events, sensor=self.sensor)
        return self._encode(flat, np.arange(len(ids)), moves=moves, changes=changes, in_bytes=in_bytes), targets

    def fetch(self, split: str, ids: np.ndarray, *, seed: int | None = None) -> None:
        """Have the system read what `batch` of the same takes from disk, in the background; a batch is the same."""
        part = self._cached(split)
        changes = None if part.folder is None else self._changes(split, ids, seed=seed)
        if isinstance(part, CachedEvents) and part.folder is not None:
            fetch_events(self._events(split, changes), ids, changes, window=self.data.window_us)
        elif isinstance(part, CachedFrames):
            rows = ids if changes is None else changes.with_partners(ids)
            fetch(part.frames, rows, rows + 1)

    def mask(self, split: str, ids: Any) -> Tensor | None:
        """Where recordings have a step, [steps, len(ids)]; None where all of the part have every one."""
        ids = self._checked_ids(split, ids)
        lengths = self._cached(split).lengths(steps=self.steps, step_us=self.data.step_us)
        return None if lengths is None else torch.arange(self.steps)[:, None] < torch.from_numpy(lengths[ids])

    def labels(self, split: str) -> np.ndarray:
        """Targets of the split, in the order of its ids: classes [recordings], or as `Targets` says."""
        return of_steps(self._cached(split).targets[self.ids[split]], self.steps, self.targets)

    def names(self, split: str) -> list[str]:
        """The name of each recording of the split, in the order of its ids."""
        names = self._cached(split).names
        return [names[number] if names else f"recording {number}" for number in self.ids[split].tolist()]

    def groups(self, split: str) -> list[str] | None:
        """The group of each recording of the split (who spoke, which session), None where there are none."""
        groups = self._cached(split).beside.groups
        return [groups[number] for number in self.ids[split].tolist()] if groups else None

    def spread(self, split: str, count: int) -> np.ndarray:
        """Up to `count` ids of the split, evenly spread over all of them."""
        ids = self._split(split)
        check_number("spread: count", count, integer=True, low=0)
        return ids[np.linspace(0, len(ids) - 1, min(len(ids), count)).astype(int)]

    def _split(self, split: str) -> np.ndarray:
        check_choice("split", split, self.ids)
        return self.ids[split]

    def _cached(self, split: str) -> CachedPart:
        check_choice("split", split, self.ids)
        return self.parts["test" if split == "test" else "train"]

    def _checked_ids(self, split: str, ids: Any) -> np.ndarray:
        ids, count = as_array(ids, "batch: ids, a list of integers"), len(self._cached(split))
        if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):  # a mask would be read as ids 0 and 1
            raise SnnError(
                f"batch: ids should be a list of integers, found {ids.dtype} {list(ids.shape)}. "
                f"batches({split!r}) gives those of the split."
            )
        ids = ids.astype(np.int64)
        if len(ids) and (ids.min() < 0 or ids.max() >= count):
            raise SnnError(
                f"batch: ids {ids.min()}..{ids.max()} asked of {split!r}, its part has 0..{count - 1}. "
                f"batches({split!r}) gives those of the split."
            )
        return ids

    def _changes(self, split: str, ids: np.ndarray, *, seed: int | None) -> Changes | None:
        """What augmentations draw for the recordings; None where there are none."""
        if seed is None or split != "train" or not self.data.augment:
            return None
        durations = self.parts["train"].beside.durations
        image = self.sensor[:2] if self.has_events else (self.shape[-1], 1 if len(self.shape) == 1 else self.shape[-2])
        return draw(
            self.data.augment, ids, seed=seed, image=image, partners=self._partners,
            window=self.data.window_us if self.has_events else self.steps,
            each_ms=1000 if self.has_events else 1 / (self.data.step_ms or 1),
            ends=None if durations is None else durations[ids],
        )  # fmt: skip

    def _events(self, split: str, changes: Changes | None) -> Events:
        """The events of a split's part, those behind the window left out where nothing moves it."""
        whole, part = changes is not None or self.data.transforms, "test" if split == "test" else "train"
        return cast(CachedEvents, self.parts[part]).events if whole else self._in_window[part]

    @cached_property
    def _in_window(self) -> dict[str, Events]:
        """The events of each part, of which those behind the window are not looked at."""
        parts = {part: each for part, each in self.parts.items() if isinstance(each, CachedEvents)}
        return {part: up_to(each.events, self.data.window_us, each.beside.spans) for part, each in parts.items()}

    @cached_property
    def _partners(self) -> Partners | None:
        """From where second recordings are drawn; None where none are."""
        mixes = any(isinstance(each, Blend | CutMix) for each in self.data.augment)
        return Partners.of(self.ids["train"], self.parts["train"].targets) if mixes else None

    def _targets_of(self, part: CachedPart, ids: np.ndarray, changes: Changes | None) -> np.ndarray:
        """The targets of recordings, as augmentations change them."""
        if changes is None:
            return part.targets[ids]
        return targets_changed(self.data.augment, part.targets, ids, changes.drawn, self.class_names)

    def _transformed(self, events: Events, sample: int, *, seed: int | None) -> np.ndarray:
        array = structured(events, sample, dtype=self.info.event_dtype)
        drawn = 0 if seed is None else seed + 1
        return apply_transforms(self.data.transforms, array, seed=(drawn, TRANSFORM, sample))

    def _encode(
        self, events: Events, ids: np.ndarray, *, moves: dict[str, np.ndarray], changes: Changes | None, in_bytes: bool
    ) -> Tensor:
        self._check_room(ids, in_bytes=in_bytes)
        frames = encode(
            events,
            ids,
            steps=self.data.steps or 0,
            step_us=self.data.step_us,
            shape=(1,) * (3 - len(self.shape)) + self.shape,
            downsample=self.data.downsample,
            binary=self.data.binary,
            changes=changes,
            in_bytes=in_bytes,
            **moves,
        )
        return frames.view(*frames.shape[:2], *self.shape)

    def _check_room(self, ids: np.ndarray, *, in_bytes: bool) -> None:
        check_room(
            self.steps * len(ids) * math.prod(self.shape) * (1 if in_bytes else 4),
            what=f"a batch of {len(ids)} recordings of {self.steps} steps",
            remedy="Fewer recordings, fewer data.steps or data.downsample bring it down.",
        )


def assemble(
    data: Data, parts: Mapping[str, CachedPart], targets: Targets, info: DataSetInfo, *,
    sensor: Sensor | None = None, notes: Sequence[str] = (), versions: Mapping[str, str] | None = None,
) -> Dataset:  # fmt: skip
    """The data set of parts that are read: the shape of a frame, the splits, and what is worth a note."""
    train, test, steps = parts["train"], parts["test"], 0
    sensor = sensor or info.sensor or (max(info.channels, 1), 1, 1)
    if isinstance(train, CachedEvents):
        if data.steps is None:
            raise SnnError(f"{data.name}: these are events, so say how many frames they become, as in steps=50.")
        sensor, shape = shape_after(data, train.events, sensor, dtype=info.event_dtype)
    else:
        data.check_counting()
        shape, steps = shape_of_values(data, train)
        if test is not train and len(test) and isinstance(test, CachedFrames):
            found, count = shape_of_values(data, test)
            if found != shape:
                raise SnnError(
                    f"{data.name}: one step is {list(shape)} in the train part, {list(found)} in the test part."
                )
            steps = max(steps, count)
    check_recordings(data.augment, data.name, are_events=isinstance(train, CachedEvents), axes=len(shape))
    check_targets(data.augment, data.name, targets)
    labels = train.targets if targets.kind == "class" else np.zeros(len(train), np.int64)
    pool = Pool(labels=labels, beside=train.beside, source=data.name)
    ids, drawn = draw_splits(data, pool, test=len(test))
    if not len(test) and len(ids["test"]):
        test = train
    dataset = Dataset(
        data=data,
        info=info,
        shape=tuple(shape),
        targets=targets,
        ids=ids,
        notes=(*notes, *drawn),
        sensor=sensor,
        parts={"train": train, "test": test},
        versions={} if versions is None else dict(versions),
        recorded_steps=steps,
    )
    return replace(dataset, notes=(*dataset.notes, *notes_of(dataset)))
