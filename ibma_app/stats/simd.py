"""Four doubles side by side in compiled code: one vector instruction where scalar code has four.

A kernel reads and writes them with `get4` and `put4`, calculates with ``+ - * /``
(a plain float stands for four equal ones) and adds them up with `sum4`. What
numba compiles is a quarter as much, and the bits are those of the four scalar
operations on any processor: every operation is exactly one of IEEE 754, none is
fused and no sum is reordered.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

_OPERATIONS = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}
_VECTOR = ir.VectorType(ir.DoubleType(), 4)
_intrinsic: Any = intrinsic  # its hints are those of the function that chooses types, not of the call
_ROW_ALIGNMENT = 8  # bytes: what numpy promises of a double


class _FourType(types.Type):
    """Numba's type of four doubles."""

    def __init__(self) -> None:
        super().__init__(name="Four")


_four = _FourType()


@register_model(_FourType)
class _FourModel(models.PrimitiveModel):
    """They live in one vector register (two of half the width on older processors)."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _spread(builder: Any, value: Any) -> Any:
    """Return four copies of a double; four as they are."""
    if value.type == _VECTOR:
        return value
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        one, ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), 4), [0] * 4)
    )


def _define(operation: Callable[..., Any], instruction: str) -> None:
    """Tell numba the type and the instruction of one operator."""

    @type_callable(operation)
    def choose_type(_context: Any) -> Any:
        def result(a: Any, b: Any) -> Any:
            return _four if _four in (a, b) and {a, b} <= {_four, types.float64} else None

        return result

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        a, b = (_spread(builder, value) for value in arguments)
        return getattr(builder, instruction)(a, b)

    for left, right in ((_four, _four), (_four, types.float64), (types.float64, _four)):
        lower_builtin(operation, left, right)(emit)


for _operation, _instruction in _OPERATIONS.items():
    _define(_operation, _instruction)


def _address(context: Any, builder: Any, kind: Any, maps: Any, row: Any, group: Any) -> Any:
    """Point to four values of an array of shape (rows, G, 4), C order."""
    array = context.make_array(kind)(context, builder, maps)
    groups = cgutils.unpack_tuple(builder, array.shape)[1]
    place = builder.add(builder.mul(row, groups, flags=["nsw"]), group, flags=["nsw"])
    return builder.gep(builder.bitcast(array.data, _VECTOR.as_pointer()), [place], inbounds=True)


@_intrinsic
def get4(_context: Any, maps: Any, row: Any, group: Any) -> Any:
    """Read the four values of one group in one row of ``maps`` (rows, G, 4)."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _address(context, builder, signature.args[0], *arguments)
        return builder.load(place, align=_ROW_ALIGNMENT)

    return _four(maps, types.int64, types.int64), emit


@_intrinsic
def put4(_context: Any, maps: Any, row: Any, group: Any, values: Any) -> Any:
    """Write the four values of one group in one row of ``maps`` (rows, G, 4)."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _address(context, builder, signature.args[0], *arguments[:3])
        builder.store(arguments[3], place, align=_ROW_ALIGNMENT)
        return context.get_dummy_value()

    return types.void(maps, types.int64, types.int64, _four), emit


@_intrinsic
def fill4(_context: Any, value: Any) -> Any:
    """Return one value four times."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _spread(builder, arguments[0])

    return _four(types.float64), emit


@_intrinsic
def sum4(_context: Any, values: Any) -> Any:
    """Add four values up: (a + b) + (c + d)."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        a, b, c, d = (builder.extract_element(arguments[0], ir.Constant(ir.IntType(32), i)) for i in range(4))
        return builder.fadd(builder.fadd(a, b), builder.fadd(c, d))

    return types.float64(_four), emit
