"""`python3 -m rakefarm.client`: the same as `rake-p`."""

import sys

from rakefarm.cli import build_main

sys.exit(build_main())
