"""The page of a tree in a real browser: what is drawn, what keys and the slider do, and how it looks.

Where `TOKENZERO_SCREENSHOTS` names a directory, the pictures that are taken stay there to be looked at.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from chromium import Page, chromium
from made_tree import searched_tree, small_tree

from tokenzero.selfplay.recorded_tree import RecordedTree
from tokenzero.view import page
from tokenzero.view_document import document


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Page) -> Iterator[Page]:
    browser.complaints.clear()
    browser.prefer(prefers_color_scheme="light", prefers_reduced_motion="reduce")
    yield browser
    assert browser.complaints == []
    assert browser.run("window.tokenzero ? tokenzero.state().errors : []") == []


def state(tab: Page) -> dict[str, Any]:
    tab.settle()
    return dict(tab.run("tokenzero.state()"))


def written(directory: Path, *trees: RecordedTree, answer: str = "1 + 2") -> Path:
    path = directory / "page.html"
    path.write_text(page(document(trees, answer)))
    return path


def keep(picture: bytes, name: str) -> None:
    if directory := os.environ.get("TOKENZERO_SCREENSHOTS"):
        (Path(directory) / name).write_bytes(picture)


def painted(tab: Page, colour: tuple[int, int, int]) -> int:
    """Pixels of the drawing that have just that colour."""
    script = """(colour => {
      const seen = document.getElementById("tree"), copy = document.createElement("canvas");
      copy.width = seen.width;
      copy.height = seen.height;
      const context = copy.getContext("2d", { willReadFrequently: true });
      context.drawImage(seen, 0, 0);
      const { data } = context.getImageData(0, 0, copy.width, copy.height);
      let count = 0;
      for (let i = 0; i < data.length; i += 4) count += colour.every((x, k) => data[i + k] === x);
      return count;
    })"""
    return int(tab.run(f"{script}({list(colour)})"))


def size_of(picture: bytes) -> tuple[int, int]:
    """Width and height of a PNG."""
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture[16:24])
    return width, height


def test_every_node_of_a_small_tree_is_drawn(tab: Page, tmp_path: Path) -> None:
    tab.open(written(tmp_path, small_tree()))
    found = state(tab)
    assert (found["nodes"], found["shown"], found["drawn"], found["labels"]) == (5, 5, 5, 4)
    assert tab.run("document.body.dataset.drawn") == "5"
    assert tab.run("document.title").startswith("1 2 -> 3 :")
    drawn = ElementTree.fromstring(tab.run("tokenzero.svg()"))
    texts = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert sorted(texts) == ["+ 2", "- 2", "1", "2"]
    picture = tab.picture()
    keep(picture, "small.png")
    assert size_of(picture) == (1400, 900)
    assert painted(tab, (18, 85, 156)) > 50  # the blue end of the scale: +1, solved
    assert painted(tab, (166, 60, 6)) > 50  # the orange end: -1, failed


def test_the_slider_shows_the_tree_as_it_grew(tab: Page, tmp_path: Path) -> None:
    tree = searched_tree(60)
    tab.open(written(tmp_path, tree))
    assert (state(tab)["time"], state(tab)["visits"]) == (61, 61)
    final = tab.run("tokenzero.state().value")
    assert final == pytest.approx(float(tree.value[0]), abs=1e-6)
    tab.run("const s = document.getElementById('time'); s.value = 20; s.dispatchEvent(new Event('input'));")
    found = state(tab)
    assert (found["time"], found["visits"]) == (20, 20)
    assert found["value"] == pytest.approx(float(tree.outcome[:20].mean()), abs=1e-6)
    assert tab.run("document.getElementById('clock').textContent") == "simulation 19 / 60"
    tab.press("]")
    assert state(tab)["time"] == 21
    tab.press("[")
    tab.press("[")
    assert state(tab)["time"] == 19
    tab.run("tokenzero.tick(61)")
    assert tab.run("tokenzero.state().value") == final


def test_playing_goes_to_the_end_by_itself(tab: Page, tmp_path: Path) -> None:
    tab.open(written(tmp_path, small_tree()))
    tab.press(" ")
    assert tab.run("tokenzero.state().playing") is True
    ended = "new Promise(done => { const look = () => tokenzero.state().playing ? requestAnimationFrame(look)"
    tab.run(f"{ended} : done(0); look(); }})")
    assert state(tab)["time"] == 5


def test_keys_walk_the_tree(tab: Page, tmp_path: Path) -> None:
    tab.open(written(tmp_path, small_tree()))
    tab.run("document.getElementById('tree').focus()")
    for key, node in (
        ("ArrowRight", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("ArrowRight", 3), ("ArrowDown", 4),
        ("ArrowLeft", 1), ("Home", 0), ("ArrowLeft", 0), ("End", 3),
    ):  # fmt: skip
        tab.press(key)
        assert state(tab)["selected"] == node, key
    assert "solved" in tab.run("document.getElementById('said').textContent")
    tab.press("ArrowLeft")
    tab.press("Enter")
    assert state(tab)["shown"] == 3
    tab.press("Enter")
    assert state(tab)["shown"] == 5
    before = state(tab)["scale"]
    tab.press("+")
    assert state(tab)["scale"] == pytest.approx(1.25 * before)
    tab.press("0")
    assert state(tab)["scale"] == pytest.approx(before)
    tab.press("?")
    assert tab.run("document.getElementById('help').open") is True
    tab.run("document.getElementById('help').close()")


def test_text_is_found_across_actions(tab: Page, tmp_path: Path) -> None:
    tab.open(written(tmp_path, small_tree()))
    tab.press("/")
    tab.ask("Input.insertText", text="1 + ")
    found = state(tab)
    assert (found["hits"], found["selected"]) == (1, 3)
    assert tab.run("document.getElementById('hits').textContent") == "1/1"
    tab.run("document.getElementById('query').value = ''; tokenzero.find('2')")
    assert state(tab)["hits"] == 3
    tab.run("document.getElementById('tree').focus()")
    walked = [state(tab)["selected"]]
    for _ in range(3):
        tab.press("n")
        walked.append(state(tab)["selected"])
    assert sorted(walked[:3]) == [2, 3, 4]
    assert walked[3] == walked[0]
    tab.press("N")
    assert state(tab)["selected"] == walked[2]


def test_the_panel_says_all_there_is_and_no_markup_is_taken(tab: Page, tmp_path: Path) -> None:
    nasty = "<img src=x onerror=throw(1)>"
    tab.open(written(tmp_path, small_tree(text=["", nasty, "2", "</script>", ""], prompt=nasty)), "#node=1")
    said = tab.run("document.getElementById('panel').innerText")
    for part in ("Node 1", nasty, "3 (60 %)", "+0.167", "+0.500", "75 %", "accept (+1)", "student", "50 %",
                 "<teacher & co>", "1 solution below", "2 children", "simulation 1"):  # fmt: skip
        assert part in said, part
    assert tab.run("document.images.length") == 0
    tab.run("tokenzero.select(2)")
    assert "reject" in tab.run("document.getElementById('panel').innerText")
    assert (
        tab.run("[...document.querySelectorAll('#panel dt')].map(x => x.textContent)").count("Failed ends")
        == 1
    )
    tab.run("tokenzero.select(0); document.querySelector('#panel button.child').click()")
    assert state(tab)["selected"] == 1


def test_nodes_and_stubs_answer_to_the_mouse(tab: Page, tmp_path: Path) -> None:
    tab.open(written(tmp_path, searched_tree(600)))
    before = state(tab)
    targets = tab.run("tokenzero.targets()")
    node = next(target for target in targets if not target["pill"])
    tab.click(*node["at"])
    assert state(tab)["selected"] == node["node"]
    pill = next(target for target in targets if target["pill"])
    tab.click(*pill["at"])
    assert state(tab)["shown"] > before["shown"]


def test_labels_never_cover_each_other(tab: Page, tmp_path: Path) -> None:
    path = written(tmp_path, searched_tree(2000))
    for size, fragment in (
        ((1400, 900), ""),
        ((1400, 900), "#all=1"),
        ((1400, 900), "#all=1&fit=1"),
        ((400, 800), ""),
    ):
        tab.open(path, fragment, size=size)
        boxes = np.array([target["box"] for target in tab.run("tokenzero.targets()")])
        assert len(boxes) > 5
        left, top, right, bottom = boxes.T
        crossing = (left[:, None] < right[None] - 0.5) & (left[None] < right[:, None] - 0.5)
        crossing &= (top[:, None] < bottom[None] - 0.5) & (top[None] < bottom[:, None] - 0.5)
        np.fill_diagonal(crossing, False)
        assert not crossing.any(), (size, fragment, np.argwhere(crossing)[:3])


def test_two_thousand_nodes_are_legible(tab: Page, tmp_path: Path) -> None:
    tree = searched_tree(2000)
    assert len(tree.parent) >= 1900
    path = written(tmp_path, tree)
    for scheme in ("light", "dark"):
        tab.prefer(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
        tab.open(path)
        found = state(tab)
        assert found["nodes"] == len(tree.parent)
        assert 25 <= found["shown"] <= 300  # main lines first
        assert found["drawn"] >= found["shown"]  # stubs come on top
        assert found["labels"] >= 0.95 * (found["shown"] - 1)
        assert found["scale"] >= 0.6
        keep(tab.picture(), f"large-{scheme}.png")
        ground = {"light": (253, 253, 252), "dark": (20, 23, 27)}[scheme]
        assert painted(tab, ground) > 300_000
    tab.press("u")
    assert state(tab)["shown"] == len(tree.parent)
    tab.press("0")
    assert state(tab)["drawn"] == len(tree.parent)
    keep(tab.picture(), "large-all.png")
    tab.press("f")
    assert state(tab)["shown"] == found["shown"]
    # A node that is folded away comes to light when it is chosen.
    tab.run(f"tokenzero.select({len(tree.parent) - 1})")
    assert state(tab)["shown"] > found["shown"]


def test_a_narrow_window_shows_the_same(tab: Page, tmp_path: Path) -> None:
    tab.open(written(tmp_path, searched_tree(300)), size=(400, 800))
    keep(tab.picture(), "narrow.png")
    assert state(tab)["drawn"] > 10
    assert tab.run("document.documentElement.scrollWidth") <= 400
    assert tab.run("document.getElementById('tree').clientHeight") > 200
    outside = "[...document.querySelectorAll('button, input, select, output')].filter(x => x.offsetParent)"
    assert tab.run(f"{outside}.filter(x => x.getBoundingClientRect().right > 401).map(x => x.id)") == []


def test_several_searches_are_chosen_from(tab: Page, tmp_path: Path) -> None:
    tab.open(written(tmp_path, small_tree(), searched_tree(40, before="the cat ")), "#move=1")
    assert state(tab)["move"] == 1
    assert "After the cat" in tab.run("document.getElementById('about').innerText.replace(/\\s+/g, ' ')")
    tab.press("M")
    found = state(tab)
    assert (found["move"], found["nodes"]) == (0, 5)
    assert tab.run("document.getElementById('move').value") == "0"


def test_what_a_stored_game_lacks_is_said(tab: Page, tmp_path: Path) -> None:
    unknown = np.full(5, np.nan, np.float32)
    tree = small_tree(
        prior=unknown, raw_value=unknown, judge=None, lost=None, shares=None, proposers=[], counted="states",
        outcome=np.zeros(0, np.float32), note="only states were stored",
    )  # fmt: skip
    tab.open(written(tmp_path, tree))
    assert "only states were stored" in tab.run("document.body.innerText")
    assert "NaN" not in tab.run("document.body.innerText")
    assert "state 5 / 5" in tab.run("document.body.innerText")
    tab.run("tokenzero.tick(2)")
    assert state(tab)["value"] == pytest.approx(0.1)


def test_one_node_alone_is_a_tree(tab: Page, tmp_path: Path) -> None:
    one = RecordedTree(
        prompt="p", method="frontier", parent=np.array([-1], np.int32), actions=[[]], text=[""],
        visits=np.zeros(1, np.int32), value=np.array([np.nan], np.float32),
        raw_value=np.zeros(1, np.float32), prior=np.ones(1, np.float32), terminal=np.zeros(1, np.bool_),
        solved=np.zeros(1, np.bool_), exhausted=np.zeros(1, np.bool_),
    )  # fmt: skip
    tab.open(written(tmp_path, one, answer=""))
    assert (state(tab)["shown"], state(tab)["drawn"]) == (1, 1)
    for key in ("ArrowRight", "ArrowDown", " ", "]", "u", "f", "0", "n", "Enter", "c", "End"):
        tab.press(key)
    assert state(tab)["selected"] == 0
