"""synthetic owns synthetic patients and their clinical history: seeded, valid R4, no real person.

`generate` and `generate_chart` yield resources one by one, `to_json_bytes` writes one as its JSON line, and `write_ndjson`
writes files by type. The mock server serves them.
"""

from __future__ import annotations

from mocks.synthetic.generator import generate, generate_chart, generate_patient, patient_id, shared_resources
from mocks.synthetic.json_bytes import to_json_bytes
from mocks.synthetic.ndjson_files import write_ndjson, write_resources

__all__ = [
    "generate",
    "generate_chart",
    "generate_patient",
    "patient_id",
    "shared_resources",
    "to_json_bytes",
    "write_ndjson",
    "write_resources",
]
