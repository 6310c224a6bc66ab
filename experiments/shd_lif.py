"""Spiking Heidelberg Digits (Cramer et al. 2020) by leaky neurons without recurrence: the baseline of the set.

    snn-bp train experiments/shd_lif.py data.root=FOLDER

FOLDER holds SHD/shd_train.h5 and SHD/shd_test.h5, or files of that schema; without it tonic downloads. Validation holds
out a whole speaker, since two speakers of the test part are in no other: of one published network a random tenth read
0.956, the test part 0.827.

Published accuracy: 0.486 of 128 neurons (Cramer et al. 2020), 0.870 of 3 x 128 (Bittar & Garner 2022), by which epoch
is not known. Here validation chooses the epoch. No figure of ours on the set: it was not at hand.
"""

from snn_bp import LI, LIF, BatchNorm, Data, Dense, Dropout, Experiment, MembraneCrossEntropy, Tau, Train, main

experiment = Experiment(
    data=Data("shd", step_ms=10, steps=100, batch=64, downsample=5, translate_px=20, split_by="group"),
    model=(
        *(Dense(256), BatchNorm(), LIF(beta=Tau(20)), Dropout(0.4)),
        *(Dense(256), BatchNorm(), LIF(beta=Tau(20)), Dropout(0.4)),
        *(Dense(20), LI(beta=Tau(100))),
    ),
    train=Train(epochs=40, lr=4e-3, loss=MembraneCrossEntropy()),
)

if __name__ == "__main__":
    main(experiment)
