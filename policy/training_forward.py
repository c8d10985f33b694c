"""The forward of a model in training: hidden states everywhere, logits only where something is learnt.

Several sequences may share a row (`sequence_packing`): positions restart with each, from which transformers
builds a causal mask block by block. Trees of sequences (`tree_packing`) are read with each token once. Not
every family does either, so random batches are tried when the forward is built, and families that get them
wrong are padded, and read a tree's chains; so is half precision, too coarse for the trial to tell. It keeps
no keys and values and computes no loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.policy import onednn_linear
from tokenzero.policy.ancestor_attention import attending
from tokenzero.policy.attention_switch import attention_configs
from tokenzero.policy.sequence_packing import Layout, cells_of, pack, pad, place, spread
from tokenzero.policy.student import Output, Student
from tokenzero.policy.tree_packing import (
    Forest,
    PackedTrees,
    Way,
    forest,
    in_one_row,
    mask_of,
    paths_of,
    unfold,
)

# Up to this many positions plain matrix products beat torch's fused attention on the CPU.
SHORT = 64
# Packing costs a mask and positions of every row's own, worth it from this share of the cells on.
SAVING = 0.1
# oneDNN compiles a kernel for each new shape and keeps about a thousand: the count of wanted cells is
# rounded up to a multiple of this.
CELLS = 32
_TOLERANCE = 1e-4
Ids = npt.NDArray[np.int64]


class TrainingForward:
    """Owns how ``student``'s model computes from now on (linear layers by oneDNN, attention by plain products
    for short sequences on the CPU), not what: the outputs are those of the model as it came, up to rounding.

    ``packs`` says whether several sequences may share a row, ``way`` how trees are read, ``fast`` whether the
    faster kernels are in use. With ``autocast`` the model's products are computed in that type (bfloat16)
    while its weights stay as they are; the trials, which coarse numbers would not pass, come before.
    """

    def __init__(self, student: Student, autocast: torch.dtype | None = None) -> None:
        self._student = student
        self._autocast: torch.dtype | None = None
        self._wanted: torch.Tensor | None = None
        self._hidden: torch.Tensor | None = None
        self._configs = attention_configs(student.model)
        self.fast = False
        head: Any = student.model.get_output_embeddings()
        # First among the hooks: others see the rows that are left, and do not hold all of them for longer.
        head.register_forward_pre_hook(self._choose, prepend=True)
        lengths = _trial_lengths(student)
        draw = np.random.default_rng(0)
        trial = [draw.integers(0, student.vocab_size, size=length).tolist() for length in lengths.tolist()]
        expected = self._try(trial, pad(lengths))
        if autocast is None:  # the faster kernels are for float32
            self.fast = self._speed_up() and self._agrees(expected, trial, pad(lengths))
            if not self.fast:
                self._slow_down()
        self.packs = self._agrees(expected, trial, pack(lengths))
        self.way = self._find_way(draw)
        self._autocast = autocast

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._student.device

    def layout(self, lengths: npt.NDArray[np.int64]) -> Layout:
        """How sequences of ``lengths`` i64 [N] are laid out: packed if that is right and worth it."""
        padded = pad(lengths)
        if not self.packs or lengths.sum() > (1.0 - SAVING) * padded.cells:
            return padded
        packed = pack(lengths)
        return packed if packed.cells <= (1.0 - SAVING) * padded.cells else padded

    def share_layouts(self, other: TrainingForward) -> None:
        """From now on what one of the two packs, the other can read."""
        self.packs = other.packs = self.packs and other.packs
        if self.way != other.way:
            self.way = other.way = Way.CHAINS

    def pack(self, ids: Sequence[Ids], parents: Sequence[Ids]) -> PackedTrees:
        """Sequence trees (see `tree_packing`) laid out for this model; callers need not know how.

        ``ids`` and ``parents`` i64 [T] of each tree, none deeper than the model has positions. Trees that do
        not branch are plain sequences.

        Raises:
            InputError: a tree without tokens, or with a parent that does not stand before its child.
        """
        trees = forest(parents)
        tokens = np.concatenate(ids)
        if trees.branch:
            return self._packed(tokens, trees, self.way)
        return self._placed(tokens, trees.sizes, trees.depths, self.layout(trees.sizes))

    def _packed(self, ids: Ids, trees: Forest, way: Way) -> PackedTrees:
        if way == Way.PATHS:
            layout = in_one_row(trees.sizes)
            return self._placed(ids, trees.sizes, trees.depths, layout, paths_of(trees, layout))
        if way == Way.MASK:
            layout = pack(trees.sizes)
            return self._placed(ids, trees.sizes, trees.depths, layout, mask_of(trees, layout))
        lengths, tokens, read = unfold(trees)
        packed = self._placed(ids[tokens], lengths, trees.depths[tokens], self.layout(lengths))
        return packed._replace(cells=packed.cells[read])

    def _placed(
        self, ids: Ids, sizes: Ids, depths: Ids, layout: Layout, mask: npt.NDArray[Any] | None = None
    ) -> PackedTrees:
        cells, device = cells_of(layout, sizes), self._student.device
        placed = torch.from_numpy(spread(ids, cells, layout, self._student.pad_id)).to(device)
        positions = torch.from_numpy(spread(depths, cells, layout, 0)).to(device)
        return PackedTrees(
            placed,
            positions if layout.packed or mask is not None else None,
            None if mask is None else torch.from_numpy(mask).to(device),
            cells,
        )

    def __call__(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor | None,
        wanted: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> Output:
        """Logits [P, V], at least float32, at the cells ``wanted`` i64 [P], and the hidden states [R * W, D]
        of all cells, row by row.

        ``ids`` i64 [R, W]. ``positions`` i64 [R, W] restart with each sequence; None: one sequence a row.
        ``mask`` as :meth:`pack` made it; None: each cell attends to its sequence up to itself.
        """
        spare = -len(wanted) % CELLS if self.fast else 0
        self._wanted = torch.cat((wanted, wanted[:1].expand(spare))) if spare else wanted
        options = {} if positions is None else {"position_ids": positions}
        try:
            with self._masked(mask, positions) as masks, self._precision():
                model = self._student.model
                logits = model(input_ids=ids, use_cache=False, **options, **masks).logits[0, : len(wanted)]
            hidden = self._hidden
        finally:
            self._wanted = self._hidden = None
        assert hidden is not None
        return Output(logits if logits.dtype == torch.float64 else logits.float(), hidden)

    def _precision(self) -> AbstractContextManager[None]:
        """The type of products while the model is called."""
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, self._autocast)

    @contextmanager
    def _masked(self, mask: torch.Tensor | None, positions: torch.Tensor | None) -> Iterator[dict[str, Any]]:
        """What to hand to the model, which attends as ``mask`` says meanwhile."""
        if mask is None:
            yield {}
            return
        assert positions is not None
        if mask.dtype == torch.bool:
            yield {"attention_mask": self._attention_mask(mask, positions)}
            return
        lengths = (positions.flatten() + 1).to(torch.int32)
        with attending(self._configs, mask.numpy(), lengths.numpy()):
            yield {}

    def _attention_mask(self, mask: torch.Tensor, positions: torch.Tensor) -> Any:
        """[R, 1, W, W] as numbers to add to the scores, since plain products take no others; by kind of layer
        where some of the layers, and not all, have a sliding window.
        """
        kinds, window = self._windows()
        if window is None:
            return self._added(mask)
        near = self._added(mask & (positions[:, :, None] - positions[:, None, :] < window))
        return {"full_attention": self._added(mask), "sliding_attention": near} if len(kinds) > 1 else near

    def _windows(self) -> tuple[set[str], int | None]:
        config = self._student.model.config
        window = getattr(config, "sliding_window", None)
        kinds = set(getattr(config, "layer_types", None) or ())
        return kinds, window if isinstance(window, int) and kinds != {"full_attention"} else None

    def _added(self, mask: torch.Tensor) -> torch.Tensor:
        dtype = self._student.model.dtype
        added = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        return added.masked_fill_(~mask, torch.finfo(dtype).min)[:, None]

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
        cells = torch.from_numpy(cells_of(layout, np.asarray([len(sequence) for sequence in trial])))
        device = self._student.device
        given = torch.from_numpy(positions).to(device) if layout.packed else None
        return self(torch.from_numpy(ids).to(device), given, cells.to(device)).logits

    def _agrees(self, expected: torch.Tensor, trial: list[list[int]], layout: Layout) -> bool:
        return _close(self._try(trial, layout), expected)

    @torch.no_grad()
    def _find_way(self, draw: np.random.Generator) -> Way:
        """The first way in which random trees give the logits of their chains."""
        parents = _trial_trees(self._student, draw)
        trees = forest(parents)
        ids = draw.integers(0, self._student.vocab_size, size=len(trees.parents))
        expected = self._read(self._packed(ids, trees, Way.CHAINS))
        model = self._student.model
        compiled = model.device.type == "cpu" and model.dtype == torch.float32
        for way in (Way.PATHS, Way.MASK) if compiled else (Way.MASK,):
            try:
                found = self._read(self._packed(ids, trees, way))
            except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
                continue  # a family that does not take such a mask may fail anywhere
            if _close(found, expected):
                return way
        return Way.CHAINS

    def _read(self, packed: PackedTrees) -> torch.Tensor:
        """Logits [T, V] at every token of the trees."""
        wanted = torch.from_numpy(packed.cells).to(self._student.device)
        return self(packed.ids, packed.positions, wanted, packed.mask).logits


def _trial_lengths(student: Student) -> npt.NDArray[np.int64]:
    """Lengths that share rows, the longest longer than a sliding window when that is short."""
    window = getattr(student.model.config, "sliding_window", None)
    longest = 12 if not isinstance(window, int) or window > 256 else max(12, 2 * window + 3)
    longest = min(longest, student.max_length)
    return np.asarray([longest, max(1, longest // 3), max(1, longest // 2), longest, max(1, longest // 6)])


def _trial_trees(student: Student, draw: np.random.Generator) -> list[Ids]:
    """Parents of two random trees as deep as the longest trial sequence, one of them wider than the model's
    positions where that is cheap.
    """
    longest = int(_trial_lengths(student).max())
    return [_random_tree(draw, longest + extra, longest) for extra in (min(student.max_length, 256), 5)]


def _random_tree(draw: np.random.Generator, size: int, longest: int) -> Ids:
    """Parents i64 [size]: a path of ``longest`` tokens, and others that leave anywhere and end no deeper."""
    parents, depths = list(range(-1, longest - 1)), list(range(longest))
    while len(parents) < size:
        at = int(draw.integers(-1, len(parents)))  # -1: one more first token
        depth = depths[at] + 1 if at >= 0 else 0
        for below in range(depth, int(draw.integers(depth, longest)) + 1 if depth < longest else depth):
            parents.append(at)
            depths.append(below)
            at = len(parents) - 1
    return np.asarray(parents[:size])


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= _TOLERANCE * float(expected.abs().max()))
