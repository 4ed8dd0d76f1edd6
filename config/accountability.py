"""The tables `[audit]` and `[roles]` of the configuration: who must give a reason, and who is in which role.

`cli/acting.py` makes the actor of a command by them; `snapshots` keeps the audit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from config.errors import Problem
from config.quoted_values import shown


class AuditRules(BaseModel):
    """What the audit requires, and how long it is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    require_reason: bool = False  # commands that read charts refuse to begin without --reason
    keep_years: Annotated[int, Field(ge=1)] = 6  # 45 CFR 164.316(b)(2)(i): six years


def roles_of(name: str, roles: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the roles in which `[roles]` lists this name, in order."""
    return tuple(sorted(role for role, names in roles.items() if name in names))


def role_problems(table: Mapping[str, object]) -> tuple[dict[str, tuple[str, ...]], list[Problem]]:
    """Read `[roles]`: a list of names for each role. Return what could be read, and the problems."""
    roles: dict[str, tuple[str, ...]] = {}
    problems = []
    for role, names in table.items():
        if "," in role:
            problems.append(Problem(f"roles.{role}", repr(role), "a name without commas"))
        elif isinstance(names, list) and all(isinstance(name, str) for name in names):
            roles[role] = tuple(names)
        else:
            problems.append(Problem(f"roles.{role}", shown(role, names), 'a list of users: ["ana", "ben"]'))
    return roles, problems
