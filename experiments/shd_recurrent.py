"""Spiking Heidelberg Digits (Cramer et al. 2020) by 128 recurrent leaky neurons, on all 700 channels.

    snn-bp train experiments/shd_recurrent.py data.root=FOLDER

FOLDER holds SHD/shd_train.h5 and SHD/shd_test.h5, or files of that schema; without it tonic downloads. Validation holds
out a whole speaker, since two speakers of the test part are in no other.

The network has the published shape, 700-128-20 with 108.8 thousand parameters (108,692 here, in steps of 10 ms).
Published accuracy: 0.714 (Cramer et al. 2020), 0.827 with learned time constants of each neuron (Perez-Nieves et al.
2021), 0.832 with 1,024 neurons and augmentation (Cramer et al. 2020), by which epoch is not known. Here validation
chooses the epoch. No figure of ours on the set: it was not at hand.
"""

from snn_bp import LI, CubaLIF, Data, Dense, Experiment, MaxCrossEntropy, Recurrent, Tau, Train, main

experiment = Experiment(
    data=Data("shd", step_ms=10, steps=100, batch=64, translate_px=20, split_by="group"),
    model=(
        *(Dense(128), Recurrent(CubaLIF(alpha=Tau(10), beta=Tau(20), reset="zero"))),
        *(Dense(20), LI(beta=Tau(20))),
    ),
    train=Train(epochs=60, lr=2e-3, loss=MaxCrossEntropy()),
)

if __name__ == "__main__":
    main(experiment)
