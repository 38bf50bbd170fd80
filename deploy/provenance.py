"""How a bundle was made: an in-toto statement (v1) with SLSA's provenance predicate (v1).

https://slsa.dev/spec/v1.0/provenance. It lies beside the archive, whose digest it states.
"""

import json
from pathlib import Path
from typing import Any

from .contents import Contents

SUFFIX = ".intoto.json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD = "urn:llmdeploy:release:v1"
#: Who built it where nobody is named: some machine, by hand.
NOBODY = "urn:llmdeploy:builder:unnamed"


def statement(contents: Contents, archive: str, sha256: str) -> dict[str, Any]:
    """The statement that `archive`, a file's name, was made from the lineage of `contents`."""
    lineage = contents.lineage
    sources = [_resource(lineage.checkpoint, lineage.checkpoint_digest)]
    if lineage.samples_digest:
        sources.append(_resource("calibration samples", lineage.samples_digest))
    packages = [
        {"uri": f"pkg:pypi/{name}@{version}", "name": name}
        for name, version in sorted(contents.versions.items())
    ]
    metadata = {"finishedOn": contents.when} if contents.when else {}
    return {
        "_type": STATEMENT,
        "subject": [{"name": archive, "digest": {"sha256": sha256}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD,
                "externalParameters": {
                    "name": contents.name,
                    "version": contents.version,
                    **contents.parameters,
                },
                "internalParameters": {"stages": dict(sorted(lineage.stages.items()))},
                "resolvedDependencies": [*sources, *packages],
            },
            "runDetails": {
                "builder": {"id": contents.builder or NOBODY},
                "metadata": metadata,
            },
        },
    }


def write(contents: Contents, archive: Path, sha256: str) -> Path:
    """Write the statement of an archive beside it; the file."""
    path = archive.with_name(archive.name + SUFFIX)
    text = json.dumps(statement(contents, archive.name, sha256), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _resource(name: str, digest: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest}}
