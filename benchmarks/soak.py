"""Soak: call after call of every verb, and all of them at once beside another library's threads.

``python -m benchmarks.soak`` takes minutes, ``--quick`` a tenth of that. Memory must not grow
over the second half of a verb's calls, and every result must have the bits of the first.
Ends with status 1, and says what went wrong, if that does not hold.
"""

import argparse
import dataclasses
import os
import sys
import threading
import time

import numpy as np

import fastrnn

CALLS, QUICK_CALLS = 2000, 200
SECONDS, QUICK_SECONDS = 120, 10
THREADS = 8
# Bytes of growth that are an allocator's: one arena more. A leaked result of each call is more.
GROWTH = 4 << 20
# Samples of memory of which four quarters are made.
LEAST_SAMPLES = 8


def jobs():
    """Calls of every verb by name, of neurons and layers: milliseconds, and some 100 kB, each."""
    rng = np.random.default_rng(0)
    neuron = fastrnn.RNN(1.0, rng.uniform(-0.9, 0.9, 2))
    layer = fastrnn.RNN(rng.standard_normal((4, 1)), 0.3 * rng.standard_normal((4, 4)))
    plane = {"w2": np.linspace(0.1, 2, 4), "b": np.linspace(-1, 1, 4)}
    calls = {
        "fixed_points of neurons": lambda: fastrnn.fixed_points(neuron, [0.0, 1.0]),
        "phase_diagram of neurons": lambda: fastrnn.phase_diagram(np.ones(50), **plane),
    }
    for kind, net, shape in (("neurons", neuron, (40, 300)), ("layers", layer, (16, 32))):
        x = rng.standard_normal(shape)
        y = fastrnn.predict(net, x)
        own = {
            "forward": lambda net=net, x=x: fastrnn.forward(net, x),
            "forward, scaled,": lambda net=net, x=x: fastrnn.forward(net, x[:2], scaled=True),
            "predict": lambda net=net, x=x: fastrnn.predict(net, x),
            "backward": lambda net=net, x=x, y=y: fastrnn.backward(net, x, y, wrt=("w2", "x")),
            "backward, scaled,": lambda net=net, x=x, y=y: fastrnn.backward(net, x, y, scaled=True),
            "loss_and_grad": lambda net=net, x=x, y=y: fastrnn.loss_and_grad(net, x, y + 1),
            "influence": lambda net=net, x=x: fastrnn.influence(net, x),
            "lyapunov": lambda net=net, x=x: fastrnn.lyapunov(net, x[:8]),
            "jacobian_norms": lambda net=net, x=x: fastrnn.jacobian_norms(
                net, x[:2], lags=[0, 1, 9]
            ),
            "diagnose": lambda net=net, x=x: fastrnn.diagnose(net, x[:8]),
        }
        calls |= {f"{verb} of {kind}": call for verb, call in own.items()}
    return calls


def bits(value):
    """Bytes of all arrays in a result."""
    if isinstance(value, np.ndarray | np.generic | float):
        return [np.asarray(value).tobytes()]
    if isinstance(value, fastrnn.Scaled):
        return [value.mantissa.tobytes(), value.exponent.tobytes()]
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, list | tuple):
        return [found for part in value for found in bits(part)]
    return []


def resident():
    """Bytes of memory that this process holds now, on Linux."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(held):
    """Bytes by which the least memory of the last quarter of samples is above the second's."""
    quarter = len(held) // 4
    return min(held[3 * quarter :]) - min(held[quarter : 2 * quarter])


def one_by_one(calls):
    """What grows, of all verbs, one after the other."""
    wrong = []
    for name, call in jobs().items():
        began, first = time.perf_counter(), bits(call())
        held = [(call(), resident())[1] for _ in range(calls)]
        milliseconds = 1e3 * (time.perf_counter() - began) / calls
        print(f"{name:<32} {milliseconds:8.3f} ms {growth(held) / 1e3:8.0f} kB", flush=True)
        if growth(held) > GROWTH:
            wrong.append(f"{name} grows by {growth(held)} bytes in {calls} calls")
        if bits(call()) != first:
            wrong.append(f"{name} has other bits after {calls} calls")
    return wrong


def other_library():
    """A product on the threads of PyTorch's OpenMP, or else of NumPy's BLAS."""
    a = np.random.default_rng(1).standard_normal((400, 400))
    try:
        import torch
    except ModuleNotFoundError:
        return lambda: a @ a
    tensor = torch.from_numpy(a)

    def multiply():
        # Its own mode of arithmetic, too: results of other threads must not depend on it.
        torch.set_flush_denormal(True)
        return tensor @ tensor

    return multiply


def all_at_once(seconds):
    """What goes wrong where threads go over all verbs for a while, each on two more threads."""
    calls = list(jobs().items())
    expected = {name: bits(call()) for name, call in calls}
    wrong, made, stop = [], [0] * (THREADS + 1), threading.Event()
    multiply = other_library()

    def beside():
        while not stop.is_set():
            multiply()
            made[THREADS] += 1

    def work(number):
        rng = np.random.default_rng(number)
        with fastrnn.set_workers(2):
            while not stop.is_set():
                name, call = calls[rng.integers(len(calls))]
                try:
                    if bits(call()) != expected[name]:
                        wrong.append(f"{name} has other bits beside other threads")
                except Exception as error:
                    wrong.append(f"{name} beside other threads: {error!r}")
                made[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    workers.append(threading.Thread(target=beside))
    for thread in workers:
        thread.start()
    until, held = time.monotonic() + seconds, []
    while time.monotonic() < until or len(held) < LEAST_SAMPLES:
        time.sleep(0.05)
        held.append(resident())
    stop.set()
    for thread in workers:
        thread.join(60)
        if thread.is_alive():
            wrong.append(f"{thread.name} hangs")
    calls, beside = sum(made[:THREADS]), made[THREADS]
    print(
        f"{calls} calls on {THREADS} threads beside {beside} products: {growth(held) / 1e6:.1f} MB"
    )
    # An arena a thread.
    if growth(held) > THREADS * GROWTH:
        wrong.append(f"memory grows by {growth(held)} bytes in {seconds / 2:.3g} s")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls and of the time")
    quick = parser.parse_args().quick
    wrong = one_by_one(QUICK_CALLS if quick else CALLS)
    wrong += all_at_once(QUICK_SECONDS if quick else SECONDS)
    sys.exit("\n".join(sorted(set(wrong))) or None)


if __name__ == "__main__":
    main()
