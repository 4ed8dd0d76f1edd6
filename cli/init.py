"""`chartferry init`: write a commented chartferry.toml, and say what to do next.

Tests load the template as it is, and every example in it with its "#:" removed.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cli.exit_codes import ExitCode
from cli.invocation import invocation_of, program
from cli.render import emit_json, print_line
from config.settings import FILE_NAME

TEMPLATE = """\
# chartferry.toml: where the EHRs are, how to log in to them, and where to keep the charts.
# Lines that begin with "#:" are examples: remove the "#:" and fill in your own values.
# `chartferry config check` lists every mistake. Relative paths are relative to this file.

[store]
# "embedded" runs a private Postgres in your data directory (root: /var/lib/chartferry), "embedded:DIR" one in DIR.
# To use your own server (15 or later), give its URL: "postgresql://chartferry@db.example.org/charts"; or "env:NAME", which
# takes the whole URL, including the password, from the environment.
url = "embedded"

# Organisations whose data must never mix. Optional: without a tenant, a connection belongs to "default".
#: [tenants.mercy]
#: label = "Mercy Hospital"

# One table per EHR endpoint. Choose the name: lower-case letters, digits, - and _.

# Epic, by SMART backend login. Register the public key with the client id at fhir.epic.com.
#: [connections.mercy-epic]
#: tenant = "mercy"
#: vendor = "epic"                         # the examples below show the others
#: base_url = "https://ehr.example.org/interconnect/api/FHIR/R4"
#: client_id = "0a1b2c3d-0000-0000-0000-000000000000"
#: key = "file:keys/mercy-epic.jwk.json"   # private key: JWK, JWKS or PEM; or "env:NAME"
#: key_passphrase = "env:MERCY_PASSPHRASE" # if the key is encrypted
#: kid = "2026-01"                         # default: the one in the key file
#: cohort = "file:cohort.csv"              # the patients to crawl: FHIR ids, one per line; or MRNs with cohort_system
#: cohort_system = "urn:oid:1.2.840.114350.1.13.0.1.7.5.737384.0"
#: types = ["Patient", "Condition", "Observation", "MedicationRequest"]   # default: the vendor profile's
#: schedule = "15 2 * * *"                 # for your information: when cron runs it
#: profile = { limits.max_concurrency = 3, search.page_size = 100 }   # any value of the vendor profile

# Oracle Health (Cerner), bulk export of one Group.
#: [connections.st-lukes]
#: vendor = "cerner"
#: base_url = "https://fhir-ehr.example.org/r4/ec2458f2-1e24-41c8-b71b-0ea8b7e5a0d2"
#: client_id = "11111111-2222-3333-4444-555555555555"
#: key = "env:ST_LUKES_KEY"
#: group = "e3iabhmS8rsueyz7"
#: mode = "bulk"                           # auto | bulk | crawl
#: bulk = { include_associated_data = ["LatestProvenanceResources"] }   # also until, type_filters, elements, organize_by
#: scopes = ["system/Patient.read", "system/Observation.read"]   # default: by type, in the server's syntax

# Allscripts / Veradigm, with a client secret.
#: [connections.clinic]
#: vendor = "allscripts"
#: base_url = "https://fhir.example.com/R4/open"
#: client_id = "clinic-analytics"
#: client_secret = "env:CLINIC_SECRET"
#: group = "all-patients"

# VA Lighthouse, one token per patient (ICNs in the cohort file).
#: [connections.va]
#: vendor = "va"
#: base_url = "https://sandbox-api.va.gov/services/fhir/v0/r4"
#: client_id = "0oa00000000000000000"
#: key = "file:keys/va.pem"
#: alg = "RS256"                           # default: what the vendor and the key require
#: kid = "va-2026"
#: cohort = "file:icns.txt"

# Any FHIR R4 server. If it requires no login, the base URL is enough.
#: [connections.sandbox]
#: vendor = "generic"
#: base_url = "https://hapi.example.org/fhir"
#: validate = "sample"                     # off | sample | all: check resources against FHIR R4B
#: ca_bundle = "certs/our-ca.pem"
#: client_cert = "certs/us.pem"
#: client_cert_key = "certs/us.key"
#: proxy = "http://proxy.example.org:3128"

# Behind a gateway that issues tokens itself.
#: [connections.gateway]
#: vendor = "generic"
#: base_url = "https://gateway.example.org/fhir"
#: bearer_token = "env:GATEWAY_TOKEN"

# Who receives published datasets: `chartferry submit` (docs/submit.md). It logs in as connections do.
#: [receivers.registry]
#: base_url = "https://registry.example.org/fhir"
#: submitter = "urn:oid:2.16.840.1.113883.4.6|1234567893"   # under which identifier it knows us
#: client_id = "chartferry"
#: key = "file:keys/registry.jwk.json"
#: file_request_headers = { Authorization = "env:FILES_TOKEN" }   # with these it asks for our files
#: oauth_metadata_url = "https://data.example.org/.well-known/smart-configuration"   # or gets a token there

# Defaults for `chartferry export`.
#: [export]
#: out = "export"                           # or a URL: s3://bucket/charts, sftp://user@host/charts
#: format = ["ndjson", "csv"]
#: views = ["patient", "observation"]      # default: all built-in views
#: safe_harbor_key = "env:SAFE_HARBOR_KEY"  # of --profile safe-harbor: docs/safe-harbor.md
#: refresh_views = true                     # materialised SQL views (`views create`), after each sync

# Who reads charts, and why: docs/audit.md. `chartferry audit` shows who saw a patient.
#: [audit]
#: require_reason = true                   # commands that read charts demand --reason
#: keep_years = 6

#: [roles]
#: research = ["ana", "ben"]               # accounts, or names given with --as
"""

EXAMPLES = ("chartferry init", "chartferry init site/chartferry.toml")

NEXT = """\
wrote {path}

next:
  1. remove "#:" from the example that is closest to your EHR, and fill in your own values
  2. {program} config check{config}
  3. {program} sync{config}
  4. {program} export{config} --out export

nothing to connect to yet?  {program} demo
"""


def init(
    context: typer.Context,
    out: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Where to write; default: ./chartferry.toml", show_default=False),
    ] = None,
) -> int:
    """Write a commented chartferry.toml. Never overwrites an existing file."""
    invocation = invocation_of(context)
    tenant = invocation.tenant
    path = out or invocation.config or Path("chartferry.toml")
    text = TEMPLATE if tenant is None else TEMPLATE.replace('"mercy"', f'"{tenant}"').replace(".mercy]", f".{tenant}]")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except (FileExistsError, NotADirectoryError) as exc:
        if not path.is_file():
            raise typer.BadParameter(f"{path} cannot be written: {exc.strerror}") from None
        raise typer.BadParameter(f"{path} already exists and was not changed; name another file") from None
    except OSError as exc:
        raise typer.BadParameter(f"{path} cannot be written: {exc.strerror}") from None
    if invocation.json:
        emit_json({"status": "complete", "path": path.resolve()})
    else:
        found = path.resolve() == Path(FILE_NAME).resolve()
        print_line(
            NEXT.format(path=path, program=program(), config="" if found else f" --config {shlex.quote(str(path))}")
        )
    return ExitCode.COMPLETE
