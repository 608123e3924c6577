"""`python3 -m rakefarm`: the same as `rakefarm`."""

import sys

from rakefarm.cli import main

sys.exit(main())
