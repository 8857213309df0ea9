"""Influence and diagnosis."""

import fastrnn

from . import cases


class Influence:
    """Influence of every input on the last prediction, as Scaled."""

    version = "1"
    param_names = ("w2",)
    params = ([1e-3, 0.9, 1e3],)

    def setup(self, w2):
        self.net = cases.neuron("float64", w2)
        self.x = cases.normal(64, 1000)
        fastrnn.influence(self.net, self.x)

    def time_influence(self, w2):
        fastrnn.influence(self.net, self.x)


class Diagnose:
    """All of the diagnosis."""

    version = "1"

    def setup(self):
        self.net = cases.neuron("float64")
        self.x = cases.normal(64, 1000)
        fastrnn.diagnose(self.net, self.x)

    def time_diagnose(self):
        fastrnn.diagnose(self.net, self.x)
