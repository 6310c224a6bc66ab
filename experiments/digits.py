"""Handwritten digits seen by a simulated event camera in three saccades: the default experiment.

snn-bp train experiments/digits.py
"""

from snn_bp import LIF, BatchNorm, Conv, Data, Dense, Experiment, Flatten, Train, main

experiment = Experiment(
    data=Data("digits", step_ms=52, steps=6, batch=64, translate_px=2),
    model=(
        *(Conv(16, 5, stride=2, padding=2), BatchNorm(), LIF(beta=0.5, reset="zero")),
        *(Conv(32, 3, stride=2, padding=1), BatchNorm(), LIF(beta=0.5, reset="zero")),
        Flatten(),
        *(Dense(128), BatchNorm(), LIF(beta=0.5, reset="zero")),
        *(Dense(10), BatchNorm(), LIF(beta=0.8, reset="zero")),
    ),
    train=Train(epochs=14, lr=8e-3, keep="last"),
)

if __name__ == "__main__":
    main(experiment)
