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


def test_the_account_is_the_processs_own_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    assert account() == pwd.getpwuid(os.getuid()).pw_name
    actor = actor_of(Invocation(), SETTINGS, reads_charts=True)
    assert (actor.name, actor.login, actor.roles, actor.reason) == (account(), account(), (), None)


def test_a_person_acting_for_another_is_recorded_and_the_others_roles_apply() -> None:
    actor = actor_of(Invocation(acting_as="ana", reason="ticket 7"), SETTINGS, reads_charts=True)
    assert (actor.name, actor.account, actor.roles, actor.reason) == (
        "ana",
        account(),
        ("nurse", "research"),
        "ticket 7",
    )


def test_a_required_reason_is_required_only_for_reading_charts() -> None:
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
def test_encrypted_values_are_masked_without_a_permitted_role_unless_the_glass_is_broken(
    who: str, glass: str | None, masked: bool, broke: str | None
) -> None:
    actor = actor_of(Invocation(acting_as=who, break_glass=glass), SEALED, reads_charts=True)
    assert (actor.masked, actor.broke_glass, actor.reason) == (masked, broke, glass)
    assert actor_of(Invocation(acting_as="ben"), SETTINGS, reads_charts=True).masked is False


def test_a_command_that_opens_no_encrypted_value_masks_none_and_still_needs_a_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    actor = actor_of(Invocation(acting_as="ben", break_glass="ward 3"), SEALED, reads_charts=True, opens_values=False)
    assert (actor.broke_glass, capsys.readouterr().err) == (None, "")
    with pytest.raises(typer.BadParameter, match="requires a reason"):
        actor_of(Invocation(), STRICT, reads_charts=True, opens_values=False)


@pytest.mark.parametrize("nothing", ["", " ", "\n\t"])
def test_white_space_does_not_count_as_a_reason_to_read_charts_or_lift_a_mask(nothing: str) -> None:
    with pytest.raises(typer.BadParameter, match="requires a reason"):
        actor_of(Invocation(reason=nothing), STRICT, reads_charts=True)
    with pytest.raises(typer.BadParameter, match="--break-glass needs a reason"):
        actor_of(Invocation(acting_as="ben", break_glass=nothing), SEALED, reads_charts=True)
    assert actor_of(Invocation(reason=" ticket 7 "), STRICT, reads_charts=True).reason == "ticket 7"
