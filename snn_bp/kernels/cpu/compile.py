"""What compiles the kernels of the CPU: numba's decorators, the equations in its terms, and a name on disk for each.

No fast-math and no fused multiply-add: spikes equal the torch reference bit for bit. numba's cache on disk knows
neither the globals of a kernel nor the functions it calls, so the name of each specialisation hashes both.
"""

import ast
import functools
import hashlib
import inspect
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher
from torch import Tensor

from snn_bp.equations.exponential import exponential_double, exponential_single
from snn_bp.kernels.bind import bind, defined, slope_texts
from snn_bp.kernels.cpu import llvm
from snn_bp.kernels.cpu.disk import cached
from snn_bp.kernels.expand import Form, expanded, module_text
from snn_bp.surrogates import SlopeOf

# Kernels, and what they alone call: wrappers that nobody needs would take a seventh of all compiling. `inner` functions
# crash when called from Python; numba does not compile a cached `kernel` again when only these options change.
kernel: Any = functools.partial(cached, nogil=True, error_model="numpy", no_cfunc_wrapper=True)
inner: Any = functools.partial(cast(Any, njit), error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
# In an adjoint a division by a constant may become a product with its inverse: gradients are not bit-equal anyway.
ADJOINT = {"arcp"}
SHARED = (  # modules that any kernel may be made of
    *(f"snn_bp.equations.{name}" for name in ("arithmetic", "derive", "exponential", "nodes", "shapes")),
    "snn_bp.kernels.bind", "snn_bp.kernels.expand",
    *(f"snn_bp.kernels.cpu.{name}" for name in ("aligned", "compile", "llvm", "vectors")),
)  # fmt: skip


@functools.cache
def specialised(
    loop: Callable, form: Form, dtype: np.dtype, *, uniform: bool, adjoint: SlopeOf | None = None,
    window: SlopeOf | None = None,
    helpers: tuple[Callable, ...] = (), numbers: tuple[tuple[str, Any], ...] = (), **flags: bool,
) -> Callable:  # fmt: skip
    """A loop over the steps of neurons, for one form of them and one float type, compiled at its first call.

    `adjoint` is the surrogate's where the loop runs backward, `window` where it asks for the slope forward; `helpers`
    are functions that it calls and that use its free names; `flags` are upper-case names of its own that decide
    something, `numbers` such that do not.
    """
    equation, names = form.equation, {**_operations(dtype, uniform), **dict(numbers)}
    texts = {"advance": equation.step_text, **({"fired": equation.fired_text} if equation.refires else {})}
    for name, text in texts.items():
        names[name] = inner(defined(text, name, names))
    if (surrogate := adjoint or window) is not None:
        slopes = {**names, "exp": math.exp}
        for name, text in slope_texts(surrogate).items():
            slopes[name] = inner(defined(text, name, slopes), fastmath=ADJOINT)
        name, text = (
            ("adjoint", equation.adjoint_text(form.learned, boxed=form.boxed))
            if adjoint
            else ("slope_here", equation.slope_text)
        )
        names[name] = inner(defined(text, name, {**names, "slope_at": slopes["slope_at"]}), fastmath=ADJOINT)
    for helper in helpers:
        names[helper.__name__] = inner(spread_out(helper, form, flags, names))
    word = (form.word, surrogate and slope_texts(surrogate), dtype.str, uniform, numbers, flags)
    return compiled(spread_out(loop, form, flags, names), word, adjoint=adjoint is not None)


def spread_out(
    function: Callable, form: Form, flags: Mapping[str, bool], names: Mapping[str, Any]
) -> types.FunctionType:
    """A function of a module of kernels, spread out for a form, in which names have the given meaning."""
    module = ast.Module([expanded(function, form, flags)], [])
    scope = {**function.__globals__, **names}
    exec(compile(module, inspect.getfile(function), "exec"), scope)  # our own source
    return scope[function.__name__]


@functools.cache
def compiled_plain(function: Callable) -> Callable:
    """A function of arrays without free names, compiled at its first call for each type of its arguments."""
    return compiled(bind(function), ("plain",))


def compiled(function: types.FunctionType, specialisation: tuple, *, adjoint: bool = False) -> Callable:
    """A kernel with its free names bound, cached on disk under a name that knows all it is made of."""
    called = (value for value in function.__globals__.values() if isinstance(value, Dispatcher))
    modules = (*SHARED, function.__module__, *sorted({each.py_func.__module__ for each in called}))
    sources = [module_text(name) for name in dict.fromkeys(modules)]
    digest = hashlib.sha256(repr((specialisation, sources)).encode()).hexdigest()
    function.__qualname__ = f"{function.__name__}_{digest[:16]}"
    return kernel(function, fastmath=ADJOINT if adjoint else False)


@functools.cache  # all kernels of a process call the same functions, compiled once
def _operations(dtype: np.dtype, uniform: bool) -> dict[str, Any]:
    """What the free names of the equations mean to numba."""
    real = dtype.type
    one, zero = real(1), real(0)
    names = {
        "heaviside": inner(lambda u, scale: one if u > zero else zero),
        "where": inner(lambda condition, yes, no: yes if condition else no),
        "either": inner(lambda condition, yes, no, like: yes if condition else no),
        "opposite": inner(lambda condition: not condition),
        "detach": inner(lambda s: s),
        "absolute": inner(lambda u: abs(u)),
        "abs": abs,
        "sqrt": math.sqrt,
        "real": real,
        "power_of_two": llvm.power_of_two,
        "of": inner((lambda value, m: value) if uniform else (lambda values, m: values[m])),
    }
    names["exp"] = inner(bind(exponential_single if real is np.float32 else exponential_double, **names))
    return names


def array(tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor, contiguous, for a kernel."""
    return tensor.detach().contiguous().numpy()


def flat_or_scalar(tensor: Tensor) -> Any:
    """A scalar tensor as a number of its type, another as a flat array: coefficients, as kernels take them."""
    return array(tensor)[()] if tensor.dim() == 0 else array(tensor).reshape(-1)
