"""rakefarm: compile and link across every idle core of a lab, placed by live cost quotes."""

import sys

if "msgspec" not in sys.modules and "typing_extensions" not in sys.modules:
    # msgspec would rather have from there what `typing` has, too, and where it is installed it takes 10 ms to import.
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    import msgspec  # noqa: F401 - everything of ours imports it

    del sys.modules["typing_extensions"]

__version__ = "0.1.0"
