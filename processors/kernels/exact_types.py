"""No kernel computes with a float, and none mixes an unsigned number of 64 bits with a signed one,
which numba makes a float or a signed number of without a word: the build looks for both."""

from collections.abc import Iterable, Iterator
from typing import Any

import numba
from numba.core import ir

types: Any = numba.types


class NotExact(TypeError):
    """A kernel would compute with other numbers than it says."""


def check(dispatchers: Iterable[Any]) -> None:
    """Look at what was compiled in this process; what comes out of the cache has no types.

    Raises NotExact.
    """
    found = sorted(
        {
            wrong
            for dispatcher in dispatchers
            for overload in dispatcher.overloads.values()
            if overload.type_annotation is not None
            for wrong in violations(dispatcher.py_func.__name__, overload.type_annotation)
        }
    )
    if found:
        raise NotExact("; ".join(found))


def _flat(kind: Any) -> Iterator[Any]:
    """Yield the scalar types in a type."""
    if isinstance(kind, types.Optional):
        kind = kind.type
    if isinstance(kind, types.BaseTuple):
        for each in kind.types if hasattr(kind, "types") else [kind.dtype]:
            yield from _flat(each)
    elif isinstance(kind, types.Array):
        yield from _flat(kind.dtype)
    else:
        yield kind


def violations(name: str, annotation: Any) -> Iterator[str]:
    """Yield each float, and each mix of an unsigned number of 64 bits with a signed one."""
    for variable, kind in annotation.typemap.items():
        if any(isinstance(each, types.Float | types.Complex) for each in _flat(kind)):
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
