"""mocks owns a believable EHR server that imitates each vendor; it shares no code with the client that it tests.

    from mocks.keys import make_key_pair
    from mocks.mock_config import MockConfig
    from mocks.serving import run_forever, serve

    key = make_key_pair("ES384")
    with serve(MockConfig(vendor="cerner", data=Path("ndjson/"), jwks=key.jwks)) as ehr:
        ehr.base_url, ehr.token_url, ehr.audience, ehr.client_id, ehr.group_ids, ehr.patient_ids
        ehr.dataset.replace(resource); ehr.dataset.delete("Condition", "c1")
        ehr.faults.add({"match": {"purpose": "file"}, "nth": 2, "action": {"cut_after_bytes": 1000}})
        ehr.log.of("search", "Observation"); ehr.log.max_concurrency

mock_config has every option, faults the fields of a fault script, manners/ what each vendor does differently and why.
`run_forever` serves one mock in a separate process.
"""
