"""rakefarm: compile and link across every idle core of a lab, placed by live cost quotes."""

__version__ = "0.1.0"
