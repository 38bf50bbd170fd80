"""Every rule's rewrite as text: what goes in, what comes out, and that the numbers agree.

`LLMDEPLOY_UPDATE_GOLDEN=1` writes what comes out anew, for a person to read.
"""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy.passes import check
from llmdeploy.passes.check import Facts
from llmdeploy.passes.clean import Clean
from llmdeploy.passes.fold import Fold
from llmdeploy.passes.fuse import RULES, Fuse
from llmdeploy.passes.ledger import Ledger

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("*.onnxtxt"))
UPDATE = "LLMDEPLOY_UPDATE_GOLDEN" in os.environ
SPLIT = "\n---\n"


def read(path: Path) -> tuple[dict, str, str]:
    """The header (a JSON comment), the graph before and the graph after."""
    header, _, rest = path.read_text().partition("\n")
    before, _, after = rest.partition(SPLIT)
    return json.loads(header.removeprefix("#")), before, after


def applied(options: dict, model: ir.Model) -> Ledger:
    """Run the pass a header names; its ledger."""
    kinds = {"clean": Clean, "fold": Fold, "fuse": Fuse}
    ledger = Ledger()
    kinds[options["pass"]](**options.get("options", {})).apply(model, ledger)
    return ledger


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_rule(path, graph, execute, feeds):
    header, text, expected = read(path)
    before, after = graph(text), graph(text)
    ledger = applied(header, after)
    made = {application.rule for application in ledger.applications}
    assert made == set(header["rules"])
    check(after, Facts.of(before))
    printed = onnx.printer.to_text(ir.to_proto(after))
    if UPDATE:
        path.write_text("#" + json.dumps(header) + "\n" + text + SPLIT + printed + "\n")
    assert printed.strip() == expected.strip() or UPDATE
    for dims in header["dims"]:
        feed = feeds(before, dims, header.get("below", 4))
        one, two = execute(before, feed), execute(after, feed)
        for name, array in one.items():
            assert two[name].dtype == array.dtype
            np.testing.assert_allclose(two[name], array, rtol=0, atol=header["tolerance"])


def test_every_rule_has_a_golden_graph():
    tables = [Clean().table(), Fold().table(), *RULES.values()]
    every = {rule.name for table in tables for rule in table}
    shown = {rule for path in GOLDEN for rule in read(path)[0]["rules"]}
    assert every - shown == set()
