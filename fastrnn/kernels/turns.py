"""Turns: how calls on several threads share out the blocks of one job.

Counters of a job: blocks taken, blocks done, helpers that looked out for it, and helpers that are
at work on it. A thread takes the next block whenever it has finished one, in compiled code,
without asking the interpreter: a thread that wakes up late costs no more than the work it missed.
"""

from numba import types
from numba.extending import intrinsic

from fastrnn.kernels.jit import brief, kernel, part

TAKEN, DONE, READY, AT_WORK = 0, 1, 2, 3
COUNTERS = 4


@intrinsic
def _add(typingctx, counters, index, amount):
    """Add to a counter, at once for all threads; its value before."""

    def generate(context, builder, signature, values):
        data = context.make_array(counters)(context, builder, values[0]).data
        # What was written before a block is counted as done is seen by who reads the count.
        return builder.atomic_rmw("add", builder.gep(data, [values[1]]), values[2], "acq_rel")

    return types.int64(counters, types.int64, types.int64), generate


@intrinsic
def _read(typingctx, counters, index):
    """A counter as other threads left it."""

    def generate(context, builder, signature, values):
        data = context.make_array(counters)(context, builder, values[0]).data
        return builder.load_atomic(builder.gep(data, [values[1]]), "acquire", 8)

    return types.int64(counters, types.int64), generate


@part
def take(counters):
    """Number of the next block, which is now this thread's."""
    return _add(counters, TAKEN, 1)


@part
def finish(counters):
    """Count one more block as done."""
    _add(counters, DONE, 1)


@kernel
def await_first(counters, looks):
    """Be ready for a job; look at most so often whether its first block is taken; whether it is."""
    _add(counters, READY, 1)
    for _ in range(looks):
        if _read(counters, TAKEN) > 0:
            return True
    return False


@kernel
def await_end(counters, blocks, later, helpers, looks):
    """Look at most so often whether all blocks are done, and helpers ready for a ``later`` job.

    A helper that cannot have the interpreter back at once sleeps, and is long to wake. So wait,
    outside it, for as many of the ``helpers`` as were ready for this job.
    """
    for _ in range(looks):
        done = _read(counters, DONE) >= blocks
        if done and _read(later, READY) >= min(_read(counters, READY), helpers):
            break


@brief
def enter(counters):
    """Count one more helper at work."""
    _add(counters, AT_WORK, 1)


@brief
def leave(counters):
    """Count one helper less."""
    _add(counters, AT_WORK, -1)


@kernel
def await_idle(counters):
    """Return when no helper is at work. No signal handler runs before, for this is compiled."""
    while _read(counters, AT_WORK) > 0:
        pass
