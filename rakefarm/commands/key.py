"""`rakefarm key`: the keys that open the farm."""

from rakefarm.security.administration import add_arguments, run

__all__ = ["add_arguments", "run"]
