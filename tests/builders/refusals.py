"""What every refusal of a file has in common, whatever its format."""

from pathlib import Path

from medgen.data.integrity import check


def assert_refused(path: Path) -> None:
    """A check of the file finds one fault, which names it and says all three things in one line."""
    faults = check(path).faults
    assert len(faults) == 1
    fault = faults[0]
    assert fault.file == str(path)
    assert fault.found
    assert fault.expected
    assert fault.action
    assert "\n" not in str(fault)
