"""Losses of every kind of target: against closed forms, with masks, in pieces, and losses of a user's own."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from catalogue import assert_same

from snn_bp import (
    LI,
    LIF,
    TET,
    BinaryCrossEntropy,
    CountCrossEntropy,
    CountSquaredError,
    Dense,
    FirstSpike,
    MaxCrossEntropy,
    MeanSquaredPotential,
    MembraneCrossEntropy,
    Network,
    SnnError,
    Tau,
    VanRossum,
)  # fmt: skip
from snn_bp.model.losses import LOSSES, amount_of, check_loss, loss_of, scores_of, smooth_loss, try_loss
from snn_bp.model.targets import KINDS, PER_STEP, Targets, classes_of, pieces_of

TIME, BATCH, SIZE = 7, 4, 3
LENGTHS = (7, 3, 5, 1)
MASK = torch.arange(TIME)[:, None] < torch.tensor(LENGTHS)
OF_CLASSES = (
    CountCrossEntropy(), MembraneCrossEntropy(), MaxCrossEntropy(), CountSquaredError(), TET(),
    CountCrossEntropy(smoothing=0.1), MembraneCrossEntropy(class_weights=(1.0, 3.0, 0.5)),
    TET(weight=0.3, mean=0.2, smoothing=0.2, class_weights=(1.0, 0.0, 2.0)),
)  # fmt: skip
CASES = [
    *((loss, kind) for loss in OF_CLASSES for kind in ("class", "class per step")),
    (FirstSpike(), "class"), (FirstSpike(smoothing=0.2), "class"),
    (MeanSquaredPotential(), "vector"), (MeanSquaredPotential(), "vector per step"),
    (BinaryCrossEntropy(), "labels"), (VanRossum(tau=3.0), "spikes"), (VanRossum(tau=0.5), "spikes"),
]  # fmt: skip
EVERY = pytest.mark.parametrize("loss, kind", CASES, ids=str)


@pytest.fixture
def out(noise):
    return torch.sigmoid(noise(TIME, BATCH, SIZE, dtype=torch.float64))


def targets_of(kind, *, seed=0):
    draw = torch.Generator().manual_seed(seed)
    if kind == "class":
        return torch.randint(SIZE, (BATCH,), generator=draw)
    if kind == "class per step":
        return torch.randint(-1, SIZE, (BATCH, TIME), generator=draw)
    shape = (BATCH, TIME, SIZE) if kind in PER_STEP else (BATCH, SIZE)
    values = torch.rand(shape, generator=draw, dtype=torch.float64)
    return values if kind.startswith("vector") else (values < 0.4).double()


def alone(loss, out, targets, kind):
    """Each recording cut to its length and valued by itself, and what it counts for."""
    found = []
    for index, length in enumerate(LENGTHS):
        mine = targets[index : index + 1, :length] if kind in PER_STEP else targets[index : index + 1]
        counts = int((mine != -1).sum()) if kind == "class per step" else length if kind == "vector per step" else 1
        found.append((loss(out[:length, index : index + 1], mine), counts))
    return found


def test_every_loss_of_ours_is_tried():
    assert {type(loss) for loss, _ in CASES} == set(LOSSES)
    assert {kind for _, kind in CASES} == set(KINDS)


@EVERY
def test_the_gradient_is_that_of_finite_differences(loss, kind, out):
    for mask in (None, MASK):
        assert torch.autograd.gradcheck(lambda out: loss_of(loss, out, targets_of(kind), mask), out.requires_grad_())  # noqa: B023


@EVERY
def test_a_full_mask_changes_nothing(loss, kind, out):
    full, targets = torch.ones(TIME, BATCH, dtype=torch.bool), targets_of(kind)

    assert_same(  # sums in another order: some roundings of 2e-16
        loss=(loss(out, targets, full), loss(out, targets)),
        scores=(scores_of(loss, out, full, kind), scores_of(loss, out, None, kind)),
        rtol=1e-13,
    )


@EVERY
def test_steps_that_a_recording_does_not_have_change_nothing(loss, kind, out):
    targets, other = targets_of(kind), torch.where(MASK[..., None], out, torch.full_like(out, 0.77))
    otherwise = targets_of(kind, seed=1)
    if kind in PER_STEP:
        there = MASK.t()[..., None] if targets.dim() == 3 else MASK.t()
        otherwise = torch.where(there, targets, otherwise)
    else:
        otherwise = targets

    assert loss(out, targets, MASK) == loss(other, otherwise, MASK)
    if kind not in PER_STEP:
        assert torch.equal(scores_of(loss, out, MASK, kind), scores_of(loss, other, MASK, kind))


# the mean of others is over weights, or over two things that count differently
MEANS = [case for case in CASES if not getattr(case[0], "class_weights", None) and not isinstance(case[0], TET)]


@pytest.mark.parametrize("loss, kind", MEANS, ids=str)
def test_a_masked_batch_is_the_mean_of_its_recordings_alone(loss, kind, out):
    targets = targets_of(kind)
    each = alone(loss, out, targets, kind)

    total = sum(counts for _, counts in each)
    assert total == amount_of(targets, MASK, kind)
    assert_same(loss=(loss(out, targets, MASK), sum(value * counts for value, counts in each) / total), rtol=1e-12)


@EVERY
def test_scores_have_the_shape_of_their_kind(loss, kind, out):
    for mask in (None, MASK):
        shape = (BATCH, TIME, SIZE) if kind in PER_STEP else (BATCH, SIZE)
        assert scores_of(loss, out, mask, kind).shape == shape


def test_classes_of_steps_are_valued_by_what_has_come_up_to_there(out):
    targets = targets_of("class per step")
    wanted = {
        CountCrossEntropy(): lambda step: out[: step + 1].sum(0),
        MembraneCrossEntropy(): lambda step: out[step],
        MaxCrossEntropy(): lambda step: out[: step + 1].max(0).values,
    }

    for loss, at in wanted.items():
        each = [F.cross_entropy(at(step), targets[:, step], ignore_index=-1, reduction="none") for step in range(TIME)]
        assert_same(
            loss=(loss(out, targets), torch.stack(each).sum() / (targets != -1).sum()),
            scores=(scores_of(loss, out, None, "class per step"), torch.stack([at(s) for s in range(TIME)], 1)),
            rtol=1e-13,
        )


def test_a_batch_without_any_label_costs_nothing(out):
    unlabelled = torch.full((BATCH, TIME), -1)

    for loss in OF_CLASSES:
        if not isinstance(loss, TET):
            value = loss(out.requires_grad_(), unlabelled)
            assert value == 0 and torch.autograd.grad(value, out)[0].count_nonzero() == 0


def test_tet_is_the_formula_of_its_paper(out):
    targets = targets_of("class")
    each = torch.stack([F.cross_entropy(step, targets) for step in out]).mean()

    assert_same(
        loss=(TET(weight=0.3, mean=0.7)(out, targets), 0.7 * each + 0.3 * ((out - 0.7) ** 2).mean()), rtol=1e-13
    )


@pytest.mark.parametrize("kind", (CountCrossEntropy, MembraneCrossEntropy, MaxCrossEntropy))
def test_smoothing_and_weights_are_torchs(kind, out):
    targets, weights = targets_of("class"), (1.0, 3.0, 0.5)
    loss = kind(smoothing=0.2, class_weights=weights)

    wanted = F.cross_entropy(loss.scores(out), targets, torch.tensor(weights, dtype=torch.float64), label_smoothing=0.2)
    assert_same(loss=(loss(out, targets), wanted), rtol=1e-14)
    steps = targets.expand(TIME, BATCH).t().contiguous()
    scores = scores_of(loss, out, None, "class per step").reshape(-1, SIZE)
    wanted = F.cross_entropy(scores, steps.reshape(-1), torch.tensor(weights, dtype=torch.float64), label_smoothing=0.2)
    assert_same(steps=(loss(out, steps), wanted), rtol=1e-13)


@pytest.mark.parametrize("tau", (0.7, 4.0, 30.0))
def test_van_rossum_is_the_distance_of_filtered_trains(tau, out):
    targets = targets_of("spikes")
    kernel = torch.exp(-torch.arange(TIME, dtype=torch.float64) / tau)
    distance = 0.0
    for row in range(BATCH):
        for unit in range(SIZE):
            apart = torch.zeros(TIME, dtype=torch.float64)
            for step in range(TIME):
                apart[step:] += (out[step, row, unit] - targets[row, step, unit]) * kernel[: TIME - step]
            distance += float((apart**2).sum()) / tau

    assert VanRossum(tau=tau)(out, targets).item() == pytest.approx(distance / (BATCH * SIZE), rel=1e-6)


def test_van_rossum_of_one_spike_too_many_is_one_half_and_of_a_spike_that_moves_away_one():
    silence, wanted = torch.zeros(4000, 1, 1, dtype=torch.float64), torch.zeros(1, 4000, 1, dtype=torch.float64)
    wanted[0, 100] = 1
    late = silence.clone()
    late[2000] = 1

    # sum exp(-2 k / tau) / tau = 1 / (tau (1 - exp(-2 / tau))) = 1/2 + 1/tau^2..., tau = 100
    assert VanRossum(tau=100)(silence, wanted).item() == pytest.approx(0.5, abs=0.006)
    assert VanRossum(tau=100)(late, wanted).item() == pytest.approx(1.0, abs=0.012)


def test_a_time_constant_in_ms_is_in_steps_at_the_bin_width(out):
    targets = targets_of("spikes")

    assert VanRossum(tau=Tau(10)).at_step(2.5) == VanRossum(tau=4.0) == VanRossum(tau=4.0).at_step(7)
    with pytest.raises(SnnError, match="nothing here says how long a step is"):
        VanRossum(tau=Tau(10))(out, targets)


def test_squared_potentials_and_labels_are_torchs(out):
    vector, steps, labels = (targets_of(kind) for kind in ("vector", "vector per step", "labels"))

    assert_same(
        whole=(MeanSquaredPotential()(out, vector), F.mse_loss(out.mean(0), vector)),
        steps=(MeanSquaredPotential()(out, steps), F.mse_loss(out.transpose(0, 1), steps)),
        labels=(BinaryCrossEntropy()(out - 0.5, labels), -(
            labels * torch.log(torch.sigmoid((out - 0.5).mean(0)))
            + (1 - labels) * torch.log(1 - torch.sigmoid((out - 0.5).mean(0)))
        ).mean()),
        rtol=1e-12,
    )  # fmt: skip


# Fractions of classes

SOFT = pytest.mark.parametrize("loss", (*OF_CLASSES, FirstSpike(), FirstSpike(smoothing=0.2)), ids=str)
FRACTIONS = torch.tensor([[0.75, 0.25, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.25, 0.0, 0.75]], dtype=torch.float64)


@SOFT
@pytest.mark.parametrize("mask", (None, MASK), ids=("whole", "masked"))
def test_fractions_of_0_and_1_give_the_loss_of_labels(loss, mask, out):
    classes = targets_of("class")

    soft = loss(out, F.one_hot(classes, SIZE).float(), mask)

    assert_same(loss=(soft, loss(out, classes, mask)), rtol=1e-12)


@SOFT
@pytest.mark.parametrize("masked", (False, True), ids=("whole", "masked"))
def test_fractions_are_as_many_recordings_of_each_class(loss, masked, out):
    quarters = [[of_class for of_class, fraction in enumerate(row) for _ in range(round(4 * fraction))]
                for row in FRACTIONS.tolist()]  # fmt: skip
    apart = torch.tensor(quarters).flatten()
    mask, masks = (MASK, MASK.repeat_interleave(4, 1)) if masked else (None, None)

    wanted = loss(out.repeat_interleave(4, 1), apart, masks)

    if isinstance(loss, CountSquaredError):  # from mixed rates: by their variance less
        wanted = wanted - (FRACTIONS * (1 - FRACTIONS)).mean() * (loss.right - loss.wrong) ** 2
    assert_same(loss=(loss(out, FRACTIONS, mask), wanted), rtol=1e-12)


@SOFT
def test_the_gradient_of_fractions_is_that_of_finite_differences(loss, out):
    assert torch.autograd.gradcheck(lambda out: loss(out, FRACTIONS, MASK), out.requires_grad_())
    assert torch.equal(smooth_loss(loss, out, FRACTIONS, MASK), loss(out, FRACTIONS, MASK))


@SOFT
def test_fractions_behind_the_end_of_a_recording_count_nothing(loss, out):
    changed = torch.where(MASK[..., None], out, 1 - out)

    assert torch.equal(loss(out, FRACTIONS, MASK), loss(changed, FRACTIONS, MASK))


def test_of_fractions_the_largest_is_the_class():
    classes = targets_of("class")

    assert classes_of(FRACTIONS).tolist() == [0, 1, 0, 2] and torch.equal(classes_of(classes), classes)


# Refused by name


@EVERY
def test_targets_of_another_kind_are_refused(loss, kind, out):
    looks = {kind: (targets_of(kind).shape, targets_of(kind).dtype) for kind in KINDS}

    for other in KINDS:
        if looks[other] not in [looks[kind] for kind in loss.fits]:
            with pytest.raises(SnnError, match=f"{type(loss).__name__}: targets .*should be"):
                loss(out, targets_of(other))


@EVERY
def test_a_mask_of_another_shape_or_type_is_refused(loss, kind, out):
    for wrong in (MASK.t(), MASK[:-1], MASK.float()):
        with pytest.raises(SnnError, match="the mask should be bool"):
            loss(out, targets_of(kind), wrong)


def test_classes_out_of_range_and_labels_that_are_none_are_refused(out):
    for wrong in (-2, SIZE):
        steps = targets_of("class per step")
        steps[1, 2] = wrong
        with pytest.raises(SnnError, match=f"a target is {wrong}, .*-1 where a step has none"):
            CountCrossEntropy()(out, steps)
    with pytest.raises(SnnError, match="targets should be 0 or 1"):
        BinaryCrossEntropy()(out, targets_of("labels") * 2)


@pytest.mark.parametrize("weights", ((1.0, 2.0), (0.0, 0.0, 0.0), (1.0,) * 4))
def test_class_weights_are_one_for_each_class(weights, out):
    loss = CountCrossEntropy(class_weights=weights)

    with pytest.raises(SnnError, match="one for each of the 3 classes"):
        loss(out, targets_of("class"))
    with pytest.raises(SnnError, match="one for each of the 3 classes"):
        check_loss(loss, Network((Dense(SIZE), LI(beta=0.9)), (2,)), Targets("class", ("a", "b", "c")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_is_refused_for_targets_that_it_is_not_for_and_one_that_works_is_named(kind):
    network = {out: Network((Dense(SIZE), neuron), (2,)) for out, neuron in
               (("spikes", LIF(beta=0.9)), ("potentials", LI(beta=0.9)))}  # fmt: skip
    targets = Targets(kind, ("a", "b", "c"))

    for loss in [each() for each in LOSSES]:
        if kind in loss.fits:
            check_loss(loss, network[loss.means[0]], targets)
            continue
        with pytest.raises(SnnError, match=rf"{type(loss).__name__}.* {kind!r}\. train\.loss=") as refusal:
            check_loss(loss, network["spikes"], targets)
        named = str(refusal.value).split("train.loss=")[1].split("(")[0]
        assert kind in {each.__name__: each for each in LOSSES}[named].fits


# Losses of a user's own


@dataclass(frozen=True)
class Bare:
    def __call__(self, out, targets):
        return F.cross_entropy(2 * out.mean(0), targets)


@dataclass(frozen=True)
class Masked:
    fits: ClassVar = ("class",)

    def __call__(self, out, targets, mask):
        kept = out if mask is None else out * mask[..., None]
        return F.cross_entropy(kept.sum(0), targets)

    def scores(self, out, mask):
        return (out if mask is None else out * mask[..., None]).sum(0)


CLASSES = Targets("class", ("a", "b", "c"))


def test_a_loss_of_ones_own_is_called_with_what_it_takes(out):
    targets = targets_of("class")

    assert loss_of(Bare(), out, targets) == F.cross_entropy(2 * out.mean(0), targets)
    assert loss_of(Masked(), out, targets) == F.cross_entropy(out.sum(0), targets)
    assert loss_of(Masked(), out, targets, MASK) == F.cross_entropy((out * MASK[..., None]).sum(0), targets)
    assert loss_of(lambda out, targets: out.sum(), out, targets) == out.sum()
    assert loss_of(F.cross_entropy, out.mean(0), targets) == F.cross_entropy(out.mean(0), targets)
    assert smooth_loss(Masked(), out, targets, MASK) == loss_of(Masked(), out, targets, MASK)


def test_without_scores_the_answer_is_the_mean_over_time_or_the_output_itself(out):
    assert torch.equal(scores_of(Bare(), out), out.mean(0))
    assert torch.equal(scores_of(Bare(), out, None, "spikes"), out.transpose(0, 1))
    assert_same(
        masked=(scores_of(Bare(), out, MASK)[1], out[:3, 1].mean(0)), own=(scores_of(Masked(), out), out.sum(0))
    )


def test_a_loss_of_ones_own_that_takes_no_mask_is_refused_where_there_is_one(out):
    @dataclass(frozen=True)
    class Half:
        def __call__(self, out, targets, mask):
            return out.mean()

        def scores(self, out):
            return out.mean(0)

    with pytest.raises(SnnError, match=r"Bare: recordings have different lengths.*\(self, out, targets, mask\)"):
        loss_of(Bare(), out, targets_of("class"), MASK)
    with pytest.raises(SnnError, match="Half: recordings have different lengths, and its scores take no mask"):
        scores_of(Half(), out, MASK)


def test_scores_of_the_wrong_shape_are_refused(out):
    with pytest.raises(SnnError, match=r"Masked: .*'class per step'.*\[batch, time, outputs\].*found torch.float64"):
        scores_of(Masked(), out, None, "class per step")


def test_a_loss_of_ones_own_is_checked_by_what_it_says_of_itself():
    network = Network((Dense(3), LIF(beta=0.9)), (2,))

    @dataclass(frozen=True)
    class OfPotentials(Bare):
        means: ClassVar = ("potentials",)

    check_loss(Bare(), network, Targets("vector", ("a", "b", "c")))
    with pytest.raises(SnnError, match=r"OfPotentials.*for potentials"):
        check_loss(OfPotentials(), network, CLASSES)
    with pytest.raises(SnnError, match=r"Masked.*for targets of the kind 'class'"):
        check_loss(Masked(), network, Targets("labels", ("a", "b", "c")))


def test_a_loss_of_ones_own_that_breaks_or_gives_no_number_is_refused_before_a_run():
    @dataclass(frozen=True)
    class Gives:
        what: str

        def __call__(self, out, targets, mask=None):
            return {"nothing": None, "each": out.mean(2), "constant": torch.tensor(1.0)}.get(self.what) or out[99]

    try_loss(Bare(), CLASSES, steps=5, masked=False)
    try_loss(Masked(), CLASSES, steps=5, masked=True)
    for loss, masked, message in (
        (Bare(), True, "Bare: recordings have different lengths"),
        (Gives("constant"), False, "Gives: .* found a number without a gradient"),
        (Gives("break"), True, "Gives: it breaks on .* IndexError"),
    ):
        with pytest.raises(SnnError, match=message):
            try_loss(loss, CLASSES, steps=5, masked=masked)


# Pieces of truncated backpropagation


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", (None, MASK), ids=("full", "masked"))
def test_pieces_add_up_to_the_whole(kind, mask):
    targets = targets_of(kind)
    pieces = list(pieces_of(targets, mask, (3, 3, 1)))

    assert math.fsum(piece.fraction for piece in pieces) == pytest.approx(1, abs=1e-15)
    if kind in PER_STEP:
        assert torch.equal(torch.cat([piece.targets for piece in pieces], 1), targets)
    else:
        there = [torch.ones(BATCH, dtype=torch.bool) if p.rows is None else p.rows for p in pieces]
        assert all(torch.equal(p.targets, targets[rows]) for p, rows in zip(pieces, there, strict=True))
        if mask is not None:
            assert [rows.tolist() for rows in there] == [[True] * 4, [True, False, True, False], [True] + [False] * 3]


# the loss of a whole recording is another in pieces
@pytest.mark.parametrize(
    "loss, kind", ((MembraneCrossEntropy(), "class per step"), (MeanSquaredPotential(), "vector per step")), ids=str
)
def test_losses_of_single_steps_are_the_same_in_pieces(loss, kind, out):
    targets = targets_of(kind)

    for mask in (None, MASK):
        total, start = 0.0, 0
        for piece in pieces_of(targets, mask, (3, 4)):
            steps = 3 if start == 0 else 4
            total = total + loss(out[start : start + steps], piece.targets, piece.mask) * piece.fraction
            start += steps
        assert_same(loss=(total, loss(out, targets, mask)), rtol=1e-12)
