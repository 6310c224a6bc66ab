"""Spiking Speech Commands (Cramer et al. 2020): 35 words as spikes of an artificial cochlea, for a GPU.

    snn-bp train experiments/ssc.py data.root=FOLDER

FOLDER holds SSC/ssc_train.h5, SSC/ssc_valid.h5 and SSC/ssc_test.h5; without it tonic downloads. The set has a
validation part of its own, which chooses the epoch.

Two recurrent layers of adaptive neurons after Baronig et al. 2024 (SE-adLIF), who report 0.804 ± 0.003 with 1.6 million
parameters (1,688,435 here). Others: 0.802 (two layers, learned delays, Hammouamri et al. 2023), 0.774 (recurrent,
adaptive, Bittar & Garner 2022), 0.509 and 0.385 (recurrent and not, leaky, Cramer et al. 2020). All chosen on
validation (protocol B), as here. No figure of ours on the set: it was not at hand.
"""

from snn_bp import LI, Data, Dense, Dropout, Experiment, MembraneCrossEntropy, Recurrent, SEAdLIF, Tau, Train, main

NEURON = Recurrent(SEAdLIF(beta=Tau(15), rho=Tau(150), q=120.0), learn=("beta", "rho", "a", "b"))

experiment = Experiment(
    data=Data("tonic:SSC", step_ms=4, steps=250, batch=256, downsample=5),
    model=(Dense(720), NEURON, Dropout(0.15), Dense(720), NEURON, Dropout(0.15), Dense(35), LI(beta=Tau(15))),
    train=Train(epochs=100, lr=3e-3, loss=MembraneCrossEntropy()),
)

if __name__ == "__main__":
    main(experiment)
