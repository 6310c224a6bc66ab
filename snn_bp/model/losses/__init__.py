"""Losses on the output `[time, batch, outputs]`, the scores of the answer they imply, and bounds on firing rates.

Each loss is a value: called with output, targets and where recordings have different lengths a mask, it gives the mean
loss of a batch, once all of them have been checked; `formula` is the formula alone. `scores` gives what an answer is
made of: `[batch, outputs]`, and of targets for every step `[batch, time, outputs]`; of classes the largest is the one
that the network decides on. `means` says which outputs a loss is for, spikes, potentials or either; `fits` for which
kinds of targets (`model/targets.py`).

A loss of your own is a frozen dataclass that can be called with `(out, targets)` or `(out, targets, mask)`; `scores`,
`means`, `fits` and `at_step(step_ms)`, which gives it with its time constants in steps, are its choice; so is
`takes_soft_targets = True`, by which it says that targets may also be the fractions of classes, floats `[batch,
classes]`, as of recordings that are mixed of two classes in training.
"""

from snn_bp.model.losses.bounds import RateBounds as RateBounds
from snn_bp.model.losses.calls import LOSSES as LOSSES
from snn_bp.model.losses.calls import Loss as Loss
from snn_bp.model.losses.calls import amount_of as amount_of
from snn_bp.model.losses.calls import check_loss as check_loss
from snn_bp.model.losses.calls import loss_of as loss_of
from snn_bp.model.losses.calls import scores_of as scores_of
from snn_bp.model.losses.calls import smooth_loss as smooth_loss
from snn_bp.model.losses.calls import takes_soft_targets as takes_soft_targets
from snn_bp.model.losses.calls import try_loss as try_loss
from snn_bp.model.losses.classes import TET as TET
from snn_bp.model.losses.classes import CountCrossEntropy as CountCrossEntropy
from snn_bp.model.losses.classes import CountSquaredError as CountSquaredError
from snn_bp.model.losses.classes import FirstSpike as FirstSpike
from snn_bp.model.losses.classes import MaxCrossEntropy as MaxCrossEntropy
from snn_bp.model.losses.classes import MembraneCrossEntropy as MembraneCrossEntropy
from snn_bp.model.losses.values import BinaryCrossEntropy as BinaryCrossEntropy
from snn_bp.model.losses.values import MeanSquaredPotential as MeanSquaredPotential
from snn_bp.model.losses.values import VanRossum as VanRossum
