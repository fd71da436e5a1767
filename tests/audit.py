"""Known vulnerabilities of what is installed: python -m tests.audit, which .ci/run calls.

pip-audit asks PyPI.  It ends well, too, for a package that PyPI tells it nothing about, and so where PyPI cannot be
reached: this says how many packages it has learned about.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def outcome(packages: Sequence[dict[str, Any]]) -> tuple[str, int]:
    """Return what to say of the packages in pip-audit's JSON, and the exit code: 1 where an upgrade would help one."""
    known = [one for one in packages if "vulns" in one]
    found = [
        f"{one['name']} {one['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'no version yet'}"
        for one in known
        for flaw in one["vulns"]
    ]
    if not known:
        return "audit: NOT DONE, because PyPI's list of vulnerabilities cannot be reached from here.", 0
    told = f"audit: {len(known)} of {len(packages)} packages are known there, {len(found)} vulnerabilities."
    return "\n".join([told, *found]), int(any(flaw["fix_versions"] for one in known for flaw in one["vulns"]))


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", "-s", "pypi", "-f", "json", "--progress-spinner", "off"]
    done = subprocess.run([*command, "--skip-editable"], capture_output=True, text=True, timeout=300)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:  # it stops without JSON where there is no network
        print(done.stderr[-300:])
        packages = []
    told, code = outcome(packages)
    print(told)
    return code


if __name__ == "__main__":
    sys.exit(main())
