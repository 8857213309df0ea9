"""Recurrent networks in bulk on ordinary CPUs: simulate, differentiate, diagnose.

The public names stand below; each is loaded when first used, so that ``import fastrnn`` costs
no more than NumPy and the compiler comes only with the first computation.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "RNN": "fastrnn.rnn",
    "Diagnosis": "fastrnn.diagnosis",
    "FixedPoints": "fastrnn.equilibria",
    "Gradient": "fastrnn.gradient",
    "JacobianNorms": "fastrnn.jacobians",
    "Lyapunov": "fastrnn.exponents",
    "PhaseDiagram": "fastrnn.phases",
    "Scaled": "fastrnn.scaled",
    "Sweep": "fastrnn.batch.sweep",
    "backward": "fastrnn.verbs.backward",
    "dataset": "fastrnn.batch.dataset",
    "diagnose": "fastrnn.verbs.diagnose",
    "fixed_points": "fastrnn.verbs.fixed_points",
    "forward": "fastrnn.verbs.forward",
    "influence": "fastrnn.verbs.influence",
    "jacobian_norms": "fastrnn.verbs.jacobian_norms",
    "load_series": "fastrnn.series",
    "loss_and_grad": "fastrnn.verbs.loss_and_grad",
    "lyapunov": "fastrnn.verbs.lyapunov",
    "phase_diagram": "fastrnn.verbs.phase_diagram",
    "predict": "fastrnn.verbs.predict",
    "set_workers": "fastrnn.threads",
    "warmup": "fastrnn.compilation",
}

_MODULES = ("plot", "reference", "testing")

__all__ = [
    "RNN",
    "Diagnosis",
    "FixedPoints",
    "Gradient",
    "JacobianNorms",
    "Lyapunov",
    "PhaseDiagram",
    "Scaled",
    "Sweep",
    "__version__",
    "backward",
    "dataset",
    "diagnose",
    "fixed_points",
    "forward",
    "influence",
    "jacobian_norms",
    "load_series",
    "loss_and_grad",
    "lyapunov",
    "phase_diagram",
    "plot",
    "predict",
    "reference",
    "set_workers",
    "testing",
    "warmup",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"fastrnn.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'fastrnn' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from fastrnn import plot, reference, testing
    from fastrnn.batch.dataset import dataset
    from fastrnn.batch.sweep import Sweep
    from fastrnn.compilation import warmup
    from fastrnn.diagnosis import Diagnosis
    from fastrnn.equilibria import FixedPoints
    from fastrnn.exponents import Lyapunov
    from fastrnn.gradient import Gradient
    from fastrnn.jacobians import JacobianNorms
    from fastrnn.phases import PhaseDiagram
    from fastrnn.rnn import RNN
    from fastrnn.scaled import Scaled
    from fastrnn.series import load_series
    from fastrnn.threads import set_workers
    from fastrnn.verbs.backward import backward
    from fastrnn.verbs.diagnose import diagnose
    from fastrnn.verbs.fixed_points import fixed_points
    from fastrnn.verbs.forward import forward
    from fastrnn.verbs.influence import influence
    from fastrnn.verbs.jacobian_norms import jacobian_norms
    from fastrnn.verbs.loss_and_grad import loss_and_grad
    from fastrnn.verbs.lyapunov import lyapunov
    from fastrnn.verbs.phase_diagram import phase_diagram
    from fastrnn.verbs.predict import predict
