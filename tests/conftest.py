"""Checkpoints that tests make themselves: tiny, random, laid out as the hub lays them out."""

import json
import string
from collections.abc import Callable
from pathlib import Path

import pytest

#: Files of few and long tests: begun first, so that two workers end together.
LONG = (
    "test_bad_input",
    "test_seq2seq",
    "test_keeping",
    "test_tune",
    "test_freshness",
    "test_cli",
    "test_said",
    "test_completing",
    "test_export_apart",
    "test_shipping",
    "test_gates",
    "test_pruning",
    "test_locating",
    "test_lowering",
    "test_heads",
    "test_token_tables",
    "test_speech",
    "test_sparse_builds",
    "test_export_minilm",
    "test_export_repeat",
    "test_export_chain",
    "test_export_weights",
    "test_export_refusals",
)
WORDS = [
    "the",
    "a",
    "of",
    "to",
    "and",
    "in",
    "on",
    "for",
    "with",
    "is",
    "was",
    "it",
    "that",
    "this",
    "release",
    "model",
    "good",
    "bad",
    "news",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first; what is within a file keeps its order."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def write_tokenizer(folder: Path) -> int:
    """A WordPiece tokenizer over letters and a few words; gives the size of its vocabulary."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *string.digits, ",", "."]
    pieces += [letter for letter in string.ascii_lowercase if letter not in pieces]
    pieces += [f"##{letter}" for letter in string.ascii_lowercase + string.digits]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    special |= {"sep_token": "[SEP]", "mask_token": "[MASK]"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(vocabulary)


@pytest.fixture(scope="session")
def give_tokenizer() -> Callable[[Path], int]:
    """`write_tokenizer`, for tests that make checkpoints of their own."""
    return write_tokenizer


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT classifier with random weights: 0.1 MB, exported in a few seconds."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("tiny-bert")
    size = write_tokenizer(folder)
    config = BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def give_llama() -> Callable[..., Path]:
    """A function that fills a folder with a random Llama that shares keys; options over its own."""

    def write(folder: Path, **options: object) -> Path:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        folder.mkdir(parents=True, exist_ok=True)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
        tokens = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
        chosen = {**sizes, **heads, **tokens, **options, "vocab_size": write_tokenizer(folder)}
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig.from_dict(chosen)).save_pretrained(folder)
        return folder

    return write


@pytest.fixture(scope="session")
def some_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-eight short texts, one a line."""
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    lines = (f"the {word} of release {number} is {word}" for number in range(3) for word in WORDS)
    path.write_text("\n".join(list(lines)[:48]) + "\n")
    return path
