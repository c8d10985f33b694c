"""The table of states against a plain dictionary of answers, over random lives of games."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.selfplay.state_table import StateTable

CANDIDATES = 3
Key = tuple[int, tuple[int, ...]]  # (place of the game, answer tokens)


class Plain:
    """What the table should hold: a row for each answer in use, engine states of forwarded ones."""

    def __init__(self) -> None:
        self.row: dict[Key, int] = {}
        self.engine: dict[Key, int] = {}

    def drop(self, top: Key) -> set[int]:
        """Forget an answer and all that begin with it; their engine states."""
        gone = [key for key in self.row if key[0] == top[0] and key[1][: len(top[1])] == top[1]]
        for key in gone:
            del self.row[key]
        return {self.engine.pop(key) for key in gone if key in self.engine}


def offer(table: StateTable, rows: list[int]) -> None:
    """Give rows their candidates, which differ from row to row."""
    for row in rows:
        table.actions[row] = np.arange(CANDIDATES) * 10 + len(table.answer(row))


@given(st.data())
def test_the_table_is_a_dictionary_of_answers(data: st.DataObject) -> None:
    table, plain = StateTable(1, CANDIDATES, 1), Plain()
    engine_states = 0
    for _ in range(data.draw(st.integers(1, 25))):
        kind = data.draw(st.sampled_from(["plant", "expand", "expand", "expand", "keep", "free"]))
        keys = sorted(plain.row)
        if kind == "plant":
            place = data.draw(st.integers(0, 3))
            if (place, ()) in plain.row:
                continue
            row = int(table.plant(np.asarray([place]))[0])
            assert row not in plain.row.values()
            plain.row[place, ()] = row
            table.write(np.asarray([row]), [""])
            offer(table, [row])
        elif not keys:
            continue
        elif kind == "expand":
            asked = [
                (data.draw(st.sampled_from(keys)), data.draw(st.integers(0, CANDIDATES - 1)))
                for _ in range(data.draw(st.integers(1, 40)))
            ]
            wanted = [(place, (*answer, slot * 10 + len(answer))) for (place, answer), slot in asked]
            states = np.asarray([plain.row[key] for key, _ in asked])
            tokens = np.asarray([key[1][-1] for key in wanted])
            rows, fresh = table.children(states, tokens)
            new = list(dict.fromkeys(key for key in wanted if key not in plain.row))
            assert len(set(fresh.tolist()) | set(plain.row.values())) == len(new) + len(plain.row)
            plain.row.update(zip(new, fresh.tolist(), strict=True))
            assert rows.tolist() == [plain.row[key] for key in wanted]
            offer(table, fresh.tolist())
            table.write(fresh, [str(key) for key in new])
            for key, row in zip(new, fresh.tolist(), strict=True):
                assert table.slot[row] == -1
                if data.draw(st.booleans()):
                    plain.engine[key] = table.slot[row] = engine_states
                    engine_states += 1
        else:
            key = data.draw(st.sampled_from(keys))
            if kind == "free":
                freed = table.free_subtrees(np.asarray([plain.row[key]]))
                expected = plain.drop(key)
            else:
                freed = table.free_siblings(np.asarray([plain.row[key]]))
                place, answer = key
                beside = [
                    other
                    for other in keys
                    if other[0] == place
                    and len(other[1]) == len(answer) > 0
                    and other[1][:-1] == answer[:-1]
                    and other != key
                ]
                expected = set().union(*(plain.drop(other) for other in beside))
            assert sorted(freed.tolist()) == sorted(expected)
        check(table, plain)
    table.free_subtrees(np.asarray([row for (_, answer), row in plain.row.items() if not answer], np.int64))
    assert table.used == 0


def check(table: StateTable, plain: Plain) -> None:
    assert table.used == len(plain.row)
    assert sorted(plain.row.values()) == np.flatnonzero(table.game >= 0).tolist()
    for (place, answer), row in plain.row.items():
        assert table.game[row] == place
        assert tuple(table.answer(row)) == answer
        assert table.length[row] == len(answer)
        assert table.text[row] == (str((place, answer)) if answer else "")
        assert table.slot[row] == plain.engine.get((place, answer), -1)
        for slot in range(CANDIDATES):
            below = plain.row.get((place, (*answer, slot * 10 + len(answer))), -1)
            assert table.child[row, slot] == below


def test_rows_are_taken_from_the_lowest_and_growing_keeps_the_free_ones() -> None:
    table = StateTable(64, CANDIDATES, 2)
    assert table.plant(np.arange(40)).tolist() == list(range(40))
    table.free_subtrees(np.asarray([3, 5]))
    assert table.used == 38
    rows = table.plant(np.arange(100, 200))
    assert len(table.game) >= 138
    assert table.used == 138
    assert {3, 5} <= set(rows.tolist())
    assert len(set(rows.tolist())) == 100
    assert table.responsibility[rows[-1]].tolist() == [[1.0, 0.0]] * CANDIDATES
