"""The page of a tree: whole, shut to the outside, and safe from what it shows; and its verb."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from made_run import make_answer, make_run
from made_tree import searched_tree, small_tree

from tokenzero.cli import main
from tokenzero.mcts.errors import InputError
from tokenzero.view import page
from tokenzero.view_document import document, to_json

NASTY = "</script><script>alert(1)</script><!-- {{script}} &amp; \u2028 ]]> <img src=x onerror=alert(1)>"


class Scripts(HTMLParser):
    """What a browser would take for scripts, styles and things to fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = ""
        self.found: dict[str, list[str]] = {"script": [], "style": []}
        self.kinds: list[str | None] = []
        self.fetched: list[str] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.fetched += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "srcset")]
        self.fetched += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.inside = tag
        if tag in self.found:
            self.found[tag].append("")
        if tag == "script":
            self.kinds.append(given.get("type"))
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside in self.found:
            self.found[self.inside][-1] += data


def parsed(html: str) -> Scripts:
    reader = Scripts()
    reader.feed(html)
    reader.close()
    return reader


def shown(html: str) -> Any:
    return json.loads(parsed(html).found["script"][0])


def test_the_page_holds_the_document_and_fetches_nothing() -> None:
    made = document([small_tree()], "1 + 2", "a title")
    html = page(made)
    found = parsed(html)
    assert found.kinds == ["application/json", None]
    assert found.fetched == []
    assert not re.search(r"@import|url\(", found.found["style"][0])
    assert set(re.findall(r"https?://[^\"'\s]+", html)) == {"http://www.w3.org/2000/svg"}  # no place
    assert shown(html) == json.loads(to_json(made))
    assert "<title>a title - search tree</title>" in html
    assert "{{" not in html


def test_only_the_pages_own_script_and_style_may_run() -> None:
    found = parsed(page(document([small_tree()])))
    rules = dict(rule.strip().split(" ", 1) for rule in found.policy.split(";"))
    assert rules["default-src"] == "'none'"
    for kind, text in (("script-src", found.found["script"][1]), ("style-src", found.found["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"
    assert "unsafe" not in found.policy


def test_no_text_can_leave_its_place() -> None:
    tree = small_tree(
        prompt=NASTY, before=NASTY, method=NASTY, note=NASTY, text=["", NASTY, NASTY, NASTY, "\ud800"],
        settings={NASTY: NASTY}, proposers=[NASTY, "b"],
    )  # fmt: skip
    html = page(document([tree], NASTY, NASTY))
    found = parsed(html)
    assert len(found.found["script"]) == 2
    assert found.fetched == []
    one = shown(html)["searches"][0]
    assert one["prompt"] == one["text"][1] == NASTY
    assert one["settings"] == {NASTY: NASTY}
    assert "<!--" not in html
    html.encode()


def test_scripts_write_no_markup() -> None:
    script = parsed(page(document([small_tree()]))).found["script"][1]
    forbidden = r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|fetch\(|XMLHttp"
    assert not re.search(forbidden, script)


def test_unknown_fields_stay_outside_and_damage_is_refused() -> None:
    made = document([small_tree()])
    assert "extra" not in shown(page({**made, "extra": float("nan")}))
    with pytest.raises(InputError, match="no search tree"):
        page({})
    made["searches"][0]["visits"] = [1]
    with pytest.raises(InputError, match="visits has 1 values"):
        page(made)


# ---- the verb


def test_a_tree_file_becomes_a_page_and_other_formats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "t.json", tmp_path / "t.html"
    source.write_text(to_json(document([searched_tree(20), small_tree()], "1 + 2")))
    more = [str(tmp_path / name) for name in ("t.graphml", "t.dot", "again.json")]
    words = ["view", str(source), "--out", str(out)]
    words += ["--graphml", more[0], "--dot", more[1], "--tree", more[2]]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["searches"], told["move"], told["nodes"]) == (2, 0, len(searched_tree(20).parent))
    assert len(shown(out.read_text())["searches"]) == 2
    assert len(nx.read_graphml(more[0])) == told["nodes"]
    assert Path(more[1]).read_text().startswith("digraph")
    assert json.loads(Path(more[2]).read_text()) == json.loads(source.read_text())
    assert main([*words, "--move", "1"]) == 0
    assert "5 nodes, depth 2, 1 solved" in capsys.readouterr().out
    assert len(shown(out.read_text())["searches"]) == 1
    assert len(nx.read_graphml(more[0])) == 5


def test_a_game_of_a_run_is_shown_with_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    games = [[make_answer("abc")], [make_answer("cab"), make_answer("bad", -1.0, prompt="cd")]]
    run, out = make_run(tmp_path / "run", games), tmp_path / "page.html"
    assert main(["view", str(run), "--out", str(out), "--game", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["nodes"], told["solved"], told["answer"], told["simulations"]) == (4, 0, "bad", None)
    one = shown(out.read_text())["searches"][0]
    assert one["prompt"] == "cd"
    assert one["settings"]["round"] == 2
    assert main(["view", str(run), "--out", str(out)]) == 0
    assert "were not stored" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--game", "7"], "--game is 7; round 1 has games 0 to 0"),
        (["tree", "--game", "0"], "is no run"),
        (["tree", "--move", "1"], "--move is 1; choose one of 0 to 0"),
        (["nothing"], "cannot be read"),
        (["empty"], "holds no run"),
        (["young"], "no games yet"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    make_run(tmp_path / "run", [[make_answer("abc")]])
    make_run(tmp_path / "young", [None])
    (tmp_path / "empty").mkdir()
    (tmp_path / "tree").write_text(to_json(document([small_tree()])))
    out = tmp_path / "page.html"
    assert main(["view", str(tmp_path / words[0]), *words[1:], "--out", str(out)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert said in told.err
    assert not out.exists()
