"""A trial as a job: JSON in, JSON out, in whichever process it is given."""

import contextlib
import json
import logging
import os
import sys
from typing import Any

from ... import ConfigError, Error, MissingError
from .result import Asked, Result
from .trial import carry_out


def answer(text: str) -> str:
    """A trial's result as JSON from what is asked as JSON; an error that ends the search as one."""
    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(sys.stderr):  # stdout is the search's
        try:
            asked = Asked.model_validate_json(text)
            os.chdir(asked.here)  # relative paths mean what they mean to the search
            return carry_out(asked).model_dump_json()
        except OSError as error:
            mend = "give every node the paths of this one, by a shared disk"
            said = {"what": f"a worker: {error.strerror}", "where": str(error.filename)}
            return json.dumps({"error": {**said, "mend": mend, "exit_code": 3}})
        except Error as error:
            said = {"what": error.what, "where": error.where, "mend": error.mend}
            return json.dumps({"error": {**said, "exit_code": error.exit_code}})


def understood(text: str) -> Result:
    """A worker's answer.

    Raises:
        Error: the worker met what no other would be spared.
    """
    found: dict[str, Any] = json.loads(text)
    if "error" in found:
        error: dict[str, Any] = found["error"]
        kind = {2: ConfigError, 4: MissingError}.get(error["exit_code"], Error)
        raise kind(error["what"], where=error["where"], mend=error["mend"])
    return Result.model_validate(found)
