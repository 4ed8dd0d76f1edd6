"""What a refusal means for a request."""

from __future__ import annotations

from typing import get_args

import pytest

from connectors.fhir.endings import What, ending_of
from connectors.fhir.errors import TerminalFetchError
from snapshots.unit import Ending


@pytest.mark.parametrize("what", get_args(What))
@pytest.mark.parametrize(
    ("speaker", "ending"),
    [("ehr", Ending.RESTRICTED), ("nobody", Ending.RESTRICTED), ("other", Ending.RESTRICTED), ("page", Ending.FAILED)],
)
def test_a_403_restricts_unless_it_is_a_web_page_which_may_be_a_gateways(what, speaker, ending):
    assert ending_of(TerminalFetchError("x", status=403, speaker=speaker), {}, what=what) is ending


@pytest.mark.parametrize("what", ["patient", "read"])
@pytest.mark.parametrize("speaker", ["page", "other"])
@pytest.mark.parametrize("status", [404, 410])
def test_a_404_or_410_that_is_not_the_ehrs_own_says_nothing_about_a_row(what, speaker, status):
    assert ending_of(TerminalFetchError("x", status=status, speaker=speaker), {}, what=what) is Ending.FAILED
