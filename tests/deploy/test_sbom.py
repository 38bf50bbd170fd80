import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as Message
from llmdeploy import BundleError, ConfigError
from llmdeploy.deploy.attest import verify_attestation
from llmdeploy.deploy.bundle import digest, unpack
from llmdeploy.deploy.card import card
from llmdeploy.deploy.contents import Contents
from llmdeploy.deploy.edge import pack
from llmdeploy.deploy.signing import Signer, sign

from .test_signing import write_key

README = """---
license: apache-2.0
datasets:
- s2orc
- "flax-sentence-embeddings/stackexchange_xml"
base_model: nreimers/MiniLM-L6-H384-uncased
---
# A card
license: of the text, not of the card
"""


@pytest.fixture
def full(contents: Contents) -> Contents:
    """A release of which everything that can be stated is stated."""
    (contents.assets / "README.md").write_text(README)
    return dataclasses.replace(
        contents,
        lineage=contents.lineage.model_copy(update={"samples_digest": "2" * 64}),
        versions={"llmdeploy": "0.1.0", "onnxruntime": "1.32.0", "torch": "2.13.0+cpu"},
        metrics={"pearson": 0.656, "cosine": 0.997},
        parameters={"build": {"precision": "int8"}},
        created="2026-11-24T00:00:00+00:00",
        builder="https://ci.example.org/job/7",
    )


@pytest.fixture
def packed(full: Contents, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    (tmp_path / "full").mkdir()
    facts = pack(full, tmp_path / "full")
    return tmp_path / "full" / facts["path"], facts


def test_no_two_parts_of_a_bill_have_one_reference(full: Contents, tmp_path: Path) -> None:
    """A data set may be called as ours is: references must differ (CycloneDX, bom-ref)."""
    (full.assets / "README.md").write_text(README.replace("s2orc", "calibration"))
    folder = unpack(tmp_path / pack(full, tmp_path)["path"], tmp_path / "unpacked")
    found = json.loads((folder / "sbom.cdx.json").read_text())
    references = [part["bom-ref"] for part in found["components"]]
    assert len(references) == len(set(references))


def test_the_bill_is_cyclonedx_1_6_and_has_every_file(
    packed: tuple[Path, Any], tmp_path: Path
) -> None:
    folder = unpack(packed[0], tmp_path / "unpacked")
    text = (folder / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    files = {
        part["name"]: part["hashes"][0]["content"]
        for part in bill["components"]
        if part["type"] == "file"
    }
    there = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    assert files == {
        name: digest(path)
        for name, path in there.items()
        if name not in ("manifest.json", "sbom.cdx.json")
    }


def test_every_field_that_bytes_can_prove_is_filled(
    packed: tuple[Path, Any], tmp_path: Path
) -> None:
    folder = unpack(packed[0], tmp_path / "unpacked")
    bill = json.loads((folder / "sbom.cdx.json").read_text())
    model = bill["metadata"]["component"]
    card_ = model["modelCard"]
    assert model["licenses"] == [{"license": {"name": "apache-2.0"}}]
    assert card_["modelParameters"]["task"] == "feature-extraction"
    assert card_["modelParameters"]["inputs"][0]["format"] == "input_ids int64[batch, sequence]"
    assert card_["quantitativeAnalysis"]["performanceMetrics"][1] == {
        "type": "pearson",
        "value": "0.656",
    }
    ancestors = [part["name"] for part in model["pedigree"]["ancestors"]]
    assert ancestors == ["tiny", "nreimers/MiniLM-L6-H384-uncased"]
    data = [part["name"] for part in bill["components"] if part["type"] == "data"]
    assert data == ["s2orc", "flax-sentence-embeddings/stackexchange_xml", "calibration samples"]
    assert bill["metadata"]["timestamp"] == "2026-11-24T00:00:00+00:00"
    assert "pkg:pypi/torch@2.13.0%2Bcpu" in {part.get("purl") for part in bill["components"]}
    references = {part["bom-ref"] for part in bill["components"]}
    assert set(bill["dependencies"][0]["dependsOn"]) == references
    assert {one["ref"] for one in card_["modelParameters"]["datasets"]} <= references


def test_the_smallest_bill_is_valid_too(bundle: Path, tmp_path: Path) -> None:
    text = (unpack(bundle, tmp_path / "unpacked") / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_provenance_is_an_in_toto_statement_about_the_archive(packed: tuple[Path, Any]) -> None:
    archive, facts = packed
    tree = json.loads((archive.parent / facts["provenance"]).read_text())
    message = json_format.ParseDict(tree, Message())
    Statement.copy_from_pb(message).validate()
    predicate = json_format.ParseDict(tree["predicate"], provenance_pb2.Provenance())
    assert tree["subject"] == [{"name": archive.name, "digest": {"sha256": digest(archive)}}]
    assert predicate.run_details.builder.id == "https://ci.example.org/job/7"
    dependencies = {
        one.name: dict(one.digest) for one in predicate.build_definition.resolved_dependencies
    }
    assert dependencies["tiny"] == {"sha256": "0" * 64}
    assert dependencies["calibration samples"] == {"sha256": "2" * 64}
    assert tree["predicate"]["buildDefinition"]["externalParameters"]["build"] == {
        "precision": "int8"
    }


def test_signed_provenance_holds_for_these_bytes_and_this_key(
    packed: tuple[Path, Any], tmp_path: Path
) -> None:
    archive, _ = packed
    write_key(tmp_path / "key.pem")
    write_key(tmp_path / "other.pem")
    sign(archive, Signer(tmp_path / "key.pem"))
    found = verify_attestation(archive, tmp_path / "key.pub")
    assert found["subject"][0]["digest"]["sha256"] == digest(archive)
    with pytest.raises(BundleError, match="does not hold"):
        verify_attestation(archive, tmp_path / "other.pub")
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="not of this archive"):
        verify_attestation(archive, tmp_path / "key.pub")
    with pytest.raises(ConfigError, match="cannot read the key"):
        verify_attestation(archive, archive)


def test_a_card_is_read_and_never_trusted(tmp_path: Path) -> None:
    assert card(tmp_path).licence == ""
    for text in (
        "",
        "---",
        "no front matter",
        "---\n- lost\n---",
        "---\nlicense:\n---\n",
        "\0" * 99,
    ):
        (tmp_path / "README.md").write_text(text)
        assert card(tmp_path).licence == ""
    (tmp_path / "README.md").write_text("---\nlicense: 'mit'\ndatasets: squad\n---\n")
    assert card(tmp_path) == card(tmp_path).__class__("mit", ("squad",), ())
    (tmp_path / "README.md").write_text(
        '---\nlicense: mit  # ours\ndatasets: [squad, "glue/mnli"]\nbase_model:\n- a/b # old\n---\n'
    )
    assert card(tmp_path) == card(tmp_path).__class__("mit", ("squad", "glue/mnli"), ("a/b",))
