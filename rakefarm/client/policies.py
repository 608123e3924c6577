"""Finds an award policy: by its name, from an entry point of another package, or in a file of the user's own."""

from collections.abc import Callable

from rakefarm.config import ConfigError
from rakefarm.market.policies import POLICIES
from rakefarm.market.policy import Policy, View
from rakefarm.plugins import find_plugin

ENTRY_POINTS = "rakefarm.awards"


def find_policy(name: str) -> Callable[[View], Policy]:
    """What makes the policy called `name`, `package's name` or `FILE.py:NAME`. Raises ConfigError."""
    return find_plugin("policy", name, POLICIES, ENTRY_POINTS, _checked)


def _checked(make: object, name: str) -> Callable[[View], Policy]:
    if not callable(make):
        raise ConfigError(f"policy {name}: is not a class or a function that takes a view")
    return make
