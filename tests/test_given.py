"""What is handed to `simulate` and to a network: right, or refused in one sentence before anything is computed."""

import copy
import inspect

import numpy as np
import pytest
import torch
from torch import Tensor

from snn_bp import (
    ALIF,
    LIF,
    BatchNorm,
    CountCrossEntropy,
    Dense,
    Flatten,
    Network,
    Run,
    SnnError,
    State,
    check_gradients,
    evaluate,
    rest,
    resume,
    search,
    simulate,
    start_alive,
    trace,
    train,
    use_backend,
)
from snn_bp.instruments.landscape import loss_slice
from snn_bp.instruments.online import eprop, ottt
from snn_bp.instruments.optimizer_state import trace_optimizer

NEURON = LIF(beta=0.9, threshold=0.5)
X = torch.rand(6, 2, 4, generator=torch.Generator().manual_seed(0))
ONE = torch.zeros(2, 4)


def negated(x: Tensor) -> Tensor:
    """A view of the memory of `x` that shows its values negated."""
    return torch._neg_view(x)  # type: ignore[attr-defined]


def small() -> Network:
    return Network((Dense(5), LIF(beta=0.9), Dense(3), LIF(beta=0.9)), (4,))


@pytest.mark.parametrize(
    "state",
    [5, "rest", {}, (ONE, ONE), ONE, State(v=np.zeros((2, 4)), s=ONE), State(v=0.0, s=ONE)],  # type: ignore[arg-type]
)
def test_a_state_of_another_kind_is_refused(state):
    with pytest.raises(SnnError, match="None starts from rest"):
        simulate(NEURON, X, state)


@pytest.mark.parametrize("part", [ONE.to(torch.complex64), ONE.to_sparse(), ONE.to("meta")])
def test_a_state_without_plain_numbers_is_refused(part):
    with pytest.raises(SnnError, match=r"LIF: state\.v"):
        simulate(NEURON, X, State(v=part, s=ONE))


@pytest.mark.parametrize(
    "value", ["0.5", None, True, float("nan"), [0.5, float("inf"), 0.5, 0.5], torch.ones(4, dtype=torch.complex64)]
)
def test_a_parameter_that_is_no_number_is_refused(value):
    with pytest.raises(SnnError, match="LIF: beta"):
        simulate(NEURON, X, parameters={"beta": value})


def test_parameters_that_name_nothing_are_refused():
    with pytest.raises(SnnError, match="under each name"):
        simulate(NEURON, X, parameters=5)  # type: ignore[arg-type]


def test_a_word_in_place_of_a_truth_value_is_refused():
    with pytest.raises(SnnError, match="potentials='no'"):
        simulate(NEURON, X, potentials="no")  # type: ignore[call-overload]


@pytest.mark.parametrize("shape", [("x",), (3, -1), None, (3.0,)])
def test_rest_names_a_shape_that_is_none(shape):
    with pytest.raises(SnnError, match="rest: shape"):
        rest(NEURON, shape, like=X)


@pytest.mark.parametrize("like", [5, torch.ones(3, dtype=torch.int64)])
def test_rest_asks_for_a_tensor_of_floats(like):
    with pytest.raises(SnnError, match="rest: like"):
        rest(NEURON, (2, 4), like=like)


def test_a_view_that_negates_is_read_as_the_numbers_it_shows():
    x, shown = -X, negated(X)
    assert shown.is_neg()
    weights = torch.nn.Parameter(-2 * torch.rand(5, 4, generator=torch.Generator().manual_seed(1)))
    network = small()
    network.layers[0].weight.data = -weights.data
    other = copy.deepcopy(network)
    other.layers[0].weight.data = negated(weights.data)
    for neuron in (LIF(beta=0.9, threshold=0.2), ALIF(beta=0.9, rho=0.9, kappa=0.1, threshold=0.2)):
        start = State(v=negated(-torch.full((2, 4), 0.3)), s=ONE, a=ONE)
        plain = start._replace(v=torch.full((2, 4), 0.3))
        spikes, _ = simulate(neuron, negated(-X), start)
        assert torch.equal(spikes, simulate(neuron, X, plain)[0])
        assert spikes.any()
    for fed, same in ((shown, x), (negated(-X), X)):
        assert torch.equal(other(fed), network(same))
        with use_backend("reference"):
            assert torch.equal(other(fed), network(same))


def test_a_gradient_that_negates_arrives_as_the_numbers_it_shows():
    network, found = small(), []
    for gradient in (-torch.ones(6, 2, 3), negated(torch.ones(6, 2, 3))):
        network.zero_grad()
        network(X).backward(gradient)
        found.append([weight.grad for weight in network.parameters()])
    for one, other in zip(*found, strict=True):
        assert isinstance(one, Tensor)
        assert one.any()
        assert torch.equal(one, other)


def test_a_nan_is_looked_for_by_nobody_who_trains_or_transforms():
    broken = X.clone()
    broken[3, 1, 2] = torch.nan

    out, rates, _ = small().rates(broken)
    assert out.isfinite().all() and rates[0].isfinite().all()  # silent, which the loss of a training step shows
    potentials = torch.func.vmap(lambda x: simulate(NEURON, x)[1].v, in_dims=1)(broken[:, :, None])
    assert potentials.isnan().sum() == 1


def test_numbers_whose_sum_is_beyond_their_type_are_finite():
    spikes, _ = simulate(LIF(beta=0.5, threshold=3e38), torch.full((3, 2, 4), 1e38))
    small()(torch.full((3, 2, 4), 3e38))
    assert not spikes.any()


@pytest.mark.parametrize("state", [5, "rest", ONE, State(v=ONE), (1, 2)])
def test_a_network_refuses_a_state_of_another_kind(state):
    with pytest.raises(SnnError, match="None starts from rest"):
        small().run(X, state)


def test_an_empty_state_is_not_taken_for_rest():
    with pytest.raises(SnnError, match="should have 2 parts, found 0"):
        small().run(X, ())


def test_tensors_without_numbers_and_on_another_device_are_refused():
    with pytest.raises(SnnError, match="meta, which holds no numbers"):
        small()(X.to("meta"))
    with pytest.raises(SnnError, match="the weights are on meta"):
        small().to("meta")(X)


@pytest.mark.parametrize("given", [None, "a network", 5, torch.ones(2)])
def test_what_is_no_network_run_or_experiment_is_named_before_it_is_used(given, tmp_path):
    loss, targets = CountCrossEntropy(), torch.tensor([0, 1])
    asked = (
        lambda: trace(given, X, targets),
        lambda: check_gradients(given, X, targets),
        lambda: ottt(given, X, targets, loss),
        lambda: eprop(given, X, targets, loss),
        lambda: loss_slice(given, X, targets, loss),
        lambda: start_alive(given, X),
        lambda: trace_optimizer(torch.optim.SGD(small().parameters()), given),
    )
    for ask in asked:
        with pytest.raises(SnnError, match="should be a Network, found"):
            ask()
    for ask in (lambda: train(given, tmp_path / "run"), lambda: search(given, method="es", budget=100)):
        with pytest.raises(SnnError, match="should be an Experiment, found"):
            ask()
    with pytest.raises(SnnError, match="should be a Run, found"):
        evaluate(given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ask", [Run, resume])
@pytest.mark.parametrize("given", [None, 5, b"runs", "a\0b"])
def test_what_is_no_path_is_refused(ask, given):
    with pytest.raises(SnnError, match="should be a path, found"):
        ask(given)


@pytest.mark.parametrize(("model", "shape"), [(5, (4,)), (LIF(beta=0.9), (4,)), ((Dense(3),), 4), ((Dense(3),), None)])
def test_a_model_or_shape_that_is_no_tuple_is_refused(model, shape):
    with pytest.raises(SnnError, match="a tuple of layers and the shape of a step"):
        Network(model, shape)


@pytest.mark.parametrize("ask", [trace, check_gradients])
def test_inputs_that_are_no_tensor_and_losses_that_cannot_be_called_are_refused(ask):
    with pytest.raises(SnnError, match="should be a torch tensor"):
        ask(small(), X.numpy(), torch.tensor([0, 1]))
    with pytest.raises(SnnError, match="the loss should be one"):
        ask(small(), X, torch.tensor([0, 1]), loss="CountCrossEntropy")


@pytest.mark.parametrize("loss", [CountCrossEntropy, LIF])
def test_a_class_in_place_of_a_loss_is_refused(loss):
    with pytest.raises(SnnError, match=r"the loss should be one, as CountCrossEntropy\(\)"):
        trace(small(), X, torch.tensor([0, 1]), loss=loss)


def test_a_spread_that_no_weight_holds_and_a_step_without_axes_are_refused():
    with pytest.raises(SnnError, match="start_alive: spread=1000"):
        start_alive(small(), X, spread=10**40)
    with pytest.raises(SnnError, match=r"model\.0 Flatten\(\), on an input of \[\]"):
        Network((Flatten(), Dense(3)), ())


def touched() -> list[Network]:
    """Networks that do more than their layers: a hook of their own, a method put in place."""
    hooked, patched = (Network((Dense(3), LIF(beta=0.9, reset="zero")), (4,)) for _ in range(2))
    hooked.register_forward_hook(lambda module, given, out: out)
    patched.forward = lambda x: x
    return [hooked, patched]


@pytest.mark.parametrize("which", [0, 1])
def test_what_a_network_does_beyond_its_layers_is_not_left_out_of_a_file(which, tmp_path):
    from snn_bp.chip.quantize import quantize
    from snn_bp.exchange.nir_write import write_nir

    network = touched()[which]
    with pytest.raises(SnnError, match="hooks, or methods put in place of its own"):
        write_nir(network, tmp_path / "a.nir")
    with pytest.raises(SnnError, match="hooks, or methods put in place of its own"):
        quantize(network)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [None, 5, torch.ones(2)])
def test_exports_name_what_is_no_network_and_no_path(given):
    from snn_bp.chip.quantize import quantize
    from snn_bp.exchange.nir_read import read_nir
    from snn_bp.exchange.nir_write import write_nir

    with pytest.raises(SnnError, match="it takes a Network, found"):
        quantize(given)
    for ask in (lambda: write_nir(small(), given), lambda: read_nir(given)):
        with pytest.raises(SnnError, match="should be a path, found"):
            ask()


@pytest.mark.parametrize("options", [{"bias": False}, {"affine": False}, {"track_running_stats": False}])
@pytest.mark.parametrize("training", [True, False])
def test_a_norm_without_all_its_parts_runs_as_torch_runs_it_and_is_not_folded(options, training, tmp_path):
    from snn_bp.chip.quantize import quantize
    from snn_bp.exchange.nir_write import write_nir

    network = Network((Dense(5), BatchNorm(), LIF(beta=0.9, threshold=0.3, reset="zero")), (4,))
    if not options.keys() <= inspect.signature(torch.nn.BatchNorm1d).parameters.keys():
        pytest.skip(f"this torch's BatchNorm1d has no {options}")
    network.layers[1] = torch.nn.BatchNorm1d(5, **options)
    network.train(training)
    with use_backend("reference"):
        wanted = copy.deepcopy(network)(X)
    assert torch.equal(network(X), wanted)
    assert wanted.any()
    for ask in (lambda: write_nir(network.eval(), tmp_path / "a.nir"), lambda: quantize(network.eval())):
        with pytest.raises(SnnError, match=r"model\.1 BatchNorm\(\) has no weight, bias or running statistics"):
            ask()
