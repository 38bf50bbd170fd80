"""Tokenizers of every kind with fewer tokens: a text whose tokens all stay keeps them."""

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from llmdeploy.toolchain.compress.renaming import renamed
from llmdeploy.toolchain.compress.tokens import needed, pieces, read
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXTS = [
    "the release went out on tuesday and nobody noticed",
    "a bundle is a folder with engines, a tokenizer and golden runs",
    "what cannot be executed is never reported as passed",
    "numbers such as 1,024 or 3.14 are text like any other",
]
SEEN = ["the release went out on tuesday", "a bundle is a folder <mask> golden  Engine <|im|>"]
WORDS = [*" ".join([*TEXTS, *SEEN]).split(), "zebra", "日本", "é", "<pad>", "\n", "  ", "a", "q"]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
BYTES = [f"<0x{each:02X}>" for each in range(256)]
ALPHABET = pre_tokenizers.ByteLevel.alphabet()
UNKNOWN = {"unk_token": "<unk>"}
Kind = tuple[Tokenizer, Any]


def bpe(
    trainer: Mapping[str, Any], options: Mapping[str, Any], *, byte_level: bool = False
) -> Kind:
    made = Tokenizer(models.BPE(**options))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if byte_level:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    given: dict[str, Any] = {"vocab_size": 420, "special_tokens": SPECIAL, **trainer}
    return made, trainers.BpeTrainer(show_progress=False, **given)


def fallback() -> Kind:
    """Llama's: spaces are characters, and what has no token is bytes."""
    made, trainer = bpe({"vocab_size": 400, "special_tokens": SPECIAL + BYTES, "max_token_length": 9},
                        {**UNKNOWN, "byte_fallback": True, "fuse_unk": True})  # fmt: skip
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()]
    )
    return made, trainer


def word_piece() -> Kind:
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece()
    trainer: Any = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=SPECIAL, show_progress=False
    )
    return made, trainer


def unigram() -> Kind:
    made = Tokenizer(models.Unigram())
    made.normalizer, made.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer: Any = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    return made, trainer


SUFFIX = {"end_of_word_suffix": "</w>"}
PREFIX = {"continuing_subword_prefix": "##"}
KINDS: dict[str, Callable[[], Kind]] = {
    "bytes": lambda: bpe({"initial_alphabet": ALPHABET}, {}, byte_level=True),
    "whole words": lambda: bpe({"initial_alphabet": ALPHABET}, {"ignore_merges": True}, byte_level=True),
    "prefix": lambda: bpe(PREFIX, UNKNOWN | PREFIX),
    "suffix": lambda: bpe(SUFFIX, UNKNOWN | SUFFIX),
    "both": lambda: bpe(SUFFIX | PREFIX, UNKNOWN | SUFFIX | PREFIX),
    "byte fallback": fallback,
    "word pieces": word_piece,
    "unigram": unigram,
}  # fmt: skip


def trained(kind: str, folder: Path) -> Tokenizer:
    """A tokenizer of a kind with tokens added, as it is read from the folder's tokenizer.json."""
    made, trainer = KINDS[kind]()
    made.train_from_iterator(TEXTS * 3, trainer)
    made.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("<|im|>", rstrip=True)])
    made.add_tokens([AddedToken("golden", single_word=True), AddedToken("Engine", normalized=True)])
    ends = [(each, made.token_to_id(each)) for each in ("<s>", "</s>")]
    made.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=ends
        ),
    ])  # fmt: skip
    made.enable_padding(pad_id=0, pad_token="<pad>", length=40)
    made.enable_truncation(40)
    made.save(str(folder / "tokenizer.json"))
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def narrowed(before: Tokenizer, folder: Path) -> tuple[Tokenizer, dict[int, int]]:
    """The tokenizer with the tokens of SEEN, and the new ids by the old."""
    seen = sorted({token for text in SEEN for token in before.encode(text).ids})
    found = read(folder)
    ids = needed(found, folder, seen, common=0)
    assert len(ids) < len(pieces(found))
    places = {old: new for new, old in enumerate(ids)}
    after = Tokenizer.from_str(json.dumps(renamed(found, places)))
    assert after.get_vocab_size() == len(ids)
    return after, places


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_text_whose_tokens_stay_keeps_them(kind: str, tmp_path: Path) -> None:
    before = trained(kind, tmp_path)
    after, places = narrowed(before, tmp_path)
    drawn, same = random.Random(0), 0
    some = (" ".join(drawn.choices(WORDS, k=drawn.randint(1, 5))) for _ in range(300))
    for index, text in enumerate([*SEEN, *some]):
        second = "the release" if index % 5 == 4 else None
        one, two = before.encode(text, second), after.encode(text, second)
        assert max(two.ids) < len(places)
        assert two.tokens.count("<unk>") <= one.tokens.count("<unk>"), text
        if any(old not in places for old in one.ids):
            continue
        same += 1
        assert two.tokens == one.tokens
        assert two.ids == [places[old] for old in one.ids]
        assert (two.offsets, two.type_ids) == (one.offsets, one.type_ids)
        assert two.special_tokens_mask == one.special_tokens_mask
        assert after.decode(two.ids) == before.decode(one.ids)
    assert same > 20


@pytest.mark.parametrize("kind", ["bytes", "word pieces", "unigram"])
def test_added_tokens_that_the_model_has_no_row_for_go(kind: str, tmp_path: Path) -> None:
    """A tokenizer that knows more tokens than the model: its last two are ordinary text."""
    before = trained(kind, tmp_path)
    rows = before.get_vocab_size()
    before.add_special_tokens([AddedToken("[PAD]"), AddedToken("[MORE]")])
    before.enable_padding(pad_id=rows, pad_token="[PAD]", length=40)
    before.save(str(tmp_path / "tokenizer.json"))
    found, seen = read(tmp_path), before.encode("the release").ids
    ids = [each for each in needed(found, tmp_path, seen, common=0) if each < rows]
    made = renamed(found, {old: new for new, old in enumerate(ids)})
    after = Tokenizer.from_str(json.dumps(made))
    assert after.get_vocab_size() == len(ids)
    before.no_padding()
    assert after.encode("the release").tokens == before.encode("the release").tokens
    assert max(after.encode("[MORE] <mask>").ids) < len(ids)


def test_what_is_unknown_weighs_as_before(tmp_path: Path) -> None:
    """A unigram path through the unknown costs ten more than the worst piece, which has to stay."""
    scores = [("<unk>", 0.0), ("日本", -12.0), ("a", -12.0), ("本a", -1.0), ("rare", -16.0)]
    before = Tokenizer(models.Unigram(scores, 0))
    before.save(str(tmp_path / "tokenizer.json"))
    found, seen = read(tmp_path), [*before.encode("日本a").ids, *before.encode("本a").ids]
    ids = needed(found, tmp_path, seen, common=0)
    after = Tokenizer.from_str(json.dumps(renamed(found, {old: at for at, old in enumerate(ids)})))
    assert before.encode("日本a").tokens == after.encode("日本a").tokens == ["日本", "a"]
