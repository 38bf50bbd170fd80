"""The schemas of report.json and tune.json, for those who read them by machine.

The files are kept in step by a test. Write them anew, after a change of the records, with
`python -m llmdeploy.toolchain.report.schema > toolchain/report/report.schema.json` and
`python -m llmdeploy.toolchain.report.schema tune > toolchain/report/tune.schema.json`.
"""

import json
import sys
from typing import Any

from .ground import Record
from .record import Report
from .tuning import Tuning


def schema(of: type[Record] = Report) -> dict[str, Any]:
    """The JSON schema (2020-12) of report.json, or of another record."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return dialect | of.model_json_schema(mode="serialization")


if __name__ == "__main__":
    print(json.dumps(schema(Tuning if sys.argv[1:] == ["tune"] else Report), indent=2))
