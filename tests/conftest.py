"""What several test files need."""

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The same arithmetic wherever the tests run."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def sms_file() -> Path:
    """The real UCI file."""
    path = SHARED / "sms" / "SMSSpamCollection"
    if not path.exists():
        pytest.skip(f"the UCI SMS file is not at {path}")
    return path
