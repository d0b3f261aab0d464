"""No kernel computes with a float, and none mixes an unsigned number of 64 bits with a signed one,
which numba makes a float or a signed number of without a word: the build, which has to come first,
refuses both."""

import numpy as np
import pytest

from processors.kernels import build, compiled

numba = pytest.importorskip("numba", reason="numba has no wheel here")
from numba.core import types  # noqa: E402

from processors.kernels.exact_types import NotExact, check  # noqa: E402

pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT: there is nothing typed"
)


def test_every_kernel_says_what_it_takes():
    """So it is compiled ahead, and looked at."""
    build.load_all()
    kernels = [
        kernel for kernel in compiled.KERNELS if "processors.kernels." in kernel.function.__module__
    ]
    assert len(kernels) > 10
    assert [kernel.function.__name__ for kernel in kernels if kernel.takes is None] == []


def compile_planted(expression):
    scope = {"np": np}
    exec(f"def planted(number, word):\n    return {expression}\n", scope)
    fresh = numba.njit(scope["planted"])
    fresh.compile((types.int64, types.uint64))
    return fresh


@pytest.mark.parametrize(
    "expression", ["number / 2", "word * 2", "word + number", "max(word, number) * 1.0"]
)
def test_what_makes_a_float_or_mixes_signs_is_found(expression):
    with pytest.raises(NotExact, match="planted: "):
        check([compile_planted(expression)])


@pytest.mark.parametrize("expression", ["number // 2", "word * np.uint64(2)", "word >> word"])
def test_what_does_not_is_not(expression):
    check([compile_planted(expression)])
