"""How many files this process may have open: what the system allows at first, and more where that is not enough."""

import contextlib
import resource


def allow_more() -> bool:
    """Raise the limit to the most that is allowed; False when it is there already. What is started from then on has the
    same."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return False
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return True
    return False
