"""Neurons compiled for the GPU by Triton: a lane keeps the state of its neurons in registers over all steps.

No fused multiply-add and no flush of subnormal numbers: spikes equal the torch reference and the CPU bit for bit. The
surrogates divide and exponentiate as the GPU does, so gradients may differ in their last bits. With a matrix, the
neurons are recurrent (`recurrent.py`). Triton is imported when first needed.
"""

# pyright: reportUndefinedVariable=false

import ast
import copy
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

from snn_bp.equations.exponential import exponential_double, exponential_single
from snn_bp.kernels.arguments import number
from snn_bp.kernels.bind import slope_texts
from snn_bp.kernels.expand import Form, expanded
from snn_bp.surrogates import SlopeOf

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
    x: Tensor, first: Sequence[Tensor], values: Sequence[Tensor], form: Form, spikes: Tensor, traces: Sequence[Tensor],
    *, matrix: Tensor | None = None, bias: Tensor | None = None,
) -> list[Tensor]:  # fmt: skip
    """Fills `spikes` and what the form keeps of every step; returns the last state."""
    recurrent = matrix is not None
    kernel = compiled_forward(form, x.dtype, _block(x, recurrent), UNIFORM=_uniform(values), RECURRENT=recurrent)
    last = [torch.empty_like(part, memory_format=torch.contiguous_format) for part in first]
    empty = x.new_empty(0)
    inputs = [x, empty if matrix is None else matrix, empty if bias is None else bias, *first, *values]
    _launch(kernel, inputs, [spikes, *traces, *last], x, recurrent)
    return last


def run_backward(
    traces: Sequence[Tensor], first: Sequence[Tensor], values: Sequence[Tensor], form: Form, slope_of: SlopeOf,
    slope: float, g_out: Sequence[Tensor | None], g_last: Sequence[Tensor | None], *, matrix: Tensor | None = None,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:  # fmt: skip
    """Gradients of x, of the first state, and of the parameters that the form wants, at each neuron."""
    like, part, recurrent = traces[0], first[0], matrix is not None
    kernel = compiled_backward(
        form, slope_of, like.dtype, _block(like, recurrent), UNIFORM=_uniform(values), RECURRENT=recurrent,
        GIVEN_SPIKES=g_out[0] is not None, GIVEN_POTENTIALS=g_out[1] is not None,
    )  # fmt: skip
    empty = like.new_empty(0)
    slope_now = number(float(slope), like)  # as a plain one it would reach the kernel in single precision
    optional = [empty if each is None else each for each in (matrix, *g_out)]
    zero = torch.zeros_like(part) if any(g is None for g in g_last) else empty
    g_last = [zero if g is None else g for g in g_last]
    gx = torch.empty_like(like, memory_format=torch.contiguous_format)
    g_first = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in first]
    sums = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in form.learned]
    inputs = [*traces, *first, *values, slope_now, *optional, *g_last]
    _launch(kernel, inputs, [gx, *g_first, *sums], like, recurrent, (len(like) - 1) * part.numel())
    return gx, g_first, sums


def forward(x, matrix, bias, state_F, value_P, spikes, trace_T, last_F, steps, batch, neurons):
    """A block of `x` `[steps, batch, neurons]` through all steps; `matrix` is `[from, to]`."""
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    column = (tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    known, step = column < neurons, batch * neurons
    inside, m = (row < batch) & known, row * neurons + column
    value_P = of(value_P, column, known)
    now_F = read(state_F, m, inside)
    if RECURRENT:
        before = state_s
        constant = real(0) + read(bias, column, known)
    for _ in tl.range(0, steps, num_stages=STAGES):
        current = read(x, m, inside)
        if RECURRENT:
            current += add_product(constant, before, matrix, row, column, batch, neurons)
        if SAVED_x:
            tl.store(trace_x + m, current, mask=inside)
            trace_x += step
        (now_F,) = advance(*now_F, current, *value_P)
        x += step
        if SPIKING:
            tl.store(spikes + m, now_s, mask=inside)
            if RECURRENT:
                before = spikes
            spikes += step
        if SAVED_F:
            tl.store(trace_F + m, now_F, mask=inside)
            trace_F += step
        if RECURRENT:
            tl.debug_barrier()  # every spike of this step is written before one is read
    tl.store(last_F + m, now_F, mask=inside)


def backward(
    trace_T, first_F, value_P, slope, matrix, g_spikes, g_potentials, g_last_F, gx, g_first_F, total_L,
    steps, batch, neurons, end,
):  # fmt: skip
    """The adjoint of `forward`, from the last step (which begins at `end`) to the first; `matrix` is `[to, from]`."""
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    column = (tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    known, step = column < neurons, batch * neurons
    inside, m = (row < batch) & known, row * neurons + column
    value_P = of(value_P, column, known)
    slope = tl.load(slope)
    begin_F = read(first_F, m, inside)
    error_F = read(g_last_F, m, inside)
    sum_L = real(0)
    trace_T += end
    g_spikes, g_potentials, gx = g_spikes + end, g_potentials + end, gx + end
    after_Q = read(trace_Q, m, inside) if SAVED_Q else begin_Q
    final = tl.full((ROWS, COLUMNS), steps - 1, tl.int32)
    for done in tl.range(0, steps, num_stages=STAGES):
        earlier = inside & (done < final)  # the step before is a recorded one, not the first state
        current = read(trace_x, m, inside) if SAVED_x else real(0)
        if SAVED_x:
            trace_x -= step
        before_F = begin_F
        if SAVED_F:
            trace_F -= step
            before_F = tl.load(trace_F + m, mask=earlier, other=begin_F)
        if REFIRES:
            before_s = tl.where(earlier, fired(*before_Q, *value_P), begin_s)
        if GIVEN_SPIKES:
            error_s += read(g_spikes, m, inside)
            g_spikes -= step
        if GIVEN_POTENTIALS:
            error_V += read(g_potentials, m, inside)
            g_potentials -= step
        (error_F, dx, d_P) = adjoint(*error_F, *before_F, current, *after_Q, *value_P, slope)
        tl.store(gx + m, dx, mask=inside)
        if RECURRENT:
            tl.debug_barrier()  # every gradient of this step is written before one is read
            error_s = add_product(error_s, gx, matrix, row, column, batch, neurons)
        gx -= step
        after_Q = before_Q
        sum_L += d_L
    tl.store(g_first_F + m, error_F, mask=inside)
    tl.store(total_L + m, sum_L, mask=inside)


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
    """A parameter's values for a whole block: a step may keep them as a state."""
    return tl.broadcast_to(tl.load(values) if UNIFORM else tl.load(values + m, mask=inside, other=1.0), (ROWS, COLUMNS))


def real(value):
    return tl.full((ROWS, COLUMNS), value, REAL)


def heaviside(u, scale):
    return (u > 0).to(REAL)


def detach(s):
    return s


def magnitude(u):
    return tl.abs(u)


def power_of_e(u):
    return tl.exp(u)


def root(u):
    return tl.sqrt_rn(u) if SINGLE else tl.sqrt(u)


def quotient(u, w):
    return tl.div_rn(u, w) if SINGLE else u / w


def negative(u):
    return u * real(-1.0)


def choose(condition, yes, no):
    return tl.where(condition, yes, no)


def either(condition, yes, no, like):
    return tl.where(condition, yes, no)


def opposite(condition):
    return condition == 0


def power_of_two(exponent):
    bits = ((exponent.to(tl.int32) + 127) << 23) if SINGLE else ((exponent.to(tl.int64) + 1023) << 52)
    return bits.to(REAL, bitcast=True)


@functools.cache
def compiled_forward(form: Form, dtype: torch.dtype, block: tuple[int, int] = PROGRAM, **flags: bool) -> Any:
    """`forward` for one form of neurons, one float type and one size of block, compiled at its first launch."""
    names = operations(form, dtype, block, **flags)
    return jit(expanded(forward, form, flags), names)


@functools.cache
def compiled_backward(
    form: Form, slope_of: SlopeOf, dtype: torch.dtype, block: tuple[int, int] = PROGRAM, **flags: bool
) -> Any:
    """`backward` for one form of neurons, one shape of surrogate, one float type and one size of block."""
    names = operations(form, dtype, block, **flags)
    slopes = {**names, "exp": names["power_of_e"]}
    for name, text in slope_texts(slope_of).items():
        slopes[name] = jit(ast.parse(text).body[0], slopes)
    names["slope_at"] = slopes["slope_at"]
    names["adjoint"] = jit(_written(form.equation.adjoint_text(form.learned)), names)
    return jit(expanded(backward, form, flags), names)


def operations(form: Form, dtype: torch.dtype, block: tuple[int, int], **flags: bool) -> dict[str, Any]:
    """What the free names of the equations and of the kernels mean to Triton."""
    tl = importlib.import_module("triton.language")
    single = dtype == torch.float32
    stages = 1 if flags["RECURRENT"] else STAGES  # where a step reads what the one before wrote, no load runs ahead
    sizes = {"ROWS": block[0], "COLUMNS": block[1], "TILE": TILE, "STAGES": stages, "SINGLE": single}
    names: dict[str, Any] = {name: tl.constexpr(value) for name, value in {**flags, **sizes}.items()}
    names |= {"tl": tl, "REAL": tl.float32 if single else tl.float64}
    for name, function in {
        "real": real, "heaviside": heaviside, "detach": detach, "where": choose, "either": either,
        "opposite": opposite, "power_of_e": power_of_e, "abs": magnitude, "absolute": magnitude, "sqrt": root,
        "quotient": quotient, "negative": negative, "power_of_two": power_of_two,
        "read": read, "of": of, "add_product": add_product,
        "exp": exponential_single if single else exponential_double,
    }.items():  # fmt: skip
        names[name] = jit(source_of(function), names)
    equation = form.equation
    names["advance"] = jit(_written(equation.step_text), names)
    if equation.refires:
        names["fired"] = jit(_written(equation.fired_text), names)
    return names


def source_of(function: Callable) -> ast.stmt:
    """The definition of a function of ours."""
    return ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]


def _written(text: str) -> ast.stmt:
    """The definition in a text of an equation, with the numbers that a processor has.

    A division of Triton's own is rounded less well in single precision, and a negative one may be taken from 0, which
    loses the sign of a zero.
    """
    return ast.fix_missing_locations(_AsProcessors().visit(ast.parse(text).body[0]))


class _AsProcessors(ast.NodeTransformer):
    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.USub) or isinstance(node.operand, ast.Constant):
            return node
        return ast.Call(ast.Name("negative", ast.Load()), [node.operand], [])

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Div):
            return node
        return ast.Call(ast.Name("quotient", ast.Load()), [node.left, node.right], [])


def _uniform(values: Sequence[Tensor]) -> bool:
    return all(value.dim() == 0 for value in values)


def jit(definition: ast.stmt, names: dict[str, Any]) -> Any:
    """A function with its free names bound, as Triton compiles it.

    Triton's cache on disk may not know the values of constants: the name of each specialisation hashes them.
    """
    tree: Any = copy.deepcopy(definition)
    fixed = sorted((name, getattr(value, "__name__", repr(value))) for name, value in names.items())
    name = f"{tree.name}_{hashlib.sha256(repr((ast.dump(tree), fixed)).encode()).hexdigest()[:16]}"
    tree.name = name
    source, file = ast.unparse(tree), f"<{__name__}.{name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # Triton reads it from there
    scope = {"__name__": __name__, **names}  # Triton asks which module a function is of
    exec(compile(source, file, "exec"), scope)
    return importlib.import_module("triton").jit(scope[name])


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
