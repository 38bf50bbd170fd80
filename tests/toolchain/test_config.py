from pathlib import Path

import pytest
from llmdeploy import ConfigError, MissingError
from llmdeploy.toolchain import config
from llmdeploy.toolchain.paths import resolve


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "llmdeploy.toml"
    path.write_text(text)
    return path


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, ""))
    assert loaded.build.precision == "fp32"
    assert [table.use for table in loaded.passes] == ["clean", "fold", "fuse", "clean"]


def test_a_pass_table_carries_its_own_options(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, '[[passes]]\nuse = "fuse"\nsome-rules = ["gelu"]\n'))
    assert loaded.passes[0].options == {"some_rules": ["gelu"]}


def test_what_is_named_twice_is_asked_for_once(tmp_path: Path) -> None:
    text = (
        "[build]\nbackends = ['onnxruntime', 'onnxruntime']\n[bundle]\nkinds = ['edge', 'edge']\n"
    )
    loaded = config.load(write(tmp_path, text))
    assert (loaded.build.backends, loaded.bundle.kinds) == (("onnxruntime",), ("edge",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[model]\ncheckpiont = 'x'", "unknown key model.checkpiont"),
        ("[build]\nprecision = 'int3'", "build.precision"),
        ("[build.profile]\nbatch = [8, 4, 1]", "not [min, opt, max]"),
        ("[gate]\nmin-cosine = 'high'", "gate.min-cosine: 'high' should be a valid number, "),
        ("[gate]\nmax-score-drop = inf", "gate.max-score-drop: inf should be a finite number"),
        ("[model]\nopset = 3", "model.opset: 3 should be greater than or equal to 18"),
        ("[calibration]\nseed = -1", "calibration.seed: -1 should be greater than or equal to 0"),
        ("[[passes]]\nname = 'x'", "passes.0.use: it is missing"),
        ("folder = 'x'", "unknown key folder"),
        ("[model", "not TOML"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Value error" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="llmdeploy init"):
        config.load(tmp_path / "llmdeploy.toml")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "llmdeploy.toml"
    path.write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(ConfigError, match="not TOML"):
        config.load(path)


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    assert config.load(write(tmp_path, "")).path("data/x.txt") == tmp_path / "data/x.txt"


def test_a_package_path_is_inside_the_package_without_importing_it() -> None:
    assert resolve("package:rich/py.typed", Path()).is_file()


def test_a_package_that_is_not_there_names_the_mend() -> None:
    with pytest.raises(MissingError, match="pip install no_such_package"):
        resolve("package:no_such_package/x", Path())


def test_a_package_path_cannot_leave_the_package() -> None:
    with pytest.raises(ConfigError, match="leaves its package"):
        resolve("package:rich/../../secret", Path())
