"""Kernels as every reader of NIR takes them: square and without groups, zeros where there is nothing.

NIR holds groups and oblong kernels, but the check of its own library (1.0.8) counts an output by the first side alone
and the channels of one group, and refuses the file.
"""

import numpy as np


def squared(
    weight: np.ndarray, groups: int, padding: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[np.ndarray, tuple[int, ...]]:
    """A kernel `[out, in / groups, ...]` as `[out, in, side, ...]`, and the padding that goes with it.

    The sides should differ by even numbers: the rim of zeros is as wide on both ends.
    """
    out, each, *sides = weight.shape
    rims = [(max(sides) - side) // 2 for side in sides]
    wide = np.pad(weight, [(0, 0), (0, 0), *((rim, rim) for rim in rims)])
    whole = np.zeros((out, each * groups, *wide.shape[2:]), weight.dtype)
    for rows, columns in _places(out, each, groups):
        whole[rows, columns] = wide[rows]
    return whole, tuple(pad + rim * step for pad, rim, step in zip(padding, rims, dilation, strict=True))


def as_it_was(whole: np.ndarray, groups: int, sides: tuple[int, ...]) -> np.ndarray | None:
    """The kernel that `squared` made `whole` of, None where what it left is not zero."""
    out, each = whole.shape[0], whole.shape[1] // groups
    rims = [(have - side) // 2 for have, side in zip(whole.shape[2:], sides, strict=True)]
    inner = tuple(slice(rim, rim + side) for rim, side in zip(rims, sides, strict=True))
    own = np.stack([whole[row, columns] for rows, columns in _places(out, each, groups) for row in range(out)[rows]])
    own = own[(slice(None), slice(None), *inner)]
    return own if np.count_nonzero(own) == np.count_nonzero(whole) else None


def _places(out: int, each: int, groups: int) -> list[tuple[slice, slice]]:
    """Rows and columns of each group."""
    rows = out // groups
    return [(slice(g * rows, (g + 1) * rows), slice(g * each, (g + 1) * each)) for g in range(groups)]
