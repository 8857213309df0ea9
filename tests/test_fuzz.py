"""Random jobs over every verb and option: the same bits in every way to run them, and the truth.

One of the many that ``pytest -m slow`` runs, or ``python -m tests.fuzz FIRST COUNT``, is repeated
by its seed: ``python -m tests.fuzz SEED 1``.
"""

import numpy as np
import pytest

from tests import fuzz

FAST, SLOW, TOGETHER = 120, 10_000, 250


def check(seeds):
    wrong = []
    for seed in seeds:
        job = fuzz.job(seed)
        wrong += [f"{job}: {what}" for what in fuzz.differences(job) + fuzz.errors(job)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("first", range(0, FAST, 10))
def test_random_jobs_have_the_same_bits_every_way_and_are_right(first):
    check(range(first, first + 10))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(SLOW // TOGETHER))
def test_ten_thousand_random_jobs(part):
    first = int(np.random.default_rng().integers(1 << 40))
    check(range(first, first + TOGETHER))
