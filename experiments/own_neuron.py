"""Handwritten digits, learned by neurons of one's own: leaky ones with an adaptation current.

snn-bp train experiments/own_neuron.py
"""

from snn_bp import BatchNorm, Conv, Data, Dense, Experiment, Flatten, Tau, Train, detach, main, neuron, spike


@neuron(decays=("beta", "rho"), positive=("threshold",))
def Adaptive(v, w, s, x, *, beta, rho=Tau(150), a=0.05, b=0.2, threshold=1.0):
    """A current `w` follows the membrane, jumps with each spike, and holds the neuron back (Bittar & Garner 2022)."""
    w = rho * w + a * v + b * s
    v = beta * v * (1 - detach(s)) + x - w
    return v, w, spike(v - threshold, threshold)


experiment = Experiment(
    data=Data("digits", step_ms=31, steps=10, batch=64, translate_px=2),
    model=(
        *(Conv(16, 5, stride=2, padding=2), BatchNorm(), Adaptive(beta=Tau(60))),
        *(Conv(32, 3, stride=2, padding=1), BatchNorm(), Adaptive(beta=Tau(60))),
        Flatten(),
        *(Dense(128), BatchNorm(), Adaptive(beta=Tau(60))),
        *(Dense(10), BatchNorm(), Adaptive(beta=Tau(150))),
    ),
    train=Train(epochs=14, lr=8e-3, keep="last"),
)

if __name__ == "__main__":
    main(experiment)
