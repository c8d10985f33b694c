"""Self-play against past checkpoints: two writers go on with the same prompts, and a referee that neither
learnt from says whose text is likelier.

The referee is an n-gram table counted on the first half of the held-out text; prompts come from the other
half. Both sides draw from their policy as it is (temperature 1), with the same random streams. It keeps no
ratings: see ``selfplay.elo``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora import Corpus
from tokenzero.policy.corpora.windows import windows
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import EngineConfig, open_engine
from tokenzero.selfplay.elo import Pairing
from tokenzero.selfplay.methods import BestOfN
from tokenzero.selfplay.parts import Parts
from tokenzero.selfplay.text.config import MatchConfig
from tokenzero.tasks import ContinuationConfig, ContinuationTask, PublicProblem
from tokenzero.teachers import NgramTeacher
from tokenzero.value.text_quality import longest_repeat

HELD_OUT = "validation"
NO_CLAIM = -np.inf

F64 = NDArray[np.float64]
Texts = Sequence[list[int]]


def play_matches(
    student: Student,
    opponents: Mapping[int, Path],
    corpus: Corpus,
    config: MatchConfig,
    seed: int,
    *,
    number: int | None = None,
) -> list[Pairing]:
    """Results of ``student``, who is called ``number`` (None: one more than the latest opponent), against the
    checkpoints of ``opponents`` by round: prompts that the student, the opponent and nobody won.

    Likelier means more log-probability per token. The likelier text is not the better one where it goes in
    circles: a continuation that repeats a longer run of tokens than any of the true continuations of these
    prompts does has no claim, and so has an empty one. Without a claim nobody wins; two of them tie, as do
    equal texts. Same weights, corpus, config and seed: the same results. The student's weights stay as they
    are.

    Raises InputError for held-out text that is too short, for a checkpoint with another vocabulary, and for
    an opponent called ``number``.
    """
    if not opponents:
        return []
    own = max(opponents) + 1 if number is None else number
    if own in opponents:
        raise InputError(f"round {own} is student and opponent; give the student another number")
    held_out = corpus.tokens(HELD_OUT)
    half = len(held_out) // 2
    width = config.prompt_tokens + config.tokens
    if half < width:
        raise InputError(
            f"half of the held-out text is {half} tokens and a match takes {width}; hold out more "
            "(corpus.validation_share) or lower matches.prompt_tokens and matches.tokens"
        )
    table = NgramTeacher.fit([held_out[:half]], config.order, student.vocab_size)
    rows = windows(held_out[half:], config.prompts, width - 1, np.random.default_rng([seed, 0]))
    prompts, truth = rows[:, : config.prompt_tokens].tolist(), rows[:, config.prompt_tokens :].tolist()
    most = max(longest_repeat(text, prompt) for text, prompt in zip(truth, prompts, strict=True))

    def claims(writer: Student) -> F64:
        return _claims(table, prompts, _written(writer, prompts, config.tokens, seed), most)

    mine = claims(student)
    found = []
    for other, path in sorted(opponents.items()):
        opponent = Student.load(path)
        if opponent.vocab_size != student.vocab_size:
            raise InputError(
                f"{path} has {opponent.vocab_size} tokens and the student {student.vocab_size}; match "
                "checkpoints of one run"
            )
        theirs = claims(opponent)
        wins, losses = int((mine > theirs).sum()), int((mine < theirs).sum())
        found.append(Pairing(own, other, wins, losses, len(mine) - wins - losses))
    return found


def _written(student: Student, prompts: Texts, tokens: int, seed: int) -> list[list[int]]:
    """One sampled continuation of each prompt, up to ``tokens`` tokens, its end mark left out."""
    task = ContinuationTask(ContinuationConfig(prompt_tokens=len(prompts[0]), tokens=tokens))
    method = BestOfN(Parts(student, open_engine(student, EngineConfig()), task), 1, choose="first")
    problems = [
        PublicProblem(str(i), str(student.tokenizer.decode(prompt)), ids=tuple(prompt))
        for i, prompt in enumerate(prompts)
    ]
    games = method.play(problems, np.random.default_rng([seed, 1]))
    return [[token for token in game.tokens if token != student.eos_id] for game in games]


def _claims(table: NgramTeacher, prompts: Texts, texts: Texts, most: int) -> F64:
    """What each text has to show: its mean log-probability in nats per token after its prompt, f64 [L]; -inf
    where it is empty or repeats a run of more than ``most`` tokens.
    """
    found = np.full(len(texts), NO_CLAIM)
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        if len(text) and longest_repeat(text, prompt) <= most:
            found[row] = table.token_log_probs(np.asarray([*prompt, *text]))[len(prompt) :].mean()
    return found
