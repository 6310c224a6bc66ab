"""N-MNIST (Orchard et al. 2015): digits that an event camera saw in three saccades.

    snn-bp train experiments/nmnist.py data.root=FOLDER

FOLDER holds NMNIST/Train and NMNIST/Test; without it tonic downloads. A partial copy is read, and the run says so.
The last epoch is kept, not the best on validation: a tenth of a partial copy is too few recordings to choose by.
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
