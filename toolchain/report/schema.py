"""report.schema.json: what report.json looks like, for those who read it by machine.

The file is kept in step by a test. Write it anew, after a change of the records, with
`python -m llmdeploy.toolchain.report.schema > toolchain/report/report.schema.json`.
"""

import json
from typing import Any

from .record import Report


def schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of report.json."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return dialect | Report.model_json_schema(mode="serialization")


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
