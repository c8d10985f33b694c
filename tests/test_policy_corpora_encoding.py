"""Tokenizers of corpora and the encoding in bulk, against plain `tokenizer(text)` and `decode`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora.encoding import (
    BackendEncoder,
    CharacterEncoder,
    cut_anywhere,
    cut_pieces,
    last_cut_before_space,
    text_encoder,
)
from tokenzero.policy.pieces import Pieces
from tokenzero.policy.tokenizers import (
    byte_fallback_tokenizer,
    character_tokenizer,
    encode_prompt,
    load_tokenizer,
    train_bpe,
    word_tokenizer,
)

TEXTS = ["it's the cat;  the hat\n\n  I'll 123 4", "hé 你好 <eos> the\n", "a   b\n\n\nc   d\n\n\n"] * 3
KINDS: dict[str, PreTrainedTokenizerFast] = {
    "characters": byte_fallback_tokenizer(" \n<>abehost'é你"),
    "bpe": train_bpe(TEXTS, 320, running_text=True),
}
# characters that mean something to a pre-tokenizer more often than chance would have them
ANY_TEXT = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \n\t'sat1é你😀\x85\u3000."))
)
CHUNKS = st.lists(ANY_TEXT, min_size=1, max_size=8)


@pytest.mark.parametrize("kind", KINDS)
@given(text=ANY_TEXT)
@example("<eos><unk><0x41>\x00\ufffd\ufeff\r\n")
def test_no_text_is_unknown_and_every_text_comes_back(kind: str, text: str) -> None:
    tokenizer = KINDS[kind]
    ids = tokenizer(text)["input_ids"]
    assert min(ids, default=4) >= 4, "a special token, <unk> among them, stands for text"
    assert tokenizer.decode(ids) == text
    (tokens,) = text_encoder(tokenizer).encode([text])
    assert tokens.tolist() == ids


def test_the_numbers_of_characters_and_bytes() -> None:
    tokenizer = byte_fallback_tokenizer("ba")
    assert tokenizer("ab")["input_ids"] == [261, 260]
    assert tokenizer("cé")["input_ids"] == [4 + ord("c"), 4 + 0xC3, 4 + 0xA9]
    assert len(tokenizer) == 4 + 256 + 2
    assert len(byte_fallback_tokenizer("")) == 260
    with pytest.raises(InputError, match="'a' occurs twice"):
        byte_fallback_tokenizer("aa")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_type", [None, "llama", "gpt2"])
def test_a_checkpoint_carries_it(kind: str, model_type: str | None, tmp_path: Path) -> None:
    original = KINDS[kind]
    original.save_pretrained(tmp_path)
    if model_type is not None:
        AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    for opener in (load_tokenizer, AutoTokenizer.from_pretrained):
        opened = opener(tmp_path)
        for text in ("the <eos> you", "", "zß\x00"):
            assert opened(text)["input_ids"] == original(text)["input_ids"]
        assert type(text_encoder(opened)) is type(text_encoder(original))
        assert opened.decode([*opened("at")["input_ids"], 2], skip_special_tokens=True) == "at"
        # neither <bos> before a prompt, nor is a special token read out of it
        assert encode_prompt(opened, "a<eos>") == original("a<eos>")["input_ids"]


@given(data=st.data())
def test_pieces_grow_as_decoding_says(data: st.DataObject) -> None:
    tokenizer = KINDS["characters"]
    pieces = Pieces(tokenizer)
    letters = st.one_of(st.integers(0, 3), st.integers(260, len(tokenizer)))
    spelt = st.sampled_from([4 + byte for byte in "ß😀a".encode()])
    text = ""
    tokens = data.draw(st.lists(st.one_of(letters, spelt), max_size=12))
    for index, token in enumerate(tokens):
        text = pieces.append(text, tokens[:index], token)
        known = [token for token in tokens[: index + 1] if token < len(tokenizer)]
        assert text == tokenizer.decode(known, skip_special_tokens=True)


CUTS: dict[str, Callable[[str, int], int]] = {"characters": cut_anywhere, "bpe": last_cut_before_space}


@pytest.mark.parametrize("kind", KINDS)
@given(chunks=CHUNKS)
@example(["a ", " b"])
@example(["a  ", " b"])
@example(["a\n\n", "\nb"])
@example(["a\n", "\n  b c"])
@example(["I", "'ll be", " \u3000x .", " y"])
def test_cut_into_pieces_it_has_the_same_tokens(kind: str, chunks: list[str]) -> None:
    tokenizer = KINDS[kind]
    pieces = list(cut_pieces(chunks, CUTS[kind]))
    assert "".join(piece for piece, _ in pieces) == "".join(chunks)
    assert [last for _, last in pieces] == [False] * (len(pieces) - 1) + [True]
    found = text_encoder(tokenizer).encode([piece for piece, _ in pieces])
    assert [int(token) for tokens in found for token in tokens] == tokenizer("".join(chunks))["input_ids"]


def test_pieces_are_cut_where_they_can_be() -> None:
    cut = [piece for piece, _ in cut_pieces(["the cat sat", " on", " the  mat"], last_cut_before_space)]
    assert cut == ["the cat", " sat", " on the", "  mat"]
    assert len(list(cut_pieces(["   ", "\n\n  ", "a"], last_cut_before_space))) == 1
    assert len(list(cut_pieces(["ab", "cd"], cut_anywhere))) == 3


def _sentencepiece() -> PreTrainedTokenizerFast:
    """A foreign tokenizer that puts a space before a text, so that no cut is known to be safe."""
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁a", -1.0), ("b", -1.5), ("▁", -2.0)], unk_id=0))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.enable_truncation(2)
    backend.enable_padding(length=5)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def test_a_foreign_tokenizer_encodes_whole_documents_and_neither_cuts_nor_pads() -> None:
    encoder = text_encoder(_sentencepiece())
    assert isinstance(encoder, BackendEncoder)
    assert list(cut_pieces(["a b", " a b", " a"], encoder.last_cut)) == [("a b a b a", True)]
    assert encoder.encode(["a b"])[0].tolist() == [1, 3, 2]
    lengths = [len(tokens) for tokens in encoder.encode(["a a a a a a", "a"])]
    assert lengths == [6, 1]


def test_a_symbol_it_does_not_know_is_named() -> None:
    for tokenizer in (character_tokenizer("ab "), word_tokenizer(["a", "b"])):
        with pytest.raises(InputError, match="'é' is not among its"):
            text_encoder(tokenizer).encode(["a b", "a é"])


def test_only_tokenizers_of_characters_take_the_table() -> None:
    assert isinstance(text_encoder(KINDS["characters"]), CharacterEncoder)
    assert isinstance(text_encoder(character_tokenizer("ab")), BackendEncoder)
    added = byte_fallback_tokenizer("ab")
    added.add_tokens(["aba"])
    encoder = text_encoder(added)
    assert isinstance(encoder, BackendEncoder)
    assert encoder.encode(["aba"])[0].tolist() == [262]


def test_learning_from_pieces_is_learning_from_the_whole() -> None:
    text = "".join(TEXTS)
    whole = train_bpe([text], 320, running_text=True)
    chunks = [text[place : place + 7] for place in range(0, len(text), 7)]
    pieces = (piece for piece, _ in cut_pieces(chunks, last_cut_before_space))
    assert (
        train_bpe(pieces, 320, running_text=True).backend_tokenizer.to_str()
        == whole.backend_tokenizer.to_str()
    )
    with pytest.raises(InputError, match="nothing to learn"):
        train_bpe(iter(["", ""]), 320)
