"""The page of what comes from outside has a check and a test for each input; that these are there
is checked with all pages."""

from documentation import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text()


def test_each_input_has_a_check_and_a_test():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and line.count(" | ") == 3][
        1:
    ]
    assert len(rows) > 15
    assert all("tests/" in row.split(" | ")[3] and ".py:" in row.split(" | ")[2] for row in rows)
