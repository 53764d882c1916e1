import pytest

# the conformance cases live in a module that pytest does not collect by itself
pytest.register_assert_rewrite("tests.brokers.conformance")
