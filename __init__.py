"""llmdeploy takes a trained transformer from its checkpoint to an engine that ships, with proof.

Errors that a user can meet, with the exit code the command line gives them:

    Error                  3  a stage failed
    |- ConfigError         2  wrong usage or configuration
    |- MissingError        4  something needed is not on this machine
    |- ExportError         3  checkpoint -> ONNX
    |- PassError           3  a rewrite of the graph
    |- CalibrationError    3  samples -> ranges
    |- BuildError          3  ONNX -> engine
    |- ParityError         3  a comparison that could not be made
    `- BundleError         3  packing, unpacking, or a bundle that is not what its manifest says
"""

from typing import ClassVar

__version__ = "0.1.0"


class Error(Exception):
    """What went wrong, where, and the mend: `error: what, where, the mend` on one line."""

    exit_code: ClassVar[int] = 3

    def __init__(self, what: str, *, where: object = "", mend: str = "") -> None:
        self.what = what
        self.where = str(where)
        self.mend = mend
        parts = (part for part in (what, self.where, mend) if part)
        super().__init__(" ".join(", ".join(parts).split()))


class ConfigError(Error):
    """Wrong usage or configuration."""

    exit_code = 2


class MissingError(Error):
    """Something needed is not on this machine: a package, a GPU, a driver."""

    exit_code = 4


class ExportError(Error):
    """The checkpoint could not be turned into an ONNX graph."""


class PassError(Error):
    """A pass broke the graph, or could not do its work."""


class CalibrationError(Error):
    """Samples could not be turned into ranges."""


class BuildError(Error):
    """An engine could not be built."""


class ParityError(Error):
    """Two models could not be compared."""


class BundleError(Error):
    """A bundle could not be packed or unpacked, or is not what its manifest says."""
