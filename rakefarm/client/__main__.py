"""`python3 -m rakefarm.client`: the same as `rake-p`."""

from rakefarm.cli import build_command

build_command()
