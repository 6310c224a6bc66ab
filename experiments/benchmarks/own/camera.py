"""Files of one's own from a camera of 346 x 260 pixels; `data.root` names the folder with a folder for each class."""

from snn_bp import LIF, BatchNorm, Conv, Data, Dense, Experiment, Flatten, Pool, Train

experiment = Experiment(
    Data("folder", root="recordings", sensor=(346, 260, 2), step_ms=40, steps=5, batch=8, downsample=2, translate_px=4),
    (
        *(Conv(4, 5, stride=3, padding=2), BatchNorm(), LIF(beta=0.6, reset="zero"), Pool(2), Flatten()),
        *(Dense(2), BatchNorm(), LIF(beta=0.8, reset="zero")),
    ),
    Train(epochs=6, lr=5e-3),
)
