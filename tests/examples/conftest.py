"""Examples are scripts beside each other, so their folder goes on the path as Python would put it there."""

import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
