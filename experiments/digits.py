"""Handwritten digits seen by a simulated event camera in three saccades: the default experiment.

    snn-bp train experiments/digits.py
"""

from snn_bp import LIF, BatchNorm, Conv, Data, Dense, Experiment, Flatten, Pool, Train, main

experiment = Experiment(
    data=Data("digits", step_ms=31, steps=10, batch=32, shift=2),
    model=(
        Conv(12, 5, stride=2, padding=2), BatchNorm(), LIF(beta=0.5, reset="zero"),
        Conv(32, 3, padding=1), BatchNorm(), LIF(beta=0.5, reset="zero"),
        Pool(2, kind="sum"), Flatten(),
        Dense(10), BatchNorm(), LIF(beta=0.8, reset="zero"),
    ),  # fmt: skip
    train=Train(epochs=15, lr=4e-3),
)

if __name__ == "__main__":
    main(experiment)
