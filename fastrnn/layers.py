"""Layers: nets of a bank over teams of sequences, advanced and walked back by the kernels.

A team is some sequences of the batch that one call computes side by side. Teams are cut from the
batch by its size and the layer's alone, so that the order of every sum, and with it every bit,
does not depend on threads. Long jobs are cut in time: states, gradients and sums are carried from
one slice to the next, and the states before each slice are all that is kept of a trajectory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastrnn.cached import cached_property, like
from fastrnn.checks import FloatArray
from fastrnn.kernels import BOUNDED, Activation, alone, layer, panels
from fastrnn.kernels.layer import SAMPLES, Packed, PackedBack, PackedOutput, Room, Sums
from fastrnn.kernels.panels import LINE_BYTES, Panel, aligned
from fastrnn.kernels.rows import LOSS_STEPS
from fastrnn.lanes import view
from fastrnn.memory import BudgetTooSmall, check_memory
from fastrnn.rnn import Weights
from fastrnn.threads import run

# Sequences of a team: so many share each weight that is loaded; narrow layers take more, for
# their steps are short.
TEAM, TEAM_NUMBERS = 16, 512
# A batch with fewer states than this is one team: two threads would wait for each other.
LEAST_SHARED = 64
# Sums of a net over its teams; what teams have above that is added to the same in their order.
MOST_SUMS = 16
# Multiply-adds of one call, 10 to 100 ms, so that Ctrl-C is heard; an activation is some 20.
CALL_WORK, ACTIVATION_WORK = 1 << 29, 20
# Bytes of a thread's states and derivatives, where no budget is given.
SLICE_BYTES = 1 << 24
# A slice holds whole chunks of all kinds.
SLICE_STEPS = SAMPLES
assert SLICE_STEPS % LOSS_STEPS == 0

Made = TypeVar("Made")
# Properties that follow from the form of the inputs.
KNOWN = (
    "hidden", "stride", "team_size", "order", "teams", "parts", "shapes", "sum_sizes",
    "affordable_steps",
)  # fmt: skip


class Part(NamedTuple):
    """One net and one of its teams."""

    net: int
    team: int


@dataclass(frozen=True, eq=False)
class Layers:
    """K nets over B sequences x (B, T, F) of some lengths (B,)."""

    activation: Activation
    weights: Weights
    x: FloatArray
    lengths: NDArray[np.int64]
    workers: int
    memory: int | None = None
    """Bytes of working memory a call may use; some 16 MB a thread and the sums where unbounded."""
    kept: dict[Any, Any] = field(default_factory=dict)
    """What was made of the weights, see `once`."""

    def looked_at(self) -> Layers:
        """What is known about these layers without their inputs: see `over`."""
        for name in KNOWN:
            getattr(self, name)
        return like(self, x=np.empty((0, 0, 0), self.x.dtype))

    def over(self, x: FloatArray, workers: int, memory: int | None) -> Layers:
        """The same layers over other inputs of the same form, with what was found about them."""
        return like(self, x=x, workers=workers, memory=memory)

    @cached_property
    def hidden(self) -> int:
        """Size of the layer."""
        return int(self.weights.w2.shape[1])

    @cached_property
    def stride(self) -> int:
        """From row to row of states."""
        return panels.row_stride(self.hidden, self.x.dtype)

    @cached_property
    def team_size(self) -> int:
        """Sequences of a team."""
        batch_size = len(self.x)
        team = max(TEAM, TEAM_NUMBERS // self.hidden)
        if batch_size * self.hidden >= LEAST_SHARED:
            team = min(team, -(-batch_size // 2))
        return max(1, min(team, batch_size))

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Sequences as teams take them: the longest first."""
        if (self.lengths == self.x.shape[1]).all():
            return np.arange(len(self.x))
        return np.argsort(-self.lengths, kind="stable")

    @cached_property
    def parts(self) -> list[Part]:
        """All nets and teams."""
        nets = range(len(self.weights.w2))
        return [Part(k, team) for k in nets for team in range(len(self.teams))]

    @cached_property
    def shapes(self) -> tuple[Panel, ...]:
        """Shapes of panels of states, inputs and outputs beside a team, and of sums."""
        rows, dtype = self.team_size, self.x.dtype
        sizes = self.hidden, self.weights.w1.shape[2], max(1, self.weights.w3.shape[1])
        own = [panels.panel_for(size, rows, dtype) for size in sizes]
        return (*own, panels.panel_for(self.hidden, self.hidden, dtype))

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """What is made of the weights, for panels of these shapes; it is kept with the net."""
        key = name, self.shapes, self.x.dtype
        if key not in self.kept:
            self.kept[key] = make()
        made: Made = self.kept[key]
        return made

    @property
    def packed(self) -> list[Packed]:
        """Weights of each net."""

        def make() -> list[Packed]:
            w1, w2, b, _, _ = self.weights
            w1, w2 = (panels.packed(w.swapaxes(1, 2), self.shapes[0]) for w in (w1, w2))
            return [Packed(*weights) for weights in zip(w1, w2, b, strict=True)]

        return self.once("packed", make)

    @property
    def packed_output(self) -> list[PackedOutput]:
        """The read-out of each net; one of zeros where there is none."""

        def make() -> list[PackedOutput]:
            _, _, _, w3, b3 = self.weights
            if w3.shape[1] == 0:
                w3, b3 = (np.zeros((len(w3), 1, *w.shape[2:]), w.dtype) for w in (w3, b3))
            w3 = panels.packed(w3.swapaxes(1, 2), self.shapes[2])
            return [PackedOutput(*weights) for weights in zip(w3, b3, strict=True)]

        return self.once("packed_output", make)

    @property
    def packed_back(self) -> list[PackedBack]:
        """Weights of each net for steps back."""

        def make() -> list[PackedBack]:
            w1, w2, _, w3, _ = self.weights
            states, inputs, _, _ = self.shapes
            arrays = [panels.packed(w, p) for w, p in ((w1, inputs), (w2, states), (w3, states))]
            return [PackedBack(*weights) for weights in zip(*arrays, strict=True)]

        return self.once("packed_back", make)

    @property
    def in_vectors(self) -> list[Packed]:
        """Weights of each net for `alone`."""

        def make() -> list[Packed]:
            w1, w2, b, _, _ = self.weights
            arrays = map(panels.in_vectors, (w1.swapaxes(1, 2), w2.swapaxes(1, 2), b[:, None]))
            return [Packed(*weights) for weights in zip(*arrays, strict=True)]

        return self.once("in_vectors", make)

    @property
    def in_vectors_back(self) -> list[PackedBack]:
        """The same for steps back, of which only those from state to state are `alone`'s."""

        def make() -> list[PackedBack]:
            w1, w2, _, w3, _ = self.weights
            states, inputs, _, _ = self.shapes
            arrays = panels.packed(w1, inputs), panels.in_vectors(w2), panels.packed(w3, states)
            return [PackedBack(*weights) for weights in zip(*arrays, strict=True)]

        return self.once("in_vectors_back", make)

    @property
    def leasts(self) -> list[tuple[float, float]]:
        """The smallest weights but for 0, of W2 and of W3, of each net."""

        def make() -> list[tuple[float, float]]:
            of_nets = [
                np.where(w == 0, np.inf, abs(w)).reshape(len(w), -1).min(axis=1, initial=np.inf)
                for w in (self.weights.w2, self.weights.w3)
            ]
            return [(float(w2), float(w3)) for w2, w3 in zip(*of_nets, strict=True)]

        return self.once("leasts", make)

    def rows(self, part: Part) -> NDArray[np.int64]:
        """Sequences of a team."""
        return self.teams[part.team]

    @cached_property
    def teams(self) -> list[NDArray[np.int64]]:
        """Sequences of each team."""
        starts = range(0, len(self.x), self.team_size)
        return [self.order[start : start + self.team_size] for start in starts]

    def forward(self, h0: FloatArray, states: FloatArray | None = None) -> FloatArray:
        """The last state (K, B, H), and all of them into ``states`` (K, B, T, H) if given."""
        h = {part: h0[part.net, self.rows(part)] for part in self.parts}
        steps = max(1, self.affordable_steps)
        for start in range(0, self.x.shape[1], steps):
            self._advance(h, start, steps, states)
        last = np.empty_like(h0)
        for part, state in h.items():
            last[part.net, self.rows(part)] = state
        return last

    def backward(
        self,
        h0: FloatArray,
        upstream: FloatArray,
        dlast: FloatArray,
        dx: FloatArray | None,
        *,
        fused: bool,
        each: bool,
        sums: Sums | None = None,
    ) -> tuple[Sums, FloatArray, NDArray[np.uint8]]:
        """Sums of the loss and of the weights' gradients, see `found`, and dh0 (K, B, H).

        Given ``sums`` are those of later steps, and are added to. Also LOST or VOID (K, B), see
        there, of sequences of which floats may have lost something.
        """
        dh0 = np.empty_like(dlast)
        lost = np.zeros(dlast.shape[:2], np.uint8)
        if sums is None:
            sums = self._nothing(each)
        steps, workers = self.slice(self.held(each), self.stride)
        starts = range(0, self.x.shape[1], steps)
        # A single number that all steps share is 0 but for a caller's own broadcast.
        want_upstream = fused or any(upstream.strides) or bool(upstream[:1, :1, :1, :1].any())
        # Parts that go together add to different sums; those of one sum come one after the other.
        for first in range(0, len(self.parts), MOST_SUMS):
            wave = self.parts[first : first + MOST_SUMS]
            h = {part: h0[part.net, self.rows(part)] for part in wave}
            dh = {part: dlast[part.net, self.rows(part)] for part in wave}
            marks = {part: np.zeros(len(state), np.uint8) for part, state in h.items()}
            kept = self.starts(h, starts, steps)
            for start in reversed(starts):
                self._retreat(
                    kept.pop(),
                    dh,
                    marks,
                    start,
                    steps,
                    upstream,
                    want_upstream,
                    dx,
                    sums,
                    fused,
                    each,
                    workers,
                )
            for part, gradient in dh.items():
                dh0[part.net, self.rows(part)] = gradient
                lost[part.net, self.rows(part)] = marks[part]
        return sums, dh0, lost

    def predict(self, states: FloatArray, y: FloatArray) -> None:
        """Predictions into y (K, B, T, O)."""
        panel, outputs = self.shapes[2], y.shape[3]
        steps = max(1, self.affordable_steps)
        for start in range(0, self.x.shape[1], steps):

            def call(part: Part, start: int = start) -> None:
                rows = self.rows(part)
                layer.predict(
                    panel, self.packed_output[part.net], view(states[part.net, :, start:]),
                    self.hidden, outputs, rows, self.ends(rows, start, steps), self.weights.w2,
                    view(y[part.net, :, start:]),
                )  # fmt: skip

            run(call, self.parts, self.workers)

    def starts(
        self, h: dict[Part, FloatArray], starts: range, steps: int
    ) -> list[dict[Part, FloatArray]]:
        """States before each slice, from those before the first."""
        kept = []
        for start in starts:
            kept.append({part: state.copy() for part, state in h.items()})
            if start + steps < self.x.shape[1]:
                self._advance(h, start, steps, None)
        return kept

    def chunk(self, each: bool) -> int:
        """Steps whose sums are in the own type: a power of two, as a slice is of whole chunks."""
        return SAMPLES if each else max(1, SAMPLES >> (self.team_size - 1).bit_length())

    def replay(
        self,
        part: Part,
        h: FloatArray,
        start: int,
        ends: NDArray[np.int64],
        stride: int,
        room: Room,
        want_z: bool = False,
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """States, derivatives or z, and inputs of a part's sequences in a slice."""
        rows, inputs = self.rows(part), self.x.shape[2]
        block, longest = len(rows) * stride, int(ends[0])
        sizes = (longest + 1) * block, longest * block, longest * len(rows) * (inputs + 1)
        # A vector may reach behind the last number.
        hs, slopes, xs = (aligned((size + LINE_BYTES,), self.x.dtype) for size in sizes)
        x = view(self.x[:, start:])
        if self.is_single(rows):
            alone.replay(
                self.activation, self.in_vectors[part.net], x, inputs, rows[0], longest, stride, h,
                want_z, hs, slopes, xs,
            )  # fmt: skip
        else:
            layer.replay(
                self.activation, self.shapes[0], self.packed[part.net], x, inputs, rows, ends,
                stride, h, want_z, hs, slopes, xs, room,
            )  # fmt: skip
        return hs, slopes, xs

    def _advance(
        self, h: dict[Part, FloatArray], start: int, steps: int, states: FloatArray | None
    ) -> None:
        """Lead the states of some parts on over some steps."""
        x, inputs = view(self.x[:, start:]), self.x.shape[2]

        def call(part: Part) -> None:
            rows, state = self.rows(part), h[part]
            ends, keep = self.ends(rows, start, steps), states is not None
            out = view(state[:, None] if states is None else states[part.net, :, start:])
            if self.is_single(rows):
                alone.forward(
                    self.activation, self.in_vectors[part.net], x, inputs, rows[0], ends[0], state,
                    keep, out, *panels.rooms([self.hidden], state.dtype),
                )  # fmt: skip
            else:
                size = len(rows) * self.stride
                layer.forward(
                    self.activation, self.shapes[0], self.packed[part.net], x, inputs, rows, ends,
                    self.stride, state, keep, out, *panels.rooms([size, size], state.dtype),
                    rows * x[1], np.arange(len(rows)) * self.stride,
                )  # fmt: skip

        run(call, list(h), self.workers)

    def _retreat(
        self,
        h: dict[Part, FloatArray],
        dh: dict[Part, FloatArray],
        lost: dict[Part, NDArray[np.uint8]],
        start: int,
        steps: int,
        upstream: FloatArray,
        want_upstream: bool,
        dx: FloatArray | None,
        sums: Sums,
        fused: bool,
        each: bool,
        workers: int,
    ) -> None:
        """Walk the gradients of some parts back over some steps."""
        inputs, outputs = self.x.shape[2], self.weights.w3.shape[1]
        chunk = self.chunk(each)

        def call(part: Part) -> None:
            rows = self.rows(part)
            own = rows if each else slice(part.team % MOST_SUMS, part.team % MOST_SUMS + 1)
            mine = Sums(*(array[part.net, own] for array in sums))
            into = view(self.x if dx is None else dx[part.net, :, start:])
            ends = self.ends(rows, start, steps)
            room = self.room(ends, self.stride, outputs if fused else 0)
            hs, slopes, xs = self.replay(part, h[part], start, ends, self.stride, room)
            single = self.is_single(rows) and (outputs == 0 or not fused)
            back = (self.in_vectors_back if single else self.packed_back)[part.net]
            layer.retreat(
                self.shapes, self.packed_output[part.net], back, self.leasts[part.net], hs, slopes,
                xs, self.activation.name in BOUNDED, inputs, outputs, rows, ends, self.stride,
                chunk, each, fused, view(upstream[part.net, :, start:]), want_upstream, single,
                dh[part], mine, into, dx is not None, lost[part], room,
            )  # fmt: skip
            if each:
                for array, found in zip(sums, mine, strict=True):
                    array[part.net, rows] = found

        run(call, list(h), workers)

    def is_single(self, rows: NDArray[np.int64]) -> bool:
        """Whether a team is work for `alone`."""
        return len(rows) == 1 and self.hidden <= LINE_BYTES // self.x.itemsize

    def room(self, ends: NDArray[np.int64], stride: int, outputs: int) -> Room:
        """What a team's walk forward once more and back works in."""
        columns = panels.width(self.shapes[3])
        return layer.room(
            len(ends), stride, self.x.shape[2], outputs, int(ends[0]), columns, self.x.dtype
        )

    def ends(self, rows: NDArray[np.int64], start: int, steps: int) -> NDArray[np.int64]:
        """Where sequences end in a slice."""
        left = self.lengths[rows] - start
        # np.clip takes five times as long of a few numbers.
        return np.minimum(np.maximum(left, 0), min(steps, self.x.shape[1] - start))

    @cached_property
    def affordable_steps(self) -> int:
        """Steps forward that take a bounded time."""
        inputs, outputs = self.weights.w1.shape[2], self.weights.w3.shape[1]
        of_unit = self.hidden + inputs + outputs + ACTIVATION_WORK
        return int(CALL_WORK // (self.hidden * of_unit * self.team_size))

    def slice(self, held: int, stride: int, beside: int = 0) -> tuple[int, int]:
        """Steps of a slice and threads that keep to the budget, the one that costs least time.

        Bytes are ``held`` by the call, and by each thread ``beside`` its rows.
        """
        most = self._slice_steps(stride)
        if self.memory is None:
            return most, self.workers
        for workers in range(self.workers, 0, -1):
            for steps in range(most, 0, -SLICE_STEPS):
                if self._bytes(held, stride, beside, steps, workers) <= self.memory:
                    return steps, workers
        raise BudgetTooSmall(self.memory, self.least_memory(held, stride, beside))

    def least_memory(self, held: int, stride: int, beside: int = 0) -> int:
        """The least budget that `slice` takes."""
        choices = range(self._slice_steps(stride), 0, -SLICE_STEPS)
        return min(self._bytes(held, stride, beside, steps, 1) for steps in choices)

    def _slice_steps(self, stride: int) -> int:
        """Steps of a slice without a budget."""
        total = self.x.shape[1] + SLICE_STEPS - 1
        # A step back takes as long as three forward.
        most = min(self.affordable_steps // 3, SLICE_BYTES // self._step_bytes(stride), total)
        return int(max(1, most // SLICE_STEPS) * SLICE_STEPS)

    def _step_bytes(self, stride: int) -> int:
        """Bytes of a step of a team: states, slopes, inputs and errors."""
        inputs, outputs = self.weights.w1.shape[2], self.weights.w3.shape[1]
        return int(self.team_size * self.x.itemsize * (2 * stride + inputs + 1 + outputs))

    def _bytes(self, held: int, stride: int, beside: int, steps: int, workers: int) -> int:
        states = min(len(self.parts), MOST_SUMS) * self.team_size * self.hidden * self.x.itemsize
        kept = states * (self.x.shape[1] // steps + 3)
        return int(held + kept + workers * ((steps + 8) * self._step_bytes(stride) + beside))

    @cached_property
    def sum_sizes(self) -> dict[str, int]:
        """Components of each sum, in panels."""
        inputs, outputs = self.weights.w1.shape[2], self.weights.w3.shape[1]
        columns = panels.count(self.hidden, self.shapes[3]) * panels.width(self.shapes[3])
        sizes = 1, (inputs + 1) * columns, self.hidden * columns, outputs * columns, outputs
        return dict(zip(Sums._fields, sizes, strict=True))

    def _sum_rows(self, each: bool) -> int:
        batch_size = len(self.x)
        return batch_size if each else min(MOST_SUMS, -(-batch_size // self.team_size))

    def held(self, each: bool) -> int:
        """Bytes of the sums, and of what they are unpacked to."""
        return 2 * len(self.weights.w2) * self._sum_rows(each) * sum(self.sum_sizes.values()) * 8

    def _nothing(self, each: bool) -> Sums:
        nets, rows = len(self.weights.w2), self._sum_rows(each)
        for name, size in self.sum_sizes.items():
            check_memory(f"d{name}", (2 * nets, rows, size), np.float64, "fewer nets a call")
        return Sums(*(np.zeros((nets, rows, size)) for size in self.sum_sizes.values()))

    def found(self, sums: Sums) -> dict[str, FloatArray]:
        """Sums (K, B or less, ...) of the loss and of each weight's gradient."""
        inputs, outputs = self.weights.w1.shape[2], self.weights.w3.shape[1]

        def whole(array: FloatArray, rows: int) -> FloatArray:
            return panels.unpacked(array, rows, self.hidden, self.shapes[3])

        by_x = whole(sums.w1, inputs + 1)
        return {
            "loss": sums.loss[..., 0],
            "w1": by_x[..., :inputs, :].swapaxes(2, 3),
            "w2": whole(sums.w2, self.hidden),
            "b": by_x[..., inputs, :],
            "w3": whole(sums.w3, outputs),
            "b3": sums.b3,
        }
