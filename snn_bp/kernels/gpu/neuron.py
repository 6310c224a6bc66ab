"""The equations compiled for the GPU by Triton: a lane keeps the state of its neurons in registers over all steps.

No fused multiply-add and no flush of subnormal numbers: spikes equal the torch reference and the CPU bit for bit. The
surrogates divide and exponentiate as the GPU does, so gradients may differ in their last bits. With a matrix, the
neurons are recurrent (`recurrent.py`). Triton is imported when first needed.
"""

# pyright: reportUndefinedVariable=false

import ast
import functools
import hashlib
import importlib
import importlib.util
import inspect
import linecache
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from snn_bp import equations
from snn_bp.kernels.arguments import number
from snn_bp.kernels.bind import Constants, bind, slope_functions
from snn_bp.surrogates import Unit

INSTALLED = importlib.util.find_spec("triton") is not None
PROGRAM = (1, 128)  # samples and neurons of one program; without recurrence a sample's neurons are those of all samples
STAGES = 4  # steps whose inputs are on their way at once
RECURRENT_SAMPLES = 4  # samples of one program with recurrence
TILE = 16  # presynaptic neurons at once: the smallest depth of Triton's product


def serves(tensor: Tensor) -> bool:
    """Whether these kernels run on tensors like this one."""
    return tensor.is_cuda and INSTALLED


@functools.cache
def release() -> tuple[int, ...]:
    """Major and minor number of the Triton that is installed."""
    return tuple(int(part) for part in importlib.import_module("triton").__version__.split(".")[:2])


def run_forward(
    x: Tensor, first: Sequence[Tensor], coefficients: Sequence[Tensor], constants: Constants,
    spikes: Tensor, traces: Sequence[Tensor], *, record: bool, saves_current: bool,
    matrix: Tensor | None = None, bias: Tensor | None = None,
) -> list[Tensor]:  # fmt: skip
    """Fills `spikes` and the traces v, a, i (those not asked for are empty); returns the last i, a, v, s."""
    recurrent = matrix is not None
    kernel = compiled_forward(
        constants, x.dtype, _block(x, recurrent), UNIFORM=coefficients[0].dim() == 0, RECURRENT=recurrent,
        RECORD=record, SAVES_CURRENT=saves_current,
    )  # fmt: skip
    last = [torch.empty_like(values, memory_format=torch.contiguous_format) for values in first]
    empty = x.new_empty(0)
    inputs = [x, empty if matrix is None else matrix, empty if bias is None else bias, *first, *coefficients]
    _launch(kernel, inputs, [spikes, *traces, *last], x, recurrent)
    return last


def run_backward(
    traces: Sequence[Tensor], first: Sequence[Tensor], coefficients: Sequence[Tensor], constants: Constants,
    surrogate: tuple[str, Unit], slope: float, g_out: Sequence[Tensor | None], g_last: Sequence[Tensor | None],
    *, saves_current: bool, learns: bool, matrix: Tensor | None = None,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:  # fmt: skip
    """Gradients of x, of the first state, and of the coefficients at each neuron (empty unless `learns`)."""
    potentials, v, recurrent = traces[0], first[2], matrix is not None
    kernel = compiled_backward(
        constants, *surrogate, potentials.dtype, _block(potentials, recurrent),
        UNIFORM=coefficients[0].dim() == 0, RECURRENT=recurrent,
        GIVEN_SPIKES=g_out[0] is not None, GIVEN_POTENTIALS=g_out[1] is not None,
        SAVES_CURRENT=saves_current, LEARNS=learns,
    )  # fmt: skip
    empty = potentials.new_empty(0)
    slope_now = number(float(slope), potentials)  # as a plain one it would reach the kernel in single precision
    optional = [empty if each is None else each for each in (matrix, *g_out)]
    zero = torch.zeros_like(v) if any(g is None for g in g_last) else empty
    g_last = [zero if g is None else g for g in g_last]
    gx = torch.empty_like(potentials)
    g_first = [torch.empty_like(v, memory_format=torch.contiguous_format) for _ in first]
    sums = [torch.empty_like(v, memory_format=torch.contiguous_format) if learns else empty for _ in coefficients]
    inputs = [*traces, *first, *coefficients, slope_now, *optional, *g_last]
    _launch(kernel, inputs, [gx, *g_first, *sums], potentials, recurrent, (len(potentials) - 1) * v.numel())
    return gx, g_first, sums


def forward(
    x, matrix, bias, i, a, v, s, alpha, beta, rho, kappa, theta, spikes, potentials, adaptations, currents,
    i_last, a_last, v_last, s_last, steps, batch, neurons,
):  # fmt: skip
    """A block of `x` `[steps, batch, neurons]` through all steps; `matrix` is `[from, to]`."""
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    column = (tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    known, step = column < neurons, batch * neurons
    inside, m = (row < batch) & known, row * neurons + column
    alpha, beta, rho = of(alpha, column, known), of(beta, column, known), of(rho, column, known)
    kappa, theta = of(kappa, column, known), of(theta, column, known)
    i1, a1, v1, s1 = read(i, m, inside), read(a, m, inside), read(v, m, inside), read(s, m, inside)
    before = s
    if RECURRENT:
        constant = real(0) + read(bias, column, known)
    for _ in tl.range(0, steps, num_stages=STAGES):
        current = read(x, m, inside)
        if RECURRENT:
            current += add_product(constant, before, matrix, row, column, batch, neurons)
        i1, a1, v1, s1 = advance(i1, a1, v1, s1, current, alpha, beta, rho, kappa, theta)
        x += step
        if SPIKING:
            tl.store(spikes + m, s1, mask=inside)
            before = spikes
            spikes += step
        if RECORD:
            tl.store(potentials + m, v1, mask=inside)
            potentials += step
            if ADAPTS:
                tl.store(adaptations + m, a1, mask=inside)
                adaptations += step
            if SAVES_CURRENT:
                tl.store(currents + m, i1, mask=inside)
                currents += step
        if RECURRENT:
            tl.debug_barrier()  # every spike of this step is written before one is read
    tl.store(i_last + m, i1, mask=inside)
    tl.store(a_last + m, a1, mask=inside)
    tl.store(v_last + m, v1, mask=inside)
    tl.store(s_last + m, s1, mask=inside)


def backward(
    potentials, adaptations, currents, i, a, v, s, alpha, beta, rho, kappa, theta, slope,
    matrix, g_spikes, g_potentials, gi_last, ga_last, gv_last, gs_last,
    gx, gi_first, ga_first, gv_first, gs_first, g_alpha, g_beta, g_rho, g_kappa, g_theta, steps, batch, neurons, end,
):  # fmt: skip
    """The adjoint of `forward`, from the last step (which begins at `end`) to the first; `matrix` is `[to, from]`."""
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    column = (tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    known, step = column < neurons, batch * neurons
    inside, m = (row < batch) & known, row * neurons + column
    alpha, beta, rho = of(alpha, column, known), of(beta, column, known), of(rho, column, known)
    kappa, theta, slope = of(kappa, column, known), of(theta, column, known), tl.load(slope)
    i_first, a_first, v_first, s_first = read(i, m, inside), read(a, m, inside), read(v, m, inside), read(s, m, inside)
    gi, ga = read(gi_last, m, inside), read(ga_last, m, inside)
    gv, gs = read(gv_last, m, inside), read(gs_last, m, inside)
    sum_alpha, sum_beta, sum_rho, sum_kappa, sum_theta = real(0), real(0), real(0), real(0), real(0)
    potentials, adaptations, currents = potentials + end, adaptations + end, currents + end
    g_spikes, g_potentials, gx = g_spikes + end, g_potentials + end, gx + end
    i1, a1, v1 = i_first, a_first, read(potentials, m, inside)
    if ADAPTS:
        a1 = read(adaptations, m, inside)
    if SAVES_CURRENT:
        i1 = read(currents, m, inside)
    final = tl.full((ROWS, COLUMNS), steps - 1, tl.int32)
    for done in tl.range(0, steps, num_stages=STAGES):
        earlier = inside & (done < final)  # the step before is a recorded one, not the first state
        i0, a0, s0 = i_first, a_first, s_first
        potentials -= step
        v0 = tl.load(potentials + m, mask=earlier, other=v_first)
        if ADAPTS:
            adaptations -= step
            a0 = tl.load(adaptations + m, mask=earlier, other=a_first)
        if SAVES_CURRENT:
            currents -= step
            i0 = tl.load(currents + m, mask=earlier, other=i_first)
        if SPIKING:
            s0 = tl.where(earlier, fired(a0, v0, kappa, theta), s_first)
        if GIVEN_SPIKES:
            gs += read(g_spikes, m, inside)
            g_spikes -= step
        if GIVEN_POTENTIALS:
            gv += read(g_potentials, m, inside)
            g_potentials -= step
        di, da, gv, gs, dx, d_alpha, d_beta, d_rho, d_kappa, d_theta = advance_vjp(
            gi, ga, gv, gs, i0, a0, v0, s0, i1, a1, v1, alpha, beta, rho, kappa, theta, slope
        )
        tl.store(gx + m, dx, mask=inside)
        if RECURRENT:
            tl.debug_barrier()  # every gradient of this step is written before one is read
            gs = add_product(gs, gx, matrix, row, column, batch, neurons)
        gx -= step
        i1, a1, v1 = i0, a0, v0
        if CURRENT:
            gi = di
        if ADAPTS:
            ga = da
        if LEARNS:
            sum_alpha += d_alpha
            sum_beta += d_beta
            sum_rho += d_rho
            sum_kappa += d_kappa
            sum_theta += d_theta
    tl.store(gi_first + m, gi, mask=inside)
    tl.store(ga_first + m, ga, mask=inside)
    tl.store(gv_first + m, gv, mask=inside)
    tl.store(gs_first + m, gs, mask=inside)
    if LEARNS:
        tl.store(g_alpha + m, sum_alpha, mask=inside)
        tl.store(g_beta + m, sum_beta, mask=inside)
        tl.store(g_rho + m, sum_rho, mask=inside)
        tl.store(g_kappa + m, sum_kappa, mask=inside)
        tl.store(g_theta + m, sum_theta, mask=inside)


def add_product(total, values, matrix, row, column, batch, neurons):
    """`total` plus the rows of `values` `[batch, neurons]` times `matrix` `[neurons, neurons]`."""
    for low in range(0, neurons, TILE):
        deep, high = (low + tl.arange(0, TILE))[None, :], (low + tl.arange(0, TILE))[:, None]
        left = read(values, row * neurons + deep, (row < batch) & (deep < neurons))
        right = read(matrix, high * neurons + column, (high < neurons) & (column < neurons))
        total = tl.dot(left, right, total, input_precision="ieee", out_dtype=REAL)
    return total


def read(values, m, inside):
    return tl.load(values + m, mask=inside, other=0.0)


def of(values, m, inside):
    return tl.load(values) if UNIFORM else tl.load(values + m, mask=inside, other=1.0)


def real(value):
    return tl.full((ROWS, COLUMNS), value, REAL)


def heaviside(u, theta):
    return (u > 0).to(REAL)


def detach(s):
    return s


def magnitude(u):
    return tl.abs(u)


def power_of_e(u):
    return tl.exp(u)


def choose(condition, yes, no):
    return tl.where(condition, yes, no)


@functools.cache
def compiled_forward(constants: Constants, dtype: torch.dtype, block: tuple[int, int] = PROGRAM, **flags: bool) -> Any:
    """`forward` for one kind of neuron, one float type and one size of block, compiled at its first launch."""
    names = operations(constants, dtype, block, **flags)
    return jit(forward, names)


@functools.cache
def compiled_backward(
    constants: Constants, shape: str, per: Unit, dtype: torch.dtype, block: tuple[int, int] = PROGRAM, **flags: bool
) -> Any:
    """`backward` for one kind of neuron, one shape of surrogate, one float type and one size of block."""
    names = operations(constants, dtype, block, **flags)
    shape_at, unit = slope_functions(shape, per)
    for name, function in (("shape", shape_at), ("slope_at", unit), ("advance_vjp", equations.advance_vjp)):
        names[name] = jit(function, names)
    return jit(backward, names)


def operations(constants: Constants, dtype: torch.dtype, block: tuple[int, int], **flags: bool) -> dict[str, Any]:
    """What the free names of the equations and of the kernels mean to Triton."""
    tl = importlib.import_module("triton.language")
    resets = {name: getattr(equations, name) for name in ("SUBTRACT", "ZERO", "ZERO_ALL", "NONE")}
    stages = 1 if flags["RECURRENT"] else STAGES  # where a step reads what the one before wrote, no load runs ahead
    sizes = {"ROWS": block[0], "COLUMNS": block[1], "TILE": TILE, "STAGES": stages}
    names = {name: tl.constexpr(value) for name, value in {**constants.names(), **resets, **flags, **sizes}.items()}
    names |= {"tl": tl, "REAL": tl.float32 if dtype == torch.float32 else tl.float64}
    for name, function in {
        "real": real, "heaviside": heaviside, "detach": detach, "where": choose, "exp": power_of_e, "abs": magnitude,
        "read": read, "of": of, "add_product": add_product,
        "distance": equations.distance, "fired": equations.fired, "advance": equations.advance,
    }.items():  # fmt: skip
        names[name] = jit(function, names)
    return names


def jit(function: Callable, names: dict[str, Any]) -> Any:
    """A function with its free names bound, as Triton compiles it.

    Triton's cache on disk may not know the values of constants: the name of each specialisation hashes them.
    """
    tree = _Plain().visit(ast.parse(textwrap.dedent(inspect.getsource(function))))
    fixed = sorted((name, getattr(value, "__name__", repr(value))) for name, value in names.items())
    name = f"{function.__name__}_{hashlib.sha256(repr((ast.dump(tree), fixed)).encode()).hexdigest()[:16]}"
    tree.body[0].name = name
    source, file = ast.unparse(tree), f"<{__name__}.{name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # Triton reads it from there
    namespace = dict(function.__globals__)
    exec(compile(source, file, "exec"), namespace)
    return importlib.import_module("triton").jit(bind(namespace[name], **names))


class _Plain(ast.NodeTransformer):
    """What Triton does not read of Python, in words that it does: `a = b = c`, and `a in (b, c)`."""

    def visit_Assign(self, node: ast.Assign) -> list[ast.stmt]:
        self.generic_visit(node)
        return [ast.copy_location(ast.Assign([target], node.value), node) for target in node.targets]

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        choices = node.comparators[0]
        if not (isinstance(node.ops[0], ast.In) and isinstance(choices, ast.Tuple)):
            return node
        equal: list[ast.expr] = [ast.Compare(node.left, [ast.Eq()], [choice]) for choice in choices.elts]
        return ast.copy_location(ast.BoolOp(ast.Or(), equal), node)


def launch_options(block: tuple[int, int]) -> dict[str, Any]:
    """What a kernel for blocks of this size is launched with."""
    return {"num_warps": max(4, block[1] // 32), "num_stages": 1, "enable_fp_fusion": False}


def _block(x: Tensor, recurrent: bool) -> tuple[int, int]:
    if not recurrent:
        return PROGRAM
    return RECURRENT_SAMPLES, max(TILE, 1 << (x.shape[2] - 1).bit_length())


def _launch(
    kernel: Any, inputs: list[Tensor], outputs: list[Tensor], x: Tensor, recurrent: bool, *ends: int
) -> None:  # fmt: skip
    steps, batch, neurons = x.shape if recurrent else (len(x), 1, x[0].numel())
    rows, columns = block = _block(x, recurrent)
    if batch * neurons == 0:
        return
    grid = (-(-neurons // columns), -(-batch // rows))
    with torch.cuda.device_of(x):
        contiguous = [part.contiguous() for part in inputs]
        kernel[grid](*contiguous, *outputs, steps, batch, neurons, *ends, **launch_options(block))
