"""Windows of a corpus as prompts, and what follows them as references."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora import CorpusConfig
from tokenzero.policy.tokenizers import from_spec
from tokenzero.selfplay.evaluation import evaluate
from tokenzero.selfplay.methods import BestOfN, greedy
from tokenzero.selfplay.parts import Parts
from tokenzero.tasks import ONGOING, ContinuationConfig, ContinuationTask, PublicProblem, get_task

LINES = "".join(f"line {i}: the sum of {i} and {i + 1} is {2 * i + 1}\n" for i in range(400))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(LINES, encoding="utf-8")
    return path


def _task(path: Path, **options: Any) -> ContinuationTask:
    corpus = {
        "path": str(path),
        "cache": str(path.parent / "cache"),
        "test_share": 0.1,
        **options.pop("corpus", {}),
    }
    task = get_task("continuation", **{"prompt_tokens": 8, "tokens": 12, "corpus": corpus, **options})
    assert isinstance(task, ContinuationTask)
    return task


def test_windows_are_the_text_side_by_side(text: Path) -> None:
    task = _task(text)
    held_out = LINES[int(0.8 * len(LINES)) :]
    for split in ("train", "validation", "test"):
        problems = task.problems(split)
        whole = [problem.public.prompt + str(problem.reference) for problem in problems]
        assert all(len(window) == 20 for window in whole)
        starts = sorted(int(problem.public.id.rsplit(":", 1)[1]) for problem in problems)
        assert starts == [20 * i for i in range(len(problems))]
        assert len(problems) == task.corpus.characters(split) // 20
        ordered = sorted(problems, key=lambda problem: int(problem.public.id.rsplit(":", 1)[1]))
        rejoined = "".join(problem.public.prompt + str(problem.reference) for problem in ordered)
        assert rejoined in (LINES if split == "train" else held_out)
    assert problems[:3] == [problems[i] for i in range(3)]
    assert starts != [int(problem.public.id.rsplit(":", 1)[1]) for problem in problems]  # in a drawn order
    again = [problem.public.id for problem in _task(text).problems("test")]
    assert again == [problem.public.id for problem in problems]
    assert again != [problem.public.id for problem in _task(text, seed=5).problems("test")]
    assert len(_task(text, windows=3).problems("train")) == 3


def test_windows_stay_within_documents(tmp_path: Path) -> None:
    rows = [{"text": letter * 50} for letter in "abcdefghijklmnopqrstuvwxyz"]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = _task(path, corpus={"validation_share": 0.0, "test_share": 0.0})
    problems = task.problems("train")
    assert len(problems) == 26 * 2
    assert all(len(set(p.public.prompt + str(p.reference))) == 1 for p in problems)


def test_characters_without_a_token_of_their_own_come_whole(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("plain text, " * 100 + "\u4f60\u597d\u4e16\u754c" * 30, encoding="utf-8")
    task = _task(path, corpus={"validation_share": 0.1, "test_share": 0.0})
    whole = [problem.public.prompt + str(problem.reference) for problem in task.problems("validation")]
    assert whole
    assert all("\ufffd" not in window for window in whole)


def test_nothing_is_ever_finished_or_verified(text: Path) -> None:
    task = _task(text)
    problem = task.problems("test")[0]
    assert not task.public_verifier
    assert task.verdict(problem.public, "anything. The end.") == ONGOING
    states, goals = task.automaton(["a", "b"]).begin([problem.public])
    _, verdicts = task.automaton(["a", "b"]).advance(states, np.array([1]), goals)
    assert not verdicts.done.any()
    assert task.max_answer_tokens == 12


def test_the_score_is_how_far_the_very_text_was_found(text: Path) -> None:
    task = _task(text)
    problem = task.problems("test")[0]
    reference = str(problem.reference)
    assert task.score(problem, reference) == 1.0
    assert task.score(problem, "") == task.score(problem, "\u2028#") == 0.0
    half = reference.strip()[:6]
    assert task.score(problem, half + "#" + reference[7:]) == pytest.approx(6 / len(reference.strip()))


def test_demonstrations_and_vocabulary(text: Path) -> None:
    task = _task(text)
    pairs = task.demonstrations(5, np.random.default_rng(1))
    assert len(pairs) == 5
    assert all(prompt + answer in LINES and len(answer) == 12 for prompt, answer in pairs)
    tokenizer = from_spec(task.tokenizer_spec())
    assert set(tokenizer.get_vocab()) - {"<pad>", "<bos>", "<eos>", "<unk>"} == set(
        LINES[: int(0.8 * len(LINES))]
    )
    pairs_of = _task(text, corpus={"tokenizer": {"kind": "bpe", "vocab_size": 300}})
    with pytest.raises(InputError, match="load a model with its tokenizer"):
        pairs_of.tokenizer_spec()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tokens": 0}, "tokens is 0"),
        ({"prompt_tokens": "4"}, "prompt_tokens is 4"),
        ({"windows": 0}, "windows is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"corpus": {"file": "x"}}, "any of path"),
        ({"corpus": "text.txt"}, "give a mapping"),
        ({"corpora": {}}, "did you mean 'corpus'"),
        ({"corpus": {"path": "a", "dataset": "b"}}, "give one of them"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        get_task("continuation", **options)


def test_without_a_corpus_prompts_are_still_continued() -> None:
    from tiny import make_student, tree_engine

    task = ContinuationTask(ContinuationConfig(prompt_tokens=4, tokens=5))
    with pytest.raises(InputError, match=r"set corpus\.path"):
        task.problems("train")
    student = make_student()
    method = BestOfN(Parts(student, tree_engine(student), task), 1, choose="first")
    (game,) = method.play([PublicProblem("0", "abc")], np.random.default_rng(0))
    assert 1 <= len(game.tokens) <= 5
    assert game.verdict is None


def test_a_split_without_windows_says_what_to_do(text: Path) -> None:
    with pytest.raises(InputError, match=r"test split; set corpus\.test_share higher"):
        len(_task(text, corpus={"test_share": 0.0}).problems("test"))
    with pytest.raises(InputError, match="lower prompt_tokens or tokens"):
        len(_task(text, tokens=1_000_000).problems("train"))
    with pytest.raises(InputError, match="split 'dev'"):
        _task(text).problems("dev")


def test_eval_plays_windows(text: Path) -> None:
    from tiny import FAMILIES

    from tokenzero.policy.student import Student
    from tokenzero.policy.tiers import EngineConfig, open_engine

    task = _task(text)
    student = Student.from_config(FAMILIES["llama-gqa"], task.corpus.tokenizer, seed=0)
    problems: Sequence[Any] = task.problems("test")[:4]
    score = evaluate(
        greedy(Parts(student, open_engine(student, EngineConfig()), task)),
        task,
        problems,
        np.random.default_rng(0),
    )
    assert score.problems == 4
    assert score.accuracy == 0.0
    assert isinstance(task.config.corpus, CorpusConfig)
