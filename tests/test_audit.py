"""What the audit of CI says and when it fails."""

from tests.audit import outcome

SAFE = {"name": "numpy", "version": "2.4.6", "vulns": []}
UNKNOWN = {"name": "annspark", "skip_reason": "Dependency not found"}
FLAW = {"id": "PYSEC-2026-1", "fix_versions": ["9.1"]}


def test_a_vulnerable_package_fails_and_is_named():
    told, code = outcome([SAFE, UNKNOWN, {"name": "old", "version": "9.0", "vulns": [FLAW]}])
    assert code == 1
    assert told.splitlines() == [
        "audit: 2 of 3 packages are known there, 1 vulnerabilities.",
        "old 9.0: PYSEC-2026-1, fixed in 9.1",
    ]


def test_a_vulnerability_that_no_version_fixes_is_named_and_does_not_fail():
    told, code = outcome([{"name": "old", "version": "9.0", "vulns": [FLAW | {"fix_versions": []}]}])
    assert code == 0
    assert told.endswith("old 9.0: PYSEC-2026-1, fixed in no version yet")


def test_an_audit_of_nothing_says_so_and_does_not_fail():
    assert outcome([SAFE]) == ("audit: 1 of 1 packages are known there, 0 vulnerabilities.", 0)
    for packages in ([], [UNKNOWN]):
        told, code = outcome(packages)
        assert (code, "NOT DONE" in told) == (0, True)
