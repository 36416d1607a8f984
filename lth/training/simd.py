"""A row of LANES floats as one value in code compiled by numba, which then keeps it in registers.

Loops over rows of an array make LLVM check, for every row, whether two arrays overlap, and store
each partial sum. With rows as values the sparse kernels take half of the time. LLVM splits a row
into the registers that the machine has.

The order of operations is fixed. Where LLVM may reorder sums, code that was just compiled and code
from numba's cache differ in the last bits of a result, and a resumed training ends with others.
"""

import platform
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import intrinsic, register_model

LANES = 64
FLOAT = ir.FloatType()
ROW = ir.VectorType(FLOAT, LANES)
INDICES = ir.VectorType(ir.IntType(32), LANES)
HAS_FMA = platform.machine() in ("aarch64", "arm64") or binding.get_host_cpu_features().get("fma")
"""Whether this machine multiplies and adds in one instruction. Others would call a function."""


class RowType(types.Type):
    """numba's type of a row."""


row = RowType("Row")


@register_model(RowType)
class RowModel(PrimitiveModel):
    """Tells numba that a row is a vector of LLVM."""

    def __init__(self, manager: Any, of: RowType) -> None:  # noqa: ANN401 - numba's
        super().__init__(manager, of, ROW)


def in_compiled_code(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """Make a function that types a call and generates its code callable in compiled code."""
    return intrinsic(function)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:  # noqa: ANN401
    """Return the address of row `index` of a contiguous float32 array, whatever its shape."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(builder.bitcast(data, ROW.as_pointer()), [index])


@in_compiled_code
def load(_: Any, array: Any, __: Any) -> Any:  # noqa: ANN401
    """`load(array, index)`: return a row of an array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        address = _address(context, builder, signature.args[0], *arguments)
        return builder.load(address, align=4)

    return row(array, types.intp), generate


@in_compiled_code
def store(_: Any, array: Any, __: Any, ___: Any) -> Any:  # noqa: ANN401
    """`store(array, index, values)`: replace a row of an array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        address = _address(context, builder, signature.args[0], *arguments[:2])
        builder.store(arguments[2], address, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, row), generate


@in_compiled_code
def splat(_: Any, __: Any) -> Any:  # noqa: ANN401
    """`splat(number)`: return a row with one value in every lane."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:  # noqa: ANN401
        nothing = ir.Constant(ROW, ir.Undefined)
        first = builder.insert_element(nothing, arguments[0], ir.IntType(32)(0))
        return builder.shuffle_vector(first, nothing, ir.Constant(INDICES, [0] * LANES))

    return row(types.float32), generate


@in_compiled_code
def add_product(_: Any, __: Any, ___: Any, ____: Any) -> Any:  # noqa: ANN401
    """`add_product(a, b, c)`: return a + b * c, lane by lane."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:  # noqa: ANN401
        a, b, c = arguments
        if not HAS_FMA:
            return builder.fadd(a, builder.fmul(b, c))
        signature = ir.FunctionType(ROW, [ROW] * 3)
        fused = get_or_insert_function(builder.module, signature, f"llvm.fma.v{LANES}f32")
        return builder.call(fused, [b, c, a])

    return row(row, row, row), generate


@in_compiled_code
def total(_: Any, __: Any) -> Any:  # noqa: ANN401
    """`total(values)`: return the sum over the lanes, by halves."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:  # noqa: ANN401
        (values,), half = arguments, LANES // 2
        while half:
            low, high = (_part(builder, values, first, half) for first in (0, half))
            values, half = builder.fadd(low, high), half // 2
        return builder.extract_element(values, ir.IntType(32)(0))

    return types.float32(row), generate


def _part(builder: Any, values: Any, first: int, count: int) -> Any:  # noqa: ANN401
    chosen = ir.Constant(ir.VectorType(ir.IntType(32), count), [*range(first, first + count)])
    return builder.shuffle_vector(values, ir.Constant(values.type, ir.Undefined), chosen)
