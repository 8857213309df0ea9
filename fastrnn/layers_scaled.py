"""Layers back through time in numbers of any magnitude: what `layers` does with plain floats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn.checks import FloatArray
from fastrnn.kernels import BOUNDED, layer_powers, layer_scaled, panels
from fastrnn.kernels.layer import PackedBack, Sums
from fastrnn.kernels.layer_scaled import Along
from fastrnn.kernels.panels import LINE_BYTES, aligned
from fastrnn.kernels.powers import LEAST_SHIFT
from fastrnn.kernels.rows import LEAST_64, LOW_STATE_32, LOW_STATE_64
from fastrnn.kernels.scaled_sums import NO_POWER
from fastrnn.kernels.tables import LOST, POWER, SIZE, TABLE, VALUE, add_table
from fastrnn.lanes import view
from fastrnn.layers import MOST_SUMS, Layers, Part
from fastrnn.memory import LESS, check_memory
from fastrnn.rnn import Weights
from fastrnn.threads import run

Doubles = NDArray[np.float64]
# Of a layer that hands states on as they are, weights below this may make numbers that are 0.
LEAST_WEIGHT = {4: 2.0**-60, 8: 2.0**-560}
# And so may states below this.
LOW_STATE = {4: LOW_STATE_32, 8: LOW_STATE_64}


class Pulled(NamedTuple):
    """What is carried back of a team: dh * 2**powers, where it is void, and sums that are open."""

    dh: FloatArray  # (R, H)
    powers: Doubles  # (R,)
    outside: NDArray[np.uint8]  # (R,)
    lacks: NDArray[np.uint8]  # (R,): whether sums lack digits
    open_powers: Doubles  # (R,): of what is not yet settled of each table
    doubts: NDArray[np.uint8]  # (R,): whether digits of that may be lost

    @classmethod
    def start(cls, dlast: FloatArray, outside: NDArray[np.bool_], of_nothing: float) -> Pulled:
        """From gradients (R, H) of the last states, brought near 1; ``of_nothing``: power of 0."""
        dlast = dlast.astype(np.float64)
        size = abs(dlast)
        largest = size.max(axis=1)
        powers = np.where(largest > 0, np.frexp(largest)[1] - 1.0, of_nothing)
        shift = np.where(largest > 0, -powers, 0.0).astype(np.int64)
        dh = np.ldexp(dlast, shift[:, None])
        lost = ~np.isfinite(largest) | ((size > 0) & (abs(dh) < LEAST_64)).any(axis=1)
        return cls(
            dh, powers, (outside | lost).astype(np.uint8), np.zeros(len(dh), np.uint8),
            np.full(len(dh), NO_POWER), np.zeros(len(dh), np.uint8),
        )  # fmt: skip


class Back(NamedTuple):
    """Weights of a net divided by powers of two, their exponents, and the least of them."""

    weights: PackedBack
    shifts: Doubles  # (3,)
    leasts: Doubles  # (3,), but for 0
    floors: Doubles  # (3,)


class Total(NamedTuple):
    """Sums (value, size) * 2**power, the size that of the absolute terms."""

    value: Doubles
    size: Doubles
    power: Doubles

    def add(self, index: tuple[int, int], other: Total) -> None:
        """Add others to those of one index."""
        # Nothing has no exponent.
        own = np.where(self.size[index] == 0, other.power, self.power[index])
        power = np.where(other.size == 0, own, other.power)
        top = np.maximum(own, power)
        mine, theirs = (
            np.ldexp(1.0, np.maximum(p - top, LEAST_SHIFT).astype(np.int64)) for p in (own, power)
        )
        self.value[index] = self.value[index] * mine + other.value * theirs
        self.size[index] = self.size[index] * mine + other.size * theirs
        self.power[index] = top


def pull(
    own: Layers,
    h0: FloatArray,
    upstream: FloatArray,
    dlast: FloatArray,
    dx: tuple[FloatArray, Doubles],
    dh0: tuple[FloatArray, Doubles],
    *,
    fused: bool,
    each: bool,
    want_sums: bool,
    want_dx: bool,
) -> tuple[dict[str, Total], NDArray[np.bool_], NDArray[np.bool_]]:
    """Sums (K, B or 1, ...) of the loss and of the weights' gradients, and what is void (K, B).

    Mantissas and exponents of the gradients of x (K, B, T, F) and h_0 (K, B, H) go into ``dx`` and
    ``dh0``. All of nets and sequences outside of the kernel's range is void, and the sums of those
    that lack digits; both have added nothing. See there.
    """
    narrow, own = own, _wide(own)
    nets, batch_size, _ = h0.shape
    inputs, outputs = own.x.shape[2], own.weights.w3.shape[1]
    errors = outputs if fused else 0
    outside, lacking = np.zeros((2, nets, batch_size), bool)
    lines = own.activation.name not in BOUNDED
    if lines:
        outside |= _too_small(narrow)[:, None]
    want_upstream = fused or any(upstream.strides) or bool(upstream[:1, :1, :1, :1].any())
    if each:
        tables = totals = _tables(own, (nets, batch_size))
    else:
        tables = _tables(own, (min(MOST_SUMS, len(own.parts)) if want_sums else 1,))
        totals = _tables(own, (nets, 1))
    stride, chunk = _stride(own), own.chunk(each)
    steps, workers = own.slice(*_memory(narrow, own, each=each, want_sums=want_sums))
    starts = range(0, own.x.shape[1], steps)
    backs = own.once("scaled back", lambda: [_back(own, k) for k in range(nets)])
    low = LOW_STATE[narrow.x.itemsize]

    def retreat(wave: list[Part], places: dict[Part, int], want_dx: bool) -> dict[Part, Pulled]:
        h = {part: h0[part.net, own.rows(part)] for part in wave}
        pulled = {}
        for part in wave:
            here, nothing = (part.net, own.rows(part)), backs[part.net].shifts[layer_scaled.W3]
            pulled[part] = Pulled.start(
                dlast[here], (outside | lacking)[here], nothing if errors else 0.0
            )
        kept = _starts(narrow, h, pulled, starts, steps)
        for start in reversed(starts):
            before = kept.pop()

            def call(part: Part, start: int = start, before: Any = before) -> None:
                sequences, found = own.rows(part), pulled[part]
                h, h_powers = before[part]
                place = places[part] if want_sums else 0
                mine = Sums(
                    *(
                        array[part.net, sequences] if each else array[place : place + 1]
                        for array in tables
                    )
                )
                ends = own.ends(sequences, start, steps)
                room = own.room(ends, stride, errors)
                hs, slopes, xs, along = _replay(
                    narrow, part, h, h_powers, start, ends, stride, found.outside, errors
                )
                of_powers = layer_scaled.powers_room(
                    found.open_powers, found.doubts, found.lacks, stride, inputs, errors,
                    int(ends[0]), chunk, own.x.dtype,
                )  # fmt: skip
                into = [view(array[part.net, :, start:] if want_dx else narrow.x) for array in dx]
                layer_scaled.pull(
                    lines, low, own.shapes, backs[part.net].weights,
                    backs[part.net].shifts, backs[part.net].leasts, backs[part.net].floors,
                    h, hs, slopes, xs, inputs, outputs, sequences, ends, stride, chunk, each,
                    fused, view(upstream[part.net, :, start:]), want_upstream, found.dh,
                    found.powers,
                    mine, want_sums, *into, want_dx, found.outside, along, room,
                    of_powers,
                )  # fmt: skip
                if want_sums and start == 0:
                    layer_scaled.settle_all(
                        own.shapes[3], inputs, errors, each, mine, found.dh, found.lacks,
                        found.open_powers, found.doubts,
                    )  # fmt: skip
                if each:
                    for array, sums in zip(tables, mine, strict=True):
                        array[part.net, sequences] = sums

            run(call, wave, workers)
        return pulled

    for first in range(0, len(own.parts), MOST_SUMS):
        wave = own.parts[first : first + MOST_SUMS]
        places = {part: place for place, part in enumerate(wave)}
        again, whole = wave, True
        while again:
            pulled = retreat(again, places, want_dx and whole)
            again = []
            for part, found in pulled.items():
                here = part.net, own.rows(part)
                void = (found.outside | found.lacks) > 0
                if want_sums and not each and (void & ~(outside | lacking)[here]).any():
                    # Its sums hold what is void: once more, without.
                    again.append(part)
                    for array in tables:
                        array[places[part]] = _nothing(array[places[part]])
                if whole:
                    dh0[0][here], dh0[1][here] = found.dh, found.powers[:, None]
                    outside[here] |= found.outside > 0
                lacking[here] |= void
            whole = False
        if want_sums and not each:
            for array, total in zip(tables, totals, strict=True):
                for part, place in places.items():
                    add_table(array[place], total[part.net, 0])
                    array[place] = _nothing(array[place])
    if each:
        for array in tables:
            array[lacking] = _nothing(array[lacking])
    return (_found(own, totals) if want_sums else {}), outside, outside | lacking


def _wide(own: Layers) -> Layers:
    """The same nets in float64, of which x has but the shape."""
    weights = Weights(*(weight.astype(np.float64) for weight in own.weights))
    return replace(own, weights=weights, x=np.broadcast_to(0.0, own.x.shape))


def _replay(
    narrow: Layers,
    part: Part,
    h: FloatArray,
    h_powers: Doubles,
    start: int,
    ends: NDArray[np.int64],
    stride: int,
    outside: NDArray[np.uint8],
    outputs: int = 0,
) -> tuple[Doubles, Doubles, Doubles, Along]:
    """As `Layers.replay`, in float64, from h * 2**h_powers, (R, H) and (R,).

    f' is that of z, whatever the type of z, and states and f' may have exponents. Also predictions,
    if there are ``outputs``.
    """
    f, own, team = narrow.activation, narrow.stride, len(ends)
    rows = int(ends[0]) * team
    states, slopes = (
        aligned((count * stride + LINE_BYTES,), np.float64) for count in (rows + team, rows)
    )
    along = Along(np.zeros(1), np.zeros(rows + 1, np.uint8), *np.zeros((3, 1)))

    def predicted(hs: FloatArray, own: int) -> FloatArray:
        found, begin = panels.rooms((rows * outputs, team * outputs), hs.dtype)
        if outputs:
            layer_scaled.predict(
                narrow.shapes[2], narrow.packed_output[part.net], hs, team, int(ends[0]),
                narrow.hidden, outputs, own, along.state_powers, begin, found,
            )  # fmt: skip
        return found

    def widen(zs: FloatArray, hs: FloatArray, own: int) -> bool:
        found: bool = layer_scaled.widen(
            f, zs, hs, rows, team, narrow.hidden, own, slopes, states, stride, along.deep
        )
        return found

    if not h_powers.any():
        room = narrow.room(ends, own, 0)
        hs, zs, xs = narrow.replay(part, h, start, ends, own, room, want_z=True)
        if not widen(zs, hs, own):
            along = along._replace(predictions=predicted(hs, own))
            return states, slopes, _doubles(xs, rows * (narrow.x.shape[2] + 1)), along
    if f.name in BOUNDED:
        along = along._replace(slope_powers=np.zeros(rows * stride + LINE_BYTES))
        along = along._replace(
            mantissas=np.zeros_like(along.slope_powers), predictions=predicted(hs, own)
        )
        layer_scaled.deepen(
            f, zs, rows, narrow.hidden, own, slopes, along.slope_powers, stride, along.deep
        )
        return states, slopes, _doubles(xs, rows * (narrow.x.shape[2] + 1)), along
    # Vectors of a row must not reach into the next.
    own, inputs = max(own, LINE_BYTES // narrow.x.itemsize), narrow.x.shape[2]
    sizes = (rows + team) * own, rows * own, rows * (inputs + 1), team * own, team * inputs
    hs, zs, xs, begin, scaled_xs = panels.rooms(sizes, narrow.x.dtype)
    along = along._replace(state_powers=np.zeros(rows + team))
    layer_powers.replay(
        f, narrow.shapes[0], narrow.packed[part.net], view(narrow.x[:, start:]), inputs,
        narrow.rows(part), ends, own, h.copy(), h_powers, hs, zs, xs, along.state_powers, outside,
        begin, scaled_xs, np.arange(team) * inputs, narrow.room(ends, own, 0),
    )  # fmt: skip
    widen(zs, hs, own)
    along = along._replace(predictions=predicted(hs, own))
    return states, slopes, xs.astype(np.float64), along


def _doubles(numbers: FloatArray, count: int) -> Doubles:
    """The first of some numbers: what lies behind them may be anything."""
    wide = aligned((count + LINE_BYTES,), np.float64)
    wide[:count] = numbers[:count]
    return wide


def _after(
    narrow: Layers,
    part: Part,
    h: FloatArray,
    h_powers: Doubles,
    start: int,
    ends: NDArray[np.int64],
    outside: NDArray[np.uint8],
    keep: tuple[FloatArray, Doubles] | None = None,
) -> None:
    """Lead states h * 2**h_powers over a slice; all of them and exponents into (R, steps, H)."""
    stride, team = _stride(narrow), len(ends)
    hs, _, _, along = _replay(narrow, part, h, h_powers, start, ends, stride, outside)
    shape = int(ends[0]) + 1, team
    rows = hs[: shape[0] * team * stride].reshape(*shape, stride)[..., : narrow.hidden]
    powers = np.broadcast_to(
        along.state_powers.reshape(shape if along.state_powers.size > 1 else (1, 1)), shape
    )
    h[...], h_powers[...] = rows[ends, np.arange(team)], powers[ends, np.arange(team)]
    if keep is not None:
        mantissas, exponents = keep
        mantissas[:, : ends[0]] = rows[1:].swapaxes(0, 1)
        exponents[:, : ends[0]] = powers[1:].T[..., None]


def forward(
    narrow: Layers, h0: FloatArray, states: FloatArray | None, exponents: Doubles | None
) -> tuple[FloatArray, Doubles, NDArray[np.bool_]]:
    """The last states (K, B, H) and their exponents (K, B), where f squashes none.

    All of them and their exponents into (K, B, T, H) if given. Nets and sequences (K, B) outside of
    the kernel's range are void.
    """
    last, powers = np.array(h0), np.zeros(h0.shape[:2])
    outside = np.zeros(h0.shape[:2], bool)
    if narrow.activation.name not in BOUNDED:
        outside |= _too_small(narrow)[:, None]
    steps, _ = _wide(narrow).slice(*_memory(narrow, _wide(narrow), each=False, want_sums=False))

    def call(part: Part) -> None:
        rows = narrow.rows(part)
        h, h_powers, left = h0[part.net, rows], np.zeros(len(rows)), np.zeros(len(rows), np.uint8)
        for start in range(0, narrow.x.shape[1], steps):
            ends = narrow.ends(rows, start, steps)
            keep = None
            if states is not None and exponents is not None:
                here = slice(start, start + int(ends[0]))
                shape = len(rows), int(ends[0]), narrow.hidden
                keep = np.zeros(shape, h.dtype), np.zeros(shape)
            _after(narrow, part, h, h_powers, start, ends, left, keep)
            if keep is not None and states is not None and exponents is not None:
                states[part.net, rows, here], exponents[part.net, rows, here] = keep
        last[part.net, rows], powers[part.net, rows] = h, h_powers
        outside[part.net, rows] |= left > 0

    run(call, narrow.parts, narrow.workers)
    return last, powers, outside


def _starts(
    narrow: Layers,
    h: dict[Part, FloatArray],
    outside: dict[Part, Pulled],
    starts: range,
    steps: int,
) -> list[dict[Part, tuple[FloatArray, Doubles]]]:
    """States before each slice and their powers, from those before the first."""
    powers = {part: np.zeros(len(state)) for part, state in h.items()}
    if narrow.activation.name in BOUNDED:
        return [
            {part: (state, powers[part]) for part, state in kept.items()}
            for kept in narrow.starts(h, starts, steps)
        ]
    kept = []
    for start in starts:
        kept.append({part: (state.copy(), powers[part].copy()) for part, state in h.items()})
        if start + steps < narrow.x.shape[1]:

            def call(part: Part, start: int = start) -> None:
                ends = narrow.ends(narrow.rows(part), start, steps)
                _after(narrow, part, h[part], powers[part], start, ends, outside[part].outside)

            run(call, list(h), narrow.workers)
    return kept


def _too_small(own: Layers) -> NDArray[np.bool_]:
    """Nets (K,) whose pre-activations may be too small to be floats."""
    least = LEAST_WEIGHT[own.x.itemsize]
    w1, w2, b = (abs(weight) for weight in own.weights[:3])
    found = np.zeros(len(w2), bool)
    for weight in (w1, w2, b):
        axes = tuple(range(1, weight.ndim))
        found |= ((weight > 0) & (weight < least)).any(axis=axes)
    return found


def _back(own: Layers, net: int) -> Back:
    w1, w2, _, w3, _ = (weight[net] for weight in own.weights)
    states, inputs, _, _ = own.shapes
    shifts, leasts, floors, packed = np.zeros(3), np.ones(3), np.ones(3), []
    for i, (weight, panel) in enumerate(((w1, inputs), (w2, states), (w3, states))):
        size = abs(weight[weight != 0].astype(np.float64))
        if size.size and np.isfinite(size).all():
            shifts[i] = np.frexp(size.max())[1]
            leasts[i] = np.ldexp(size.min(), -int(shifts[i]))
            floors[i] = leasts[i] if size.size == weight.size else 0.0
        scaled = np.ldexp(weight, -int(shifts[i]))
        packed.append(panels.packed(scaled, panel))
    return Back(PackedBack(*packed), shifts, leasts, floors)


def least_memory(narrow: Layers, *, each: bool, want_sums: bool) -> int:
    """The least budget that `pull` takes."""
    own = _wide(narrow)
    return own.least_memory(*_memory(narrow, own, each=each, want_sums=want_sums))


def _memory(narrow: Layers, own: Layers, *, each: bool, want_sums: bool) -> tuple[int, int, int]:
    """Bytes that are held by a call, stride of rows, and bytes of each thread; see `Layers.slice`.

    A row has an exponent and is there in its narrow type too, and a chunk has its absolute values.
    """
    nets, batch_size, stride = len(own.weights.w2), len(own.x), _stride(own)
    inputs, outputs = own.x.shape[2], own.weights.w3.shape[1]
    # Sums of all, which are unpacked, and those of teams.
    rows = 2 * nets * (batch_size if each else 1)
    if not each:
        rows += min(MOST_SUMS, len(own.parts)) if want_sums else 1
    line = 3 * stride + inputs + 2 + outputs
    beside = own.team_size * (own.chunk(each) + 1) * line * own.x.itemsize
    # Two rows a step are counted.
    stride += 1 + -(-(2 * narrow.stride + inputs + 1) // 2)
    return rows * TABLE * 8 * sum(_padded_sizes(own).values()), stride, beside


def _stride(own: Layers) -> int:
    return panels.row_stride(max(own.hidden, LINE_BYTES // own.x.itemsize), own.x.dtype)


def _padded_sizes(own: Layers) -> dict[str, int]:
    """Components of each sum in whole vectors."""
    n = LINE_BYTES // 8
    return {name: -(-size // n) * n for name, size in own.sum_sizes.items()}


def _tables(own: Layers, rows: tuple[int, ...]) -> Sums:
    """Tables (rows, TABLE, components), see `kernels.tables`."""
    tables = []
    for name, size in _padded_sizes(own).items():
        shape = (*rows, TABLE, size)
        check_memory(f"d{name}", (2, *shape), np.float64, LESS)
        tables.append(_nothing(np.empty(shape)))
    return Sums(*tables)


def _nothing(table: Doubles) -> Doubles:
    empty = np.zeros_like(table)
    empty[..., POWER, :] = NO_POWER
    return empty


def _found(own: Layers, totals: Sums) -> dict[str, Total]:
    """Totals in rows and columns."""
    inputs, outputs = own.weights.w1.shape[2], own.weights.w3.shape[1]
    inner = {"w1": inputs + 1, "w2": own.hidden, "w3": outputs}
    found = {}
    for (name, size), table in zip(own.sum_sizes.items(), totals, strict=True):
        rows = table[..., VALUE, :] + table[..., LOST, :], table[..., SIZE, :], table[..., POWER, :]
        parts = [row[..., :size] for row in rows]
        if name in inner:
            parts = [panels.unpacked(p, inner[name], own.hidden, own.shapes[3]) for p in parts]
        found[name] = Total(*parts)
    by_x = found["w1"]
    found["w1"] = Total(*(p[..., :inputs, :].swapaxes(2, 3) for p in by_x))
    found["b"] = Total(*(p[..., inputs, :] for p in by_x))
    found["loss"] = Total(*(p[..., 0] for p in found["loss"]))
    return found
