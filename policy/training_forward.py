"""The forward of a model in training: hidden states everywhere, logits only where something is learnt.

Several sequences may share a row (`sequence_packing`): positions restart with each, from which transformers
builds a causal mask block by block. Not every family does, so a random batch is tried when the forward is
built, and families that get it wrong are padded; so is half precision, too coarse for the trial to tell. It
keeps no keys and values and computes no loss.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.policy import onednn_linear
from tokenzero.policy.sequence_packing import Layout, pack, pad, place
from tokenzero.policy.student import Output, Student

# Up to this many positions plain matrix products beat torch's fused attention on the CPU.
SHORT = 64
# Packing costs a mask and positions of every row's own, worth it from this share of the cells on.
SAVING = 0.1
# oneDNN compiles a kernel for each new shape and keeps about a thousand: the count of wanted cells is
# rounded up to a multiple of this.
CELLS = 32
_TOLERANCE = 1e-4


class TrainingForward:
    """Owns how ``student``'s model computes from now on (linear layers by oneDNN, attention by plain products
    for short sequences on the CPU), not what: the outputs are those of the model as it came, up to rounding.

    ``packs`` says whether several sequences may share a row, ``fast`` whether the faster kernels are in use.
    """

    def __init__(self, student: Student) -> None:
        self._student = student
        self._wanted: torch.Tensor | None = None
        self._hidden: torch.Tensor | None = None
        self.fast = False
        head: Any = student.model.get_output_embeddings()
        # First among the hooks: others see the rows that are left, and do not hold all of them for longer.
        head.register_forward_pre_hook(self._choose, prepend=True)
        lengths = _trial_lengths(student)
        draw = np.random.default_rng(0)
        trial = [draw.integers(0, student.vocab_size, size=length).tolist() for length in lengths.tolist()]
        expected = self._try(trial, pad(lengths))
        self.fast = self._speed_up() and self._agrees(expected, trial, pad(lengths))
        if not self.fast:
            self._slow_down()
        self.packs = self._agrees(expected, trial, pack(lengths))

    def layout(self, lengths: npt.NDArray[np.int64]) -> Layout:
        """How sequences of ``lengths`` i64 [N] are laid out: packed if that is right and worth it."""
        padded = pad(lengths)
        if not self.packs or lengths.sum() > (1.0 - SAVING) * padded.cells:
            return padded
        packed = pack(lengths)
        return packed if packed.cells <= (1.0 - SAVING) * padded.cells else padded

    def __call__(self, ids: torch.Tensor, positions: torch.Tensor | None, wanted: torch.Tensor) -> Output:
        """Logits [P, V], at least float32, at the cells ``wanted`` i64 [P], and the hidden states [R * W, D]
        of all cells, row by row.

        ``ids`` i64 [R, W]. ``positions`` i64 [R, W] restart with each sequence; None: one sequence a row.
        """
        spare = -len(wanted) % CELLS if self.fast else 0
        self._wanted = torch.cat((wanted, wanted[:1].expand(spare))) if spare else wanted
        options = {} if positions is None else {"position_ids": positions}
        try:
            logits = self._student.model(input_ids=ids, use_cache=False, **options).logits[0, : len(wanted)]
            hidden = self._hidden
        finally:
            self._wanted = self._hidden = None
        assert hidden is not None
        return Output(logits if logits.dtype == torch.float64 else logits.float(), hidden)

    def _choose(self, module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._wanted is None:  # a forward that is not ours
            return None
        self._hidden = inputs[0].flatten(0, -2)
        return (self._hidden.index_select(0, self._wanted)[None], *inputs[1:])

    def _speed_up(self) -> bool:
        model = self._student.model
        self._attention = model.config._attn_implementation
        if self._student.device.type != "cpu" or not onednn_linear.available():
            return False
        onednn_linear.install(model)
        if self._student.max_length <= SHORT:
            model.set_attn_implementation("eager")
        return True

    def _slow_down(self) -> None:
        onednn_linear.remove(self._student.model)
        if self._student.model.config._attn_implementation != self._attention:
            self._student.model.set_attn_implementation(self._attention)

    @torch.no_grad()
    def _try(self, trial: list[list[int]], layout: Layout) -> torch.Tensor:
        """Logits [P, V] at every token of ``trial``, in its order."""
        ids, positions = place(trial, layout, self._student.pad_id)
        cells = [start + i for start, s in zip(layout.starts, trial, strict=True) for i in range(len(s))]
        device = self._student.device
        given = torch.from_numpy(positions).to(device) if layout.packed else None
        return self(torch.from_numpy(ids).to(device), given, torch.tensor(cells, device=device)).logits

    def _agrees(self, expected: torch.Tensor, trial: list[list[int]], layout: Layout) -> bool:
        found = self._try(trial, layout)
        scale = float(expected.abs().max())
        return bool((found - expected).abs().max() <= _TOLERANCE * scale)


def _trial_lengths(student: Student) -> npt.NDArray[np.int64]:
    """Lengths that share rows, the longest longer than a sliding window when that is short."""
    window = getattr(student.model.config, "sliding_window", None)
    longest = 12 if not isinstance(window, int) or window > 256 else max(12, 2 * window + 3)
    longest = min(longest, student.max_length)
    return np.asarray([longest, max(1, longest // 3), max(1, longest // 2), longest, max(1, longest // 6)])
