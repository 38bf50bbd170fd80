"""A bundle's bill of materials: CycloneDX 1.6 with the model's card (an ML-BOM), as JSON.

https://cyclonedx.org/docs/1.6/json/. Every field is read from the bytes that are packed or from
what the release states; nothing is guessed, so a field without a source is left out.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

from .bundle import File
from .card import Card, card
from .contents import Contents
from .signature import Signature, Tensor

NAME = "sbom.cdx.json"
Json = dict[str, Any]


def bill(contents: Contents, files: Mapping[str, File]) -> bytes:
    """The bill of `files` (names and digests), as the bytes of sbom.cdx.json."""
    known = card(contents.assets)
    parts = [*_files(files), *_packages(contents), *_data(contents, known)]
    model = _model(contents, files, known)
    document: Json = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": _serial(contents, files),
        "version": 1,
        "metadata": {
            "timestamp": contents.when,
            "tools": {"components": [_tool(contents)]},
            "component": model,
        },
        "components": parts,
        "dependencies": [
            {"ref": model["bom-ref"], "dependsOn": sorted(part["bom-ref"] for part in parts)}
        ],
    }
    return (json.dumps(_filled(document), indent=2, ensure_ascii=False) + "\n").encode()


def _model(contents: Contents, files: Mapping[str, File], known: Card) -> Json:
    signature = Signature.load(contents.assets)
    digests = {name: file.sha256 for name, file in sorted(files.items())}
    whole = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{contents.name}@{contents.version}",
        "name": contents.name,
        "version": contents.version,
        "hashes": _sha256(whole),
        "licenses": _licences(known.licence),
        "pedigree": {"ancestors": _ancestors(contents, known)},
        "modelCard": {
            "modelParameters": {
                "task": signature.task,
                "modelArchitecture": signature.architecture,
                "datasets": [{"ref": part["bom-ref"]} for part in _data(contents, known)],
                "inputs": [{"format": _format(tensor)} for tensor in signature.inputs],
                "outputs": [{"format": _format(tensor)} for tensor in signature.outputs],
            },
            "quantitativeAnalysis": {
                "performanceMetrics": [
                    {"type": name, "value": f"{value:.6g}"}
                    for name, value in sorted(contents.metrics.items())
                ]
            },
        },
        "properties": [
            {"name": f"llmdeploy:stage:{name}", "value": digest}
            for name, digest in sorted(contents.lineage.stages.items())
        ],
    }


def _ancestors(contents: Contents, known: Card) -> list[Json]:
    """The checkpoint, and what its card says that it was made from."""
    lineage = contents.lineage
    checkpoint: Json = {
        "type": "machine-learning-model",
        "bom-ref": "checkpoint",
        "name": lineage.checkpoint,
        "hashes": _sha256(lineage.checkpoint_digest),
        "licenses": _licences(known.licence),
    }
    base = [
        {"type": "machine-learning-model", "bom-ref": f"base:{name}", "name": name}
        for name in dict.fromkeys(known.base_models)
    ]
    return [checkpoint, *base]


def _files(files: Mapping[str, File]) -> list[Json]:
    return [
        {
            "type": "file",
            "bom-ref": f"file:{name}",
            "name": name,
            "hashes": _sha256(file.sha256),
            "properties": [{"name": "llmdeploy:size", "value": str(file.size)}],
        }
        for name, file in sorted(files.items())
    ]


def _packages(contents: Contents) -> list[Json]:
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version.replace('+', '%2B')}",
        }
        for name, version in sorted(contents.versions.items())
    ]


def _data(contents: Contents, known: Card) -> list[Json]:
    """What the model was trained on, by its card, and what it was calibrated on, by its digest."""
    trained = [
        {
            "type": "data",
            "bom-ref": f"data:{name}",
            "name": name,
            "data": [{"type": "dataset", "name": name}],
        }
        for name in dict.fromkeys(known.datasets)
        if name
    ]
    digest = contents.lineage.samples_digest
    if digest is None:
        return trained
    calibration: Json = {
        "type": "data",
        "bom-ref": "samples:calibration",  # a data set of that name has its own
        "name": "calibration samples",
        "hashes": _sha256(digest),
        "data": [{"type": "dataset", "name": "calibration samples"}],
    }
    return [*trained, calibration]


def _tool(contents: Contents) -> Json:
    return {
        "type": "application",
        "name": "llmdeploy",
        "version": contents.versions.get("llmdeploy"),
    }


def _licences(licence: str) -> list[Json]:
    return [{"license": {"name": licence}}] if licence else []


def _sha256(digest: str) -> list[Json]:
    """A digest as CycloneDX's hash; what is not a sha256 is left out."""
    whole = len(digest) == 64 and set(digest) <= set("0123456789abcdef")
    return [{"alg": "SHA-256", "content": digest}] if whole else []


def _format(tensor: Tensor) -> str:
    return f"{tensor.name} {tensor.dtype}[{', '.join(map(str, tensor.shape))}]"


def _serial(contents: Contents, files: Mapping[str, File]) -> str:
    """A UUID of the content, so that the same bundle has the same bill."""
    text = json.dumps([contents.name, contents.version, {n: f.sha256 for n, f in files.items()}])
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}"


def _filled(value: Any) -> Any:
    """The same without what is empty: CycloneDX has no field for not knowing."""
    if isinstance(value, dict):
        pairs = {key: _filled(inner) for key, inner in value.items()}
        return {key: inner for key, inner in pairs.items() if inner not in (None, "", [], {})}
    return [_filled(inner) for inner in value] if isinstance(value, list) else value
