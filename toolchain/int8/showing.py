"""What `llmdeploy calibrate` says of a calibration, in lines for people."""

from collections.abc import Iterator, Mapping
from typing import Any

#: Layers that are shown.
SHOWN = 8


def lines(results: Mapping[str, Any]) -> Iterator[str]:
    """The samples and what they cover, then the layers that INT8 harms most."""
    covered = results.get("coverage", {})
    yield f"samples {results['samples']}, digest {str(results['digest'])[:16]}"
    if "tokens" in covered:
        low, _, middle, _, high = covered["lengths"]
        yield (
            f"tokens {covered['tokens']}, {covered['distinct_ids']} different ones;"
            f" {low} to {high} a sample, half have {middle} or fewer"
        )
    yield "layers that INT8 harms most, by the signal to noise of their outputs on held-out samples"
    for each in sorted(results["worst"], key=lambda row: row["snr_db"])[:SHOWN]:
        yield f"{each['snr_db']:8.2f} dB  {each['node']}  {_how(each)}"


def _how(each: Mapping[str, Any]) -> str:
    smoothing = each["smoothing"]
    smooth = "not smoothed" if smoothing is None else f"smoothed {smoothing:.2f}"
    learned = ", learned" if each["learned"] else ""
    count = each["outliers"]
    apart = f", {count} channel{'s' * (count > 1)} apart" if count else ""
    return f"{smooth}{learned}{apart}, range {each['observer']}, {each['saturated']:.2%} cut off"
