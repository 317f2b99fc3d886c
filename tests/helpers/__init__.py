"""What several test files share."""

from pathlib import Path

SHARED = Path(__file__).parents[3] / "shared" / "data"  # real data sets, where they are at hand
