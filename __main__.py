"""`python -m llmdeploy`."""

from .toolchain.cli import main

main()
