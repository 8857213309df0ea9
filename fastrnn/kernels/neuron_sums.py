"""Sums over time of a block of lanes: those of blocks of steps, of segments, and of all.

Those of a segment are rows of what is carried, each of four numbers (``scaled_sums``).
"""

from fastrnn.kernels.jit import bare, bare_part
from fastrnn.kernels.memory import get, load, load_double, put, store
from fastrnn.kernels.neuron_floats import (
    CARRIED_ROWS,
    PLAIN_SUMS,
    SIZES_FOUND,
    SQUARES,
    STATE_POWER,
    SUMS_FOUND,
)
from fastrnn.kernels.scaled_sums import (
    NO_POWER,
    SUM,
    add_block,
    add_block_at,
    add_totals,
    load_sum,
    store_sum,
    store_sum_where,
)
from fastrnn.kernels.simd import any_lane, like, where

# What is summed up: gradients, and half the squared errors.
SUMS = ("w1", "w2", "b", "w3", "b3", "loss")


@bare
def copy_sums(sums, nets, sequences, width, bank_size, batch_size, totals, back):
    """Sums (6, K, B, SUM) of a block's lanes to rows of numbers, or ``back``."""
    block = totals.size // (SUM * len(SUMS))
    for slot in range(len(SUMS)):
        for lane in range(width):
            lane_of_all = (slot * bank_size + nets[lane]) * batch_size + sequences[lane]
            for number in range(SUM):
                at, own = SUM * lane_of_all + number, (SUM * slot + number) * block + lane
                if back:
                    put(sums, at, get(totals, own))
                else:
                    put(totals, own, get(sums, at))


@bare
def close_segment(carried, totals, width, block):
    """Add the sums of a segment to those of later ones."""
    for slot in range(len(SUMS)):
        for v in range(0, width, 8):
            term = load_sum(carried, CARRIED_ROWS + SUM * slot, block, v)
            before = load(totals, (SUM * slot + 2) * block + v)
            if not any_lane(before != 0.0):
                store_sum_where(totals, SUM * slot, block, v, term, term[2] != 0.0)
                continue
            for lane in range(v, v + 8):
                at, own = (CARRIED_ROWS + SUM * slot) * block + lane, SUM * slot * block + lane
                found = add_totals(
                    (totals[own], totals[own + block], totals[own + 2 * block],
                     totals[own + 3 * block]),
                    (carried[at], carried[at + block], carried[at + 2 * block],
                     carried[at + 3 * block]),
                )  # fmt: skip
                for number in range(SUM):
                    totals[own + number * block] = found[number]
    clear_sums(carried, block)


@bare_part
def clear_sums(carried, block):
    for at in range(PLAIN_SUMS * block, carried.size):
        carried[at] = 0.0
    for slot in range(len(SUMS)):
        for lane in range(block):
            carried[(CARRIED_ROWS + SUM * slot + SUM - 1) * block + lane] = NO_POWER


@bare_part
def take_plain_sums(carried, found, block, v, fused, want_sums, want_w3):
    """Add the sums of a block to those that have no exponents either."""
    for slot in range(5):
        wanted = want_sums
        if slot >= 3:
            wanted = fused and (want_w3 or slot == 4)
        if wanted:
            sum_ = load_sum(carried, CARRIED_ROWS + SUM * slot, block, v)
            term = load_double(found, (SUMS_FOUND + slot) * block + v)
            size = load_double(found, (SIZES_FOUND + slot) * block + v)
            sum_ = add_block(sum_, term, size)
            store_sum(carried, CARRIED_ROWS + SUM * slot, block, v, sum_)
    if fused:
        sum_ = load_sum(carried, CARRIED_ROWS + SUM * 5, block, v)
        squares = 0.5 * load_double(found, SQUARES * block + v)
        store_sum(carried, CARRIED_ROWS + SUM * 5, block, v, add_block(sum_, squares, squares))


@bare_part
def take_sums(
    carried, found, block, v, bad, base, growth, own, fused, want_sums, want_w3
):  # fmt: skip
    """Add the sums of a block in floats to those of the lanes for which they are good."""
    state = load(carried, STATE_POWER * block + v)
    plain = state == 0.0
    # Exponents at the end of the walk, where gradients are largest, and states least.
    base = base + growth * (own - 1.0)
    if want_sums:
        plain = plain & _take_sum(carried, found, 0, block, v, bad, base)
        plain = plain & _take_sum(carried, found, 1, block, v, bad, base + state)
        plain = plain & _take_sum(carried, found, 2, block, v, bad, base)
    if fused:
        state = state + growth * own
        if want_w3:
            plain = plain & _take_sum(carried, found, 3, block, v, bad, state + state)
        plain = plain & _take_sum(carried, found, 4, block, v, bad, state)
        squares = where(bad, 0.0, 0.5 * load_double(found, SQUARES * block + v))
        sum_ = load_sum(carried, CARRIED_ROWS + SUM * 5, block, v)
        sum_ = add_block_at(sum_, squares, squares, state + state)
        plain = plain & (sum_[3] == 0.0)
        store_sum(carried, CARRIED_ROWS + SUM * 5, block, v, sum_)
    store(carried, PLAIN_SUMS * block + v, where(plain, like(state, 1.0), 0.0))


@bare_part
def _take_sum(carried, found, slot, block, v, bad, power):
    """One of them; where its exponent is 0."""
    term = where(bad, 0.0, load_double(found, (SUMS_FOUND + slot) * block + v))
    size = where(bad, 0.0, load_double(found, (SIZES_FOUND + slot) * block + v))
    sum_ = add_block_at(load_sum(carried, CARRIED_ROWS + SUM * slot, block, v), term, size, power)
    store_sum(carried, CARRIED_ROWS + SUM * slot, block, v, sum_)
    return sum_[3] == 0.0
