"""Question answering end to end: facts read with BPE, chains of thought taught, held-out questions answered.

One small model is trained for the whole file.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from fact_corpus import FactWorld, make_world
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu

from tokenzero.answering import build_method
from tokenzero.checkpoint import open_model
from tokenzero.cli import main
from tokenzero.fine_tuning import FineTuningConfig, RowsConfig, read_rows
from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import encode_prompt, load_tokenizer, train_bpe
from tokenzero.selfplay.config import TaskConfig
from tokenzero.selfplay.evaluation import play_and_score
from tokenzero.selfplay.game import Game
from tokenzero.selfplay.methods import MethodConfig
from tokenzero.tasks import Problem, get_task

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 168,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}
PRETRAINING = {
    "corpus": {"validation_share": 0.05, "tokenizer": {"kind": "bpe", "vocab_size": 600}},
    "model": {"architecture": LLAMA},
    "training": {
        "steps": 450,
        "context": 64,
        "evaluate_every": 0,
        "optimizer": {"lr": 1.5e-2, "min_lr": 1.5e-3, "warmup_steps": 40, "ema": 0.98, "batch_size": 16},
    },
    "threads": 1,
}
FINE_TUNING = {
    "epochs": 16,
    "evaluate_every": 1000,
    "training": {"optimizer": {"lr": 4e-3, "min_lr": 4e-4, "ema": 0.9}},
    "threads": 1,
}
GREEDY = MethodConfig("greedy")
WORLD = {"people": 60, "towns": 8, "copies": 8}


def options(directory: Path) -> dict[str, Any]:
    """Of the task: the files of a world, and how its chains of thought are told."""
    files = {f"{split}_files": str(directory / f"{split}.jsonl") for split in ("train", "validation", "test")}
    return {
        **files,
        "reasoning": "reasoning",
        "answer_format": "sentence",
        "max_answer_tokens": 40,
    }


def test_held_out_questions_combine_facts_that_were_told_apart() -> None:
    world = make_world(people=30, towns=6, copies=4)
    assert world == make_world(people=30, towns=6, copies=4)
    assert world != make_world(people=30, towns=6, copies=4, seed=2)
    told = "\n".join(world.documents)
    asked = {split: {chain.question for chain in chains} for split, chains in world.chains.items()}
    assert [len(chains) for chains in world.chains.values()] == [len(own) for own in asked.values()]
    assert len(set().union(*asked.values())) == sum(map(len, asked.values())) == 150
    assert [len(asked[split]) for split in ("test", "validation", "train")] == [30, 15, 105]
    trained = {chain.facts for chain in world.chains["train"]}
    for chain in world.chains["test"]:
        assert chain.facts not in trained
        assert all(fact in told for fact in chain.facts)
        assert not any(chain.facts[0] in text and chain.facts[1] in text for text in world.documents)
        assert chain.facts[1].rstrip(".").count(chain.answer) == 1


def test_sft_learns_from_files_or_from_a_task(tmp_path: Path) -> None:
    made = make_world(people=6, towns=2, copies=1)
    made.write(tmp_path)
    student = Student.from_config(LLAMA, train_bpe(made.documents, 300), seed=1)
    task = FineTuningConfig(task=TaskConfig("question-answer", options(tmp_path)), held_out=0.0)
    files = FineTuningConfig(rows=RowsConfig(answer_format="sentence"), held_out=0.0)
    taught = read_rows([], student, task)
    assert sorted(taught.trained) == sorted(
        read_rows([str(tmp_path / "train.jsonl")], student, files).trained
    )
    pairs = [
        (p.public.prompt, p.reference)
        for p in get_task("question-answer", **options(tmp_path)).problems("train")
    ]
    assert len(taught.trained) == len(pairs) == len(made.chains["train"])
    decode = student.tokenizer.decode
    assert sorted(pairs) == sorted(
        (decode(tokens[:prompt]).removeprefix("<bos>"), decode(tokens[prompt:]).removesuffix("<eos>"))
        for tokens, prompt in taught.trained
    )
    with pytest.raises(InputError, match="both --data and a task are given"):
        read_rows([str(tmp_path / "train.jsonl")], student, task)
    with pytest.raises(InputError, match="neither --data nor a task is given"):
        read_rows([], student, files)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[FactWorld, Path]:
    """A world and the model ``sft`` beside its files that was pretrained on it and taught to answer."""
    directory = tmp_path_factory.mktemp("world")
    made = make_world(**WORLD)  # type: ignore[arg-type]
    made.write(directory)
    threads = torch.get_num_threads()
    for name, settings in (
        ("pretraining", PRETRAINING),
        ("sft", {**FINE_TUNING, "task": {"name": "question-answer", "options": options(directory)}}),
    ):
        (directory / f"{name}.yaml").write_text(json.dumps(settings))
    base, corpus, cache = (str(directory / name) for name in ("base", "facts.jsonl", "cache"))
    pretraining = ["--config", str(directory / "pretraining.yaml"), "--corpus", corpus, "--out", base]
    assert main(["pretrain", *pretraining, "--set", f"corpus.cache={cache}"]) == 0
    assert main(["sft", base, "--config", str(directory / "sft.yaml"), "--out", str(directory / "sft")]) == 0
    torch.set_num_threads(threads)
    return made, directory


def play(directory: Path, split: str, config: MethodConfig = GREEDY) -> list[tuple[Problem, Game, float]]:
    """Problems of a split, the games of the fine-tuned model on them, and their scores."""
    opened = open_model(directory / "sft")
    task = opened.parts.task
    problems = task.problems(split)
    _, games, scores = play_and_score(build_method(opened, config), task, problems, np.random.default_rng(0))
    return list(zip(problems, games, scores, strict=True))


@pytest.mark.slow
def test_held_out_questions_are_answered_by_reasoning(world: tuple[FactWorld, Path]) -> None:
    made, directory = world
    tokenizer = load_tokenizer(directory / "sft")
    plain = re.compile(r"[A-Z][^.]*\. [A-Z][^.]*\.\nThe answer is \w+\.")
    exact: dict[str, float] = {}
    for split in ("train", "test"):
        played = play(directory, split)
        for problem, game, _ in played:
            assert tokenizer.unk_token_id not in encode_prompt(tokenizer, problem.public.prompt)
            assert tokenizer.unk_token_id not in game.tokens
            assert not [token for token in tokenizer.all_special_tokens if token in game.text]
            assert tokenizer.decode(game.tokens, skip_special_tokens=True).strip() == game.text
        assert sum(plain.fullmatch(game.text) is not None for _, game, _ in played) >= 0.9 * len(played)
        exact[split] = sum(game.text == problem.reference for problem, game, _ in played) / len(played)
    assert exact["train"] > 0.8
    # the facts told apart are put together; to guess the right one of 8 jobs needs the right friend besides
    assert exact["test"] > 0.3
    assert len(made.chains["test"]) == len(played)


@pytest.mark.slow
def test_the_commands_print_trace_and_overlap(
    world: tuple[FactWorld, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    made, directory = world
    model = str(directory / "sft")
    prompt = f"Question: {made.chains['train'][0].question}\nAnswer:\n"
    assert main(["generate", model, "--prompt", prompt, "--method", "greedy"]) == 0
    assert re.search(r"[A-Z][^.<]*\. [A-Z][^.<]*\.\nThe answer is \w+\.", capsys.readouterr().out)
    assert main(["eval", model, "--method", "greedy", "--overlap", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    played = play(directory, "test")
    answers, references = (
        [game.text for _, game, _ in played],
        [problem.reference for problem, _, _ in played],
    )
    assert sorted(map(str, references)) == sorted(
        f"{' '.join(chain.facts)}\nThe answer is {chain.answer}." for chain in made.chains["test"]
    )
    assert found["bleu"] == corpus_bleu(answers, [references]).score
    rouge = RougeScorer(["rougeL"])
    pairs = zip(references, answers, strict=True)
    assert found["rouge_l"] == fmean(rouge.score(*pair)["rougeL"].fmeasure for pair in pairs)
    assert found["solved"] == sum(score for _, _, score in played)
    assert main(["eval", model, "--method", "greedy", "--overlap", "--problems", "2"]) == 0
    assert re.search("BLEU.*ROUGE-L", capsys.readouterr().out)


@pytest.mark.slow
def test_methods_without_a_verifier_answer_too(world: tuple[FactWorld, Path]) -> None:
    _, directory = world
    greedy = play(directory, "test")
    for config in (
        MethodConfig("self-consistency", n=8),
        MethodConfig("best-of-n", n=8, choose="likelihood"),
        MethodConfig("beam", n=4),
    ):
        played = play(directory, "test", config)
        assert sum(game.forwarded for _, game, _ in played) > sum(game.forwarded for _, game, _ in greedy)
        assert sum(score for *_, score in played) >= sum(score for *_, score in greedy) / 2
        assert all(game.verified_by == "" for _, game, _ in played)
    with pytest.raises(InputError, match="choose=verifier needs public verdicts"):
        play(directory, "test", MethodConfig("best-of-n", choose="verifier"))
