"""`python3 -m rakefarm.server`: the same as `rakeserver`."""

import sys

from rakefarm.cli import serve_main

sys.exit(serve_main())
