"""Labels: what arrays are called and where they come from, in stores and in Datasets alike."""

from __future__ import annotations

from typing import Any

from fastrnn import environment
from fastrnn.batch.sweep import Sweep
from fastrnn.batch.variables import COMPUTED, VARIABLES

SEQUENCE, TIME = "sequence", "time"
COORDINATES = {
    "w1": "input weight",
    "w2": "feedback weight",
    "b": "bias",
    SEQUENCE: "number of the sequence in x",
    TIME: "step",
}
LONG_NAMES = {
    **COORDINATES,
    **{variable.name: variable.long_name for variable in VARIABLES},
    COMPUTED: "whether the results are computed",
}


def labels(name: str) -> dict[str, Any]:
    """Attributes of a variable or coordinate; all are dimensionless."""
    return {"long_name": LONG_NAMES[name], "units": "1"}


def provenance(sweep: Sweep) -> dict[str, Any]:
    """Attributes of the whole: what was computed by what, and where."""
    versions = environment.versions().items()
    return {
        "title": f"{sweep.activation} neurons over {sweep.steps} steps",
        "versions": ", ".join(f"{name} {number}" for name, number in versions),
        **{name: str(value) for name, value in environment.machine().items()},
    }
