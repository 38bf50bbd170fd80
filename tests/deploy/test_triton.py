import dataclasses
import errno
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from llmdeploy import BundleError, ConfigError
from llmdeploy.deploy import triton_config as configs
from llmdeploy.deploy.contents import Contents
from llmdeploy.deploy.runtime import load
from llmdeploy.deploy.selfcheck import verify_bundle
from llmdeploy.deploy.signature import Bounds, Signature, Tensor
from llmdeploy.deploy.triton import MODULES, pack
from llmdeploy.deploy.triton_versions import publish, switch, versions

from .conftest import SIGNATURE, make_contents, write_classifier, write_tokenizer


def packed(contents: Contents, folder: Path, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    facts = pack(dataclasses.replace(contents, options={"triton": options}), folder)
    return folder / facts["path"] / "models"


def config(repository: Path, model: str) -> Any:
    return configs.parse((repository / model / "config.pbtxt").read_text())


@pytest.fixture
def classifier(tmp_path: Path) -> Contents:
    return make_contents(tmp_path, write_classifier(tmp_path / "classifier"))


def test_the_engine_is_described_as_io_json_has_it(contents: Contents, tmp_path: Path) -> None:
    repository = packed(contents, tmp_path / "t", max_batch=8, delay_us=200, instances=2)
    engine = config(repository, "tiny-engine")
    assert (engine.name, engine.backend, engine.max_batch_size) == ("tiny-engine", "onnxruntime", 8)
    assert [(t.name, t.data_type, list(t.dims)) for t in engine.input] == [
        ("input_ids", configs.protobuf().TYPE_INT64, [-1]),
        ("attention_mask", configs.protobuf().TYPE_INT64, [-1]),
    ]
    assert [(t.name, list(t.dims)) for t in engine.output] == [
        ("sentence_embedding", [4]),
        ("tokens", [-1, 4]),
    ]
    assert engine.dynamic_batching.max_queue_delay_microseconds == 200
    assert [(g.count, g.kind) for g in engine.instance_group] == [
        (2, engine.instance_group[0].KIND_CPU)
    ]
    assert engine.optimization.graph.level == -1
    assert list(engine.version_policy.specific.versions) == [1]
    assert (repository / "tiny-engine" / "1" / "model.onnx").is_file()


def test_a_repository_verifies_itself_as_a_bundle(contents: Contents, tmp_path: Path) -> None:
    facts = pack(contents, tmp_path)
    found = verify_bundle(tmp_path / facts["path"])
    assert found.ok
    assert [check.name for check in found.checks] == ["files", "tokens 0", "golden 0"]
    (tmp_path / facts["path"] / "models" / "tiny" / "config.pbtxt").write_text("name: 'other'")
    found = verify_bundle(tmp_path / facts["path"])
    assert [check.name for check in found.checks] == ["file models/tiny/config.pbtxt"]


def test_the_warm_up_is_the_first_golden_text(contents: Contents, tmp_path: Path) -> None:
    repository = packed(contents, tmp_path / "t")
    (warmup,) = config(repository, "tiny-engine").model_warmup
    one = warmup.inputs["input_ids"]
    data = (repository / "tiny-engine" / "warmup" / one.input_data_file).read_bytes()
    golden = contents.golden[0].feed["input_ids"][:1]
    np.testing.assert_array_equal(np.frombuffer(data, np.int64).reshape(1, *one.dims), golden)


def test_the_ensemble_joins_the_parts_by_name_and_version(
    classifier: Contents, tmp_path: Path
) -> None:
    repository = packed(classifier, tmp_path / "t", version=3)
    whole = config(repository, "tiny")
    assert [t.name for t in whole.input] == ["TEXT"]
    assert [t.name for t in whole.output] == ["logits", "ANSWER"]
    steps = whole.ensemble_scheduling.step
    assert [(s.model_name, s.model_version) for s in steps] == [
        ("tiny-tokenizer", 3),
        ("tiny-engine", 3),
        ("tiny-answers", 3),
    ]
    known = {"TEXT"}
    for step in steps:
        part = config(repository, step.model_name)
        assert set(step.input_map) == {t.name for t in part.input}
        assert set(step.output_map) <= {t.name for t in part.output}
        assert set(step.input_map.values()) <= known
        known |= set(step.output_map.values())
    assert {t.name for t in whole.output} <= known


def test_python_models_run_with_our_own_modules(classifier: Contents, tmp_path: Path) -> None:
    repository = packed(classifier, tmp_path / "t", python_engine=True)
    for part in ("tokenizer", "engine", "answers"):
        version = repository / f"tiny-{part}" / "1"
        assert "class TritonPythonModel" in (version / "model.py").read_text()
        assert {path.name for path in (version / "llmdeploy" / "deploy").iterdir()} == {
            "__init__.py",
            *MODULES,
        }
        code = "import sys; sys.path.insert(0, '.'); import llmdeploy.deploy.{} as m; print(m.__file__)"
        done = subprocess.run(
            [sys.executable, "-I", "-c", code.format("text")],
            cwd=version,
            capture_output=True,
            text=True,
            check=True,
        )
        assert str(version) in done.stdout or done.stdout.startswith("./")


def test_a_tensorrt_engine_goes_by_tritons_names(contents: Contents, tmp_path: Path) -> None:
    plan = tmp_path / "trt"
    plan.mkdir()
    data = b"ftrt" + bytes(20) + bytes([11, 4, 0, 106])
    (plan / "engine.plan").write_bytes(data)
    both = dataclasses.replace(contents, engines={**contents.engines, "tensorrt": plan})
    repository = packed(both, tmp_path / "t", engine="tensorrt", kind="gpu", gpus=(0,))
    engine = config(repository, "tiny-engine")
    assert (engine.backend, engine.default_model_filename) == ("tensorrt", "model.plan")
    assert list(engine.instance_group[0].gpus) == [0]
    assert (repository / "tiny-engine" / "1" / "model.plan").read_bytes() == data
    tokenizer = config(repository, "tiny-tokenizer")
    assert tokenizer.instance_group[0].kind == tokenizer.instance_group[0].KIND_CPU


POLICIES = {"left": "numa-node=0", "right": "cpu-cores=4-7"}


@pytest.fixture
def cut(contents: Contents) -> Contents:
    from llmdeploy.toolchain.cutting import cut

    return dataclasses.replace(contents, cut=cut)


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_stages_are_models_of_their_own_on_devices_of_their_own(
    cut: Contents, tmp_path: Path, kind: str
) -> None:
    asked: dict[str, Any] = {"kind": kind, "stages": 2, "stage_instances": (1, 3)}
    asked |= {"gpus": (4, 5)} if kind == "gpu" else {"host_policies": POLICIES}
    repository = packed(cut, tmp_path / "t", **asked)
    stages = [config(repository, f"tiny-stage-{index}") for index in range(2)]
    groups = [stage.instance_group[0] for stage in stages]
    assert [group.count for group in groups] == [1, 3]
    if kind == "gpu":
        assert [list(group.gpus) for group in groups] == [[4], [5]]
    else:
        assert [group.host_policy for group in groups] == list(POLICIES)
    for file in ("compose.yaml", "kubernetes.yaml", "kserve.yaml"):
        text = (repository.parent / "manifests" / file).read_text()
        policies = re.findall(r"--host-policy=(\w+),([\w=-]+)", text)
        assert dict(policies) == ({} if kind == "gpu" else POLICIES)
        counts = re.findall(r"(?:count|gpu): (\d+)", text)
        assert counts == (["6"] if kind == "gpu" else [])
    known = {"TEXT"}
    steps = config(repository, "tiny").ensemble_scheduling.step
    assert [step.model_name for step in steps] == ["tiny-tokenizer", "tiny-stage-0", "tiny-stage-1"]
    for step in steps:
        part = config(repository, step.model_name)
        assert set(step.input_map) == {tensor.name for tensor in part.input}
        assert set(step.input_map.values()) <= known
        known |= set(step.output_map.values())
    assert {tensor.name for tensor in config(repository, "tiny").output} <= known
    for stage in stages:
        files = [
            stage.model_warmup[0].inputs[tensor.name].input_data_file for tensor in stage.input
        ]
        assert all((repository / stage.name / "warmup" / file).stat().st_size for file in files)


def test_a_repository_of_stages_verifies_and_runs_as_the_engine(
    cut: Contents, tmp_path: Path
) -> None:
    folder = packed(cut, tmp_path / "t", stages=2).parent
    found = verify_bundle(folder)
    assert found.ok, found.checks
    assert any(check.name == "golden 0" and check.ok for check in found.checks)
    golden = cut.golden[0]
    with load(folder) as session:
        outputs = session.run(golden.feed)
    for name, array in golden.outputs.items():
        np.testing.assert_array_equal(outputs[name], array)
    (folder / "models/tiny-stage-1/1/model.onnx").unlink()
    assert not verify_bundle(folder).ok


def test_stages_of_a_model_without_texts_are_joined_by_their_arrays(
    cut: Contents, tmp_path: Path
) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    Signature.load(cut.assets).save(assets)
    repository = packed(dataclasses.replace(cut, assets=assets), tmp_path / "t", stages=2)
    whole = config(repository, "tiny")
    assert [tensor.name for tensor in whole.input] == ["input_ids", "attention_mask"]
    steps = whole.ensemble_scheduling.step
    assert [step.model_name for step in steps] == ["tiny-stage-0", "tiny-stage-1"]


@pytest.mark.parametrize("kind", ["images", "choices"])
def test_what_no_text_gives_alone_is_given_as_arrays(
    contents: Contents, tmp_path: Path, kind: str
) -> None:
    """A tokenizer's model of texts beside images, or of several a row, would not load."""
    pixels = Tensor(
        name="pixel_values", dtype="float32", shape=("batch", 3, 8, 8), role="pixel_values"
    )
    choices = SIGNATURE.inputs[0].model_copy(update={"shape": ("batch", "choices", "sequence")})
    inputs = {"images": (*SIGNATURE.inputs, pixels), "choices": (choices,)}[kind]
    assets = tmp_path / "assets"
    assets.mkdir()
    write_tokenizer(assets)
    SIGNATURE.model_copy(update={"inputs": inputs}).save(assets)
    repository = packed(dataclasses.replace(contents, assets=assets), tmp_path / "t")
    assert [path.name for path in repository.iterdir()] == ["tiny-engine"]


def test_what_cannot_be_cut_is_refused(cut: Contents, contents: Contents, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be cut into 60 stages"):
        packed(cut, tmp_path / "many", stages=60)
    with pytest.raises(ConfigError, match="only an ONNX Runtime engine"):
        packed(contents, tmp_path / "none", stages=2)


def test_what_cannot_be_batched_is_not(contents: Contents) -> None:
    fixed = Tensor(name="logits", dtype="float32", shape=(4,), role="logits")
    signature = SIGNATURE.model_copy(update={"outputs": (fixed,)})
    options = configs.Options()
    made = configs.engine("x", signature, options, backend="onnxruntime", file="m", settings={})
    assert made.max_batch_size == 0
    assert not made.HasField("dynamic_batching")
    assert [list(t.dims) for t in made.input] == [[-1, -1], [-1, -1]]
    bounded = SIGNATURE.model_copy(update={"dims": {"batch": Bounds(max=4)}})
    assert configs.max_batch(bounded, options) == 4


def test_refuses(contents: Contents, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are: onnxruntime"):
        packed(contents, tmp_path / "t", engine="tensorrt-rtx")
    with pytest.raises(ConfigError, match=r"nonsense.*it takes engine"):
        packed(contents, tmp_path / "t", nonsense=1)
    with pytest.raises(ConfigError, match="not a model configuration"):
        configs.parse("name: 3 {")
    several = SIGNATURE.model_copy(
        update={"components": ("encoder", "decoder"), "inputs": (), "outputs": ()}
    )
    several.save(contents.assets)
    with pytest.raises(ConfigError, match=r"the model has encoder, decoder.*llmdeploy serve"):
        packed(contents, tmp_path / "t")


def test_versions_are_published_side_by_side_and_switched(
    contents: Contents, classifier: Contents, tmp_path: Path
) -> None:
    live = tmp_path / "live"
    first = packed(contents, tmp_path / "v1", version=1)
    assert publish(first, live) == ["tiny-engine", "tiny-tokenizer", "tiny"]
    for number in (2, 3):
        publish(packed(contents, tmp_path / f"v{number}", version=number), live)
    assert versions(live, "tiny-engine") == [2, 3]
    assert list(config(live, "tiny-engine").version_policy.specific.versions) == [2, 3]
    whole = config(live, "tiny")
    assert list(whole.version_policy.specific.versions) == [3]
    assert {step.model_version for step in whole.ensemble_scheduling.step} == {3}
    switch(live, "tiny", 2)
    assert {step.model_version for step in config(live, "tiny").ensemble_scheduling.step} == {2}
    with pytest.raises(ConfigError, match="there are: 2, 3"):
        switch(live, "tiny", 1)
    with pytest.raises(ConfigError, match="pack it as version 4"):
        publish(tmp_path / "v3" / "tiny-1.0.0" / "models", live)
    with pytest.raises(ConfigError, match="other arrays"):
        publish(packed(classifier, tmp_path / "v4", version=4), live)
    assert versions(live, "tiny-engine") == [2, 3]


def served(repository: Path) -> set[int]:
    return {step.model_version for step in config(repository, "tiny").ensemble_scheduling.step}


def test_what_serves_and_what_is_published_are_kept(contents: Contents, tmp_path: Path) -> None:
    live = tmp_path / "live"
    made = {n: packed(contents, tmp_path / f"v{n}", version=n) for n in range(1, 5)}
    for number in (2, 3):
        publish(made[number], live)
    publish(made[1], live)  # of a number below those that are kept
    assert served(live) == {1}
    for model in ("tiny-engine", "tiny-tokenizer", "tiny"):
        assert versions(live, model) == [1, 2, 3]
    switch(live, "tiny", 2)
    publish(made[4], live, keep=1)  # 2 answers until the ensemble is loaded again
    assert versions(live, "tiny-engine") == [2, 4]
    assert list(config(live, "tiny-engine").version_policy.specific.versions) == [2, 4]


def test_a_part_is_not_switched_beneath_its_ensemble(contents: Contents, tmp_path: Path) -> None:
    live = tmp_path / "live"
    for number in (1, 2):
        publish(packed(contents, tmp_path / f"v{number}", version=number), live)
    with pytest.raises(ConfigError, match=r"tiny-engine is a part of tiny.*switch tiny"):
        switch(live, "tiny-engine", 1)
    assert list(config(live, "tiny-engine").version_policy.specific.versions) == [1, 2]
    shutil.rmtree(live / "tiny")  # of a model without texts: an engine alone
    switch(live, "tiny-engine", 1)
    assert list(config(live, "tiny-engine").version_policy.specific.versions) == [1]


def test_two_that_publish_at_once_wait_for_each_other(contents: Contents, tmp_path: Path) -> None:
    live = tmp_path / "live"
    made = [packed(contents, tmp_path / f"v{number}", version=number) for number in (1, 2, 3)]
    publish(made[0], live)
    with FileLock(live / ".lock"):
        for write in (
            lambda: publish(made[1], live, wait=0),
            lambda: switch(live, "tiny", 1, wait=0),
        ):
            with pytest.raises(BundleError, match="another publishes or switches there"):
                write()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda each: publish(each, live, keep=3), made[1:]))
    for model in ("tiny-engine", "tiny-tokenizer"):
        assert list(config(live, model).version_policy.specific.versions) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["nothing", "an archive", "an empty folder", "a folder of it"])
def test_what_is_no_repository_is_not_published(
    contents: Contents, tmp_path: Path, kind: str
) -> None:
    outer = tmp_path / "out"
    inner = packed(contents, outer)
    (tmp_path / "x.tar.zst").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    given = {
        "nothing": tmp_path / "gone",
        "an archive": tmp_path / "x.tar.zst",
        "an empty folder": tmp_path / "empty",
        "a folder of it": inner.parent.parent,
    }
    with pytest.raises(ConfigError, match=r"no packed Triton repository there.*--kind triton"):
        publish(given[kind], tmp_path / "live")
    assert not (tmp_path / "live").exists()


def test_a_publishing_that_was_cut_off_is_done_again(
    contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, made = tmp_path / "live", packed(contents, tmp_path / "v1")
    copied = shutil.copytree

    def full(source: Path, target: Path, **how: Any) -> Any:
        if source.parent.name == "tiny-tokenizer":
            raise OSError(errno.ENOSPC, "No space left on device")
        return copied(source, target, **how)

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(BundleError, match="cannot publish"):
        publish(made, live)
    assert versions(live, "tiny-engine") == [1]
    monkeypatch.undo()
    assert publish(made, live) == ["tiny-engine", "tiny-tokenizer", "tiny"]
    assert served(live) == {1}
    with pytest.raises(ConfigError, match="there already"):
        publish(made, live)
