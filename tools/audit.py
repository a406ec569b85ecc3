"""Known vulnerabilities of what is installed here, by pip-audit; and how much of it was looked up.

pip-audit alone says "No known vulnerabilities found" where its service knows none of the packages.
Ends with 0 if every package was looked up and none is vulnerable, 1 if one is, 2 if not all could
be looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def main(options: list[str]) -> int:
    """Run pip-audit with these options, say what it found, and return the exit code."""
    command = [sys.executable, "-m", "pip_audit", "--skip-editable", "--format", "json"]
    done = subprocess.run(
        [*command, "--progress-spinner", "off", *options],
        capture_output=True,
        text=True,
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or ["pip-audit says nothing"])[-1]
        print(f"not audited: the service cannot be reached ({last})")
        return 2
    code, lines = judged(packages)
    print("\n".join(lines))
    return code


def judged(packages: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """The exit code and what to say of pip-audit's list of packages.

    >>> judged([{"name": "a", "version": "1", "vulns": []}])
    (0, ['1 packages looked up, no known vulnerability'])
    >>> judged([{"name": "a", "skip_reason": "not found"}])
    (2, ['not audited: a (not found)', '0 of 1 packages looked up: no word on the others'])
    """
    others = [p for p in packages if p["name"] != "fairgrape-jax"]
    skipped = [p for p in others if "skip_reason" in p]
    vulnerable = [(p, v) for p in others for v in p.get("vulns", [])]
    lines = [
        f"{p['name']} {p['version']}: {v['id']}, mended in {', '.join(v['fix_versions']) or 'none'}"
        for p, v in vulnerable
    ]
    lines += [f"not audited: {p['name']} ({p['skip_reason']})" for p in skipped[:3]]
    if len(skipped) > 3:
        lines.append(f"not audited: {len(skipped) - 3} more")
    checked = len(others) - len(skipped)
    if skipped:
        lines.append(f"{checked} of {len(others)} packages looked up: no word on the others")
    else:
        number = f"{len(vulnerable)} known vulnerabilities" if vulnerable else ""
        lines.append(f"{checked} packages looked up, {number or 'no known vulnerability'}")
    return (1 if vulnerable else 2 if skipped else 0), lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
