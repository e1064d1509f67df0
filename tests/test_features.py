"""The tables of docs/adapters/features.rst are what the adapters do."""

from tests.features import PAGE, page


def test_the_tables_of_features_are_up_to_date() -> None:
    current = PAGE.read_text(encoding="utf-8")
    assert page(current) == current, "write the tables again: python -m tests.features"
