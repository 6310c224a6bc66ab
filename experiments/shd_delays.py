"""Spiking Heidelberg Digits (Cramer et al. 2020) by leaky neurons without recurrence, whose synapses learn delays.

    snn-bp train experiments/shd_delays.py data.root=FOLDER

FOLDER holds SHD/shd_train.h5 and SHD/shd_test.h5, or files of that schema; without it tonic downloads. Validation holds
out a whole speaker, since two speakers of the test part are in no other.

After Hammouamri et al. 2023 (DCLS): 140-256-256-20 with delays of up to 250 ms in every layer and neurons that forget
within a step, so all memory lies in the delays. Theirs has 0.20 million parameters (214,016 here, norms included) and
reaches 0.951 at the best epoch on the test part (protocol A); here validation chooses the epoch (protocol B). No figure
of ours on the set: it was not at hand.
"""

from snn_bp import LI, LIF, BatchNorm, Data, DelayedDense, Dropout, Experiment, MembraneCrossEntropy, Train, main

experiment = Experiment(
    data=Data("shd", step_ms=10, steps=100, batch=256, downsample=5, split_by="group"),
    model=(
        *(DelayedDense(256, 25, bias=False), BatchNorm(), LIF(beta=0.005, reset="zero"), Dropout(0.4)),
        *(DelayedDense(256, 25, bias=False), BatchNorm(), LIF(beta=0.005, reset="zero"), Dropout(0.4)),
        *(DelayedDense(20, 25, bias=False), LI(beta=0.005)),
    ),
    train=Train(epochs=150, lr=5e-3, warmup=0.3, weight_decay=1e-5, loss=MembraneCrossEntropy()),
)

if __name__ == "__main__":
    main(experiment)
