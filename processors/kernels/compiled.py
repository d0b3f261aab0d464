"""How the loops of this folder are compiled; without numba they are not used at all.

`kernel` marks what Python calls, `part` what kernels call. Both are ordinary Python functions
under `NUMBA_DISABLE_JIT=1`. Kernels are compiled ahead, for any processor of the architecture, and
kept (`kernels.cache`); `kernels.build` fills that.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt

try:
    import numba
except ImportError:  # no wheel for this machine: Intel Macs, musl
    numba = None
else:
    # what was compiled on one machine runs on another; it costs nothing here
    numba.config.CPU_NAME = os.environ.get("NUMBA_CPU_NAME", "generic")
    numba.config.CPU_FEATURES = os.environ.get("NUMBA_CPU_FEATURES", "")

AVAILABLE = numba is not None
"""Whether kernels can be used; if not, the general path alone serves."""

Function = TypeVar("Function", bound=Callable[..., Any])


class ArrayType(NamedTuple):
    """What a kernel takes for an array."""

    dtype: np.dtype[Any]
    dimensions: int
    read_only: bool


class NamedType(NamedTuple):
    """What a kernel takes for a NamedTuple of arrays."""

    kind: type[tuple[Any, ...]]
    arrays: tuple[ArrayType, ...]


class Kernel(NamedTuple):
    """A kernel, and what it takes; None if that is found out at its first call."""

    function: Any
    takes: tuple[Any, ...] | None


# without numba's runtime no array can be made in a kernel, and none is counted: a part that takes
# twenty of them would count each up and down, by atomic instructions: 2.2 us a trade, of 2.3
OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False}

KERNELS: list[Kernel] = []
"""Every kernel, for what compiles them, and for the tests that walk their types."""


PARTS: list[Any] = []
"""Every part."""


def array(dtype: npt.DTypeLike, dimensions: int = 1) -> ArrayType:
    """Say that a kernel takes an array that it may write to, its elements side by side."""
    return ArrayType(np.dtype(dtype), dimensions, read_only=False)


def reads(dtype: npt.DTypeLike, dimensions: int = 1) -> ArrayType:
    """Say that a kernel takes an array that it only reads."""
    return ArrayType(np.dtype(dtype), dimensions, read_only=True)


def named(kind: type[tuple[Any, ...]], *arrays: ArrayType) -> NamedType:
    """Say that a kernel takes a NamedTuple of such arrays."""
    return NamedType(kind, arrays)


INT = np.dtype(np.int64)
"""Says that a kernel takes an int."""


@overload
def kernel(function: Function, /) -> Function: ...


@overload
def kernel(*takes: ArrayType | NamedType | np.dtype[Any]) -> Callable[[Function], Function]: ...


def kernel(*takes: Any) -> Any:
    """Compile a function that Python calls, for what it takes; it runs without the interpreter's
    lock. Without types, as `@kernel`, it is compiled at its first call."""
    if len(takes) == 1 and callable(takes[0]):
        return _kernel(takes[0], None)
    return lambda function: _kernel(function, takes)


def _kernel(function: Function, takes: tuple[Any, ...] | None) -> Function:
    if numba is None:
        return function
    compiled: Function = numba.njit(**OPTIONS, cache=_is_kept(function.__module__))(function)
    KERNELS.append(Kernel(compiled, takes))
    return compiled


def part(function: Function) -> Function:
    """Compile a function that kernels call."""
    if numba is None:
        return function
    compiled: Function = numba.njit(**OPTIONS)(function)
    PARTS.append(compiled)
    return compiled


def wrapping(function: Function) -> Function:
    """Mark a part whose unsigned words wrap around on purpose; below `part`.

    numpy's own scalars, which are what runs under NUMBA_DISABLE_JIT=1, warn of it everywhere else.
    """
    if numba is not None and not numba.config.DISABLE_JIT:
        return function
    return np.errstate(over="ignore")(function)


def types_of(takes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return numba's names of what a kernel takes."""
    return tuple(map(_type_of, takes))


def _type_of(taken: Any) -> Any:
    if isinstance(taken, ArrayType):
        return numba.types.Array(
            numba.from_dtype(taken.dtype), taken.dimensions, "C", readonly=taken.read_only
        )
    if isinstance(taken, NamedType):
        return numba.types.BaseTuple.from_types(
            [_type_of(each) for each in taken.arrays], taken.kind
        )
    return numba.from_dtype(taken)


def _is_kept(module: str) -> bool:
    if numba.config.DISABLE_JIT or not module.startswith("processors.kernels."):
        return False
    from processors.kernels import cache  # it needs numba

    numba.config.CACHE_LOCATOR_CLASSES = f"{cache.__name__}.{cache.FolderLocator.__name__}"
    return cache.FOLDER is not None
