"""Spiking Heidelberg Digits (Cramer et al. 2020): spoken digits as spikes of an artificial cochlea.

    snn-bp train experiments/shd.py data.root=FOLDER

FOLDER holds SHD/shd_train.h5 and SHD/shd_test.h5, or files of that schema; without it tonic downloads. The test part
has two speakers who are not in the training part, so validation accuracy runs ahead of it.
"""

from snn_bp import ALIF, LI, BatchNorm, Data, Dense, Dropout, Experiment, MembraneCrossEntropy, Tau, Train, main

experiment = Experiment(
    data=Data("shd", step_ms=10, steps=100, batch=64, downsample=5, translate_px=20),
    model=(
        *(Dense(128), BatchNorm(), ALIF(beta=Tau(20), rho=Tau(150), kappa=0.1), Dropout(0.3)),
        *(Dense(128), BatchNorm(), ALIF(beta=Tau(20), rho=Tau(150), kappa=0.1), Dropout(0.3)),
        *(Dense(20), LI(beta=Tau(100))),
    ),
    train=Train(epochs=40, lr=4e-3, loss=MembraneCrossEntropy()),
)

if __name__ == "__main__":
    main(experiment)
