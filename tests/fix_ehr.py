"""Mock EHRs for tests: a small hand-made data set, a key pair, and a factory that serves any vendor on a real socket."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from mocks.keys import KeyPair, make_key_pair
from mocks.mock_config import MockConfig
from mocks.serving import Served, serve

_KEYS: dict[str, KeyPair] = {}
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"


def key_pair(alg: str = "ES384") -> KeyPair:
    """A pair per algorithm and test session (RSA keys are slow to make)."""
    if alg not in _KEYS:
        _KEYS[alg] = make_key_pair(alg)  # type: ignore[arg-type]
    return _KEYS[alg]


def _line(kind: str, id_: str, rest: str, updated: str = "2026-01-02T03:04:05.000Z") -> bytes:
    meta = f'"meta":{{"versionId":"1","lastUpdated":"{updated}"}},'
    return f'{{"resourceType":"{kind}","id":"{id_}",{meta}{rest}}}'.encode()


def small_data(patients: int = 3, observations: int = 120) -> list[bytes]:
    """Resources as JSON bytes, with numbers in forms that a careless server or client would change.

    Each patient has more laboratory results than one page of any vendor but Epic (120 by default), vital signs, and one or two of
    every other type; Organization, Practitioner and Location belong to no patient. The first patient's data are the oldest.
    """
    found = [
        _line("Organization", "org-1", '"name":"Mercy  Hospital"'),
        _line("Practitioner", "prac-1", '"name":[{"family":"Doctor"}]'),
        _line("Location", "loc-1", '"name":"Ward 1"'),
    ]
    for n in range(1, patients + 1):
        who = f"pat-{n}"
        subject = f'"subject":{{"reference":"Patient/{who}"}}'
        patient = f'"patient":{{"reference":"Patient/{who}"}}'
        updated = f"2026-0{min(n, 9)}-01T00:00:00.000Z"
        identifier = f'[{{"system":"urn:oid:1.2.3","value":"MRN{n}"}}]'
        found += [
            _line(
                "Patient",
                who,
                f'"identifier":{identifier},"name":[{{"family":"Fam{n}","given":["Ann"]}}],"birthDate":"1980-01-0{n}"',
            ),
            _line("Encounter", f"enc-{n}", f'"status":"finished","class":{{"code":"AMB"}},{subject}', updated),
            _line("AllergyIntolerance", f"all-{n}", f'"category":["food"],"code":{{"text":"nuts"}},{patient}', updated),
            _line(
                "Immunization", f"imm-{n}", f'"status":"completed","vaccineCode":{{"text":"flu"}},{patient}', updated
            ),
            _line("Procedure", f"proc-{n}", f'"status":"completed",{subject}', updated),
            _line("MedicationRequest", f"mr-{n}", f'"status":"active","intent":"order",{subject}', updated),
            _line("DiagnosticReport", f"dr-{n}", f'"status":"final","code":{{"text":"CBC"}},{subject}', updated),
            _line("DocumentReference", f"doc-{n}", f'"status":"current","content":[],{subject}', updated),
        ]
        for c, category in enumerate(("problem-list-item", "encounter-diagnosis")):
            found.append(
                _line(
                    "Condition",
                    f"con-{n}-{c}",
                    f'"category":[{{"coding":[{{"code":"{category}"}}]}}],{subject}',
                    updated,
                )
            )
        for o in range(observations):
            category = "vital-signs" if o % 4 == 0 else "laboratory"
            coded = f'"category":[{{"coding":[{{"system":"{_CATEGORY}","code":"{category}"}}]}}]'
            value = ("1.0", "7.20", "1234567890.12345678901234567890", "0.000001")[o % 4]
            code = '"code":{"coding":[{"system":"http://loinc.org","code":"8867-4"}]}'
            found.append(
                _line(
                    "Observation",
                    f"obs-{n}-{o}",
                    f'"status":"final",{coded},{code},{subject},"valueQuantity":{{"value":{value}}}',
                    updated,
                )
            )
    return found


@dataclass(frozen=True)
class ServedEhr:
    """A running mock with the client's private JWK."""

    served: Served
    key: KeyPair

    def __getattr__(self, name: str) -> Any:
        return getattr(self.served, name)


ServeEhr = Callable[..., ServedEhr]


@contextlib.contextmanager
def running_ehr(vendor: str = "generic", *, alg: str | None = None, **knobs: Any) -> Iterator[ServedEhr]:
    """Serve one vendor's mock with small data, no waiting between polls, and a registered key; knobs are MockConfig's."""
    key = key_pair(alg or ("RS256" if vendor == "va" else "ES384"))
    settings: dict[str, Any] = {"data": small_data(), "jwks": key.jwks, "polls": 1, "retry_after_s": 0, **knobs}
    with serve(MockConfig(vendor=vendor, **settings)) as served:  # type: ignore[arg-type]
        yield ServedEhr(served, key)


@pytest.fixture
def serve_ehr() -> Iterator[ServeEhr]:
    """Factory: `serve_ehr("epic", latency_s=0.05)` gives a running mock that ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(vendor: str = "generic", **knobs: Any) -> ServedEhr:
            return stack.enter_context(running_ehr(vendor, **knobs))

        yield start
