"""The served description: complete, and true for what is answered."""

from typing import Any

import jsonschema
import pytest

from recorder.protocol import Done
from tests.contract.conftest import World
