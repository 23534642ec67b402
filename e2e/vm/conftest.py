"""One guest for all modules here: it takes a minute or two to boot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.vm.guest import Guest


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    made = Guest(tmp_path_factory.mktemp("vm"))
    yield made
    made.close()
