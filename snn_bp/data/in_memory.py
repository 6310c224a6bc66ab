"""Recordings that are handed in as they lie in memory: arrays, tensors, torch's data sets, lists and generators."""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

import numpy as np

from snn_bp.data.catalogue import ADDRESS_EVENT, IN_MEMORY, ROW_EVENT, DataSetInfo
from snn_bp.data.frames import CachedFrames, hold_frames
from snn_bp.data.raw import Polarity, as_array
from snn_bp.data.sources import FRAME_MS, checked_frames, checked_sensor, recording_of
from snn_bp.data.store import EMPTY, CachedEvents, hold
from snn_bp.errors import SnnError, check_choice, shown
from snn_bp.model.targets import Kind, Targets

Listed = dict[str, tuple[list[Any], list[Any], Any, dict[str, list[Any]]]]  # for each part x, targets, lengths, facts
_PLURAL = {"name": "names", "group": "groups", "split": "splits"}


def listed_parts(train: Any, test: Any, *, names: Any, groups: Any) -> Listed:
    """Each part as lists with an entry a recording, whatever it came as."""
    found: Listed = {}
    for part, content in (("train", train), ("test", test)):
        x, y, lengths, facts = _listed(content, part)
        for word, values in (("names", names), ("groups", groups)):
            if isinstance(values, Mapping) and not values.keys() <= {"train", "test"}:
                raise SnnError(f"Dataset.of({word}): it has {shown(list(values))}, the parts are 'train' and 'test'.")
            values = values.get(part) if isinstance(values, Mapping) else values if part == "train" else None
            if values is not None:
                facts[word] = _rows(values, f"Dataset.of({word})")
        for word, values in facts.items():
            if len(values) != len(x):
                raise SnnError(f"{part} part: {len(x)} recordings want as many {word}, found {len(values)}.")
        found[part] = (x, y, lengths, facts)
    if not found["train"][0]:
        raise SnnError("Dataset.of(train): there is no recording in it. As in Dataset.of(train=(x, y)).")
    return found


def targets_in_memory(targets: Any, listed: Listed) -> Targets:
    """What is asked for: as it is said, or by its kind; from integers a class each where nothing is said."""
    if isinstance(targets, Targets):
        return targets
    each = [as_array(target, "Dataset.of, a target") for _, wanted, *_ in listed.values() for target in wanted]
    kind = "class" if targets is None else targets
    check_choice("Dataset.of(targets)", kind, get_args(Kind))
    are_classes = kind in ("class", "class per step")
    if are_classes and not all(target.dtype.kind in "biu" for target in each):
        if all(target.dtype.kind == "U" for target in each):
            names = sorted({name for target in each for name in target.reshape(-1).tolist()})
            said = f"the targets are texts, {shown(names)}. Say which they are, as in targets=Targets({kind!r}, names)."
            raise SnnError(f"Dataset.of: {said}")
        raise SnnError(
            f"Dataset.of: the targets are {each[0].dtype} {list(each[0].shape)} each, no classes. Say what they are, "
            'as in targets="vector" or targets=Targets("vector", ("x", "y")).'
        )
    if are_classes:
        count = 1 + max(int(target.max(initial=0)) for target in each)
    else:
        count = each[0].shape[-1] if each[0].ndim else 1
    return Targets(kind, tuple(map(str, range(count))))  # type: ignore[arg-type]


def has_events(listed: Listed) -> bool:
    """Whether the recordings are events: structured arrays, or dictionaries of columns."""
    first = listed["train"][0][0]
    return isinstance(first, Mapping) or (isinstance(first, np.ndarray) and first.dtype.names is not None)


def info_in_memory(sensor: Any, *, events: bool) -> DataSetInfo:
    """What is known of recordings that are handed in."""
    if sensor is not None and not events:
        raise SnnError(f"Dataset.of(sensor={shown(sensor)}): a sensor is that of events, and these are frames.")
    width, height, polarities = checked_sensor(sensor, source="Dataset.of") if events else (1, 1, 1)
    row = height == 1
    return DataSetInfo(
        name=IN_MEMORY,
        sensor=None if row else (width, height, polarities),
        channels=width,
        class_names=(),
        window_ms=0,
        step_ms=FRAME_MS,
        totals={},
        event_dtype=ROW_EVENT if row else ADDRESS_EVENT,
    )


def parts_in_memory(listed: Listed, targets: Targets, info: DataSetInfo, *, events: bool) -> dict[str, Any]:
    """The parts of a data set, checked, held in memory."""
    made: dict[str, CachedEvents | CachedFrames] = {}
    for part, (x, y, lengths, facts) in listed.items():
        if not events:
            made[part] = hold_frames(checked_frames(x, y, targets, lengths=lengths, facts=facts, source=f"{part} part"))
        elif not x:
            made[part] = EMPTY
        elif lengths is not None:
            raise SnnError(
                f"{part} part: (x, targets, lengths) has steps of frames, and these are events. Leave the lengths out."
            )
        else:
            polarity, singular = Polarity(), {many: one for one, many in _PLURAL.items()}
            rows = [{singular[word]: values[number] for word, values in facts.items()} for number in range(len(x))]
            made[part] = hold(
                (
                    recording_of((one, target, row), number, info, targets, polarity, source=f"{part} part")
                    for number, (one, target, row) in enumerate(zip(x, y, rows, strict=True))
                ),
                sensor=info.sensor or (info.channels, 1, 1),
                classes=targets.outputs,
            )
    return made


def _listed(content: Any, part: str) -> tuple[list[Any], list[Any], Any, dict[str, list[Any]]]:
    """Inputs, targets, lengths and facts of one part."""
    if content is None:
        return [], [], None, {}
    if _is_whole(content):
        words = ("x", "targets", "lengths")
        x, y, *more = (_rows(each, f"Dataset.of({part}), {word}") for word, each in zip(words, content, strict=False))
        if len(x) != len(y):
            raise SnnError(f"Dataset.of({part}): {len(x)} recordings, and {len(y)} targets. They should be as many.")
        return x, y, more[0] if more else None, {}
    x, y, facts = [], [], {}
    for number, one in enumerate(_each(content, part)):
        if not isinstance(one, tuple | list) or len(one) not in (2, 3):
            raise SnnError(
                f"Dataset.of({part}): recording {number} should be (x, target), found {shown(one)}. "
                "Or give all of them at once, as in train=(x, y)."
            )
        x.append(_plain(one[0]))
        y.append(_plain(one[1]))
        for word, value in (one[2] if len(one) == 3 else {}).items():
            if word not in _PLURAL:
                raise SnnError(f"Dataset.of({part}): recording {number} has a {word!r}. Known: {', '.join(_PLURAL)}.")
            facts.setdefault(_PLURAL[word], [None] * number).append(value)
    return x, y, None, facts


def _is_whole(content: Any) -> bool:
    """Whether content is (x, y) or (x, y, lengths) of all recordings, not a sequence of single ones."""
    return isinstance(content, tuple) and len(content) in (2, 3) and not isinstance(content[0], tuple)


def _each(content: Any, part: str) -> Iterable[Any]:
    if isinstance(content, Mapping) or not getattr(content, "ndim", 1):
        raise SnnError(f"Dataset.of({part}): found {shown(content)}. It should be (x, y), or recordings (x, target).")
    if hasattr(content, "__getitem__") and hasattr(content, "__len__"):  # torch's data sets do not end by themselves
        return (content[number] for number in range(len(content)))
    if isinstance(content, Iterable):
        return content
    raise SnnError(
        f"Dataset.of({part}): found {shown(content)}. It should be (x, y), a torch Dataset, a list or a generator "
        "of (x, target)."
    )


def _rows(values: Any, source: str) -> list[Any]:
    """An entry a recording, arrays where they were tensors."""
    try:
        return [_plain(one) for one in values]
    except TypeError:
        raise SnnError(f"{source}: there should be an entry for each recording, found {shown(values)}.") from None


def _plain(value: Any) -> Any:
    """A tensor as an array; anything else as it is."""
    try:
        return value.detach().cpu().numpy() if hasattr(value, "cpu") and hasattr(value, "detach") else value
    except (TypeError, RuntimeError) as cause:  # no array holds what is sparse, or on the device meta
        raise SnnError(f"Dataset.of: a tensor {list(value.shape)} cannot become an array ({cause}).") from None
