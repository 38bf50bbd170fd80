"""Small models of many families, trained here in a minute: language on Shakespeare, SST-2 classes.

Their weights are learned, so that their layers and distributions mean something; they are small,
and no published checkpoints.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from int8_data import DATA, Subject, need
from int8_language import read_on, score_likelihoods
from int8_texts import classify, score_classes, sst2
from tiny import Tiny

TOKENS, VOCABULARY = 128, 2000
SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 160,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 32}
WINDOW = {"sliding_window": 32, "query_pre_attn_scalar": 32}
LANGUAGE = (
    Tiny("GPT2LMHeadModel", "text-generation", {**SIZES, "n_inner": 512}),
    Tiny("GPTNeoXForCausalLM", "text-generation", SIZES),
    Tiny(
        "OPTForCausalLM",
        "text-generation",
        {**SIZES, "ffn_dim": 512, "word_embed_proj_dim": 128},
    ),
    Tiny("BloomForCausalLM", "text-generation", {**SIZES, "n_layer": 4, "n_head": 4}),
    Tiny("FalconForCausalLM", "text-generation", {**SIZES, "new_decoder_architecture": False}),
    Tiny("PhiForCausalLM", "text-generation", SIZES),
    Tiny("Gemma2ForCausalLM", "text-generation", {**GROUPED, **WINDOW}),
    Tiny("Qwen3ForCausalLM", "text-generation", GROUPED),
    Tiny("Olmo2ForCausalLM", "text-generation", GROUPED),
)
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
CLASSES = (
    Tiny("AlbertForSequenceClassification", "text-classification", {**SIZES, "embedding_size": 64}),
    Tiny(
        "DebertaV2ForSequenceClassification",
        "text-classification",
        {**SIZES, **RELATIVE, "position_buckets": 32, "share_att_key": True},
    ),
    Tiny(
        "ModernBertForSequenceClassification",
        "text-classification",
        {**SIZES, "local_attention": 32, "global_attn_every_n_layers": 2},
    ),
    Tiny("RobertaForSequenceClassification", "text-classification", SIZES),
    Tiny(
        "DistilBertForSequenceClassification",
        "text-classification",
        {**SIZES, "dim": 128, "n_layers": 4, "n_heads": 4, "hidden_dim": 512},
    ),
    Tiny(
        "ElectraForSequenceClassification", "text-classification", {**SIZES, "embedding_size": 64}
    ),
)


@dataclass(frozen=True)
class Training:
    """Steps of AdamW, and its greatest rate."""

    steps: int
    rate: float
    batch: int = 16


def subjects(steps: int) -> tuple[Subject, ...]:
    """Every family with the data that its INT8 is calibrated on and scored on."""
    learn, read = Training(steps, 3e-3), Training(steps, 1e-3, 32)
    return (
        *(_language(tiny, learn) for tiny in LANGUAGE),
        *(_classes(tiny, read) for tiny in CLASSES),
    )


def _language(tiny: Tiny, training: Training) -> Subject:
    def checkpoint(root: Path) -> str:
        write = lambda folder: train(tiny, folder, _lines("train"), None, training)  # noqa: E731
        return _made(root, write)

    def texts() -> list[str]:
        words = " ".join(_lines("train")).split()
        return [" ".join(words[start : start + 80]) for start in range(0, len(words), 400)]

    return Subject(
        tiny.architecture,
        checkpoint,
        texts,
        _read_on_the_rest,
        score_likelihoods,
        count=128,
        max_length=TOKENS,
    )


def _read_on_the_rest(run: Any, encoder: Any) -> Any:
    """As `read_on`, of the last tenth of Shakespeare, which nothing was trained on."""
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(_lines("test")))
        file.flush()
        return read_on(file.name, 64, TOKENS)(run, encoder)


def _classes(tiny: Tiny, training: Training) -> Subject:
    def checkpoint(root: Path) -> str:
        texts, labels = zip(*sst2("train.tsv"), strict=True)
        write = lambda folder: train(tiny, folder, texts, labels, training)  # noqa: E731
        return _made(root, write)

    texts = lambda: [text for text, _ in sst2("train.tsv")]  # noqa: E731
    return Subject(tiny.architecture, checkpoint, texts, classify, score_classes, count=256)


def _made(root: Path, write: Callable[[Path], None]) -> str:
    folder = root / "checkpoint"
    if not (folder / "config.json").exists():
        write(folder)
    return str(folder)


def _lines(part: str) -> list[str]:
    lines = need(DATA / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8").splitlines()
    cut = len(lines) * 9 // 10
    return lines[:cut] if part == "train" else lines[cut:]


def write_tokenizer(folder: Path, texts: Sequence[str], size: int, *, ends: bool) -> Any:
    """A byte-level BPE of these texts; with `ends` <s> and </s> around each."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    if ends:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=TOKENS, **names)
    tokenizer.save_pretrained(folder)
    return tokenizer


def train(
    tiny: Tiny, folder: Path, texts: Sequence[str], labels: Sequence[int] | None, asked: Training
) -> None:
    """Write a checkpoint of a family: on texts alone a language model, with labels a classifier."""
    import torch
    import transformers

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder, texts[:20000], VOCABULARY, ends=labels is not None)
    maker = getattr(transformers, tiny.architecture)
    model = maker(maker.config_class(**tiny.options)).train()
    optimiser = torch.optim.AdamW(model.parameters(), asked.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, asked.rate, asked.steps)
    made = _crops(tokenizer, texts) if labels is None else _rows(tokenizer, texts, labels)
    batches = made(asked.batch)
    for _ in range(asked.steps):
        loss = model(**{name: torch.as_tensor(array) for name, array in next(batches).items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    model.eval().save_pretrained(folder)


Batches = Callable[[int], Iterator[dict[str, Any]]]


def _crops(tokenizer: Any, texts: Sequence[str]) -> Batches:
    ids = np.asarray(tokenizer("\n".join(texts))["input_ids"])

    def batches(count: int) -> Iterator[dict[str, Any]]:
        random = np.random.default_rng(0)
        while True:
            starts = random.integers(0, len(ids) - TOKENS, count)
            rows = np.stack([ids[start : start + TOKENS] for start in starts])
            yield {"input_ids": rows, "labels": rows}

    return batches


def _rows(tokenizer: Any, texts: Sequence[str], labels: Sequence[int]) -> Batches:
    def batches(count: int) -> Iterator[dict[str, Any]]:
        random = np.random.default_rng(0)
        while True:
            chosen = random.integers(0, len(texts), count)
            feed = tokenizer(
                [texts[at] for at in chosen], padding=True, truncation=True, max_length=64
            )
            taken = {name: np.asarray(feed[name]) for name in ("input_ids", "attention_mask")}
            yield {**taken, "labels": np.asarray([labels[at] for at in chosen])}

    return batches
