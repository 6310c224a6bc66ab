"""N-MNIST by a network without convolutions, small enough to look at on a chip.

snn-bp train experiments/nmnist_mlp.py data.root=FOLDER train.target=loihi

FOLDER holds NMNIST/Train and NMNIST/Test; without it tonic downloads. A partial copy is read, and the run says so.

Published accuracy on the whole set: 0.988 (2312-800-10, Wu et al. 2018), 0.987 (the same shape, Lee et al. 2016), 0.985
on Loihi (2312-512-10, slayerPytorch's example); by which epoch is not known. Ours on the whole set was not measured: it
was not at hand.
"""

from snn_bp import LIF, BatchNorm, Data, Dense, Dropout, Experiment, Flatten, Train, main

experiment = Experiment(
    data=Data("nmnist", step_ms=52, steps=6, batch=32, translate_px=3, downsample=2),
    model=(
        Flatten(),
        *(Dense(256), BatchNorm(), LIF(beta=0.5, reset="zero")),
        Dropout(0.2),
        *(Dense(128), BatchNorm(), LIF(beta=0.5, reset="zero")),
        *(Dense(10), BatchNorm(), LIF(beta=0.8, reset="zero")),
    ),
    train=Train(epochs=80, lr=4e-3, keep="last"),
)

if __name__ == "__main__":
    main(experiment)
