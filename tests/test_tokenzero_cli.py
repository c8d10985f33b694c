"""The command line: exit codes, what goes to stdout, and every mistake as one line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from small_run import copied_run, finished_run, write_config

from tokenzero.cli import main

PROMPT = "2 3 4 -> 10 :"
LEDGER = {
    "prefill_tokens",
    "decode_tokens",
    "cached_tokens",
    "value_tokens",
    "teacher_tokens",
    "judge_calls",
    "judge_tokens",
    "verifier_calls",
    "simulations",
    "wall_s",
}


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1
        return json.loads(self.out)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Any:
    def call(*words: object) -> Outcome:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return Outcome(code, *capfd.readouterr())

    return call


def _one_line(outcome: Outcome, code: int, *parts: str) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    # Rows and announcements of the rounds may come before; the complaint is the last line and the only one.
    complaints = [line for line in outcome.err.splitlines() if line.startswith("tokenzero:")]
    assert outcome.err.splitlines()[-1:] == complaints
    assert "Traceback" not in outcome.err
    assert [part for part in parts if part not in complaints[0]] == []


# ---- what the verbs print


def test_generate_keeps_its_contract(cli: Any) -> None:
    found = cli(
        "generate", finished_run(), "--prompt", PROMPT, "--method", "puct", "--simulations", 4, "--json"
    ).json
    assert set(found) == {
        *("text", "tokens", "value", "method", "seed", "ledger", "candidates"),
        *("end", "solved", "verified_by"),
    }
    assert set(found["ledger"]) == LEDGER
    assert found["candidates"]
    assert all(set(c) == {"text", "visits", "q", "prior"} for c in found["candidates"])
    assert (found["method"], found["seed"]) == ("puct", 1)


def test_generate_says_the_same_twice_and_with_another_seed_maybe_not(cli: Any) -> None:
    words = ("generate", finished_run(), "--prompt", PROMPT, "--method", "best-of-n", "--n", 4, "--json")
    answers = [cli(*words, "--seed", seed).json for seed in (3, 3, 4)]
    for found in answers:
        found["ledger"].pop("wall_s")
    assert answers[0] == answers[1]
    assert answers[0]["candidates"] != answers[2]["candidates"]


def test_generate_reads_the_prompt_from_stdin(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = cli("generate", finished_run(), "--prompt", PROMPT, "--method", "greedy", "--json").json
    monkeypatch.setattr(sys, "stdin", io.StringIO(PROMPT + "\n"))
    read = cli("generate", finished_run(), "--prompt", "-", "--method", "greedy", "--json").json
    assert read["tokens"] == given["tokens"]


def test_generate_for_people_prints_the_answer_first(cli: Any) -> None:
    words = ("generate", finished_run(), "--prompt", PROMPT, "--method", "puct")
    text = cli(*words, "--json").json["text"]
    outcome = cli(*words)
    assert outcome.out.splitlines()[0] == text
    assert "candidate" in outcome.out
    assert "tokens forwarded" in outcome.err


def test_a_model_without_our_files_takes_free_text(cli: Any, tmp_path: Path) -> None:
    checkpoint = copied_run(tmp_path) / "checkpoints" / "round-0002"
    for name in ("tokenzero.json", "value_head.json", "value_head.safetensors"):
        (checkpoint / name).unlink()
    words = ("generate", checkpoint, "--prompt", "2 3", "--max-new-tokens", 3, "--json")
    tokens = cli(*words, "--method", "greedy").json["tokens"]
    assert len(tokens) == 3 or tokens[-1] == 2  # the limit, or the end mark
    assert cli(*words, "--method", "gumbel").json["value"] == 0.0
    _one_line(cli("eval", checkpoint, "--method", "greedy"), 2, "names no task", "--task")
    _one_line(cli("generate", checkpoint, "--prompt", "2", "--max-new-tokens", 24), 2, "takes 24 tokens")


def test_eval_keeps_its_contract(cli: Any) -> None:
    found = cli("eval", finished_run(), "--method", "best-of-n", "--n", 2, "--problems", 9, "--json").json
    assert set(found) == {"task", "split", "problems", "solved", "accuracy", "ci95", "method", "ledger"}
    assert (found["task"], found["split"], found["problems"], found["method"]) == (
        "countdown",
        "test",
        9,
        "best-of-n",
    )
    assert found["accuracy"] == found["solved"] / 9
    assert found["ci95"][0] <= found["accuracy"] <= found["ci95"][1]
    assert set(found["ledger"]) == LEDGER
    whole = cli("eval", finished_run(), "--split", "validation", "--method", "greedy", "--json").json
    assert whole["problems"] == 12
    assert "95 % interval" in cli("eval", finished_run(), "--problems", 2).out
    _one_line(
        cli("eval", finished_run(), "--overlap", "--problems", 2), 2, "no reference", "leave overlap out"
    )


def test_selfplay_keeps_its_contract(cli: Any, tmp_path: Path) -> None:
    config, run = write_config(tmp_path), tmp_path / "run"
    outcome = cli("selfplay", "--config", config, "--rounds", 1, "--seed", 7, "--out", run, "--json")
    found = outcome.json
    assert set(found) == {"run", "rounds"}
    assert found["run"] == str(run)
    assert [record["round"] for record in found["rounds"]] == [0, 1]
    promised = {
        "round",
        "games",
        "solved",
        "promoted",
        "greedy_accuracy",
        "search_accuracy",
        "loss",
        "health",
    }
    for record in found["rounds"]:
        assert promised | {"teacher_weights", "ledger", "wall_s"} <= set(record)
        assert {"policy", "value"} <= set(record["loss"])
        assert set(record["ledger"]) == LEDGER
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == found["rounds"]
    assert json.loads((run / "config.json").read_text())["seed"] == 7
    assert outcome.err.splitlines()[0].split()[:3] == ["round", "games", "solved"]
    _one_line(cli("selfplay", "--config", config, "--out", run), 2, "already holds a run", "--resume")

    # A resumed run needs its settings no second time, and a longer one keeps what it has.
    longer = cli("selfplay", "--out", run, "--resume", "--rounds", 2, "--json").json
    assert longer["rounds"][:2] == found["rounds"]
    assert len(longer["rounds"]) == 3
    again = cli("selfplay", "--out", run, "--resume", "--rounds", 2)
    assert again.code == 0
    assert "round" in again.out
    _one_line(cli("selfplay", "--out", run, "--resume", "--seed", 8), 2, "started with another seed")


def test_an_unsolved_answer_says_so_and_is_no_failure(cli: Any) -> None:
    words = ("generate", finished_run(), "--prompt", PROMPT, "--method", "greedy", "--json")
    outcome = cli(*words)
    assert outcome.err == ("" if outcome.json["solved"] else "not solved\n")
    outcome = cli(*words, "--max-new-tokens", 1)
    assert (outcome.code, outcome.err, outcome.json["solved"]) == (0, "not solved\n", False)


def test_options_reach_the_method_that_knows_them(cli: Any) -> None:
    words = (
        "generate",
        finished_run(),
        "--prompt",
        PROMPT,
        "--method",
        "self-consistency",
        "--n",
        8,
        "--json",
    )
    hot, cold = (cli(*words, "--temperature", heat).json["candidates"] for heat in (3.0, 0.0))
    assert len(cold) == 1 < len(hot)
    assert cli(*words, "--set", "sampling.temperature=0.0").json["candidates"] == cold
    _one_line(cli(*words, "--choose", "value"), 2, "choose means nothing to method self-consistency")
    _one_line(cli(*words, "--set", "sampling.top_q=1"), 2, "sampling.top_q", "did you mean 'sampling.top_")
    _one_line(cli(*words, "--tokens", 0), 2, "a budget of 0 tokens")


def test_eval_takes_budgets_and_stops(cli: Any) -> None:
    words = ("eval", finished_run(), "--method", "best-of-n", "--n", 16, "--problems", 4, "--json")
    free, tight = cli(*words).json["ledger"], cli(*words, "--tokens", 20).json["ledger"]
    assert tight["decode_tokens"] < free["decode_tokens"]
    assert tight["prefill_tokens"] + tight["decode_tokens"] <= 4 * 20
    stopped = cli("eval", finished_run(), "--method", "greedy", "--problems", 4, "--stop", " ", "--json").json
    assert stopped["solved"] == 0


def test_doctor_keeps_its_contract(cli: Any) -> None:
    found = cli("doctor", "--json").json
    assert set(found) == {"ok", "versions", "platform", "cpu", "cuda", "extras", "checks"}
    assert found["ok"] is True
    assert all(set(check) == {"ok", "detail"} for check in found["checks"].values())
    outcome = cli("doctor")
    assert (outcome.code, outcome.out.splitlines()[-1]) == (0, "all checks passed")


# ---- mistakes


def test_words_that_do_not_fit(cli: Any, tmp_path: Path) -> None:
    _one_line(cli(), 2, "required: VERB", "try: tokenzero --help")
    _one_line(cli("slefplay"), 2, "slefplay", "try: tokenzero --help")
    _one_line(cli("generate", "x"), 2, "--prompt", "try: tokenzero generate --help")
    _one_line(cli("generate", "x", "--prompt", "p", "--n", "many"), 2, "--n", "'many'")
    _one_line(
        cli("selfplay", "--preset", "countdown", "--config", "x", "--out", tmp_path), 2, "not allowed with"
    )
    _one_line(cli("bench"), 2, "BENCH", "try: tokenzero bench --help")


def test_settings_that_do_not_exist(cli: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    _one_line(
        cli("selfplay", "--preset", "countdwn", "--out", run), 2, "'countdwn'", "did you mean 'countdown'"
    )
    _one_line(cli("selfplay", "--set", "learner.step=1", "--out", run), 2, "learner.step", "'learner.steps'")
    _one_line(cli("selfplay", "--config", tmp_path / "no.yaml", "--out", run), 2, "no.yaml", "No such file")
    _one_line(cli("selfplay", "--set", "task.options.nmbers=3", "--out", run), 2, "'nmbers'", "'numbers'")
    _one_line(cli("selfplay", "--rounds", -1, "--out", run), 2, "rounds is -1")
    _one_line(cli("selfplay", "--resume", "--out", tmp_path), 2, "holds no run to resume")
    assert not run.exists()


def test_models_that_are_not_there(cli: Any, tmp_path: Path) -> None:
    words = ("--prompt", PROMPT)
    _one_line(cli("generate", tmp_path / "none", *words), 2, "does not exist")
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
    (tmp_path / "aa").touch()
    _one_line(cli("generate", tmp_path / "none", *words), 2, f"does not exist; {tmp_path} holds a, b")
    _one_line(cli("generate", tmp_path / "no" / "none", *words), 2, "does not exist")
    _one_line(cli("generate", tmp_path, *words), 2, "holds no config.json")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    _one_line(cli("generate", tmp_path / "run", *words), 2, "no finished checkpoint yet")


@pytest.mark.parametrize(
    ("prompt", "part"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("2 3 x -> 10 :", "'x' is not among"),
        ("2 3 4 " * 10 + "-> 10 :", "the limit is"),
        ("2 3 4", "is not a Countdown problem"),
        ("2 3 <eos> -> 4 :", "special token"),
    ],
)
@pytest.mark.parametrize("method", ["gumbel", "best-of-n"])
def test_prompts_that_cannot_be_answered(cli: Any, method: str, prompt: str, part: str) -> None:
    _one_line(cli("generate", finished_run(), "--prompt", prompt, "--method", method), 2, part)


def test_numbers_and_names_out_of_range(cli: Any, tmp_path: Path) -> None:
    run = finished_run()
    generate = ("generate", run, "--prompt", PROMPT)
    _one_line(cli(*generate, "--method", "gumbl"), 2, "did you mean 'gumbel'")
    _one_line(cli(*generate, "--simulations", -1), 2, "simulations is -1")
    _one_line(cli(*generate, "--method", "beam", "--n", 0), 2, "n is 0")
    _one_line(cli(*generate, "--seed", -1), 2, "seed is -1")
    _one_line(cli(*generate, "--max-new-tokens", 0), 2, "max_new_tokens is 0")
    _one_line(cli(*generate, "--task", "countdwn"), 2, "countdwn", "did you mean 'countdown'")
    _one_line(cli("eval", run, "--split", "tset"), 2, "split 'tset' does not exist")
    _one_line(cli("eval", run, "--problems", 0), 2, "--problems is 0")
    _one_line(cli("eval", run, "--seed", -1), 2, "--seed is -1")
    bench = ("bench", "depth", run, "--out", tmp_path / "b")
    _one_line(cli(*bench, "--simulations", "4,x"), 2, "--simulations is '4,x'")
    _one_line(cli(*bench, "--simulations", "-4"), 2, "negative")
    _one_line(cli(*bench, "--samples", "0"), 2, "samples 0 is below 1")
    _one_line(cli(*bench, "--method", "gumbl"), 2, "did you mean 'gumbel'")
    _one_line(cli(*bench, "--simulations", "", "--samples", ""), 2, "nothing to measure")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    "name", ["model.safetensors", "value_head.safetensors", "value_head.json", "tokenzero.json"]
)
def test_checkpoints_that_were_cut_short(cli: Any, tmp_path: Path, name: str) -> None:
    run = copied_run(tmp_path)
    _truncate(run / "checkpoints" / "round-0002" / name)
    outcome = cli("generate", run, "--prompt", PROMPT)
    _one_line(outcome, 2, "round-0002")


def test_runs_that_were_damaged(cli: Any, tmp_path: Path) -> None:
    import shutil

    run = copied_run(tmp_path)
    shutil.rmtree(run / "checkpoints" / "round-0002")
    resume = ("selfplay", "--out", run, "--resume")
    _truncate(run / "episodes" / "round-0001.parquet")
    _one_line(cli(*resume), 2, "round-0001.parquet", "was written with")
    _truncate(run / "checkpoints" / "round-0001" / "train_state.safetensors")
    _one_line(cli(*resume), 2, "train_state.safetensors")
    path = run / "checkpoints" / "round-0001" / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    _one_line(cli(*resume), 2, "model.safetensors", "damaged")
    (run / "config.json").write_text("{")
    _one_line(cli(*resume), 2, "config.json", "not valid YAML")


def test_output_that_cannot_be_written(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("here first")
    config = write_config(tmp_path)
    _one_line(cli("selfplay", "--config", config, "--out", blocked), 1, "file")
    _one_line(cli("selfplay", "--config", config, "--out", blocked / "run"), 1, "file")
    bench = ("bench", "depth", finished_run(), "--simulations", "0", "--samples", "", "--problems", 2)
    _one_line(cli(*bench, "--out", blocked / "bench"), 1, "file")

    def full(*arguments: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("tokenzero.policy.atomic.os.write", full)
    _one_line(cli("selfplay", "--config", config, "--out", tmp_path / "run"), 1, "config.json", "space")
    _one_line(cli(*bench, "--out", tmp_path / "bench"), 1, "depth.json", "space")


def test_an_interrupt_says_how_to_go_on(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **names: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tokenzero.selfplay.run.Run.execute", interrupt)
    outcome = cli("selfplay", "--preset", "countdown-quick", "--out", tmp_path / "run")
    _one_line(outcome, 130, f"go on with: tokenzero selfplay --out {tmp_path / 'run'} --resume")
    monkeypatch.setattr("tokenzero.commands.doctor.examine", interrupt)
    _one_line(cli("doctor"), 130, "interrupted")


def test_errors_that_are_ours_are_not_hidden(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: str | None) -> None:
        raise ValueError("a mistake in the program")

    monkeypatch.setattr("tokenzero.commands.doctor.examine", broken)
    with pytest.raises(ValueError, match="a mistake in the program"):
        cli("doctor")


# ---- as a program of its own


def _program(*words: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tokenzero.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, **settings)


def test_help_and_version_load_nothing_heavy() -> None:
    script = (
        "import sys, contextlib, io\n"
        "from tokenzero.cli import main\n"
        "for words in (['--help'], ['bench', 'depth', '--help'], ['--version']):\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        main(words)\n"
        "print(*sorted({'torch', 'numba', 'numpy', 'pydantic', 'rich', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
    assert "tokenzero 0." in _program("--version").stdout


def test_as_a_program_stdout_is_json_and_stderr_is_quiet() -> None:
    done = _program("generate", str(finished_run()), "--prompt", PROMPT, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["method"] == "gumbel"
    assert done.stderr in ("", "not solved\n")


def test_a_reader_who_leaves_gets_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-m", "tokenzero.cli", "generate", str(finished_run()), "--prompt", PROMPT]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(write)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "tokenzero: error: output was closed before it was complete"
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
