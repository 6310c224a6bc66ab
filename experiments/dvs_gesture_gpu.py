"""DVS128 Gesture (Amir et al. 2017) at the camera's full resolution, for a GPU.

    snn-bp train experiments/dvs_gesture_gpu.py data.root=FOLDER

FOLDER holds DVSGesture/ibmGestureTrain and DVSGesture/ibmGestureTest; without it tonic downloads. Validation holds out
whole users, as the test part does.

The network of Fang et al. 2021 with leaky neurons: five convolutions of 128 channels, 1.7 million parameters (1,698,304
here), ten outputs a class. Published: 0.969 at the best epoch on the test part (protocol A); with learned time
constants 0.976 (A) and 0.965 where validation chose the epoch (B), as it does here. The gestures can be told from
single frames (Vicente-Sola et al. 2022). No figure of ours on the set: of it ten clips were at hand.
"""

from snn_bp import (
    LIF,
    BatchNorm,
    Conv,
    CountSquaredError,
    Data,
    Dense,
    Dropout,
    Experiment,
    Flatten,
    Pool,
    TimeCrop,
    Train,
    Unflatten,
    main,
)

NEURON = LIF(beta=0.5, reset="zero")
MAPS = (Conv(128, 3, padding=1, bias=False), BatchNorm(scale=0.5), NEURON, Pool(2, kind="max"))

experiment = Experiment(
    data=Data("dvs_gesture", step_ms=75, steps=20, batch=16, translate_px=8, augment=(TimeCrop(),), split_by="group"),
    model=(
        *(*MAPS, *MAPS, *MAPS, *MAPS, *MAPS),
        *(Flatten(), Dropout(0.5), Dense(512, bias=False), NEURON),
        *(Dropout(0.5), Dense(110, bias=False), NEURON),
        *(Unflatten((1, 110)), Pool(10), Flatten()),
    ),
    train=Train(epochs=64, lr=1e-3, weight_decay=0.0, loss=CountSquaredError(right=1.0, wrong=0.0)),
)

if __name__ == "__main__":
    main(experiment)
