"""What a kick-off requests next, after each refusal: fewer patients, another form, or less. Pure.

`start` sends it; `kick_off` writes the forms and knows what may be left out.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

from connectors.fhir.bulk.kick_off import ExportParameters, Form, KickOffRefusal, next_try

# of an export of named patients: servers refuse all of them if they do not know one (HAPI: 404, 410)
NOT_FOUND = frozenset({404, 410})
_OF_PATIENTS = NOT_FOUND | {400, 422}
_NOT_THERE = frozenset({"not-found", "deleted"})
_MOST_TRIES = 12  # of forms, all different


class KickOffTries:
    """The parameters and the form to send next. Each step is a new one, so the steps end."""

    def __init__(self, parameters: ExportParameters, form: Form, dispensable: Container[str]) -> None:
        """`dispensable` are named patients who are left out if the server refuses them all."""
        self.parameters = parameters
        self.form = form
        self.first: KickOffRefusal | None = None  # of these patients
        self._dispensable = dispensable
        self._tried = [(parameters, form)]
        self._unchecked: Sequence[str] = parameters.patients
        # with the dispensable patients who are left out meanwhile: another form names them again
        self._whole: ExportParameters | None = None

    @property
    def number(self) -> int:
        """How many were tried."""
        return len(self._tried)

    def leave_out_dispensable(self, refusal: KickOffRefusal) -> bool:
        """Leave out the dispensable patients, if the refusal may be about one of them; return whether any was left out."""
        kept = _without(self.parameters, self._dispensable)
        if not kept.patients or kept == self.parameters or refusal.status not in _OF_PATIENTS:
            return False
        is_of_them = _is_of_a_patient(refusal)
        self._whole = None if is_of_them else self.parameters
        self.parameters = kept
        self._unchecked = self._unchecked and kept.patients
        if is_of_them:
            self._tried.append((kept, self.form))
        return True

    def unchecked(self, refusal: KickOffRefusal) -> Sequence[str]:
        """Return the named patients, once, if the refusal may be about one of them."""
        is_other = refusal.status not in _OF_PATIENTS or self._step(refusal) is not None
        if is_other and not _is_of_a_patient(refusal):
            return ()
        unchecked, self._unchecked = self._unchecked, ()
        return unchecked

    def name_only(self, known: tuple[str, ...]) -> bool:
        """Name only the patients whom the server knows; return False if that changes nothing, or leaves nobody.

        Among them may be new ones, into whom others were merged.
        """
        if not known or known == self.parameters.patients:
            return False
        if self._whole is not None:
            kept = _without(self._whole, {*self.parameters.patients}.difference(known))
            self._whole = replace(kept, patients=tuple(dict.fromkeys((*kept.patients, *known))))
        self.parameters, self.first = replace(self.parameters, patients=known), None
        self._tried.append((self.parameters, self.form))
        return True

    def change(self, refusal: KickOffRefusal) -> tuple[bool, str | None]:
        """Take the next form, or leave out a parameter; return whether there was one, and a note if less is requested."""
        self.first = self.first or refusal
        step = self._step(refusal)
        if step is None:
            return False, None
        self.parameters, self.form, note = step
        self._whole = None
        self._tried.append((self.parameters, self.form))
        return True, note

    def _step(self, refusal: KickOffRefusal) -> tuple[ExportParameters, Form, str | None] | None:
        if self.number >= _MOST_TRIES:
            return None
        return next_try(self._whole or self.parameters, self.form, refusal, self._tried)


def _without(parameters: ExportParameters, left_out: Container[str]) -> ExportParameters:
    """Return the same parameters without some of the named patients."""
    return replace(parameters, patients=tuple(one for one in parameters.patients if one not in left_out))


def _is_of_a_patient(refusal: KickOffRefusal) -> bool:
    """Return whether a refusal says that something does not exist."""
    by_code = refusal.status in _OF_PATIENTS and not _NOT_THERE.isdisjoint(refusal.codes)
    return refusal.status in NOT_FOUND or by_code
