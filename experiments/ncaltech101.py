"""N-Caltech101 (Orchard et al. 2015): a hundred kinds of things and backgrounds in three saccades, for a GPU.

    snn-bp train experiments/ncaltech101.py data.root=FOLDER

FOLDER holds NCALTECH101/Caltech101/CLASS/*.bin; without it tonic downloads. The set has no split of its own: a tenth of
each class, drawn from `data.split_seed` and recorded with the run, is the test split, and a tenth of the rest chooses
the epoch. Classes differ in size: `'train.metric=BalancedAccuracy()'` counts them alike.

Published accuracy: 0.659 ± 0.008 (VGG-9) and 0.609 ± 0.009 (ResNet-18) with leaky neurons, as the comparison of S-TLLR
has it; the epoch was chosen in a way that is not known. Here validation chooses it. No figure of ours on the set: it
was not at hand.
"""

from snn_bp import (
    LIF,
    TET,
    BatchNorm,
    Conv,
    CutMix,
    Data,
    Dense,
    Dropout,
    EventDrop,
    Experiment,
    Flatten,
    Flip,
    Pool,
    Train,
    main,
)


def maps(channels: int) -> tuple:
    """A convolution with its norm and neurons."""
    return Conv(channels, 3, padding=1, bias=False), BatchNorm(), LIF(beta=0.5, reset="zero")


experiment = Experiment(
    data=Data(
        "tonic:NCALTECH101",
        step_ms=30,
        steps=10,
        batch=64,
        downsample=5,
        translate_px=20,
        rotate_deg=15,
        augment=(Flip(), EventDrop(0.3, by="area"), CutMix()),
        test_fraction=0.1,
    ),
    model=(
        *(*maps(64), *maps(128), Pool(2)),
        *(*maps(256), *maps(256), Pool(2)),
        *(*maps(512), *maps(512), Pool(2)),
        *(*maps(512), Pool(2)),
        *(Flatten(), Dropout(0.5), Dense(101)),
    ),
    train=Train(epochs=100, lr=1e-3, weight_decay=5e-4, loss=TET()),
)

if __name__ == "__main__":
    main(experiment)
