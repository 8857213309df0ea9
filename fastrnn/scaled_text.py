"""Decimal text of numbers far outside the range of floats."""

from __future__ import annotations

import math
from decimal import Context, Decimal

LOG10_2_DIGITS = Decimal(
    "0.30102999566398119521373889472449302676818988146210854131042746112710818927442450948692725"
)


def decimal_text(mantissa: float, exponent: float, spec: str) -> str:
    """mantissa * 2**exponent in decimal scientific form, its digits exact at any exponent."""
    if mantissa == 0.0 or not math.isfinite(mantissa):
        return format(mantissa, spec)
    if not math.isfinite(exponent):
        return f"{'-' if mantissa < 0 else ''}2**{exponent}"
    digits = Context(prec=len(str(int(abs(exponent)))) + 25)
    if digits.prec > len(LOG10_2_DIGITS.as_tuple().digits):
        # log10(2) is known to 87 digits here; past that the exponent says it all.
        return f"{'-' if mantissa < 0 else ''}2**{exponent:.6g}"
    log10 = digits.multiply(Decimal(exponent), LOG10_2_DIGITS)
    power = math.floor(log10)
    lead = mantissa * 10.0 ** float(digits.subtract(log10, Decimal(power)))
    text, _, shift = format(lead, spec).partition("e")
    if not shift:
        raise ValueError(f"a Scaled number is formatted with an 'e' format, got {spec!r}")
    return f"{text}e{power + int(shift):+03d}"
