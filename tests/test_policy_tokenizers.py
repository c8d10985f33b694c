"""Tokenizers made here and the incremental decoder, against plain `decode` and across save and load."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from tokenzero.mcts.errors import InputError
from tokenzero.policy.pieces import Pieces
from tokenzero.policy.tokenizers import (
    SPECIALS,
    character_tokenizer,
    encode_prompt,
    from_spec,
    load_tokenizer,
    train_bpe,
    word_tokenizer,
)

WORDS = ["1", "2", "28", "+", "*", "->"]
ALPHABET = "abc \n1é你"
CORPUS = ["hello world, hello é 你好 😀 you", "the cat; the hat\n"] * 4


def _metaspace() -> PreTrainedTokenizerFast:
    """A tokenizer of the SentencePiece kind, whose text depends on position: the first space is dropped."""
    scored = [("<unk>", 0.0), ("▁the", -1.0), ("▁cat", -1.0), ("s", -2.0), ("▁", -3.0)]
    backend = Tokenizer(models.Unigram(scored, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


MAKERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "words": lambda: word_tokenizer(WORDS),
    "characters": lambda: character_tokenizer(ALPHABET),
    "bpe": lambda: train_bpe(CORPUS, 300),
    "metaspace": _metaspace,
}
OURS = {name: make() for name, make in MAKERS.items()}
PROMPTS = {"words": "1 + 28 -> 2", "characters": "a b\n\né1  你", "bpe": "  hello 你 😀x\tnever seen "}


@pytest.mark.parametrize("kind", PROMPTS)
def test_specials_have_fixed_ids_and_text_round_trips(kind: str) -> None:
    tokenizer, prompt = OURS[kind], PROMPTS[kind]
    assert tokenizer.convert_tokens_to_ids(list(SPECIALS)) == [0, 1, 2, 3]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    ids = tokenizer(prompt)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert 3 not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == prompt


def test_symbols_are_numbered_in_the_order_given() -> None:
    assert OURS["words"].convert_tokens_to_ids(WORDS) == [4, 5, 6, 7, 8, 9]
    assert encode_prompt(OURS["words"], "-> 1") == [1, 9, 4]
    assert encode_prompt(OURS["characters"], "你\na") == [1, 11, 8, 4]


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("model_type", [None, "llama", "qwen2", "qwen3", "gpt2", "gpt_neox", "mistral"])
def test_a_checkpoint_carries_its_tokenizer(kind: str, model_type: str | None, tmp_path: Path) -> None:
    original = OURS[kind]
    original.save_pretrained(tmp_path)
    if model_type is not None:
        AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    # transformers rebuilds every tokenizer beside a qwen2 config as Qwen2's own; load_tokenizer must not
    openers = [load_tokenizer] if model_type == "qwen2" else [load_tokenizer, AutoTokenizer.from_pretrained]
    for opener in openers:
        opened = opener(tmp_path)
        assert opened.backend_tokenizer.to_str() == original.backend_tokenizer.to_str()
        assert opened.special_tokens_map == original.special_tokens_map
        assert encode_prompt(opened, PROMPTS[kind]) == encode_prompt(original, PROMPTS[kind])


def test_training_a_bpe_is_repeatable_and_learns_merges() -> None:
    first, second = train_bpe(CORPUS, 300), train_bpe(iter(CORPUS), 300)
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert 260 < len(first) <= 300
    assert len(first.tokenize("hello")) < 5


@given(text=st.text())
def test_byte_level_encodes_any_text(text: str) -> None:
    tokenizer = OURS["bpe"]
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert 3 not in ids
    assert tokenizer.decode(ids) == text


def _expected(tokenizer: PreTrainedTokenizerFast, tokens: list[int]) -> str:
    """The slow truth: decode everything; with words, each is followed by a space."""
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return text + " " if text and tokenizer.backend_tokenizer.decoder is None else text


@pytest.mark.parametrize("kind", OURS)
@given(data=st.data())
def test_appending_equals_decoding(kind: str, data: st.DataObject) -> None:
    tokenizer = OURS[kind]
    pieces = Pieces(tokenizer)
    tokens = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=12))
    text = ""
    for index, token in enumerate(tokens):
        text = pieces.append(text, tokens[:index], token)
        assert text == _expected(tokenizer, tokens[: index + 1])
        assert pieces.text(tokens[: index + 1]) == text


@given(text=st.text(alphabet="é你😀a\ufffd"), cut=st.lists(st.integers(0, 255), max_size=3))
def test_characters_split_over_byte_tokens_come_out_whole(text: str, cut: list[int]) -> None:
    tokenizer = OURS["bpe"]
    pieces = Pieces(tokenizer)
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    names = "".join(name for name, _ in letters.pre_tokenize_str(text))
    # one token per byte, the text's own bytes first and stray ones after, so that sequences end in every
    # state
    tokens = tokenizer.convert_tokens_to_ids(list(names)) + [4 + byte for byte in cut]
    grown = ""
    for index, token in enumerate(tokens):
        grown = pieces.append(grown, tuple(tokens[:index]), token)
        if index + 1 == len(names):
            assert grown == text
    assert grown == tokenizer.decode(tokens, skip_special_tokens=True)


def test_a_plainly_spelt_added_token_keeps_its_text() -> None:
    tokenizer = train_bpe(CORPUS, 270)
    tokenizer.add_tokens(["[answer 你]"])
    pieces = Pieces(tokenizer)
    added = len(tokenizer) - 1
    assert pieces.append("x", (), added) == "x[answer 你]" == "x" + tokenizer.decode([added])


@pytest.mark.parametrize("kind", ["words", "characters", "bpe"])
def test_pieces_of_known_kinds_read_no_history(kind: str) -> None:
    pieces = Pieces(OURS[kind])
    token = OURS[kind].convert_tokens_to_ids("1")
    assert pieces.append("x", (), token) == ("x1 " if kind == "words" else "x1")
    assert pieces.independent == (kind != "bpe")


@pytest.mark.parametrize("kind", OURS)
def test_ids_above_the_vocabulary_add_nothing(kind: str) -> None:
    pieces = Pieces(OURS[kind])
    beyond = len(OURS[kind]) + 5
    assert pieces.append("x", (), beyond) == "x"
    assert pieces.text([beyond]) == ""


def test_bos_follows_the_tokenizers_own_template() -> None:
    silent = _metaspace()
    silent.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    assert encode_prompt(silent, "the cats") == silent("the cats", add_special_tokens=False)["input_ids"]
    both = train_bpe(CORPUS, 270)
    both.add_bos_token, both.add_eos_token = True, True
    ids = encode_prompt(both, "hat")
    assert ids[0] == both.bos_token_id
    assert both.eos_token_id not in ids
    assert encode_prompt(both, "<bos>hat") == ids  # a rendered chat template may hold it already


@pytest.mark.parametrize(
    ("kind", "text", "limit", "parts"),
    [
        ("words", "", None, ["empty"]),
        ("words", "  \n", None, ["empty"]),
        ("words", "1 + seven", None, ["'seven'", "10 symbols"]),
        ("words", "1 <unk>", None, ["'<unk>'", "special"]),
        ("words", "1 <eos> 2", None, ["'<eos>'", "special"]),
        ("words", "1 + 2", 3, ["4 tokens", "limit is 3"]),
        ("characters", "abz", None, ["'z'"]),
        ("characters", "", None, ["empty"]),
        ("bpe", "", None, ["empty"]),
        ("bpe", "a\ud800", None, ["Unicode"]),
        ("metaspace", "the cab", None, ["not among"]),
    ],
)
def test_bad_prompts_are_refused_in_one_line(
    kind: str, text: str, limit: int | None, parts: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        encode_prompt(OURS[kind], text, limit)
    message = str(caught.value)
    assert message.startswith("prompt: ")
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_a_prompt_of_exactly_the_limit_is_taken() -> None:
    assert len(encode_prompt(OURS["words"], "1 + 2", 4)) == 4
    assert encode_prompt(OURS["characters"], " ") == [1, 7]  # white space is text to a character tokenizer


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ({"kind": "words", "words": []}, "empty"),
        ({"kind": "words", "words": ["a", "b", "a"]}, "'a' occurs twice"),
        ({"kind": "words", "words": ["a b"]}, "'a b'"),
        ({"kind": "words", "words": ["a", ""]}, "''"),
        ({"kind": "words", "words": [1]}, "1 is not one word"),
        ({"kind": "words", "words": ["<eos>"]}, "special"),
        ({"kind": "characters", "alphabet": ""}, "empty"),
        ({"kind": "characters", "alphabet": "aba"}, "'a' occurs twice"),
        ({"kind": "characters", "alphabet": ["a"]}, "list"),
        ({"kind": "bpe", "texts": ["a"], "vocab_size": 259}, "260"),
        ({"kind": "bpe", "texts": [""], "vocab_size": 300}, "texts"),
        ({"kind": "sentencepiece"}, "words, characters, bpe"),
        ({"kind": ["words"]}, "unknown"),
        ({}, "None"),
        ({"kind": "words"}, "words"),
        ({"kind": "words", "words": ["a"], "alphabet": "a"}, "alphabet"),
    ],
)
def test_bad_specifications_are_refused(spec: dict[str, object], part: str) -> None:
    with pytest.raises(InputError) as caught:
        from_spec(spec)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_specifications_build_the_same_as_the_functions() -> None:
    specs: dict[str, dict[str, object]] = {
        "words": {"kind": "words", "words": WORDS},
        "characters": {"kind": "characters", "alphabet": ALPHABET},
        "bpe": {"kind": "bpe", "texts": CORPUS, "vocab_size": 300},
    }
    for kind, spec in specs.items():
        assert from_spec(spec).backend_tokenizer.to_str() == OURS[kind].backend_tokenizer.to_str()


def test_missing_and_broken_tokenizers_are_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    OURS["words"].save_pretrained(broken)
    (broken / "tokenizer_config.json").write_text("{", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for name in (tmp_path / "absent", tmp_path / "empty", broken, "no/such-model"):
        with pytest.raises(InputError) as caught:
            load_tokenizer(name)
        assert str(name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_code_beside_a_tokenizer_is_not_run(tmp_path: Path) -> None:
    OURS["words"].save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": [None, "evil.Evil"]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    with pytest.raises(InputError, match="cannot open"):
        load_tokenizer(tmp_path)
