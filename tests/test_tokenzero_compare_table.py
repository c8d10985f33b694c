"""The report of a comparison, from runs written by hand: every number can be worked out on paper."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from small_run import small_config

from tokenzero.compare import Comparison, Variant
from tokenzero.compare_plots import compare_picture
from tokenzero.compare_table import accuracy_table, as_csv, as_markdown, make_report, spending_table
from tokenzero.mcts.errors import InputError
from tokenzero.policy.ledger import Ledger

# Test problems solved, one digit each, by arm and seed; validation accuracy by round; tokens a round.
SOLVED = {
    "plain": {1: "1100000000", 2: "1110000000", 3: "1100000000"},
    "deep": {1: "1111000000", 2: "1111110000", 3: "1111100000"},
}
VALIDATION = {"plain": [0.0, 0.2, 0.4], "deep": [0.0, 0.5, 0.6]}
TOKENS = {"plain": 1000, "deep": 1010}


def _comparison(directory: Path, **changes: Any) -> Comparison:
    base = small_config()
    given: dict[str, Any] = {
        "directory": directory,
        "base": base,
        "variants": [Variant(name, f"{name} search", base) for name in SOLVED],
        "seeds": [1, 2, 3],
        "against": "plain",
    }
    return Comparison(**{**given, **changes})


def _write_run(run: Path, records: list[dict[str, Any]], solved: str | None) -> None:
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if solved is not None:
        (run / "test.json").write_text(json.dumps({"asked": None, "problems": 10, "solved": solved}))


def _record(
    round_index: int, accuracy: float, tokens: int, *, incumbent: int | None = None
) -> dict[str, Any]:
    ledger = Ledger(
        prefill_tokens=tokens // 2, decode_tokens=tokens - tokens // 2, cached_tokens=7, wall_s=1.0
    )
    return {
        "round": round_index,
        "incumbent": round_index if incumbent is None else incumbent,
        "spent": tokens,
        "greedy_accuracy": accuracy,
        "ledger": ledger.as_dict(),
        "wall_s": 100.0 if round_index == 0 else 10.0,
    }


@pytest.fixture
def written(tmp_path: Path) -> Path:
    for arm, by_seed in SOLVED.items():
        for seed, solved in by_seed.items():
            records = [_record(r, a, TOKENS[arm]) for r, a in enumerate(VALIDATION[arm])]
            _write_run(tmp_path / f"seed-{seed}" / arm, records, solved)
    return tmp_path


def _row(report: dict[str, Any], arm: str) -> dict[str, Any]:
    return next(row for row in report["rows"] if row["arm"] == arm)


def test_accuracies_and_paired_differences_are_exact(written: Path) -> None:
    report = make_report(_comparison(written), {})
    plain, deep = report["rows"]
    assert (report["split"], report["problems"], report["rounds"]) == ("test", 10, 2)
    assert deep["accuracy_by_seed"] == {"1": 0.4, "2": 0.6, "3": 0.5}
    assert (plain["runs"], deep["runs"]) == (3, 3)
    assert deep["accuracy"] == pytest.approx(0.5)
    t = 4.302652729  # two degrees of freedom
    assert deep["ci95"] == pytest.approx([0.5 - t * 0.1 / math.sqrt(3), 0.5 + t * 0.1 / math.sqrt(3)])
    # differences .2, .3, .3: mean 4/15, standard deviation 1/sqrt(300)
    half = t / math.sqrt(300) / math.sqrt(3)
    assert deep["difference"] == pytest.approx(4 / 15)
    assert deep["difference_ci95"] == pytest.approx([4 / 15 - half, 4 / 15 + half])
    assert deep["ratio"] == pytest.approx(1.5 / 0.7)
    low, high = deep["difference_bootstrap95"]
    assert low < 4 / 15 < high
    assert plain["difference"] == 0.0
    assert plain["difference_ci95"] == plain["difference_bootstrap95"] == [0.0, 0.0]


def test_tokens_to_reach_the_reference_lie_on_the_line_between_rounds(written: Path) -> None:
    plain, deep = make_report(_comparison(written), {})["rows"]
    # .4 of the way from 0 to .5 in the first round of 1010, against 2000
    assert deep["token_share"] == pytest.approx(0.8 * 1010 / 2000)
    assert deep["token_shares"] == pytest.approx(dict.fromkeys("123", 0.8 * 1010 / 2000))
    assert plain["token_share"] == pytest.approx(1.0)
    beside_deep = make_report(_comparison(written, against="deep"), {})
    assert _row(beside_deep, "plain")["token_share"] is None
    assert [cells[-1] for cells in accuracy_table(beside_deep)[1]] == ["not reached", "100"]


def test_what_was_spent_leaves_the_shared_warm_start_out(written: Path) -> None:
    deep = _row(make_report(_comparison(written), {}), "deep")
    assert (deep["tokens"], deep["wall_s"]) == (2020, 20.0)
    assert deep["learner_steps"] == 2 * small_config().learner.steps
    assert deep["ledger"]["prefill_tokens"] == deep["ledger"]["decode_tokens"] == 1010
    assert deep["ledger"]["cached_tokens"] == 14
    assert "wall_s" not in deep["ledger"]
    assert [point["tokens"] for point in deep["curve"]] == [0, 1010, 2020]
    assert [point["accuracy"] for point in deep["curve"]] == VALIDATION["deep"]


def test_tokens_in_play_are_what_the_record_says_they_are(tmp_path: Path) -> None:
    records = [_record(r, 0.1 * r, 1000) | {"spent": 300} for r in range(3)]
    _write_run(tmp_path / "seed-1" / "plain", records, "1")
    variants = [Variant("plain", "plain", small_config())]
    report = make_report(_comparison(tmp_path, variants=variants, seeds=[1]), {})
    assert [point["tokens"] for point in report["rows"][0]["curve"]] == [0, 300, 600]


def test_weights_that_were_not_promoted_do_not_count(tmp_path: Path) -> None:
    records = [_record(0, 0.1, 0), _record(1, 0.3, 100), _record(2, 0.2, 100, incumbent=1)]
    _write_run(tmp_path / "seed-1" / "plain", records, None)
    variants = [Variant("plain", "plain", small_config())]
    comparison = _comparison(tmp_path, variants=variants, seeds=[1], reads_test=False)
    (row,) = make_report(comparison, {})["rows"]
    assert [point["accuracy"] for point in row["curve"]] == [0.1, 0.3, 0.3]
    assert row["accuracy"] == 0.3


def test_without_the_test_split_the_validation_split_is_reported(written: Path) -> None:
    report = make_report(_comparison(written, reads_test=False), {})
    deep = _row(report, "deep")
    assert (report["split"], report["problems"]) == ("validation", small_config().evaluation.problems)
    assert deep["accuracy"] == pytest.approx(0.6)
    assert deep["difference_bootstrap95"] is None
    assert "validation accuracy, %" in accuracy_table(report)[0]


def test_unfinished_runs_are_left_out_and_pairs_stay_pairs(written: Path) -> None:
    (written / "seed-2" / "deep" / "test.json").unlink()
    metrics = written / "seed-3" / "plain" / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:2]))
    report = make_report(_comparison(written), {"seed-2/deep": "out of memory"})
    plain, deep = report["rows"]
    assert (plain["runs"], deep["runs"]) == (2, 2)
    assert deep["accuracy"] == pytest.approx(0.45)
    assert deep["difference"] == pytest.approx(0.2)  # seed 1 alone has both
    assert deep["ratio"] == pytest.approx(2.0)
    assert deep["difference_ci95"] is deep["difference_bootstrap95"] is None
    assert "* seed-2/deep failed: out of memory" in as_markdown(report)


def test_an_arm_without_any_run_is_a_row_of_nothing(written: Path) -> None:
    report = make_report(_comparison(written, seeds=[8]), {"seed-8/deep": "no"})
    assert [row["accuracy"] for row in report["rows"]] == [None, None]
    assert accuracy_table(report)[1][0] == ["plain", "0", *["-"] * 5]
    assert as_csv(report["rows"]).count("\n") == 3
    assert compare_picture(report).startswith(b"\x89PNG")


def test_a_reference_that_learnt_nothing_is_not_there_to_be_reached(written: Path) -> None:
    for seed in (1, 2, 3):
        records = [_record(r, 0.2, 1000) for r in range(3)]
        path = written / f"seed-{seed}" / "plain" / "metrics.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    report = make_report(_comparison(written), {})
    assert report["against_learnt"] is False
    assert _row(report, "deep")["token_share"] is None
    assert [cells[-1] for cells in accuracy_table(report)[1]] == ["-", "-"]


def test_what_makes_a_comparison_weak_is_said(written: Path) -> None:
    assert make_report(_comparison(written), {})["notes"] == []  # 1 % more tokens is a batch's remainder
    assert "2 seeds" in make_report(_comparison(written, seeds=[1, 2]), {})["notes"][0]
    records = [_record(r, 0.2, 1100) for r in range(3)]
    for seed in (1, 2, 3):
        path = written / f"seed-{seed}" / "deep" / "metrics.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert "2,000 to 2,200" in make_report(_comparison(written), {})["notes"][0]


def test_damaged_files_are_named(written: Path) -> None:
    path = written / "seed-1" / "deep" / "test.json"
    path.write_text("{}")
    with pytest.raises(InputError, match="seed-1/deep is damaged"):
        make_report(_comparison(written), {})
    (written / "seed-1" / "deep" / "metrics.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"seed-1/deep/metrics.jsonl cannot be read"):
        make_report(_comparison(written), {})


def test_every_format_says_the_same(written: Path) -> None:
    report = make_report(_comparison(written), {})
    assert json.loads(json.dumps(report)) == report
    for row, cells in zip(report["rows"], csv.DictReader(io.StringIO(as_csv(report["rows"]))), strict=True):
        assert float(cells["accuracy"]) == row["accuracy"]
        assert [float(cells["ci95_low"]), float(cells["ci95_high"])] == row["ci95"]
        assert float(cells["decode_tokens"]) == row["ledger"]["decode_tokens"]
        assert None not in cells
    markdown = as_markdown(report)
    for columns, rows in (accuracy_table(report), spending_table(report)):
        for cells in (columns, *rows):
            assert len(cells) == len(columns)
            assert "| " + " | ".join(cells) + " |" in markdown
    assert accuracy_table(report)[1][1][2:4] == ["50.0 (25.2 to 74.8)", "+26.7 (+12.3 to +41.0)"]
    assert compare_picture(report).startswith(b"\x89PNG")
