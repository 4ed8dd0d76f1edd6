"""Who acts: account, --as, roles, and the reason that a configuration may demand."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
import typer

from cli.acting import account, actor_of
from cli.invocation import Invocation
from config.accountability import AuditRules
from config.encryption import Encryption
from config.settings import Settings

SETTINGS = Settings(source=Path("chartferry.toml"), roles={"research": ("ana", "ben"), "nurse": ("ana",)})
SEALED = SETTINGS.model_copy(update={"encryption": Encryption(shown_to=("nurse",))})
STRICT = SETTINGS.model_copy(update={"audit": AuditRules(require_reason=True)})


def test_the_account_is_the_processes_own_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    assert account() == pwd.getpwuid(os.getuid()).pw_name
    actor = actor_of(Invocation(), SETTINGS, reads_charts=True)
    assert (actor.name, actor.login, actor.roles, actor.reason) == (account(), account(), (), None)


def test_who_acts_for_another_is_known_beside_the_other_whose_roles_apply() -> None:
    actor = actor_of(Invocation(acting_as="ana", reason="ticket 7"), SETTINGS, reads_charts=True)
    assert (actor.name, actor.account, actor.roles, actor.reason) == (
        "ana",
        account(),
        ("nurse", "research"),
        "ticket 7",
    )


def test_a_reason_that_the_configuration_demands_is_demanded_for_charts_only() -> None:
    with pytest.raises(typer.BadParameter, match=r"requires a reason for reading charts.*--reason"):
        actor_of(Invocation(), STRICT, reads_charts=True)
    assert actor_of(Invocation(), STRICT, reads_charts=False).reason is None
    assert actor_of(Invocation(reason="audit of June"), STRICT, reads_charts=True).reason == "audit of June"


@pytest.mark.parametrize(
    ("who", "glass", "masked", "broke"),
    [
        ("ana", None, False, None),
        ("ben", None, True, None),
        ("ben", "ward 3", False, "ward 3"),
        ("ana", "x", False, None),
    ],
)
def test_who_is_in_no_role_that_sees_what_is_encrypted_is_masked_unless_the_glass_is_broken(
    who: str, glass: str | None, masked: bool, broke: str | None
) -> None:
    actor = actor_of(Invocation(acting_as=who, break_glass=glass), SEALED, reads_charts=True)
    assert (actor.masked, actor.broke_glass, actor.reason) == (masked, broke, glass)
    assert actor_of(Invocation(acting_as="ben"), SETTINGS, reads_charts=True).masked is False


@pytest.mark.parametrize("nothing", ["", " ", "\n\t"])
def test_white_space_is_no_reason_to_read_charts_and_none_to_lift_a_mask(nothing: str) -> None:
    with pytest.raises(typer.BadParameter, match="requires a reason"):
        actor_of(Invocation(reason=nothing), STRICT, reads_charts=True)
    with pytest.raises(typer.BadParameter, match="--break-glass needs a reason"):
        actor_of(Invocation(acting_as="ben", break_glass=nothing), SEALED, reads_charts=True)
    assert actor_of(Invocation(reason=" ticket 7 "), STRICT, reads_charts=True).reason == "ticket 7"
