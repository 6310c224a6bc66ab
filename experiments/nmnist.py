"""N-MNIST (Orchard et al. 2015): digits that an event camera saw in three saccades.

    snn-bp train experiments/nmnist.py data.root=FOLDER

FOLDER holds NMNIST/Train and NMNIST/Test; without it tonic downloads. A partial copy is read, and the run says so. The
last epoch is kept, not the best on validation: a tenth of a partial copy is too few recordings to choose by.

Published accuracy on the whole set: 0.992 by convolutions of 12 and 64 channels in 300 steps (mean, Shrestha & Orchard
2018); 0.996 by two of 128 channels and 17.1 million parameters in 10 steps, at the best epoch on the test part
(protocol A) and, with learned time constants, where validation chose it (protocol B) (Fang et al. 2021). Ours on the
whole set was not measured: it was not at hand.
"""

from snn_bp import LIF, BatchNorm, Conv, Data, Dense, Dropout, Experiment, Flatten, Train, main

experiment = Experiment(
    data=Data("nmnist", step_ms=52, steps=6, batch=32, translate_px=3),
    model=(
        *(Conv(16, 5, stride=2, padding=2), BatchNorm(), LIF(beta=0.5, reset="zero")),
        *(Conv(32, 3, stride=2, padding=1), BatchNorm(), LIF(beta=0.5, reset="zero")),
        Flatten(),
        Dropout(0.2),
        *(Dense(128), BatchNorm(), LIF(beta=0.5, reset="zero")),
        Dropout(0.2),
        *(Dense(10), BatchNorm(), LIF(beta=0.8, reset="zero")),
    ),
    train=Train(epochs=100, lr=4e-3, keep="last"),
)

if __name__ == "__main__":
    main(experiment)
