"""DVS128 Gesture (Amir et al. 2017): eleven hand and arm gestures, at a quarter of the camera's resolution.

    snn-bp train experiments/dvs_gesture.py data.root=FOLDER

FOLDER holds DVSGesture/ibmGestureTrain and DVSGesture/ibmGestureTest; without it tonic downloads.
"""

from snn_bp import LIF, BatchNorm, Conv, Data, Dense, Dropout, Experiment, Flatten, Train, main

experiment = Experiment(
    data=Data("dvs_gesture", step_ms=75, steps=20, batch=16, downsample=4, translate_px=8),
    model=(
        *(Conv(16, 3, stride=2, padding=1), BatchNorm(), LIF(beta=0.7)),
        *(Conv(32, 3, stride=2, padding=1), BatchNorm(), LIF(beta=0.7)),
        *(Conv(64, 3, stride=2, padding=1), BatchNorm(), LIF(beta=0.7)),
        Flatten(),
        Dropout(0.3),
        *(Dense(11), BatchNorm(), LIF(beta=0.9)),
    ),
    train=Train(epochs=60, lr=2e-3),
)

if __name__ == "__main__":
    main(experiment)
