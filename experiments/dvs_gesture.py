"""DVS128 Gesture (Amir et al. 2017): eleven hand and arm gestures, at a quarter of the camera's resolution.

    snn-bp train experiments/dvs_gesture.py data.root=FOLDER

FOLDER holds DVSGesture/ibmGestureTrain and DVSGesture/ibmGestureTest; without it tonic downloads. Validation holds out
whole users, as the test part does.

Published accuracy at this resolution and these steps: 0.956 ± 0.011 (VGG-9, five seeds, as the comparison of S-TLLR has
it); `dvs_gesture_gpu.py` has those of larger ones. No figure of ours on the set: of it ten clips were at hand.
"""

from snn_bp import LIF, BatchNorm, Conv, Data, Dense, Dropout, Experiment, Flatten, TimeCrop, Train, main

experiment = Experiment(
    data=Data(
        "dvs_gesture",
        step_ms=75,
        steps=20,
        batch=16,
        downsample=4,
        translate_px=8,
        augment=(TimeCrop(),),
        split_by="group",
    ),
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
