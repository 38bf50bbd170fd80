"""What each key of llmdeploy.toml means, and an example where it has no default."""

from collections.abc import Mapping
from typing import NamedTuple


class Meaning(NamedTuple):
    """One sentence on a key, and a value to show where there is no default."""

    text: str
    example: object = None


MODEL: Mapping[str, Meaning] = {
    "checkpoint": Meaning("A hub id, or a folder that save_pretrained wrote."),
    "revision": Meaning("A branch, tag or commit of the hub's repository.", "main"),
    "task": Meaning("What the graph computes; auto reads it off the checkpoint."),
    "opset": Meaning(
        "The ONNX opset; 20 suits float32, 23 brings fused attention for fp16 and bf16."
    ),
    "dtype": Meaning(
        "The dtype of the weights; auto keeps the checkpoint's. ONNX Runtime builds no bfloat16."
    ),
    "weights": Meaning("copy; or reference or in-place, which leave the checkpoint's bytes alone."),
    "max-batch": Meaning("The most texts, images or sounds at a time that io.json allows.", 32),
    "max-sequence": Meaning(
        "The most tokens of a text, which is cut there; else what the checkpoint's files say.", 256
    ),
    "trust-remote-code": Meaning("Run Python code that the checkpoint brings; read it first."),
}
OPTIMIZE: Mapping[str, Meaning] = {
    "on-failure": Meaning("A rewrite that changes the numbers: stop, or roll-back and go on."),
}
CALIBRATION: Mapping[str, Meaning] = {
    "samples": Meaning(
        "A text a line: .txt; or .jsonl, .csv, .tsv; or ready arrays: .npz.",
        "calibration.txt",
    ),
    "field": Meaning("The column or key that holds the text, for .csv, .tsv and .jsonl.", "text"),
    "encoding": Meaning("The encoding of the samples."),
    "count": Meaning("How many samples are taken, drawn by the seed."),
    "max-length": Meaning("Longer samples are cut to this many tokens."),
    "batch": Meaning("How many samples are run at a time."),
    "seed": Meaning("The seed of every draw; the same seed gives the same ranges."),
    "method": Meaning(
        "How ranges are chosen; auto measures. `llmdeploy list observers` shows all."
    ),
    "preset": Meaning(
        "What INT8 may cost when it runs: speed (nothing), balanced, accuracy (whatever helps)."
    ),
    "max-drop": Meaning(
        "The loss INT8 may cause, as a share; layers go back to float until it holds."
    ),
    "pairs": Meaning(
        "INT8 weights whose products fit in 16 bits two by two: fast on x86 without VNNI, for a"
        " little more noise; auto: where ONNX Runtime is among the backends."
    ),
    "keep": Meaning("Nodes that stay in float, by name."),
}
QUANTIZE: Mapping[str, Meaning] = {
    "method": Meaning(
        "rtn (no samples asked), gptq, awq, or auto: for each weight what errs least held out."
    ),
    "block": Meaning("Inputs that share a scale: 32, 64, 128, output (all); auto: 32, w8 output."),
    "zero-points": Meaning(
        "Whether blocks have zero points, of 4 bits; auto: in int4 where every backend takes them."
    ),
    "act-order": Meaning("GPTQ rounds the inputs that are largest first."),
    "damping": Meaning("What GPTQ adds to the diagonal, as a share of its mean."),
    "head": Meaning(
        "Round the output head as the layers are; with int8 it multiplies in INT8 too, which is"
        " most of a masked language model's work."
    ),
    "vocabulary": Meaning(
        "float, or int8: embeddings and output heads; auto: int8 where weights are rounded and"
        " every backend takes it, an encoder's head apart."
    ),
    "cache": Meaning(
        "float, or int8: keys and values of earlier tokens in a quarter of the memory, at any"
        " precision; --cache overrides it."
    ),
}
BUILD: Mapping[str, Meaning] = {
    "precision": Meaning(
        "fp32, fp16, bf16, int8, fp8 (TensorRT's), w8a16 (int16 activations, ONNX Runtime's), or of"
        " weights alone w8, int4; --int8 and its like override it."
    ),
    "backends": Meaning("Engines to build: onnxruntime, tensorrt, tensorrt-rtx."),
    "profile": Meaning(
        "[least, usual, most] of each dimension that TensorRT engines take.",
        {"batch": (1, 1, 8), "sequence": (1, 32, 128)},
    ),
    "options": Meaning("Options by backend; one that a backend cannot honour is refused."),
}
EVALUATION: Mapping[str, Meaning] = {
    "metric": Meaning(
        "How labelled data is scored; `llmdeploy list metrics` shows all.", "pearson"
    ),
    "samples": Meaning(
        "Labelled inputs, not calibrated on; a .npz where the model takes no text.",
        "evaluation.txt",
    ),
    "labels": Meaning(
        "Their labels, where they are in a file of their own, by lines.", "labels.txt"
    ),
    "encoding": Meaning("The encoding of both files."),
    "max-length": Meaning("Longer inputs are cut to this many tokens."),
    "batch": Meaning("How many inputs are run at a time."),
    "max-new-tokens": Meaning("What a metric of written texts lets be written, at most."),
}
TUNE: Mapping[str, Meaning] = {
    "samples": Meaning(
        "Labelled like [evaluation]'s, never the same; else agreement with float.", "tuning.txt"
    ),
    "labels": Meaning(
        "Their labels, where they are in a file of their own, by lines.", "labels.txt"
    ),
    "encoding": Meaning("The encoding of both files."),
}
GATE: Mapping[str, Meaning] = {
    "min-cosine": Meaning("Least mean cosine of the outputs with float's.", 0.99),
    "max-relative-error": Meaning("Most error of an output, relative to float's scale.", 0.05),
    "max-score-drop": Meaning("Most loss of the metric, as a share of float's.", 0.01),
    "min-int8-share": Meaning("Least share of the weight MatMuls' multiply-adds in INT8.", 0.8),
    "min-speedup": Meaning("Least speed, in times float's, measured in the same run.", 1.5),
    "max-latency-ms": Meaning("Most milliseconds of the slowest call of one row.", 20.0),
    "max-size-mb": Meaning("Most megabytes of an engine.", 100.0),
    "max-memory-mb": Meaning("Most megabytes resident, in a process that only runs it.", 500.0),
    "last-release": Meaning("The report.json of the release that this one replaces."),
    "max-slowdown": Meaning("Most time over the last release's, as a share of it.", 0.05),
    "allow-unexecuted": Meaning("Gates that may stay unmeasured where the hardware is not here."),
}
BUNDLE: Mapping[str, Meaning] = {
    "kinds": Meaning("What is packed: edge; `llmdeploy list packagers` shows all."),
    "name": Meaning("The bundle's name."),
    "version": Meaning("The bundle's version."),
    "python": Meaning(
        "The interpreter a bundle verifies itself under; this one by default.", "python3"
    ),
    "sign": Meaning("The private key (PEM) that edge bundles are signed with.", "key.pem"),
    "certificate": Meaning("Its certificate (PEM), where devices trust those.", "key.crt"),
    "chain": Meaning("The certificates above it."),
    "options": Meaning("Options by kind, such as triton = {max-batch = 8}."),
}
SECTIONS: Mapping[str, tuple[str, Mapping[str, Meaning]]] = {
    "model": ("Which checkpoint, and what of it is exported.", MODEL),
    "optimize": ("How the passes are run.", OPTIMIZE),
    "calibration": ("What INT8 ranges are measured on.", CALIBRATION),
    "quantize": (
        "How weights are rounded where they alone are (w8 and int4), and what a cache is.",
        QUANTIZE,
    ),
    "build": ("Which engines are built.", BUILD),
    "evaluation": ("How well the task is done; without it no score is gated.", EVALUATION),
    "tune": ("What `llmdeploy tune` scores its trials on; without it agreement with float.", TUNE),
    "gate": ("What must hold before a release ships; a key left out is not asked for.", GATE),
    "bundle": ("What is packed.", BUNDLE),
}
