"""fastrnn beside PyTorch, JAX, ONNX Runtime and a NumPy loop, on the same cores in one run.

``python -m benchmarks.peers`` prints a table of scalar neurons and of layers, ``--json`` the
figures; ``--grid`` measures layers of all sizes. Rounds are interleaved: in each of them every
contender has a turn, so that whatever else the machine does meets all of them; a figure is the
median of its calls, the ratio that of the best peer to fastrnn with the better of two memory
layouts. Absent peers are named.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import asdict

from benchmarks import ceilings, layer_cells, neuron_cells

ROUNDS, GRID_ROUNDS = 7, 3
# Least seconds of a contender's turn: a small job is done many times in a row, as in use.
TURN = 0.03
# Seconds before a turn, which begins with a call that does not count: threads of the contender
# before, which look out for more work, are asleep by then, and its own caches and threads awake.
PAUSE = 0.05
# Seconds of a first call after which a contender is not called again: the figure is that call's.
PATIENCE = 1.0
OWN = ("fastrnn", "fastrnn, time first")
KINDS = ("forward", "gradient")


def seconds(call):
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(cell, contenders, rounds, kinds=KINDS):
    """Median nanoseconds a step and lane: {"forward": {peer: ns}, "gradient": {peer: ns}}."""
    calls, missing = {}, []
    for name, make in contenders.items():
        try:
            made = make(cell)
        except ImportError:
            missing.append(name)
            continue
        if made is not None:
            calls[name] = made
    result = {"cell": cell.name, "missing": missing, **asdict(cell)}
    for kind in kinds:
        index = KINDS.index(kind)
        chosen = {name: made[index] for name, made in calls.items() if made[index] is not None}
        times = {}
        for name, call in chosen.items():
            # The first call compiles; the second is the first that counts.
            first = seconds(call)
            times[name] = [seconds(call) if first < PATIENCE or name in (*OWN, "JAX") else first]
        for _ in range(rounds):
            for name, call in chosen.items():
                if min(times[name]) < PATIENCE:
                    time.sleep(PAUSE)
                    call()
                began = time.perf_counter()
                while min(times[name]) < PATIENCE:
                    times[name].append(seconds(call))
                    if time.perf_counter() - began > TURN:
                        break
        unit = 1e9 / cell.lane_steps
        result[kind] = {name: unit * statistics.median(t) for name, t in times.items()}
        best = min(value for name, value in result[kind].items() if name not in OWN)
        own = min(value for name, value in result[kind].items() if name in OWN)
        result[f"{kind}_ratio"] = best / own
        result[f"{kind}_goal"] = getattr(cell, f"goal_{kind}")
    return result


def line(result, kind):
    figures = "  ".join(f"{name} {value:.3g}" for name, value in result[kind].items())
    ratio, goal = result[f"{kind}_ratio"], result[f"{kind}_goal"]
    return f"{result['cell']:<38} {kind:<9} {ratio:6.2f}x (goal {goal:g})   {figures}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", type=int, help="number of a single cell, from 0")
    parser.add_argument("--neurons", action="store_true", help="no layers")
    parser.add_argument("--layers", action="store_true", help="no neurons")
    parser.add_argument("--grid", action="store_true", help="layers of all sizes, nothing else")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(neuron_cells.WORKERS))
    jobs = []
    if not (arguments.layers or arguments.grid):
        jobs += [(cell, neuron_cells.CONTENDERS) for cell in neuron_cells.CELLS]
    if not arguments.neurons:
        cells = layer_cells.GRID if arguments.grid else layer_cells.CELLS
        jobs += [(cell, layer_cells.CONTENDERS) for cell in cells]
    rounds = arguments.rounds or (GRID_ROUNDS if arguments.grid else ROUNDS)
    results = []
    for job in jobs if arguments.only is None else [jobs[arguments.only]]:
        result = measure(*job, rounds)
        results.append(result)
        if not arguments.json:
            for kind in KINDS:
                print(line(result, kind), flush=True)
    machine = {"multiply": ceilings.multiply()} if arguments.grid else ceilings.measure()
    if arguments.json:
        print(json.dumps({"cells": results, "machine": machine}, indent=2))
        return
    if results[0]["missing"]:
        print("not installed:", ", ".join(results[0]["missing"]))
    if not arguments.grid:
        print(ceilings.readable(machine))


if __name__ == "__main__":
    main()
