"""The space of a search by trials: a range or a choice for each key, and the next point in it, which Optuna proposes.

A proposal is computed anew from what was known at the time, a seed and its number alone: no state, nothing to lose.
"""

import ast
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np

from snn_bp.errors import SnnError, is_number
from snn_bp.searches.grid import SEARCHED, parted, values_of

RANDOM = 10  # trials with a figure, before which points are drawn evenly
TRIES = 100  # draws until one is no point that was tried before
WRITTEN = "train.lr=log(1e-4,1e-2), model.2.beta=uniform(0.5,1) or model.1.units=choice(64,128)"


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included: evenly spread, or their logarithms; of integers integers alone."""

    low: float
    high: float
    is_log: bool
    is_integer: bool

    @property
    def count(self) -> float:
        """How many there are."""
        return self.high - self.low + 1 if self.is_integer else math.inf

    def distribution(self) -> Any:
        """As Optuna has it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.is_integer:
            return IntDistribution(int(self.low), int(self.high), log=self.is_log)
        return FloatDistribution(self.low, self.high, log=self.is_log)

    def written(self, value: Any) -> str:
        """A value as a change has it: four digits, unless those lie outside."""
        text = str(value) if self.is_integer else f"{value:.4g}"
        return text if self.low <= float(text) <= self.high else repr(value)

    def read(self, text: str) -> Any:
        """The value again."""
        return int(text) if self.is_integer else float(text)

    def holds(self, text: str) -> bool:
        """Whether a value, as a change has it, lies within."""
        return self.low <= self.read(text) <= self.high


@dataclass(frozen=True)
class Choice:
    """One of several values, as changes have them."""

    values: tuple[str, ...]

    @property
    def count(self) -> float:
        """How many there are."""
        return len(self.values)

    def distribution(self) -> Any:
        """As Optuna has it."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def written(self, value: Any) -> str:
        """A value as a change has it."""
        return value

    read = written

    def holds(self, text: str) -> bool:
        """Whether it is one of the values."""
        return text in self.values


Dimension: TypeAlias = Range | Choice


@dataclass(frozen=True)
class Space:
    """A range or a choice for each key, in the order in which they change an experiment, and the seeds of a trial."""

    dimensions: dict[str, Dimension]
    seeds: tuple[str, ...]  # empty: the experiment's own

    @property
    def axes(self) -> list[str]:
        """The keys that have several values, the seed's last."""
        return [key for key, each in self.dimensions.items() if each.count > 1] + ["seed"] * (len(self.seeds) > 1)

    @property
    def count(self) -> float:
        """How many points there are."""
        return math.prod(each.count for each in self.dimensions.values())

    def checked(self, point: dict[str, str]) -> dict[str, str]:
        """A point as it was kept; raises where it is none of this space."""
        if point.keys() != self.dimensions.keys() or not all(self.dimensions[key].holds(point[key]) for key in point):
            raise ValueError
        return point

    def runs_at(self, point: Mapping[str, str]) -> list[dict[str, str]]:
        """The points of a trial's runs, one for each seed."""
        return [{**point, "seed": seed} for seed in self.seeds] or [dict(point)]


def space_of(changes: Sequence[str], takes: Callable[[Sequence[str]], Any]) -> Space:
    """The space that changes such as `train.lr=log(1e-4,1e-2)` or `model.1.units=choice(64,128)` span.

    `takes` raises where an experiment does not take changes. Integers are searched where both ends are integers and the
    setting takes no number between them.
    """
    dimensions: dict[str, Dimension] = {}
    seeds: tuple[str, ...] = ()
    ends: Sequence[str]
    first: list[str] = []  # the changes so far, by the first value of each
    for key, text in parted(changes).items():
        change = f"{key}={text}"
        if key == "seed":
            if SEARCHED.fullmatch(text):
                raise SnnError(f"{change!r}: seeds are no part of the space, each trial has all: seed=0..2.")
            ends = values_of(text, at=change)
            seeds = tuple(ends)
        elif (called := SEARCHED.fullmatch(text)) and called[1] != "choice":
            span = _range(key, called[1], called[2], lambda value, key=key: takes([*first, f"{key}={value}"]))
            dimensions[key], ends = span, (span.written(span.low), span.written(span.high))
        else:
            ends = values_of(called[2] if called else text, at=change)
            if not called and len(ends) > 1:
                raise SnnError(f"{change!r}: with --trials, values to choose from are written {key}=choice({text}).")
            dimensions[key] = Choice(tuple(ends))
        for end in ends:
            takes([*first, f"{key}={end}"])
        first.append(f"{key}={ends[0]}")
    space = Space(dimensions, seeds)
    if space.count == 1:
        raise SnnError(f"sweep: --trials searches a space, and none is given. As in {WRITTEN}.")
    return space


def check_optuna() -> None:
    """Raise where Optuna is not installed."""
    if find_spec("optuna") is None:
        raise SnnError("sweep: --trials takes Optuna, which is not installed. `pip install 'snn_bp[optuna]'` does it.")


def proposed(
    space: Space, known: Sequence[tuple[Mapping[str, str], float | None]], *, seed: int
) -> dict[str, str] | None:
    """The next point to try, by Optuna's tree of Parzen estimators; None where no draw gives a new one.

    `known` has the points so far, each with its value, of which a lower one is better: NaN where it failed, None while
    it is not known. Depends on these three alone.
    """
    import optuna
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState, create_trial

    searched = {key: each for key, each in space.dimensions.items() if each.count > 1}
    fixed = {key: each.values[0] for key, each in space.dimensions.items() if isinstance(each, Choice)}
    distributions = {key: each.distribution() for key, each in searched.items()}
    points = [dict(point) for point, _ in known]
    random = RANDOM + sum(value is None for _, value in known)
    for attempt in range(TRIES):
        drawn = np.random.SeedSequence((seed, len(known), attempt)).generate_state(1)[0]
        with _in_silence(optuna):
            sampler = TPESampler(seed=int(drawn), n_startup_trials=random, multivariate=True)
            study = optuna.create_study(sampler=sampler)
            for point, value in known:
                params = {key: each.read(point[key]) for key, each in searched.items()}
                has_value = value is not None and not math.isnan(value)
                state = TrialState.COMPLETE if has_value else TrialState.PRUNED  # which counts as worse than any
                study.add_trial(
                    create_trial(
                        state=state, value=value if has_value else None, params=params, distributions=distributions
                    )
                )
            params = study.ask(distributions).params
        point = {key: searched[key].written(params[key]) if key in searched else fixed[key] for key in space.dimensions}
        if point not in points:
            return point
    return None


def _range(key: str, kind: str, text: str, takes: Callable[[Any], Any]) -> Range:
    """A range from what stands between its brackets."""
    whole = f"{key}={kind}({text})"
    low: Any = None
    high: Any = None
    with suppress(ValueError, SyntaxError):
        low, high = ast.literal_eval(f"({text},)")
    if not (is_number(low) and is_number(high) and low < high):
        raise SnnError(f"{whole!r}: it takes two numbers, the lower first, as in {kind}(1e-4,1e-2).")
    if kind == "log" and low <= 0:
        raise SnnError(f"{whole!r}: a logarithm takes numbers above 0. uniform({text}) is evenly spread.")
    is_integer = isinstance(low, int) and isinstance(high, int)
    if is_integer:
        try:
            takes(low + 0.5)
            is_integer = False
        except SnnError:
            pass
    return Range(*((low, high) if is_integer else (float(low), float(high))), kind == "log", is_integer)


@contextmanager
def _in_silence(optuna: Any) -> Iterator[None]:
    """Within the block Optuna logs no studies and warns of nothing that it calls an experiment."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
