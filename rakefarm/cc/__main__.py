"""`python3 -m rakefarm.cc`: the same as `rakefarm cc`."""

import sys

from rakefarm.cc.entry import main

sys.exit(main(sys.argv[1:]))
