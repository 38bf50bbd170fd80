"""`llmdeploy run` on what writes text, and the verbs for bundles that are made."""

import json
import shutil
from pathlib import Path

import pytest
from llmdeploy.deploy.bundle import manifest_of
from llmdeploy.deploy.runtime import load
from llmdeploy.deploy.sampling import Sampling
from llmdeploy.toolchain import cli
from llmdeploy.toolchain.running import short

from .causal import write_causal, write_template


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_causal(tmp_path_factory.mktemp("causal"))
    write_template(folder)
    return folder


def run(*arguments: object) -> int:
    return cli.call([str(argument) for argument in arguments])


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


DRAWN = ("--max-new-tokens", 9, "--temperature", 2, "--top-k", 5, "--top-p", 0.9, "--seed", 4)


def test_options_reach_the_sampler(causal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "run", causal, "the train", *DRAWN)["results"]
    with load(causal) as session:
        wanted = session.generate(["the train"], Sampling(9, 2.0, 5, 0.9, seed=4))[0]
    assert found == [{"text": wanted.text, "tokens": 9, "finish": "length"}]
    other = answer(capsys, "run", causal, "the train", *DRAWN[:-1], 5)["results"]
    assert other != found


def test_a_stream_shows_the_same_text(causal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = answer(capsys, "run", causal, "the train", *DRAWN)["results"][0]["text"]
    assert run("run", causal, "the train", *DRAWN, "--stream") == 0
    assert capsys.readouterr().out == whole + "\n"


def test_what_is_written_is_alone_on_stdout(
    causal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = (*DRAWN[:1], 60, *DRAWN[2:])
    whole = answer(capsys, "run", causal, "the train", *long)["results"][0]["text"]
    assert len(whole) > 120
    assert run("run", causal, "the train", *long) == 0
    said = capsys.readouterr()
    assert said.out == whole + "\n"
    assert said.err == "tokens 60, finish length\n"


def test_outputs_of_many_numbers_are_shortened(
    engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [[0.123456789] * 8 for _ in range(3)]
    assert short(rows) == "[[0.1235, 0.1235, 0.1235, 0.1235, ... 8 in all], ... 3 in all]"
    assert short([[1.0 / 3, 2.0]]) == "[[0.3333, 2.0000]]"
    assert short([]) == "[]"
    assert short({"good": 2 / 3, "bad": 1 / 3}) == "{good 0.6667, bad 0.3333}"
    assert run("run", engine, "the train") == 0
    text, outputs = capsys.readouterr().out.splitlines()
    assert text == "the train"
    assert max(map(len, outputs.split())) < 30


def test_chat_puts_the_template_around(causal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "run", causal, "today", "--chat", "--max-new-tokens", 6)["results"][0]
    with load(causal) as session:
        wanted = session.generate(["today the"], Sampling(6), chat=True)[0]
    assert found["text"] == wanted.text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--stream", "--json"), "--stream"),
        (("--top-p", 0), "top_p cannot be 0.0, give above 0 and at most 1"),
        (("--max-new-tokens", 0), "equal to 1, give at least 1"),
        (("--arrays", "x.npz", "--chat"), "no text is written after arrays"),
        (("--arrays", "x.npz"), "texts and --arrays are two runs"),
    ],
)
def test_what_contradicts_itself_is_one_line(
    causal: Path, given: tuple[object, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("run", causal, "the", *given) == 2
    assert words in "".join(capsys.readouterr())


def test_an_encoder_writes_no_text(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", engine, "the train", "--max-new-tokens", 3) == 2
    assert "writes no text" in capsys.readouterr().err


def test_sign_delta_install_and_back(
    tmp_path: Path, bundle: Path, newer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = keys(tmp_path)
    for each in (bundle, newer):
        signed = answer(capsys, "sign", each, "--key", private)
        assert signed["bytes"] == each.stat().st_size
    thin = answer(capsys, "delta", bundle, newer, "-o", tmp_path / "thin")
    root = ("--root", tmp_path / "root")
    old = answer(capsys, "install", bundle, *root, "--key", public)
    new = answer(capsys, "install", tmp_path / "thin" / thin["path"], *root, "--key", public)
    assert (old["version"], new["version"]) == ("1.0.0", manifest_of(newer).version)
    assert answer(capsys, "rollback", *root)["version"] == "1.0.0"
    unsigned = shutil.copy2(bundle, tmp_path / "copy.tar.zst")
    other = tmp_path / "other"
    other.mkdir()
    assert run("sign", unsigned, "--key", keys(other)[0]) == 0
    assert run("install", unsigned, "--root", tmp_path / "fresh", "--key", public) != 0


def test_a_missing_key_is_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sign", bundle, "--key", "nowhere.pem") == 2
    assert "nowhere.pem" in capsys.readouterr().err


def keys(folder: Path) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "private.pem", folder / "public.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public
