"""What a search is told: one frozen record of options with their ranges.

It does not read YAML, does not know the command line and holds no random state. A value out of range raises
`InputError` when the record is made, so that a search never starts on bad options.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from tokenzero.mcts.errors import InputError

METHODS = ("puct", "gumbel", "frontier")
SCORES = ("expected", "sampling")
RESCALES = ("siblings", "tree", "none")
FPUS = ("min", "parent", "reduction")


@dataclass(frozen=True)
class SearchConfig:
    """Options of one search. Every default is mctx's where mctx has the option (`stop_at_terminal` apart).

    method: "puct" (AlphaZero/MuZero, Appendix B of arXiv:1911.08265) or "gumbel" (sequential halving at the
        root and completed Q below it, Danihelka et al., ICLR 2022) or "frontier" (play-outs from the best
        unexpanded child anywhere in the tree; it commits to nothing).
    simulations: simulations per `search()` call and tree. 0 evaluates nothing and answers from the root's
        prior. Of frontier search: play-outs, unless `tokens` is given.
    tokens: most states to forward in one frontier search, terminal ones apart, which cost no forward; None
        leaves it to `simulations`. A `Player` counts the prompt in.
    candidates: K, candidate slots per node. The evaluator may give fewer, never more.
    max_depth: longest path in edges from the root; None is unlimited.
    leaves: leaves per tree in one evaluation. Above 1 the leaves of a step are kept apart by virtual loss.
    virtual_loss: pessimism of a visit in flight, in value units: it counts as a visit that returned the
        child's mean minus this much. 0 leaves only the visit count (WU-UCT, arXiv:1810.11755).
    discount: factor on the child's value at every edge.
    node_capacity: node slots per tree including the root; None is `simulations + 1`. A full tree searches on
        in what it has.
    stop_at_terminal: nothing grows under a terminal node. Off equals mctx, which knows no terminal nodes.
    stop_on_solution: a tree is finished once it holds a terminal node whose raw value is >= `solution_value`.
    skip_exhausted: never walk again into a subtree whose every leaf is terminal (MCTS-Solver, Winands et al.
        2008, with candidates for moves); a tree with nothing else left ends early. For search that wants a
        solution: visits stop where a subtree is settled, so leave it off when they are targets.
    reuse_subtree: after a move the next search starts from what the last one knew below it. Read by the
        caller that commits moves, which passes `carried` to `search()`.
    q_rescale: "siblings" scales Q to [0, 1] by the extremes at the node (mctx), "tree" by the extremes of all
        Q seen in the tree (MuZero), "none" takes values to lie in [-1, 1].
    min_spread: least difference between the extremes when Q is rescaled (mctx's epsilon). The default
        rescales any difference to the full range; a larger one keeps a lost position, where Q differs by
        noise alone, near its prior.
    c_init, c_base: the exploration constants of PUCT.
    fpu: what an unvisited child is worth under PUCT: "min" the bottom of the scale (mctx), "parent" its
        parent's value, "reduction" the parent's value minus `fpu_reduction * sqrt(prior mass already
        visited)`, both on the [0, 1] scale.
    dirichlet_fraction, dirichlet_alpha: share and concentration of Dirichlet noise in the root prior (PUCT
        only).
    temperature: PUCT's final choice is drawn from visits ** (1 / temperature); 0 takes the most visited.
    smart_pruning: end a search when the simulations left cannot change which root child is the most visited
        (as Lc0 does). The choice at temperature 0 stays the same; the visits do not, so leave it off when
        they are targets. With skip_exhausted a subtree that would have been settled later may decide
        otherwise. PUCT only.
    min_kld_gain, kld_interval: end a search when its root visits have settled: every `kld_interval` visits,
        KL(visits then || visits now) in nats per new visit is compared with the bound (Lc0's KLDGainStopper);
        0 is off. PUCT only: under sequential halving the visits follow a plan and say nothing about
        convergence.
    prune_targets: take from `SearchResult.weights` the visits that only exploration explains: policy target
        pruning (KataGo, arXiv:1902.10565, section 3.2) without forced playouts. PUCT only.
    considered: most root actions that sequential halving starts from.
    gumbel_scale: scale of the root's Gumbel noise; 0 makes the choice deterministic.
    value_scale, maxvisit_init, use_mixed_value: the completed-Q transform of the Gumbel method.
    frontier_score: "expected" takes the child with the best chance of success per token still to pay:
        log((W + kappa v) / (N + kappa) + 1e-4) - omega log(G - depth) + tau log P + g Gumbel, with N
        play-outs and W wins through its parent, v the parent's value as a chance, G = `max_depth`, the
        longest answer, which must be given. "sampling" takes children so that ends come in the order of a
        sample without replacement (Kool et al., arXiv:1903.06059).
    revise_visits: visits at which a node below the root has its candidates priced anew by the evaluator (see
        `revision`); 0 is never.
    value_weight, cost_exponent, prior_exponent, frontier_noise: kappa, omega, tau and g of that score.

    Raises InputError for an unknown name or a number out of its range.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    method: str = "gumbel"
    simulations: int = 16
    candidates: int = 16
    max_depth: int | None = None
    leaves: int = 1
    virtual_loss: float = 1.0
    discount: float = 1.0
    node_capacity: int | None = None
    stop_at_terminal: bool = True
    stop_on_solution: bool = False
    skip_exhausted: bool = False
    reuse_subtree: bool = False
    solution_value: float = 1.0
    q_rescale: str = "siblings"
    min_spread: float = 1e-8
    c_init: float = 1.25
    c_base: float = 19652.0
    fpu: str = "min"
    fpu_reduction: float = 0.25
    dirichlet_fraction: float = 0.0
    dirichlet_alpha: float = 0.3
    temperature: float = 1.0
    smart_pruning: bool = False
    min_kld_gain: float = 0.0
    kld_interval: int = 16
    prune_targets: bool = False
    considered: int = 16
    gumbel_scale: float = 1.0
    value_scale: float = 0.1
    maxvisit_init: float = 50.0
    use_mixed_value: bool = True
    tokens: int | None = None
    frontier_score: str = "expected"
    value_weight: float = 1.0
    cost_exponent: float = 1.0
    prior_exponent: float = 1.0
    frontier_noise: float = 0.5
    revise_visits: int = 0

    def __post_init__(self) -> None:
        _one_of("method", self.method, METHODS)
        _one_of("q_rescale", self.q_rescale, RESCALES)
        _one_of("fpu", self.fpu, FPUS)
        _one_of("frontier_score", self.frontier_score, SCORES)
        _at_least("simulations", self.simulations, 0)
        _at_least("revise_visits", self.revise_visits, 0)
        for name in ("candidates", "leaves", "considered", "kld_interval"):
            _at_least(name, getattr(self, name), 1)
        for name in ("max_depth", "node_capacity", "tokens"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        for name in (
            "virtual_loss",
            "c_init",
            "fpu_reduction",
            "temperature",
            "gumbel_scale",
            "min_kld_gain",
            "value_weight",
            "cost_exponent",
            "prior_exponent",
            "frontier_noise",
        ):
            _number(name, getattr(self, name), low=0.0)
        for name in ("value_scale", "maxvisit_init"):
            _number(name, getattr(self, name), low=0.0)
        for name in ("c_base", "dirichlet_alpha", "min_spread"):
            _number(name, getattr(self, name), low=0.0, open_low=True)
        for name in ("discount", "dirichlet_fraction"):
            _number(name, getattr(self, name), low=0.0, high=1.0)
        _number("solution_value", self.solution_value)
        if self.tokens is not None and self.method != "frontier":
            raise InputError(
                f'search.tokens is {self.tokens} but search.method is "{self.method}"; '
                'leave it out or use method "frontier"'
            )
        if self.revise_visits and self.method == "frontier" and self.frontier_score == "sampling":
            raise InputError(
                f"search.revise_visits is {self.revise_visits} but a sample without replacement keeps its "
                'distribution; set it to 0 or use frontier_score "expected"'
            )
        for name in ("smart_pruning", "min_kld_gain", "prune_targets"):
            if getattr(self, name) and self.method != "puct":
                raise InputError(
                    f'search.{name} is {getattr(self, name)} but search.method is "{self.method}"; '
                    'leave it out or use method "puct"'
                )

    @property
    def nodes(self) -> int:
        """Node slots per tree, the root included."""
        return self.simulations + 1 if self.node_capacity is None else self.node_capacity


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"search.{name} is {value!r}; choose one of {', '.join(known)}")


def _at_least(name: str, value: int, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise InputError(f"search.{name} is {value!r}; give a whole number of at least {low}")


def _number(
    name: str, value: float, *, low: float = -math.inf, high: float = math.inf, open_low: bool = False
) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"search.{name} is {value!r}; give a finite number")
    if value < low or value > high or (open_low and value == low):
        above = f"above {low:g}" if open_low else f"of at least {low:g}"
        below = "" if math.isinf(high) else f" and at most {high:g}"
        raise InputError(f"search.{name} is {value!r}; give a number {above}{below}")
