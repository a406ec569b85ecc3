"""What an audit finds, and what a reader of its numbers must know."""

from __future__ import annotations

from fairgrape_jax.reports import cautions
from fairgrape_jax.reports.audit import Audit


def findings(audit: Audit) -> list[str]:
    """Which groups fare best and worst, where the samples tell.

    Args:
        audit: what was read and counted.

    Returns:
        A line each.
    """
    groups = audit.groups.names
    if audit.request.alone:
        return [line for one in audit.comparisons for line in cautions.findings_alone(one, groups)]
    return cautions.findings(audit.comparisons, groups)


def collect(audit: Audit) -> list[cautions.Caution]:
    """Cautions about these numbers, the gravest first.

    Args:
        audit: what was read and counted.
    """
    groups, tasks = audit.groups.names, audit.tasks
    return cautions.collect(audit.comparisons, groups, tasks, alone=audit.request.alone)


def warnings(audit: Audit) -> list[str]:
    """Cautions about these numbers, each once, the gravest first.

    Args:
        audit: what was read and counted.

    Returns:
        A line each.
    """
    return cautions.lines_of(collect(audit))
