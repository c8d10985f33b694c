"""Text games on disk: what they leave behind, that they are repeated and resumed to the same bits, and that a
collapse is told.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import AtStage, Countdown, fingerprint, without_time
from tiny_text_run import tiny_text_config
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora import CorpusConfig, TokenizerConfig, open_corpus
from tokenzero.policy.student import Student
from tokenzero.policy.train_state import OptimizerConfig
from tokenzero.selfplay.config import ModelConfig
from tokenzero.selfplay.health import HealthConfig
from tokenzero.selfplay.manifest import Manifest
from tokenzero.selfplay.retention import RetentionConfig
from tokenzero.selfplay.run_directory import checkpoint_path, playing_checkpoint
from tokenzero.selfplay.text.config import ContextSearchConfig, MatchConfig, RefereeConfig, TextGameConfig
from tokenzero.selfplay.text.run import TextRun, match_ratings, playing_defaults
from tokenzero.value import ValueHead

STEPS = 4


class Interrupted(Exception):
    """What the listener raises to stop a run."""


def interrupt() -> None:
    raise Interrupted


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TextGameConfig:
    made = tiny_text_config(tmp_path_factory.mktemp("corpus"))
    open_corpus(made.corpus)  # so that no run hears more than another
    return made


@pytest.fixture(scope="module")
def heard() -> Countdown:
    return Countdown(10**9, interrupt)


@pytest.fixture(scope="module")
def finished(config: TextGameConfig, heard: Countdown, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupted."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    TextRun(config, directory, heard).execute()
    return directory


def records_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def resumed(config: TextGameConfig, directory: Path) -> list[dict[str, Any]]:
    torch.manual_seed(int.from_bytes(os.urandom(4), "big"))  # a run must not lean on torch's own generator
    return TextRun(config, directory).execute(resume=True)


# ---- what a run leaves behind


def test_the_records_say_what_each_round_came_to(config: TextGameConfig, finished: Path) -> None:
    records = records_of(finished)
    corpus = open_corpus(config.corpus)
    held_out = corpus.tokens("validation")
    assert [record["round"] for record in records] == [0, 1, 2, 3]
    assert [record["step"] for record in records] == [0, STEPS, 2 * STEPS, 3 * STEPS]
    for record in records:
        assert record["scored_tokens"] == len(held_out) - 1
        assert record["perplexity"] == pytest.approx(np.exp(record["nats_per_token"]))
        ratio = len(held_out) / corpus.characters("validation")
        assert record["nats_per_character"] == pytest.approx(record["nats_per_token"] * ratio)
        assert record["accuracy"] == pytest.approx(record["health"]["accuracy"])
        assert {"confidence", "entropy", "distinct_predictions"} <= set(record["health"])
    assert records[-1]["nats_per_token"] < records[0]["nats_per_token"]
    assert records[0]["forwarded"] == 0
    for before, record in pairwise(records):
        assert record["learnt_tokens"] == STEPS * 4 * 16
        assert record["forwarded"] == before["forwarded"] + record["learnt_tokens"]
        assert [probe["step"] for probe in record["probes"]] == [before["step"] + 2, before["step"] + 4]
        assert record["health"]["gradient_norm"] > 0
        assert set(record["loss"]) >= {"policy", "entropy", "reward"}
    assert records[0]["probes"] == records[0]["alarms"] == []


def test_the_score_is_that_of_the_checkpoint(config: TextGameConfig, finished: Path) -> None:
    student = Student.load(checkpoint_path(finished, 3))
    tokens = torch.from_numpy(open_corpus(config.corpus).tokens("validation").astype(np.int64))
    nats, right = [], []
    for start in range(0, len(tokens) - 1, 16):
        window = tokens[start : start + 17]
        logs = student.forward(window[None, :-1]).logits.log_softmax(-1)[0]
        nats += (-logs.gather(1, window[1:, None])[:, 0]).tolist()
        right += (logs.argmax(1) == window[1:]).tolist()
    record = records_of(finished)[3]
    assert record["nats_per_token"] == pytest.approx(np.mean(nats), rel=1e-5)
    assert record["accuracy"] == pytest.approx(np.mean(right))


def test_part_of_the_held_out_text_may_be_scored(config: TextGameConfig, tmp_path: Path) -> None:
    part = replace(config, evaluated=100, rounds=0)
    (record,) = TextRun(part, tmp_path / "run").execute()
    assert record["scored_tokens"] == 99
    # Every token of this corpus is one character.
    assert record["nats_per_character"] == pytest.approx(record["nats_per_token"])


def test_matches_meet_earlier_rounds_whose_checkpoints_are_kept(finished: Path) -> None:
    records = records_of(finished)
    assert [len(record["matches"]) for record in records] == [0, 0, 1, 0]
    (match,) = records[2]["matches"]
    assert match["against"] == 0
    assert match["wins"] + match["losses"] + match["ties"] == 4
    ratings = match_ratings(records)
    assert records[3]["elo"] == {"0": 0.0, "2": pytest.approx(ratings[2].elo)}
    kept = sorted(path.name for path in (finished / "checkpoints").iterdir())
    assert kept == ["round-0000", "round-0002", "round-0003"]


def test_a_checkpoint_is_a_hugging_face_directory_that_knows_how_it_is_played(
    config: TextGameConfig, finished: Path
) -> None:
    directory = checkpoint_path(finished, 3)
    assert playing_checkpoint(finished) == directory
    AutoModelForCausalLM.from_pretrained(directory)
    assert len(AutoTokenizer.from_pretrained(directory)) == len(open_corpus(config.corpus).tokenizer)
    task = json.loads((directory / "tokenzero.json").read_text())["task"]
    assert task["name"] == "continuation"
    assert task["options"]["corpus"]["path"] == config.corpus.path
    assert not (directory / "value_head.json").exists()
    assert not [path for path in finished.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    assert not (finished / "episodes").exists()


@pytest.mark.parametrize(("length", "prompt", "tokens"), [(48, 4, 24), (1000, 4, 96), (2, 1, 1)])
def test_the_defaults_leave_room_in_the_positions(
    config: TextGameConfig, length: int, prompt: int, tokens: int
) -> None:
    options = playing_defaults(config, length)["task"]["options"]
    assert (options["prompt_tokens"], options["tokens"]) == (prompt, tokens)


# ---- the same bits


def test_two_runs_of_a_seed_are_equal_to_the_last_bit(
    config: TextGameConfig, finished: Path, tmp_path: Path
) -> None:
    torch.manual_seed(12345)
    records = TextRun(config, tmp_path / "run").execute()
    assert fingerprint(tmp_path / "run") == fingerprint(finished)
    assert without_time(records_of(finished)) == without_time(json.loads(json.dumps(records)))


def test_another_seed_is_another_run(config: TextGameConfig, finished: Path, tmp_path: Path) -> None:
    TextRun(replace(config, seed=6, rounds=1), tmp_path / "run").execute()
    one, other = records_of(finished), records_of(tmp_path / "run")
    assert one[0]["nats_per_token"] != other[0]["nats_per_token"]
    assert one[1]["loss"] != other[1]["loss"]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.7, 0.9])
def test_a_run_interrupted_at_any_event_ends_the_same(
    config: TextGameConfig, finished: Path, heard: Countdown, tmp_path: Path, share: float
) -> None:
    event = max(1, round(share * (10**9 - heard.left)))
    with pytest.raises(Interrupted):
        TextRun(config, tmp_path, Countdown(event, interrupt)).execute()
    resumed(config, tmp_path)
    assert fingerprint(tmp_path) == fingerprint(finished)


def test_monitors_change_nothing_that_is_learnt(
    config: TextGameConfig, finished: Path, tmp_path: Path
) -> None:
    unwatched = replace(config, monitors=replace(config.monitors, every=0, windows=2))
    records = TextRun(unwatched, tmp_path / "run").execute()
    name = "checkpoints/round-0003/model.safetensors"
    assert fingerprint(tmp_path / "run")[name] == fingerprint(finished)[name]
    assert all(record["probes"] == [] for record in records)


def test_a_finished_run_is_only_read(config: TextGameConfig, finished: Path) -> None:
    before = fingerprint(finished)
    os.rename(config.corpus.path, f"{config.corpus.path}.away")  # nothing is opened
    try:
        assert without_time(resumed(config, finished)) == without_time(records_of(finished))
    finally:
        os.rename(f"{config.corpus.path}.away", config.corpus.path)
    assert fingerprint(finished) == before


def test_another_run_in_the_directory_is_refused(config: TextGameConfig, finished: Path) -> None:
    with pytest.raises(InputError, match="already holds a run"):
        TextRun(config, finished).execute()
    with pytest.raises(InputError, match=r"another referee.order \(it was 3, now 2\)"):
        TextRun(replace(config, referee=RefereeConfig(order=2)), finished).execute(resume=True)


def test_search_draws_and_a_learned_value_are_resumed_to_the_same_bits(tmp_path: Path) -> None:
    config = tiny_text_config(
        tmp_path,
        learner={"objective": "visits", "value_weight": 0.5},
        search=ContextSearchConfig(simulations=2, depth=2, candidates=3, contexts=20),
        matches=MatchConfig(every=0),
        rounds=2,
    )
    whole = TextRun(config, tmp_path / "whole").execute()
    with pytest.raises(Interrupted):
        TextRun(config, tmp_path / "broken", AtStage("learn", 2, interrupt)).execute()
    resumed(config, tmp_path / "broken")
    assert fingerprint(tmp_path / "broken") == fingerprint(tmp_path / "whole")
    for before, record in pairwise(whole):
        ledger = record["ledger"]
        assert ledger["prefill_tokens"] > 0
        assert ledger["simulations"] > 0
        spent = ledger["prefill_tokens"] + ledger["decode_tokens"] + ledger["value_tokens"]
        assert record["forwarded"] == before["forwarded"] + record["learnt_tokens"] + spent
    assert ValueHead.load(checkpoint_path(tmp_path / "whole", 2)).hidden_size == 16


# ---- alarms and what follows


def spoiled(directory: Path, actions: dict[str, str], **changes: Any) -> TextGameConfig:
    """A linear objective with a wild rate: it is soon sure of one token."""
    fast = OptimizerConfig(lr=0.3, min_lr=0.3, warmup_steps=0, batch_size=4, ema=0.0)
    return tiny_text_config(
        directory,
        learner={"objective": "expected-reward", "steps": 30, "optimizer": fast},
        health=HealthConfig(actions={"gradient_variance": "ignore", **actions}),
        matches=MatchConfig(every=0),
        **changes,
    )


def test_a_collapse_is_told_within_its_round_and_can_stop_the_run(tmp_path: Path) -> None:
    config = spoiled(tmp_path, {"overconfidence": "stop"})
    records = TextRun(config, tmp_path / "run").execute()
    assert len(records) == 2
    last = records[-1]
    assert last["stopped"]
    alarm = next(alarm for alarm in last["alarms"] if alarm["name"] == "overconfidence")
    assert 0 < alarm["step"] < 30
    assert alarm["value"] > alarm["threshold"]
    probe = next(probe for probe in last["probes"] if probe["step"] == alarm["step"])
    assert probe["overconfidence"] == alarm["value"]
    assert all(p["overconfidence"] <= 0.25 for p in last["probes"] if p["step"] < alarm["step"])
    assert last["incumbent"] == 0, "what stops a run is not what plays"
    assert resumed(config, tmp_path / "run") == records


@pytest.mark.parametrize("action", ["lower_lr", "roll_back"])
def test_consequences_are_carried_out_and_resumed_to_the_same_bits(tmp_path: Path, action: str) -> None:
    config = spoiled(tmp_path, {"overconfidence": action})
    records = TextRun(config, tmp_path / "whole").execute()
    if action == "lower_lr":
        assert [record["learner"]["lr_factor"] for record in records] == [1.0, 0.5, 0.25, 0.125]
        warned = TextRun(spoiled(tmp_path, {}), tmp_path / "warned").execute()
        assert [warned[r]["loss"] == records[r]["loss"] for r in (1, 2)] == [True, False]
    else:
        assert [record["learner"]["from"] for record in records] == [0, 0, 0, 0]
        assert [record["step"] for record in records] == [0, 30, 60, 90]
    with pytest.raises(Interrupted):
        TextRun(config, tmp_path / "broken", AtStage("learn", 3, interrupt)).execute()
    resumed(config, tmp_path / "broken")
    assert fingerprint(tmp_path / "broken") == fingerprint(tmp_path / "whole")


def test_the_ceiling_on_the_same_text_is_never_too_sure(tmp_path: Path) -> None:
    slow = OptimizerConfig(lr=2e-2, min_lr=2e-3, warmup_steps=20, batch_size=8, ema=0.9)
    learner = {"objective": "cross-entropy", "steps": 30, "optimizer": slow}
    config = tiny_text_config(tmp_path, learner=learner, matches=MatchConfig(every=0))
    records = TextRun(config, tmp_path / "run").execute()
    names = {alarm["name"] for record in records for alarm in record["alarms"]}
    assert not names & {"overconfidence", "confidence", "entropy", "not_finite"}


# ---- what does not fit


def test_a_model_goes_on_from_a_checkpoint_of_the_same_tokenizer(
    config: TextGameConfig, finished: Path, tmp_path: Path
) -> None:
    start = str(checkpoint_path(finished, 3))
    loaded = replace(config, model=ModelConfig(load=start), rounds=0)
    (record,) = TextRun(loaded, tmp_path / "run").execute()
    assert record["nats_per_token"] == records_of(finished)[3]["nats_per_token"]
    bpe = CorpusConfig(config.corpus.path, tokenizer=TokenizerConfig("bpe", 270), cache=config.corpus.cache)
    with pytest.raises(InputError, match="has another tokenizer than the corpus"):
        TextRun(replace(loaded, corpus=bpe), tmp_path / "other").execute()
    judged = replace(config, referee=RefereeConfig(load=start), corpus=bpe, rounds=0)
    with pytest.raises(InputError, match=r"the referee .* has another tokenizer"):
        TextRun(judged, tmp_path / "judged").execute()


def test_a_model_may_be_the_referee(config: TextGameConfig, finished: Path, tmp_path: Path) -> None:
    judge = RefereeConfig(load=str(checkpoint_path(finished, 3)))
    records = TextRun(replace(config, referee=judge, rounds=1), tmp_path / "run").execute()
    assert records[1]["ledger"]["teacher_tokens"] == STEPS * 4 * 16


def test_what_cannot_be_is_one_line(config: TextGameConfig, tmp_path: Path) -> None:
    wide = replace(config, learner=replace(config.learner, context=49))
    with pytest.raises(InputError, match=r"learner\.context is 49, the model takes 48 tokens"):
        TextRun(wide, tmp_path / "wide").execute()
    with pytest.raises(InputError, match=r"model\.tokenizer is given"):
        replace(config, model=replace(config.model, tokenizer={"kind": "characters"}))


def test_the_best_checkpoint_is_that_of_the_fewest_nats(config: TextGameConfig, tmp_path: Path) -> None:
    keeping = replace(config, keep=RetentionConfig(best=1, last=1), matches=MatchConfig(every=0))
    records = TextRun(keeping, tmp_path / "run").execute()
    best = min(range(4), key=lambda r: records[r]["nats_per_token"])
    rounds = Manifest.read(tmp_path / "run").rounds
    assert {number for number, entry in enumerate(rounds) if entry.checkpoint} == {0, best, 3}
