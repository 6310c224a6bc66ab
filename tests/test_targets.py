"""Targets: their kinds, and the shapes that go with each."""

import pytest
import torch

from snn_bp.errors import SnnError
from snn_bp.model.targets import KINDS, Targets


@pytest.mark.parametrize(
    "kind, shape, dtype",
    (
        ("class", (5,), torch.int64),
        ("class per step", (5, 7), torch.int64),
        ("vector", (5, 3), torch.float32),
        ("vector per step", (5, 7, 3), torch.float32),
        ("labels", (5, 3), torch.float32),
        ("spikes", (5, 7, 3), torch.float32),
    ),
)
def test_silent_targets_have_the_shape_of_their_kind(kind, shape, dtype):
    silent = Targets(kind, ("a", "b", "c")).silence(5, 7)

    assert (tuple(silent.shape), silent.dtype, int(silent.count_nonzero())) == (shape, dtype, 0)


def test_every_kind_is_tried():
    assert len(KINDS) == 6


@pytest.mark.parametrize(
    "kind, names, message",
    (
        ("classes", ("a",), "kind"),
        ("class", (), "names is empty"),
        ("class", "abc", "names"),
        ("class", (1, 2), "names"),
    ),
)
def test_targets_that_are_none_are_refused(kind, names, message):
    with pytest.raises(SnnError, match=message):
        Targets(kind, names)
