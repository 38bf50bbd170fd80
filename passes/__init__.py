"""Rewrites of ONNX graphs: what a pass is, the manager that proves each, and the passes."""

from .check import check
from .contract import CLOSE, EXACT, Contract
from .kinds import Pass, RulePass
from .manager import PassManager, Step
from .store import load, save

__all__ = [
    "CLOSE",
    "EXACT",
    "Contract",
    "Pass",
    "PassManager",
    "RulePass",
    "Step",
    "check",
    "load",
    "save",
]
