"""Time of what tells about a net: influence, exponents, norms, fixed points, and all of it."""

import fastrnn

from .cases import FEW_SIZES, Benchmark, named, net, neuron, neuron_of, normal


class Influence(Benchmark):
    """Influence of every input on the last prediction, of 64 sequences of 1000 steps."""

    param_names = ("log10 |W2|",)
    params = (FEW_SIZES,)

    def setup(self, size):
        self.net, self.x = neuron_of(size, "+", "float64"), normal(64, 1000)
        fastrnn.influence(self.net, self.x)

    @named("Influence of each input: time")
    def time_influence(self, size):
        fastrnn.influence(self.net, self.x)


class Lyapunov(Benchmark):
    """The largest exponent of a neuron or a layer, of 64 sequences of 1000 steps."""

    param_names = ("hidden_size",)
    params = ([1, 16],)

    def setup(self, hidden_size):
        self.net, self.x, _ = net("float64", hidden_size, 64, 1000)
        fastrnn.lyapunov(self.net, self.x)

    @named("Lyapunov exponents: time")
    def time_lyapunov(self, hidden_size):
        fastrnn.lyapunov(self.net, self.x)


class JacobianNorms(Benchmark):
    """Norms by lag, of a neuron or a layer over a sequence of 100 steps."""

    param_names = ("hidden_size",)
    params = ([1, 16],)

    def setup(self, hidden_size):
        self.net, self.x, _ = net("float64", hidden_size, 1, 100)
        fastrnn.jacobian_norms(self.net, self.x)

    @named("Norms of the Jacobian: time")
    def time_jacobian_norms(self, hidden_size):
        fastrnn.jacobian_norms(self.net, self.x)


class FixedPoints(Benchmark):
    """Of a neuron."""

    def setup(self):
        self.net = neuron("float64", 2.0)
        fastrnn.fixed_points(self.net)

    @named("Fixed points: time")
    def time_fixed_points(self):
        fastrnn.fixed_points(self.net)


class Diagnose(Benchmark):
    """All of the diagnosis, of 64 sequences of 1000 steps."""

    def setup(self):
        self.net, self.x = neuron("float64"), normal(64, 1000)
        fastrnn.diagnose(self.net, self.x)

    @named("Diagnosis: time")
    def time_diagnose(self):
        fastrnn.diagnose(self.net, self.x)
