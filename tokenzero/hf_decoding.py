"""Search inside ``model.generate`` of transformers: ``custom_generate=tokenzero.hf_generate``.

``generate`` prepares everything as it always does (lengths, special tokens, logits processors, stopping
criteria) and hands it over here instead of to its own loop. The model is left as it was found: nothing about
it is kept from call to call, so changed weights, adapters or settings are always seen; the price is the
self-test of ``policy.tiers`` in every call. Encoder-decoder models, embeddings as inputs and methods that
read text (steps, stop strings of our own) are not served.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import GenerationConfig, MaxTimeCriteria, PreTrainedModel, PreTrainedTokenizerFast
from transformers.generation import logits_process
from transformers.generation.utils import GenerateDecoderOnlyOutput

from tokenzero.hf_states import Criteria, GivenIds, Paths, ProcessedEngine, id_tokenizer, read_ids, written
from tokenzero.judging import JudgeFunction, judge_of
from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import EngineConfig, open_engine
from tokenzero.policy.tokenizers import load_tokenizer
from tokenzero.selfplay.evaluator import LeafConfig, Parts
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.methods import MethodConfig, build
from tokenzero.selfplay.methods.config import DRAWING, STEPWISE
from tokenzero.selfplay.net import HEAD_FILE
from tokenzero.selfplay.session import Asked, Budget, Method
from tokenzero.tasks import PublicProblem
from tokenzero.value import Judge, ValueHead
from tokenzero.value.judge import Verdicts, tokens_of

# They remember what they saw in the call before.
_UNFIT = tuple(
    getattr(logits_process, name)
    for name in (
        "ClassifierFreeGuidanceLogitsProcessor",
        "UnbatchedClassifierFreeGuidanceLogitsProcessor",
        "SynthIDTextWatermarkLogitsProcessor",
    )
)
_UNUSED = {"use_cache", "logits_to_keep", "past_key_values", "cache_params", "attention_mask", "position_ids"}
_OUTPUTS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")


@dataclass
class SearchOutput(GenerateDecoderOnlyOutput):
    """What ``generate`` gives with ``return_dict_in_generate``: ``sequences`` as always, the ``games`` (their
    texts are token ids) with what the searches said, and the ``ledger`` of the call.
    """

    games: list[Game] | None = None
    ledger: Ledger | None = None


def hf_generate(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    logits_processor: Sequence[Any],
    stopping_criteria: Sequence[Any],
    generation_config: GenerationConfig,
    synced_gpus: bool = False,
    streamer: Any = None,
    *,
    method: str | MethodConfig | None = None,
    simulations: int | None = None,
    n: int | None = None,
    search: SearchConfig | None = None,
    value_head: ValueHead | str | Path | None = None,
    judge: Judge | JudgeFunction | None = None,
    judge_eta: float = 0.5,
    judge_tokenizer: PreTrainedTokenizerFast | None = None,
    tokens: int | None = None,
    seed: int | None = None,
    stream_to: Any = None,
    engine: EngineConfig | None = None,
    **model_kwargs: Any,
) -> torch.LongTensor | SearchOutput:
    """Answer by search: ``model.generate(**inputs, custom_generate=tokenzero.hf_generate, simulations=64)``.

    method, simulations, n: a name of ``selfplay.methods.METHODS`` and its numbers, or all options of one as a
        ``MethodConfig``; by default Gumbel search. Zero simulations are greedy decoding.
    search: the options of a tree search, ``SearchConfig()`` by default.
    value_head: a ``ValueHead`` or its directory; by default the one beside the model, where there is one.
        Without it a state is worth what the judge says, and 0 without a judge.
    judge: a ``Judge``, or a function of (prompt, partial answer) to -1, 0 or 1, that shifts the value of
        states by ``judge_eta`` in [0, 1]. It reads text, made by ``judge_tokenizer``, by default the one the
        model was loaded with.
    tokens: most tokens forwarded for a row of the batch, its prompt included. ``max_time`` limits the
        seconds. When either is spent the best answer so far is given.
    seed: of everything drawn at random; None takes one from torch's generator, so that ``set_seed`` holds.
    stream_to: a streamer, for one row at a time. transformers does not hand its own argument ``streamer`` on.
    engine: how the model is forwarded.

    Logits processors, the warpers that ``do_sample=True`` adds among them, shape the prior of every state;
    row r of what they are called with continues prompt r, but states come in any order, so they must not
    remember. Stopping criteria end every state that they say stop of. With ``num_return_sequences`` each row
    that ``generate`` repeats is answered on its own, by methods that draw.

    Returns i64 [rows, longest], padded on the right, or a ``SearchOutput``. Raises InputError for what is not
    served.
    """
    config = _method_config(method, simulations, n)
    _check(model, generation_config, logits_processor, config, model_kwargs, synced_gpus)
    prompts = _without_padding(input_ids, model_kwargs)
    if generation_config.num_return_sequences > 1 and config.method not in DRAWING:
        raise InputError(
            f"num_return_sequences is {generation_config.num_return_sequences} and method "
            f"{config.method or 'gumbel'} gives the same each time; use one of {', '.join(DRAWING)}"
        )
    stream = stream_to if stream_to is not None else streamer
    if stream is not None and len(prompts) > 1:
        raise InputError(f"there are {len(prompts)} rows and one streamer; stream one row at a time")
    pad = generation_config._pad_token_tensor
    paths = Paths(input_ids, prompts, 0 if pad is None else int(pad))
    criteria = Criteria((c for c in stopping_criteria if not isinstance(c, MaxTimeCriteria)), paths)
    task = GivenIds(int(generation_config.max_length) - input_ids.shape[1], paths, criteria)
    with _borrowed(model) as student:
        _check_room(prompts, task.max_answer_tokens, student)
        parts = Parts(
            student=student,
            engine=ProcessedEngine(open_engine(student, engine), logits_processor, paths),
            task=task,
            value_head=_value_head(value_head, model, student),
            judge=None if judge is None else _JudgeOfIds(judge, judge_tokenizer or _tokenizer_of(model)),
        )
        leaf = LeafConfig(judge_eta=0.0 if judge is None else judge_eta)
        player = build(parts, search or SearchConfig(), config, leaf)
        problems = [PublicProblem(str(row), written(prompt)) for row, prompt in enumerate(prompts)]
        if stream_to is not None:
            stream_to.put(input_ids.cpu())
        rng = np.random.default_rng(int(torch.randint(2**62, ())) if seed is None else seed)
        games = _play(player, problems, rng, Budget(tokens, _seconds(stopping_criteria)), stream)
    sequences = _sequences(input_ids, games, None if pad is None else int(pad))
    if generation_config.return_dict_in_generate:
        return SearchOutput(sequences, games=games, ledger=player.ledger)
    return sequences


def _method_config(method: str | MethodConfig | None, simulations: int | None, n: int | None) -> MethodConfig:
    config = method if isinstance(method, MethodConfig) else MethodConfig(method)
    if simulations is not None:
        config = replace(config, simulations=simulations)
    if n is not None:
        config = replace(config, n=n)
    if config.method in STEPWISE or config.granularity != "token":
        raise InputError(
            "steps are read from text, and generate gives token ids; use tokenzero.load(model).generate"
        )
    return config


def _check(
    model: PreTrainedModel,
    generation_config: GenerationConfig,
    processors: Sequence[Any],
    config: MethodConfig,
    model_kwargs: dict[str, Any],
    synced_gpus: bool,
) -> None:
    """Raise InputError for what would be ignored otherwise."""
    if model.config.is_encoder_decoder:
        raise InputError(f"{type(model).__name__} is an encoder-decoder; use a causal language model")
    if synced_gpus:
        raise InputError("synced_gpus is on, and a search forwards as often as it likes; turn it off")
    if generation_config.num_beams > 1:
        raise InputError(
            f'num_beams is {generation_config.num_beams}; leave it out and use method="beam", '
            f"n={generation_config.num_beams}"
        )
    if generation_config.return_dict_in_generate:
        for name in _OUTPUTS:
            if getattr(generation_config, name):
                raise InputError(f"{name} is on, and a search has no one forward a token; turn it off")
    for processor in processors:
        if isinstance(processor, _UNFIT):
            raise InputError(
                f"{type(processor).__name__} remembers the call before, and search goes back; leave it out"
            )
    for name, value in model_kwargs.items():
        if name not in _UNUSED and value is not None:
            raise InputError(f"{name} is given, and search forwards token ids alone; leave it out")
    cache = model_kwargs.get("past_key_values")
    if cache is not None and cache.get_seq_length():
        raise InputError("past_key_values holds tokens already; give the whole input_ids and no cache")


def _without_padding(input_ids: torch.Tensor, model_kwargs: dict[str, Any]) -> list[list[int]]:
    """The rows of ``input_ids`` i64 [B, T] without what the attention mask leaves out on the left.

    Raises InputError for padding elsewhere, an empty row, and positions that are not counted from the first
    token.
    """
    mask = model_kwargs.get("attention_mask")
    mask = torch.ones_like(input_ids) if mask is None else mask.to(input_ids)
    if mask.shape != input_ids.shape or bool((mask.diff(dim=1) < 0).any()):
        raise InputError("attention_mask has zeros that are not on the left; pad with padding_side='left'")
    if not bool(mask[:, -1].all()):
        raise InputError("attention_mask leaves nothing of a row; give at least one token")
    positions = model_kwargs.get("position_ids")
    if positions is not None:
        counted = mask.cumsum(dim=1) - 1
        if positions.shape[-1] != mask.shape[1] or bool(((positions.to(mask) - counted) * mask).any()):
            raise InputError("position_ids do not count the tokens from 0; leave them out")
    return [row[kept.bool()].tolist() for row, kept in zip(input_ids, mask, strict=True)]


def _check_room(prompts: Sequence[Sequence[int]], limit: int, student: Student) -> None:
    longest = max(map(len, prompts))
    if longest + limit > student.max_length:
        raise InputError(
            f"the model takes {student.max_length} tokens, a prompt has {longest} and the answer may have "
            f"{limit}; lower max_new_tokens"
        )


@contextmanager
def _borrowed(model: PreTrainedModel) -> Iterator[Student]:
    """The model as a student in evaluation mode; afterwards it is as it was."""
    head: Any = model.get_output_embeddings()
    if head is None:
        raise InputError(f"{type(model).__name__} has no output embedding; use a causal language model")
    training = [(module, module.training) for module in model.modules()]
    hooks = set(head._forward_pre_hooks)
    model.eval()
    try:
        yield Student(model, id_tokenizer(int(head.weight.shape[0])))
    finally:
        for name in set(head._forward_pre_hooks) - hooks:
            del head._forward_pre_hooks[name]
        for module, mode in training:
            module.training = mode


def _value_head(
    given: ValueHead | str | Path | None, model: PreTrainedModel, student: Student
) -> ValueHead | None:
    """Raises InputError for a head that cannot be loaded or that reads another width."""
    if given is None:
        beside = Path(model.name_or_path or "")
        if not (beside / HEAD_FILE).is_file():
            return None
        given = beside
    head = given if isinstance(given, ValueHead) else ValueHead.load(given)
    if head.hidden_size != student.hidden_size:
        raise InputError(
            f"the value head reads width {head.hidden_size}, the model has width {student.hidden_size}; "
            "they are not a pair"
        )
    if next(head.parameters()).device == student.device:
        return head
    return copy.deepcopy(head).to(student.device)  # the user's own stays where it is


def _tokenizer_of(model: PreTrainedModel) -> PreTrainedTokenizerFast:
    try:
        return load_tokenizer(model.name_or_path or "")
    except InputError as error:
        raise InputError("a judge reads text; give judge_tokenizer, the model's tokenizer") from error


class _JudgeOfIds:
    """A judge of texts, asked about ids."""

    def __init__(self, judge: Judge | JudgeFunction, tokenizer: PreTrainedTokenizerFast) -> None:
        self._judge = judge_of(judge)
        self._tokenizer = tokenizer
        self.name = self._judge.name

    @property
    def version(self) -> str:
        """The judge's."""
        return self._judge.version

    @property
    def failures(self) -> int:
        """The judge's."""
        return self._judge.failures

    @property
    def tokens(self) -> int:
        """Tokens that the judge forwarded."""
        return tokens_of(self._judge)

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> Verdicts:
        """int8 [L]."""
        return self._judge.judge(self._texts(prompts), self._texts(partials))

    def _texts(self, written_ids: Sequence[str]) -> list[str]:
        decode = self._tokenizer.decode
        return [str(decode(read_ids(ids), skip_special_tokens=True)) for ids in written_ids]


def _seconds(criteria: Sequence[Any]) -> float | None:
    """What is left of the shortest ``max_time``, in seconds."""
    now = time.time()
    left = [c.initial_timestamp + c.max_time - now for c in criteria if isinstance(c, MaxTimeCriteria)]
    return max(1e-3, min(left)) if left else None


def _play(
    method: Method, problems: Sequence[PublicProblem], rng: np.random.Generator, budget: Budget, stream: Any
) -> list[Game]:
    if stream is None:
        return method.play(problems, rng, budget=budget)
    session = method.session(1)
    deadline = None if budget.seconds is None else time.monotonic() + budget.seconds
    games: list[Game] = []

    def put(certain: list[int]) -> None:
        stream.put(torch.tensor(certain))

    try:
        (own,) = rng.spawn(1)
        session.add([Asked(problems[0], own, budget.tokens, deadline, put)])
        while session.live:
            games += [game for _, game in session.step()]
    finally:
        session.close()
        stream.end()
    return games


def _sequences(input_ids: torch.Tensor, games: Sequence[Game], pad: int | None) -> torch.LongTensor:
    """Prompts and answers, i64 [rows, T + longest answer]."""
    longest = max(len(game.tokens) for game in games)
    if pad is None and any(len(game.tokens) < longest for game in games):
        raise InputError("the answers differ in length and there is no pad_token_id to fill up; give one")
    answers = [[*game.tokens, *[pad or 0] * (longest - len(game.tokens))] for game in games]
    added = torch.tensor(answers, dtype=input_ids.dtype, device=input_ids.device)
    return cast("torch.LongTensor", torch.cat([input_ids, added], dim=1))
