"""No kernel computes with a float, and none mixes an unsigned number of 64 bits with a signed one,
which numba makes a float or a signed number of without a word."""

import importlib
import pkgutil

import numpy as np
import pytest

from processors import kernels
from processors.kernels import compiled

numba = pytest.importorskip("numba", reason="numba has no wheel here")
from numba.core import ir, types  # noqa: E402

for _module in pkgutil.walk_packages(kernels.__path__, f"{kernels.__name__}."):
    importlib.import_module(_module.name)
KERNELS = [
    kernel
    for kernel in compiled.KERNELS
    if kernel.function.__module__.startswith("processors.kernels.")
]
PARTS = list(compiled.PARTS)
pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT: there is nothing typed"
)


def typed(kernel):
    """Compile a kernel anew, since what comes out of the cache has no types, and yield the typed
    code of all that it calls."""
    fresh = numba.njit(**compiled.OPTIONS)(kernel.function.py_func)
    fresh.compile(compiled.types_of(kernel.takes))
    for dispatcher in (fresh, *PARTS):
        for overload in dispatcher.overloads.values():
            if overload.type_annotation is not None:
                yield dispatcher.py_func.__name__, overload.type_annotation


def flat(kind):
    if isinstance(kind, types.Optional):
        kind = kind.type
    if isinstance(kind, types.BaseTuple):
        for each in kind.types if hasattr(kind, "types") else [kind.dtype]:
            yield from flat(each)
    elif isinstance(kind, types.Array):
        yield from flat(kind.dtype)
    else:
        yield kind


def violations(name, annotation):
    for variable, kind in annotation.typemap.items():
        if any(isinstance(each, types.Float | types.Complex) for each in flat(kind)):
            yield f"{name}: {variable} is {kind}"
    for expression, signature in annotation.calltypes.items():
        if not (isinstance(expression, ir.Expr) and expression.op in ("binop", "inplace_binop")):
            continue
        integers = [
            types.unliteral(each)
            for each in signature.args
            if isinstance(types.unliteral(each), types.Integer)
        ]
        wide = any(not each.signed and each.bitwidth == 64 for each in integers)
        if wide and any(each.signed for each in integers):
            yield f"{name}: {expression.loc}: {expression.fn} of {signature.args}"


def test_every_kernel_says_what_it_takes():
    """So it is compiled ahead, once."""
    assert [kernel.function.__name__ for kernel in KERNELS if kernel.takes is None] == []


@pytest.mark.parametrize(
    "kernel",
    [kernel for kernel in KERNELS if kernel.takes is not None],
    ids=lambda kernel: kernel.function.__name__,
)
def test_no_float_and_no_mixed_signedness_in_any_kernel(kernel):
    found = {wrong for name, each in typed(kernel) for wrong in violations(name, each)}
    assert sorted(found) == []


def planted(expression):

    scope = {"np": np}
    exec(f"def planted(number, word):\n    return {expression}\n", scope)
    fresh = numba.njit(scope["planted"])
    fresh.compile((types.int64, types.uint64))
    [overload] = fresh.overloads.values()
    return list(violations("planted", overload.type_annotation))


@pytest.mark.parametrize(
    "expression", ["number / 2", "word * 2", "word + number", "max(word, number) * 1.0"]
)
def test_what_makes_a_float_or_mixes_signs_is_found(expression):
    assert planted(expression)


@pytest.mark.parametrize("expression", ["number // 2", "word * np.uint64(2)", "word >> word"])
def test_what_does_not_is_not(expression):
    assert not planted(expression)
