"""Machine instructions that numba has no name for, and arrays at an address."""

from typing import Any

from llvmlite import ir
from numba import carray as carray  # type: ignore[attr-defined]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BYTES_AT_ONCE = 32
MAX_EXCESS = 256 * BYTES_AT_ONCE  # sums of 256 bytes stay within 16 bits


def _pointer(_context: Any, address: Any) -> tuple[Any, Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.voidptr(address), generate


def _prefetch(_context: Any, address: Any) -> tuple[Any, Any]:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        of = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, of, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
        to_read, keep, data = (ir.Constant(number, value) for value in (0, 3, 1))
        builder.call(function, [builder.inttoptr(arguments[0], byte), to_read, keep, data])
        return context.get_dummy_value()

    return types.void(address), generate


def _first_bit(_context: Any, word: Any) -> tuple[Any, Any]:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return word(word), generate


def _folded_product(_context: Any, a: Any, b: Any) -> tuple[Any, Any]:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(argument, wide) for argument in arguments))
        high = builder.lshr(product, ir.Constant(wide, 64))
        return builder.trunc(builder.xor(product, high), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


def _byte_excess(_context: Any, a: Any, b: Any, n: Any) -> tuple[Any, Any]:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8)
        few, sums, wide = (ir.VectorType(ir.IntType(bits), BYTES_AT_ONCE) for bits in (8, 16, 32))
        subtract = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, ir.FunctionType(few, [few, few]), f"llvm.usub.sat.v{BYTES_AT_ONCE}i8"
        )
        add = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module,
            ir.FunctionType(wide.element, [wide]),
            f"llvm.vector.reduce.add.v{BYTES_AT_ONCE}i32",
        )
        starts = [builder.inttoptr(address, byte.as_pointer()) for address in arguments[:2]]
        size = arguments[2]
        zero, step = (ir.Constant(size.type, value) for value in (0, BYTES_AT_ONCE))
        total = cgutils.alloca_once_value(builder, ir.Constant(sums, None))  # type: ignore[no-untyped-call]
        with cgutils.for_range_slice(builder, zero, size, step) as (at, _):
            here = [builder.bitcast(builder.gep(start, [at]), few.as_pointer()) for start in starts]
            above = builder.call(subtract, [builder.load(place, align=1) for place in here])
            builder.store(builder.add(builder.load(total), builder.zext(above, sums)), total)
        return builder.zext(builder.call(add, [builder.zext(builder.load(total), wide)]), size.type)

    return n(a, b, n), generate


pointer: Any = intrinsic(_pointer)  # of an address: carray takes it
prefetch: Any = intrinsic(_prefetch)  # of an address: its cache line is on its way while other work is done
folded_product: Any = intrinsic(_folded_product)  # of two words: the two halves of their product, xor-ed
first_bit: Any = intrinsic(_first_bit)  # the lowest one that is set, of a word that is not 0
# Of the addresses of two strings and their length, up to MAX_EXCESS and a multiple of BYTES_AT_ONCE: by how
# much bytes of the first are above those of the second, in all.
byte_excess: Any = intrinsic(_byte_excess)
