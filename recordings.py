"""90 recordings of 3 classes; `snn-bp init` looked at them on 2026-12-01.

snn-bp train recordings.py --dry-run     # shapes, memory and time
snn-bp train recordings.py               # train.epochs=5 behind it changes that
snn-bp report runs/recordings            # a page of results
"""

from snn_bp import LIF, BatchNorm, Conv, Data, Dense, Experiment, Flatten, Pool, Tau, Train, main

experiment = Experiment(
    data=Data(
        "folder",
        root="/tmp/s/newcomer-scratch/own/recordings",
        sensor=(34, 34, 2),  # that of N-MNIST; the files do not state it, addresses reach x = 33, y = 33
        test_fraction=0.2,  # of each class, drawn by split_seed
        # Recordings by class: "1" 30, "2" 30, "3" 30. Of the 90 files that were read half last up to 307.135
        # ms, nine of ten up to 310.66 ms; half have up to 3,988 events, 13,025 a second. 16 steps of 20 ms
        # hold 320 ms. Shorter steps see faster motion, more steps see more of a recording; both take longer.
        step_ms=20,
        steps=16,
        batch=16,
        downsample=1,  # 34x34 pixels become 34x34
    ),
    model=(
        # neurons forget in five steps, and are reset to 0 as on chips
        *(Conv(16, 5, stride=1, padding=2), BatchNorm(), LIF(beta=Tau(100), reset="zero")),
        Pool(2),
        *(Conv(32, 3, padding=1), BatchNorm(), LIF(beta=Tau(100), reset="zero")),
        Pool(2),
        Flatten(),
        *(Dense(3), BatchNorm(), LIF(beta=Tau(100), reset="zero")),  # an output for each class
    ),
    train=Train(epochs=20, lr=5e-3),
)

if __name__ == "__main__":
    main(experiment)
