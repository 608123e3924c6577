"""`python3 -m rakefarm`: the same as `rakefarm`."""

from rakefarm.cli import command

command()
