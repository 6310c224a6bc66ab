"""The Triton kernels compiled for a GPU that is not there: they neither fuse nor flush, and every neuron compiles."""

import re
import subprocess
from pathlib import Path

import pytest
import torch
from catalogue import EVERY_NEURON, NEURONS, SURROGATES, quick_first
from own_neurons import OWN, Everything, Held
from test_gpu import forget_kernels, needs_triton

from snn_bp import LIF
from snn_bp.kernels.expand import Form
from snn_bp.kernels.gpu import neuron as gpu
from snn_bp.kernels.gpu.recurrent import MAX_NEURONS
from snn_bp.surrogates import SlopeOf

pytestmark = needs_triton
CAPABILITIES = (80, 90)  # A100, H100
INTEGERS = ("steps", "batch", "neurons", "end")


def compiled(kernel, dtype, capability, *, block=gpu.PROGRAM, fusion=False):
    """The kernel as Triton would launch it on a GPU of this capability."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    pointer = "*fp32" if dtype == torch.float32 else "*fp64"
    signature = {name: "i32" if name in INTEGERS else pointer for name in kernel.arg_names}
    aligned = {(k,): [["tt.divisibility", 16]] for k, name in enumerate(kernel.arg_names) if name not in INTEGERS}
    options = gpu.launch_options(block) | ({"enable_fp_fusion": True} if fusion else {})
    source = ASTSource(kernel, signature, {}, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def forward_kernel(neuron, dtype, block=gpu.PROGRAM, *, recurrent_too=False):
    form = form_of(neuron)
    form = form if recurrent_too else Form(form.equation, kept=form.traces)
    return gpu.compiled_forward(form, dtype, block, UNIFORM=True, RECURRENT=recurrent_too)


def backward_kernel(neuron, dtype, block=gpu.PROGRAM, *, recurrent_too=False, shape="ATan"):
    flags = {"GIVEN_SPIKES": neuron.equation.spiking, "GIVEN_POTENTIALS": True, "RECURRENT": recurrent_too}
    return gpu.compiled_backward(form_of(neuron), SlopeOf(shape, "threshold"), dtype, block, UNIFORM=False, **flags)


def form_of(neuron):
    """Of a neuron all of whose parameters are learned."""
    wanted = neuron.equation.parameters
    return Form(neuron.equation, wanted, neuron.equation.saved(wanted))


def machine_code(binary, folder):
    """What the GPU would run, or nothing where Triton ships no disassembler. ptxas too can fuse what PTX does not."""
    import triton

    disassemble = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not disassemble.exists():
        return ""
    file = folder / "kernel.cubin"
    file.write_bytes(binary.asm["cubin"])
    return subprocess.run([disassemble, "-sass", file], capture_output=True, text=True, check=True).stdout


def fused(binary, folder):
    """How many fused multiply-adds the text for the assembler has, and the machine code."""
    return tuple(
        len(re.findall(pattern, code))
        for pattern, code in ((r"\bfma\.", binary.asm["ptx"]), (r"\b[FD]FMA\b", machine_code(binary, folder)))
    )


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """A folder; within the test nothing is taken from Triton's cache."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    forget_kernels()
    yield tmp_path
    forget_kernels()


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("capability", quick_first(CAPABILITIES, CAPABILITIES[-1]))
@pytest.mark.parametrize("neuron", quick_first((NEURONS[2], NEURONS[9]), NEURONS[9]), ids=repr)
def test_the_forward_kernel_neither_fuses_nor_flushes(neuron, capability, dtype, compiler):
    binary = compiled(forward_kernel(neuron, dtype), dtype, capability)

    assert fused(binary, compiler) == (0, 0)
    assert ".ftz" not in binary.asm["ptx"]


@pytest.mark.parametrize("capability", quick_first(CAPABILITIES, CAPABILITIES[-1]))
@pytest.mark.parametrize("neuron", quick_first((NEURONS[2], NEURONS[9]), NEURONS[9]), ids=repr)
def test_the_adjoint_neither_fuses_nor_flushes(neuron, capability, compiler):
    binary = compiled(backward_kernel(neuron, torch.float32), torch.float32, capability)

    assert fused(binary, compiler) == (0, 0)
    assert ".ftz" not in binary.asm["ptx"]


def test_the_adjoint_in_double_precision_fuses_only_within_a_division(compiler):
    neuron, dtype = NEURONS[9], torch.float64

    in_text, _ = fused(compiled(backward_kernel(neuron, dtype), dtype, 90), compiler)

    assert in_text == 0  # the machine divides doubles by a routine of its own, which fuses


@pytest.mark.parametrize("kernel", (forward_kernel, backward_kernel))
def test_where_fusion_is_allowed_it_is_seen(kernel, compiler):
    binary = compiled(kernel(NEURONS[9], torch.float32), torch.float32, 90, fusion=True)

    in_text, in_code = fused(binary, compiler)

    assert in_text > 0 and (in_code > 0 or not machine_code(binary, compiler))


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("neuron", EVERY_NEURON, ids=repr)
def test_no_reset_of_any_neuron_fuses(neuron, capability, compiler):
    kernels = (forward_kernel(neuron, torch.float32), backward_kernel(neuron, torch.float32))

    assert [fused(compiled(k, torch.float32, capability), compiler) for k in kernels] == [(0, 0), (0, 0)]


@pytest.mark.slow
@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_no_surrogate_fuses(surrogate, compiler):
    kernel = backward_kernel(LIF(beta=0.9), torch.float32, shape=surrogate.shape)

    assert fused(compiled(kernel, torch.float32, 90), compiler) == (0, 0)


@pytest.mark.parametrize("kernel", (forward_kernel, backward_kernel))
@pytest.mark.parametrize("capability", quick_first(CAPABILITIES, CAPABILITIES[-1]))
def test_a_recurrent_kernel_fuses_in_its_product_only_and_waits_for_every_spike(kernel, capability, compiler):
    block = (gpu.RECURRENT_SAMPLES, 128)
    lanes = 32 * gpu.launch_options(block)["num_warps"]

    binary = compiled(
        kernel(NEURONS[9], torch.float32, block, recurrent_too=True), torch.float32, capability, block=block
    )

    of_the_product = gpu.TILE * gpu.RECURRENT_SAMPLES * 128 // lanes
    assert fused(binary, compiler) in ((of_the_product,) * 2, (of_the_product, 0))
    assert "barrier" in binary.asm["ttgir"]


@pytest.mark.slow
@pytest.mark.parametrize("kernel", (forward_kernel, backward_kernel))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_largest_recurrent_layer_fits_a_program(kernel, dtype, capability, compiler):
    block = (gpu.RECURRENT_SAMPLES, MAX_NEURONS)

    binary = compiled(kernel(NEURONS[9], dtype, block, recurrent_too=True), dtype, capability, block=block)

    assert binary.metadata.shared <= 163 * 1024  # bytes, of an A100; an H100 has more


@pytest.mark.parametrize("dtype", (torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)), ids=str)
@pytest.mark.parametrize("kernel", (forward_kernel, backward_kernel))
@pytest.mark.parametrize(
    "neuron",
    [n if n in (Everything(), Held()) else pytest.param(n, marks=pytest.mark.slow) for n in OWN],
    ids=repr,
)
def test_a_neuron_of_ones_own_neither_fuses_nor_flushes_and_divides_and_takes_roots_as_a_processor_does(
    neuron, kernel, dtype, compiler
):  # fmt: skip
    text = compiled(kernel(neuron, dtype), dtype, 90).asm["ptx"]

    assert not re.findall(r"\bfma\.|\.ftz|sqrt\.approx|ex2", text)
    if neuron == Everything():
        word = "f32" if dtype == torch.float32 else "f64"
        assert f"div.rn.{word}" in text and f"sqrt.rn.{word}" in text
    # what the surrogate divides may end differently: no spike follows from it
    assert ("div.full" in text) <= (kernel is backward_kernel)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("kernel", (forward_kernel, backward_kernel))
@pytest.mark.parametrize("neuron", [n for n in OWN if n.equation.spiking], ids=repr)
def test_a_recurrent_neuron_of_ones_own_compiles_and_waits_for_every_spike(neuron, kernel, dtype, compiler):
    block = (gpu.RECURRENT_SAMPLES, 128)

    binary = compiled(kernel(neuron, dtype, block, recurrent_too=True), dtype, 90, block=block)

    assert "barrier" in binary.asm["ttgir"]


def test_equal_sources_with_other_constants_have_other_names():
    kernels = [forward_kernel(LIF(beta=0.9, reset=reset), torch.float32) for reset in ("zero", "subtract")]

    assert kernels[0].__name__ != kernels[1].__name__  # Triton's cache may know no more than name and source
