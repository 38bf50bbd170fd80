"""Silence for torch and transformers: only our own lines reach the user's terminal."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def quiet() -> Generator[None]:
    """Hold back warnings, log lines, progress bars and prints of the libraries in the block."""
    disabled = logging.root.manager.disable
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
