"""tune.html: a search alone, as one page without network or scripts."""

from ..report.html import document
from ..report.markup import html, pill, tag
from ..report.tuned import part
from ..report.tuning import Tuning


def page(found: Tuning) -> str:
    """The page; everything of a name is escaped."""
    word = "A point holds every limit" if found.chosen else "No point holds every limit"
    tone = "good" if found.chosen else "bad"
    limits = ", ".join(f"{key.replace('_', '-')} {value:g}" for key, value in found.limits.items())
    header = tag(
        "header",
        tag("p", pill("tuned" if found.chosen else "not reached", tone), class_="top"),
        tag("h1", f"Tuning for {found.target}"),
        tag("p", tag("span", limits), class_="facts"),
        tag(
            "p",
            tag("strong", word),
            f": {found.chosen or found.chosen_reason}.",
            class_=f"verdict {tone}",
        ),
    )
    return document(f"tuning for {found.target}", html((header, part(found))))
