"""The suites live in the core: their asserts explain themselves as those of tests do."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("runtime_core.testing")
