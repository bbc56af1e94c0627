"""A package, for its conftest.py has what the tests import."""
