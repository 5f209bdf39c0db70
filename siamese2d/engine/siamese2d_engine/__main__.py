"""``python -m siamese2d_engine``."""

import sys

from siamese2d_engine.cli.main import main

sys.exit(main())
