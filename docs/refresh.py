"""Put the last `make demo` into the README: its table between the markers, its report as a picture.

`make readme` after `make demo`. The picture needs Chromium; without it the old one stays.
"""

import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from llmdeploy.toolchain.report import Report, table
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = "--headless --no-sandbox --disable-gpu --no-first-run --hide-scrollbars --disable-sync"
SIZE = "1160,1500"


def written(report: Report) -> str:
    """The table of stages, gates and verdict, as a terminal shows it."""
    file = io.StringIO()
    Console(file=file, width=112, color_system=None).print(table(report))
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    return "```\n" + "\n".join(lines) + "\n```"


def refresh(workspace: Path) -> None:
    """Rewrite the README's table from `workspace`'s report.json, and docs/report.png."""
    report = Report.model_validate_json((workspace / "report.json").read_bytes())
    readme = ROOT / "README.md"
    block = f"<!-- table -->\n{written(report)}\n<!-- /table -->"
    text = readme.read_text(encoding="utf-8")
    new = re.sub(r"<!-- table -->.*?<!-- /table -->", lambda _: block, text, flags=re.DOTALL)
    readme.write_text(new, encoding="utf-8")
    picture(workspace / "report.html", ROOT / "docs" / "report.png")


def picture(page: Path, image: Path) -> None:
    """A screenshot of the report's first screen."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"no Chromium here: {image} is left as it is")
    with tempfile.TemporaryDirectory() as profile:
        options = [*QUIET.split(), f"--user-data-dir={profile}", f"--window-size={SIZE}"]
        command = [browser, *options, f"--screenshot={image}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    refresh(Path(sys.argv[1]))
