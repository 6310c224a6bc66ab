"""Three ways to search without a gradient: `ask` gives points to try, `tell` takes their values, lower being better.

Points are rows of `[points, size]` in units of the start's spread, 0 being the start. All points of one `ask` are
valued on the same mini-batch, and the next on another; so a value is compared with others of its own `tell` only.
"""

import math
from typing import TypeAlias

import torch
from torch import Generator, Tensor

FEWEST = 5  # points of a generation


class Genetic:
    """Genetic algorithm on real numbers with the two best of a generation kept.

    Parents win tournaments of three (Goldberg & Deb 1991), each gene comes from either parent (uniform crossover,
    Syswerda 1989), and one gene in a hundred (at least one) of a child moves by a normal step as wide as the start's
    spread (Baeck 1996).
    """

    TOURNAMENT, ELITE, RATE, STEP = 3, 2, 0.01, 1.0
    HELD = 11.5  # how many times all points lie in memory, at most

    def __init__(self, size: int, generator: Generator, *, population: int | None = None) -> None:
        self.generator = generator
        self.points = torch.randn(self.points_of(size, population), size, generator=generator)
        self.points[0] = 0.0
        self.best = self.points[0]

    @staticmethod
    def points_of(size: int, population: int | None = None) -> int:
        """How many points a search over so many weights has."""
        return population or 50

    @property
    def count(self) -> int:
        """How many points the next `ask` gives."""
        return len(self.points)

    def ask(self) -> Tensor:
        """The generation."""
        return self.points

    def tell(self, values: Tensor) -> None:
        """Breed the next generation from this one."""
        order = values.argsort(stable=True)
        self.best = self.points[order[0]].clone()
        count, size = self.points.shape
        rank = order.argsort()
        drawn = torch.randint(count, (2, count - self.ELITE, self.TOURNAMENT), generator=self.generator)
        mother, father = self.points[order[rank[drawn].amin(2)]]
        children = torch.where(self._uniform(mother.shape) < 0.5, mother, father)
        mutated = self._uniform(children.shape) < max(self.RATE, 1 / size)
        children += self.STEP * mutated * torch.randn(children.shape, generator=self.generator)
        self.points = torch.cat([self.points[order[: self.ELITE]], children])

    def _uniform(self, shape: torch.Size) -> Tensor:
        return torch.rand(shape, generator=self.generator)


class Swarm:
    """Particle swarm around the best of all, with the constriction of Clerc & Kennedy 2002.

        velocity <- 0.7298 * velocity + 1.49618 * (u1 * (own best - point) + u2 * (best of all - point))

    u1 and u2 are uniform in 0..1 for each coordinate. From the second `ask` on, the particles' own bests stand behind
    the particles and are valued anew: a value from an easier mini-batch would otherwise stay the best for ever.
    """

    INERTIA, PULL = 0.7298, 1.49618
    HELD = 19.5  # how many times all particles lie in memory, at most

    def __init__(self, size: int, generator: Generator, *, population: int | None = None) -> None:
        self.generator = generator
        self.points = torch.randn(self.points_of(size, population), size, generator=generator)
        self.points[0] = 0.0
        self.velocity = torch.zeros_like(self.points)
        self.own: Tensor | None = None
        self.best = self.points[0]

    @staticmethod
    def points_of(size: int, population: int | None = None) -> int:
        """How many particles a search over so many weights has."""
        return population or 40

    @property
    def count(self) -> int:
        """How many points the next `ask` gives."""
        return len(self.points) * (1 if self.own is None else 2)

    def ask(self) -> Tensor:
        """The particles, and behind them the best point of each."""
        return self.points if self.own is None else torch.cat([self.points, self.own])

    def tell(self, values: Tensor) -> None:
        """Move the particles."""
        if self.own is None:
            self.own, least = self.points.clone(), values
        else:
            now, before = values.chunk(2)
            self.own = torch.where((now < before)[:, None], self.points, self.own)
            least = torch.minimum(now, before)
        self.best = self.own[least.argmin()].clone()
        u1, u2 = torch.rand(2, *self.points.shape, generator=self.generator)
        pull = u1 * (self.own - self.points) + u2 * (self.best - self.points)
        self.velocity = self.INERTIA * self.velocity + self.PULL * pull
        self.points = self.points + self.velocity


class Evolution:
    """Evolution strategy with a variance for each coordinate: sep-CMA-ES, Ros & Hansen 2008.

    The mean moves to the weighted better half, the step size follows the path of the mean (Hansen & Ostermeier 2001),
    the variances learn from the better half and its path, (size + 2) / 3 times as fast as the full covariance.
    """

    HELD = 6  # how many times all points lie in memory, at most

    def __init__(self, size: int, generator: Generator, *, population: int | None = None, step: float = 0.3) -> None:
        self.generator = generator
        count = self.points_of(size, population)
        weights = math.log((count + 1) / 2) - torch.arange(1.0, count // 2 + 1).log()
        self.weights = weights / weights.sum()
        self.count, self.step, self.size = count, step, size
        self.mean, self.variance = torch.zeros(size), torch.ones(size)
        self.path_step, self.path_variance = torch.zeros(size), torch.zeros(size)
        self.told = 0
        mass = float(1 / self.weights.square().sum())  # how many points the mean is made of
        self.mass = mass
        self.rate_step = (mass + 2) / (size + mass + 5)
        self.damping = 1 + 2 * max(0.0, math.sqrt((mass - 1) / (size + 1)) - 1) + self.rate_step
        self.rate_path = (4 + mass / size) / (size + 4 + 2 * mass / size)
        faster = (size + 2) / 3
        self.rate_one = faster * 2 / ((size + 1.3) ** 2 + mass)
        self.rate_half = min(1 - self.rate_one, faster * 2 * (mass - 2 + 1 / mass) / ((size + 2) ** 2 + mass))
        self.length = math.sqrt(size) * (1 - 1 / (4 * size) + 1 / (21 * size * size))  # a normal vector's, on average

    @staticmethod
    def points_of(size: int, population: int | None = None) -> int:
        """How many points a generation over so many weights has."""
        return population or 4 + int(3 * math.log(size))

    @property
    def best(self) -> Tensor:
        """The mean: with noisy values it is better than any point that was tried."""
        return self.mean

    def ask(self) -> Tensor:
        """Normal points around the mean."""
        self.normal = torch.randn(self.count, self.size, generator=self.generator)
        return self.mean + self.step * self.variance.sqrt() * self.normal

    def tell(self, values: Tensor) -> None:
        """Move the mean, and adapt the step and the variances."""
        self.told += 1
        better = self.normal[values.argsort(stable=True)[: len(self.weights)]]
        step = self.weights @ better  # in units of the standard deviations
        self.mean = self.mean + self.step * self.variance.sqrt() * step
        kept, gain = 1 - self.rate_step, math.sqrt(self.rate_step * (2 - self.rate_step) * self.mass)
        self.path_step = kept * self.path_step + gain * step
        length = float(self.path_step.norm())
        still = length / math.sqrt(1 - kept ** (2 * self.told)) < (1.4 + 2 / (self.size + 1)) * self.length
        gain = still * math.sqrt(self.rate_path * (2 - self.rate_path) * self.mass)
        self.path_variance = (1 - self.rate_path) * self.path_variance + gain * self.variance.sqrt() * step
        forgotten = self.rate_one * (1 - still) * self.rate_path * (2 - self.rate_path)
        half = self.weights @ better.square() * self.variance
        kept = 1 - self.rate_one - self.rate_half + forgotten
        self.variance = kept * self.variance + self.rate_one * self.path_variance.square() + self.rate_half * half
        self.step *= math.exp(self.rate_step / self.damping * (length / self.length - 1))


Method: TypeAlias = Genetic | Swarm | Evolution
METHODS: dict[str, type[Genetic] | type[Swarm] | type[Evolution]] = {"ga": Genetic, "pso": Swarm, "es": Evolution}
