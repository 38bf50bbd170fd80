"""The report of a release: report.json, report.html, junit.xml, report.md."""

from .compression import Compression, Taken
from .ground import Record
from .making import (
    Cache,
    Calibration,
    Engine,
    Failure,
    Layer,
    Mixture,
    Model,
    Quantization,
    Stage,
    StageParity,
    Step,
)
from .proof import (
    Agreement,
    Bundle,
    Footprint,
    Gate,
    Latency,
    Located,
    OutputParity,
    Parity,
    Score,
)
from .record import Environment, Report, Tool, Verdict, judge
from .table import table
from .tuning import Tuning
from .writing import FILES, write

__all__ = [
    "FILES",
    "Agreement",
    "Bundle",
    "Cache",
    "Calibration",
    "Compression",
    "Engine",
    "Environment",
    "Failure",
    "Footprint",
    "Gate",
    "Latency",
    "Layer",
    "Located",
    "Mixture",
    "Model",
    "OutputParity",
    "Parity",
    "Quantization",
    "Record",
    "Report",
    "Score",
    "Stage",
    "StageParity",
    "Step",
    "Taken",
    "Tool",
    "Tuning",
    "Verdict",
    "judge",
    "table",
    "write",
]
