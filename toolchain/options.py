"""The options that verbs share, each written once."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import ConfigError

if TYPE_CHECKING:
    from ..deploy.signing import Trust

ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The configuration.")]
WorkspaceFolder = Annotated[
    Path,
    typer.Option(
        "--workspace",
        "-w",
        help="Where the stages are kept, from the folder the command is run in.",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout, words for people on stderr.")
]
Force = Annotated[bool, typer.Option("--force", help="Do again what is fresh.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Revision = Annotated[str | None, typer.Option("--revision", help="Of the hub's repository.")]
TaskName = Annotated[str | None, typer.Option("--task", help="auto reads it off the checkpoint.")]
Opset = Annotated[int | None, typer.Option("--opset", help="The ONNX opset, 18 to 25.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="auto, float32, float16 or bfloat16.")]
WeightsWay = Annotated[
    str | None, typer.Option("--weights", help="copy, reference or in-place: where they lie.")
]
MaxBatch = Annotated[int | None, typer.Option("--max-batch", help="What io.json allows.")]
MaxSequence = Annotated[
    int | None,
    typer.Option("--max-sequence", help="Tokens of a text at most. The checkpoint's own."),
]
TrustRemoteCode = Annotated[
    bool | None,
    typer.Option("--trust-remote-code", help="Run the checkpoint's own Python code."),
]
SamplesFile = Annotated[
    str | None, typer.Option("--samples", help="Calibration samples; over [calibration] samples.")
]
PrecisionName = Annotated[
    str | None,
    typer.Option("--precision", "-p", help="fp32, fp16, bf16, int8, fp8, w8a16, w8 or int4."),
]
Int8 = Annotated[bool, typer.Option("--int8", help="The same as --precision int8.")]
Fp16 = Annotated[bool, typer.Option("--fp16", help="The same as --precision fp16.")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="The same as --precision bf16.")]
Int4 = Annotated[bool, typer.Option("--int4", help="The same as --precision int4.")]
BackendNames = Annotated[
    list[str] | None, typer.Option("--backend", "-b", help="Build for this backend; may repeat.")
]
ProfileSizes = Annotated[
    list[str] | None,
    typer.Option("--profile", help="DIMENSION=MIN,OPT,MAX, over [build.profile]; may repeat."),
]
KeepNodes = Annotated[
    list[str] | None, typer.Option("--keep", help="Keep this node in float; may repeat.")
]
PresetName = Annotated[
    str | None,
    typer.Option("--preset", help="INT8: accuracy, balanced or speed; over [calibration] preset."),
]
MethodName = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="INT8: auto, or an observer; int4 and w8: auto, rtn, gptq or awq.",
    ),
]
MaxDrop = Annotated[
    float | None, typer.Option("--max-drop", help="The loss INT8 may cause; over [calibration].")
]
CacheKind = Annotated[
    str | None,
    typer.Option("--cache", help="float or int8: what a decoder's cache is; over [quantize]."),
]
RecoverMinutes = Annotated[
    float | None,
    typer.Option(
        "--recover-minutes",
        help="Train the compressed model so long to be like the dense one; a `recover` pass.",
    ),
]
Kinds = Annotated[
    list[str] | None, typer.Option("--kind", help="edge, oci, triton, sagemaker; may repeat.")
]
BundlePython = Annotated[
    str | None,
    typer.Option("--bundle-python", help="The interpreter the bundle verifies itself under."),
]

Explain = Annotated[
    str | None,
    typer.Option("--explain", metavar="[RULE]", help="What each pass did; of a rule, each site."),
]
PublicKey = Annotated[
    Path | None, typer.Option("--key", help="Refuse what this public key did not sign.")
]
Certificates = Annotated[
    list[Path] | None,
    typer.Option("--certificate", help="Refuse what these certificates do not vouch for."),
]

MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="Tokens to write at most. 128.")]
Temperature = Annotated[
    float | None, typer.Option(min=0, help="0 takes the likeliest token; above, draw. 0.")
]
TopK = Annotated[int | None, typer.Option("--top-k", min=0, help="Draw of so many; 0: of all.")]
TopP = Annotated[
    float | None, typer.Option("--top-p", help="Draw of the likeliest that reach this share.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Of what is drawn. 0.")]
Stream = Annotated[bool, typer.Option("--stream", help="Show the text as it comes.")]
Chat = Annotated[
    bool, typer.Option("--chat", help="Each text is a message, by the tokenizer's template.")
]
SignKey = Annotated[
    Path | None, typer.Option("--sign", help="Sign edge bundles with this private key (PEM).")
]
SignCertificate = Annotated[
    Path | None, typer.Option("--certificate", help="The certificate of the private key (PEM).")
]
SignChain = Annotated[
    list[Path] | None, typer.Option("--chain", help="A certificate above it; may repeat.")
]
Summary = Annotated[
    Path | None,
    typer.Option(envvar="GITHUB_STEP_SUMMARY", help="Add report.md to this file: a job's summary."),
]
Tracking = Annotated[
    str | None, typer.Option("--mlflow", help="Log to MLflow at this URI, and register the bundle.")
]
MatrixFile = Annotated[
    Path | None,
    typer.Option("--matrix", help="Release every cell of this file: models, precisions, targets."),
]
Jobs = Annotated[
    str | None,
    typer.Option(help="With --matrix: so many processes, or ray, or ray:HOST:PORT. 1."),
]

CONFIG = Path("llmdeploy.toml")
_SIZES = re.compile(r"[A-Za-z_]\w*=\d+,\d+,\d+")
WORKSPACE = Path("artifacts")


def trust(key: Path | None, certificates: list[Path] | None) -> "Trust | None":
    """Whom a bundle must be signed by, None when nobody is named."""
    if key is None and not certificates:
        return None
    from ..deploy.signing import Trust

    return Trust(key, tuple(certificates or ()))


def sizes(words: list[str] | None) -> dict[str, tuple[int, ...]] | None:
    """`batch=1,8,64` as sizes by dimension; what is no three numbers is refused by the config.

    Raises:
        ConfigError: a word is of another form.
    """
    if not words:
        return None
    made: dict[str, tuple[int, ...]] = {}
    for word in words:
        name, _, numbers = word.partition("=")
        if not _SIZES.fullmatch(word):
            mend = "write DIMENSION=MIN,OPT,MAX, such as batch=1,8,64"
            raise ConfigError(f"{word!r} is no profile", where="--profile", mend=mend)
        made[name] = tuple(map(int, numbers.split(",")))
    return made


def spelled_out(arguments: list[str]) -> list[str]:
    """The arguments, with `all` after an `--explain` that names no rule, and a `--profile` before
    each of the sizes that follow one.
    """
    for place in reversed(range(1, len(arguments))):
        before = arguments[place - 1]
        if _SIZES.fullmatch(arguments[place]) and _SIZES.fullmatch(before):
            arguments = [*arguments[:place], "--profile", *arguments[place:]]
    places = [place for place, word in enumerate(arguments) if word == "--explain"]
    for place in reversed(places):
        after = arguments[place + 1 : place + 2]
        if (
            not after
            or after[0].startswith("-")
            or Path(after[0]).suffix
            or Path(after[0]).exists()
        ):
            arguments = [*arguments[: place + 1], "all", *arguments[place + 1 :]]
    return arguments
