"""Arithmetic of a thread: how its processor rounds, and whether subnormal numbers count as 0.

A register of each thread says so. Other libraries change it for a caller's thread (flush to zero,
"denormals are zero"), and a thread that the caller starts inherits it. Results must not.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastrnn.kernels.jit import brief

# Control bits of x86's MXCSR, and the standard: to nearest, no traps, with subnormal numbers. The
# rest of the register are flags of what happened.
X86_CONTROL, X86_STANDARD = 0xFFC0, 0x1F80
# All of aarch64's FPCR is control, and 0 the standard.
ARM_CONTROL, ARM_STANDARD = 0xFFFFFFFF, 0
# What `make_standard` finds where there is nothing to restore.
WAS_STANDARD = -1

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def is_x86(triple):
    """Whether code is made for x86, by LLVM's name of the target."""
    return triple.startswith(("x86_64", "i386", "i486", "i586", "i686"))


def is_arm(triple):
    """Whether code is made for 64-bit ARM."""
    return triple.startswith(("aarch64", "arm64"))


def _function(builder, name, result, *arguments):
    return builder.module.declare_intrinsic(name, (), ir.FunctionType(result, arguments))


def read_register(builder, triple):
    """The register, as an integer; the standard where the processor is not known."""
    if is_x86(triple):
        place = builder.alloca(_I32)
        pointer = ir.IntType(8).as_pointer()
        store = _function(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), pointer)
        builder.call(store, [builder.bitcast(place, pointer)])
        return builder.zext(builder.load(place), _I64)
    if is_arm(triple):
        return builder.call(_function(builder, "llvm.aarch64.get.fpcr", _I64), [])
    return ir.Constant(_I64, ARM_STANDARD)


def write_register(builder, triple, value):
    """Set the register; nothing where the processor is not known."""
    if is_x86(triple):
        place = builder.alloca(_I32)
        builder.store(builder.trunc(value, _I32), place)
        pointer = ir.IntType(8).as_pointer()
        load = _function(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), pointer)
        builder.call(load, [builder.bitcast(place, pointer)])
    elif is_arm(triple):
        builder.call(_function(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), _I64), [value])


@intrinsic
def _read(typingctx):
    def generate(context, builder, signature, values):
        return read_register(builder, builder.module.triple)

    return types.int64(), generate


@intrinsic
def _write(typingctx, value):
    def generate(context, builder, signature, values):
        write_register(builder, builder.module.triple, values[0])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def _standard(typingctx):
    """Control bits and their standard."""

    def generate(context, builder, signature, values):
        x86 = is_x86(builder.module.triple)
        bits = (X86_CONTROL, X86_STANDARD) if x86 else (ARM_CONTROL, ARM_STANDARD)
        return context.make_tuple(
            builder, signature.return_type, [ir.Constant(_I64, value) for value in bits]
        )

    return types.UniTuple(types.int64, 2)(), generate


@brief
def make_standard():
    """Standard arithmetic in this thread; its register before, or WAS_STANDARD."""
    control, standard = _standard()
    before = _read()
    if before & control == standard:
        return WAS_STANDARD
    _write((before & ~control) | standard)
    return before


@brief
def restore(register):
    """The arithmetic that `make_standard` found."""
    _write(register)
