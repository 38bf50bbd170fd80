"""The report of a release: report.json, report.html, junit.xml, report.md."""

from .ground import Record
from .making import (
    Calibration,
    Engine,
    Failure,
    Layer,
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
from .writing import FILES, write
from .tuning import Tuning

__all__ = [
    "FILES",
    "Agreement",
    "Bundle",
    "Calibration",
    "Engine",
    "Environment",
    "Failure",
    "Footprint",
    "Gate",
    "Latency",
    "Layer",
    "Located",
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
    "Tool",
    "Verdict",
    "judge",
    "Tuning",
    "table",
    "write",
]
