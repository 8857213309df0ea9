"""Powers of two taken out of each step, where states grow or gradients fade by W2 a step.

Where f(2**e z) = 2**e f(z), and the rate of a lane is the integer next to log2 |w2|, a block of
steps stays near 1 at any w2: states are H * 2**(power + rate s) before step s of a block, what is
carried back is D * 2**(power + rate j) after j steps. Inputs are multiplied by 2**-(rate s), in
time nothing beside such a state. All factors are powers of two: which rate was taken changes no
bit, as long as nothing that counts becomes subnormal, and the kernels look at that.

A gradient that fades alone has such a rate with any f, once slopes are known (``neuron_slopes``).

The factors are rows of tables, which are made anew when a lane's rate is another.
"""

from fastrnn.kernels.activations import activate
from fastrnn.kernels.jit import apart, bare, bare_part
from fastrnn.kernels.memory import load, store
from fastrnn.kernels.simd import (
    any_lane,
    exponent,
    integer_shift,
    like,
    maximum,
    minimum,
    power_of_two,
    where,
)

# Steps of a block, after which sums go into float64: what is done then takes as long as 10 steps.
STEPS = 64
# Exponents of the least normal numbers, nearly.
LEAST_32, LEAST_64 = -126.0, -1000.0
# Rows of a table of factors before each step, its rates, and the steps that lanes have.
TABLE_ROWS = STEPS + 3
# Tables where states grow: 2**-(rate s) of them, 2**-(rate j) of their gradients.
STATES, GROWTH, RATE_ROWS = 0, TABLE_ROWS, 2 * TABLE_ROWS
# That of gradients that fade is one by itself. Those that fade by more a step, all at once.
FADING, MOST_FADING = 0, 2.0**20
NEAREST = 2.0**0.5
# A number is nothing beside one that is so many times larger.
TIMES_NOTHING_32, TIMES_NOTHING_64 = 2.0**30, 2.0**60


@bare_part
def least_exponent(array):
    """See LEAST_32."""
    return LEAST_32 if array.itemsize == 4 else LEAST_64


@bare_part
def times_nothing(array):
    """See TIMES_NOTHING_32."""
    return TIMES_NOTHING_32 if array.itemsize == 4 else TIMES_NOTHING_64


@bare_part
def rate_of(f, w2, array):
    """The integer next to log2 |w2|; 0 where states do not grow: f(w2 h) may be 0 where w2 < 0."""
    rate = exponent(w2 * NEAREST)
    steady = (rate < 0.0) | (w2 > 0.0) | (activate(f, like(w2, -1.0)) != 0.0)
    return where(steady & (abs(rate) <= -least_exponent(array)), rate, 0.0)


@bare_part
def own_steps(remaining, row, steps):
    """Steps of a block that each lane has, of those from the tile's first one on."""
    return minimum(maximum(remaining - float(row), 0.0), float(steps))


@bare
def set_rates(tables, table, block, v, rates, steps, of_states):
    """Make a vector's factors for rates that are 0 or more, unless they are there.

    Those of gradients count j from the last of the steps that a lane has.
    """
    apart()
    key = (table + STEPS + 1) * block + v
    if not any_lane((load(tables, key) != rates) | (load(tables, key + block) != steps)):
        return
    store(tables, key, rates)
    store(tables, key + block, steps)
    binades, step = like(rates, 0.0), -rates
    if not of_states:
        binades, step = rates - rates * steps, rates
    least = least_exponent(tables)
    for s in range(STEPS + 1):
        kept = binades >= least
        power = where(kept, minimum(binades, 0.0), 0.0)
        power = power_of_two(power + integer_shift(rates))
        store(tables, (table + s) * block + v, where(kept, power, 0.0))
        binades = binades + step


@bare_part
def forget_rates(tables, block):
    """Let no factors be there."""
    for table in range(0, tables.size // block, TABLE_ROWS):
        for lane in range(block):
            tables[(table + STEPS + 1) * block + lane] = -1.0
