"""Recordings of one's own: files of events in folders that are named by their class.

    snn-bp train experiments/folder.py data.root=FOLDER

FOLDER holds train/CLASS/*.npy and test/CLASS/*.npy (or .raw, .aedat4, .csv, ...; `help(snn_bp.read_events)` says which
formats are read), from a camera of 346 x 260 pixels. Without train and test above the classes, `data.test_fraction=0.2`
draws a test split, and it stays the same for one `data.split_seed`. For a table of files and labels, write
`Data(Folder("FOLDER", sensor=(346, 260, 2), table="labels.csv"), step_ms=20, steps=10)`. The last Dense has a unit for
each class. Afterwards `snn-bp predict runs/folder NEW.npy` says the class of files that nobody labelled.

Bars that move in four directions, drawn by tests/test_folder_example.py, are told apart after 4 epochs.
"""

from snn_bp import LIF, BatchNorm, Conv, Data, Dense, Experiment, Flatten, Pool, Train, main

experiment = Experiment(
    data=Data("folder", root="recordings", sensor=(346, 260, 2), step_ms=20, steps=10, batch=16, downsample=2),
    model=(
        *(Conv(8, 5, stride=3, padding=2), BatchNorm(), LIF(beta=0.6, reset="zero")),
        Pool(2),
        *(Conv(16, 3, stride=2, padding=1), BatchNorm(), LIF(beta=0.6, reset="zero")),
        Flatten(),
        *(Dense(4), BatchNorm(), LIF(beta=0.8, reset="zero")),
    ),
    train=Train(epochs=20, lr=5e-3),
)

if __name__ == "__main__":
    main(experiment)
