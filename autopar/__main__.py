"""``python -m autopar``: the command line."""

import sys

from autopar.cli.main import main

sys.exit(main())
