import io
import json
import subprocess
import sys
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Any

import pytest
from llmdeploy.toolchain import doctor, probe
from llmdeploy.toolchain.doctor import diagnose, extras, show
from llmdeploy.toolchain.doctor.diagnosis import Diagnosis, Engine, Gpu, Products, Provider
from llmdeploy.toolchain.doctor.extras import Package
from llmdeploy.toolchain.doctor.mends import findings
from llmdeploy.toolchain.machine import machine
from rich.console import Console


@pytest.fixture(scope="module")
def seen() -> Diagnosis:
    return diagnose()


def test_it_is_json(seen: Diagnosis):
    text = json.dumps(seen.model_dump(mode="json"))
    assert Diagnosis.model_validate(json.loads(text).copy()).driver == seen.driver


def test_packages_are_those_of_the_metadata(seen: Diagnosis):
    by_name = {item.name: item for item in seen.packages}
    assert by_name["numpy"].version == version("numpy")
    assert by_name["numpy"].extras == ("",)
    assert by_name["torch"].extras == ("export",)
    assert "pytest" not in by_name


def test_every_extra_that_people_install_has_its_purpose():
    offered = set(metadata("llmdeploy").get_all("Provides-Extra") or ())
    assert {*extras.EXTRAS} - {""} == offered - {"all", "dev"}


def test_the_cpu_provider_is_tried_and_works(seen: Diagnosis):
    working = {item.name for item in seen.providers if item.works}
    assert "CPUExecutionProvider" in working


def test_a_provider_that_computes_nothing_is_not_believed():
    for name in ("AzureExecutionProvider", "NoSuchExecutionProvider"):
        answer = probe.ask("provider", name)
        assert not answer["works"]
        assert answer["reason"]


def test_a_crash_of_a_native_library_is_an_answer(monkeypatch: pytest.MonkeyPatch):
    crash = "import os, sys; sys.stderr.write('boom\\n'); sys.stderr.flush(); os.abort()"
    run = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda _, **more: run([sys.executable, "-c", crash], **more)
    )
    assert "boom" in probe.ask("gpus")["error"]
    assert doctor.diagnose().driver.reason == probe.ask("gpus")["error"]


def test_a_hang_is_an_answer(monkeypatch: pytest.MonkeyPatch):
    def hang(*_: object, timeout: float, **__: object) -> None:
        raise subprocess.TimeoutExpired("x", timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert "no answer in" in probe.ask("gpus")["error"]


def test_a_file_in_the_working_folder_does_not_stand_in_for_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "onnxruntime.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert probe.ask("listed")["providers"]


def _package(name: str, extra: str, here: str | None) -> Package:
    return Package(name=name, wanted=">=1", version=here, extras=(extra,))


def _mends(seen: Diagnosis, clashes: dict[str, list[str]] | None = None, **more: Any) -> str:
    found = findings(seen.model_copy(update=more), clashes or {})
    return "\n".join(f"{item.what}: {item.why}: {item.mend}" for item in found)


def test_two_onnxruntimes_are_a_conflict(seen: Diagnosis):
    text = _mends(seen, {"onnxruntime": ["onnxruntime", "onnxruntime-gpu"]})
    mend = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    assert text.splitlines()[0].endswith(mend)


def test_clashes_are_read_from_the_metadata(monkeypatch: pytest.MonkeyPatch):
    owners = {"onnxruntime": ["onnxruntime-gpu", "onnxruntime"], "numpy": ["numpy"]}
    monkeypatch.setattr(extras, "packages_distributions", lambda: owners)
    assert extras.clashes() == {"onnxruntime": ["onnxruntime", "onnxruntime-gpu"]}


@pytest.mark.parametrize(("here", "why"), [(None, "torch is not installed"), ("0.9", "torch 0.9")])
def test_a_package_that_is_missing_or_old_is_mended(seen: Diagnosis, here: str | None, why: str):
    text = _mends(seen, packages=(_package("torch", "export", here),))
    assert why in text
    assert "pip install 'llmdeploy[export]'" in text


def test_the_gpu_extra_is_asked_for_only_with_a_gpu(seen: Diagnosis):
    lacking = (_package("onnxruntime", "cpu", "1.5"), _package("tensorrt", "gpu", None))
    assert "llmdeploy[gpu]" not in _mends(seen, packages=lacking, backends=())
    gpu = Gpu(name="a GPU", memory_bytes=1, compute_capability="8.9")
    driver = seen.driver.model_copy(update={"devices": (gpu,)})
    text = _mends(seen, packages=lacking, driver=driver, backends=())
    assert "pip uninstall -y onnxruntime && pip install 'llmdeploy[gpu]'" in text
    assert "execute an engine on a GPU" not in text


def test_onnxruntime_gpu_stands_in_for_onnxruntime(seen: Diagnosis):
    both = (_package("onnxruntime", "cpu", None), _package("onnxruntime-gpu", "gpu", "1.5"))
    assert "llmdeploy[cpu]" not in _mends(seen, packages=both)


def test_what_is_listed_and_does_not_work_is_said(seen: Diagnosis):
    cuda = Provider(name="CUDAExecutionProvider", works=False, reason="libcublas is not found")
    engine = Engine(name="trt", package="x", cannot_build="no GPU", cannot_execute="no GPU")
    text = _mends(seen, providers=(cuda,), backends=(engine,))
    assert "CUDAExecutionProvider" in text
    assert "libcublas is not found" in text
    assert "build trt engines: no GPU: run `llmdeploy build --backend trt`" in text


def test_a_backend_s_own_mend_is_taken_and_said_once(seen: Diagnosis):
    command = "pip install 'llmdeploy[rtx]'"
    engine = Engine(name="rtx", package="x", cannot_build=f"gone, {command}", cannot_execute="x")
    lacking = (_package("tensorrt-rtx", "rtx", None),)
    text = _mends(seen, backends=(engine,), packages=lacking)
    assert text.count(command) == 1
    assert f"compile TensorRT-RTX engines: tensorrt-rtx is not installed: {command}" in text


def test_little_room_is_said(seen: Diagnosis):
    assert "--workspace" in _mends(seen, disk_free_bytes=10**6)


def test_the_folder_need_not_be_there(tmp_path: Path):
    assert doctor._existing(tmp_path / "not" / "yet") == tmp_path


def test_the_machine_has_cores_and_memory():
    here = machine()
    assert here.cores >= 1
    assert 0 < here.available_bytes <= here.memory_bytes


def test_people_read_it(seen: Diagnosis):
    odd = Engine(name="[red]x", package="x", cannot_build="[/]", cannot_execute=None)
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(show(seen.model_copy(update={"backends": (odd,)})))
    file = console.file
    assert isinstance(file, io.StringIO)
    text = file.getvalue()
    for word in ("processor", "CPUExecutionProvider", "cannot be done here", "build for [red]x"):
        assert word in text


def test_products_of_bytes_are_tried(seen: Diagnosis):
    """VNNI and its kin add them up exactly; x86 without cuts two of them off at 16 bits."""
    answer = seen.products
    assert answer.exact is not None
    assert (answer.reason is None) is answer.exact
    vnni = {"avx_vnni", "avx512_vnni", "asimddp"} & set(machine().features)
    assert answer.exact or not vnni


@pytest.mark.parametrize("exact", [True, False, None])
def test_a_processor_that_cuts_products_off_is_named(seen: Diagnosis, exact: bool | None):
    reason = "two are cut off" if exact is False else None
    products = Products(exact=exact, reason=reason)
    found = findings(seen.model_copy(update={"products": products}), {})
    named = [item for item in found if "INT8" in item.what]
    assert bool(named) is (exact is False)
    assert all("session.x64quantprecision" in item.mend for item in named)
