"""The description by OpenAPI beside what the gateway does: schemathesis makes requests from it, right and wrong ones, and reads each
response by it. Every status, media type and field that comes must be described; a request that the schema refuses must be refused."""
import copy
import json
import subprocess

import hypothesis
import jsonschema_rs
import pytest
import requests
import schemathesis
from urllib3.util import Retry
from schemathesis.specs.openapi import checks

from conftest import BINARY

DOCUMENT = json.loads(subprocess.run([BINARY, "contract", "openapi"], capture_output=True, check=True, text=True).stdout)
schema = schemathesis.openapi.from_dict(DOCUMENT)
# What they find wrong is the source's or the log's to say, not the description's: no record, a check digit, a dossier that is there already.
EXPLAINED = {
    "RECORD_NOT_FOUND", "RECORD_EXISTS", "SOURCE_REJECTED", "SOURCE_FAILED", "SOURCE_NOT_READY", "SOURCE_ABORTED",
    "SOURCE_ALREADY_EXISTS", "SOURCE_PRECONDITION_FAILED", "SOURCE_OUT_OF_RANGE",
}


@pytest.fixture(scope="session")
def caller(stage, token):
    session = requests.Session()
    session.trust_env = False
    # New connections of one address are limited.
    session.mount("https://", requests.adapters.HTTPAdapter(max_retries=Retry(total=20, backoff_factor=0.2)))
    session.cert = (str(stage.folder / "pki/one-stop-shop.pem"), str(stage.folder / "pki/one-stop-shop.key"))
    session.verify = str(stage.folder / "pki/ca.pem")
    session.headers["authorization"] = f"Bearer {token}"
    session.base = stage.https
    return session


def test_the_gateway_serves_the_same_document(caller):
    served = caller.get(f"{caller.base}/v1/openapi.json").json()
    assert set(served["paths"]) == set(DOCUMENT["paths"])
    for path, described in served["paths"].items():
        # An example may have an id of its own, so that it can be sent twice.
        expected = copy.deepcopy(DOCUMENT["paths"][path])
        for one in (described, expected):
            del one["post"]["requestBody"]["content"]["application/json"]["example"]
        assert described == expected, path
    assert served["components"]["schemas"] == DOCUMENT["components"]["schemas"]


def without_absent(value):
    """A message without what Protobuf's JSON mapping reads as absent: null and empty values."""
    if isinstance(value, dict):
        kept = {name: without_absent(inner) for name, inner in value.items()}
        return {name: inner for name, inner in kept.items() if inner not in (None, "", [])}
    return [without_absent(one) for one in value] if isinstance(value, list) else value


def fits(case):
    """Whether a request is one of the schema's after all, once what means nothing is left out."""
    reference = DOCUMENT["paths"][case.path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema_rs.validator_for({**reference, "components": DOCUMENT["components"]})
    return validator.is_valid(without_absent(case.body))


@schema.parametrize()
@hypothesis.settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck))
def test_each_response_is_described(case, caller):
    response = case.call(base_url=caller.base, session=caller, verify=caller.verify, cert=caller.cert)
    case.validate_response(response, checks=[
        checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance,
        checks.response_headers_conformance,
    ])
    if case.meta.generation.mode.is_negative and response.status_code == 200:
        assert fits(case), f"accepted although the schema refuses it: {case.body}"
    if response.status_code >= 500:
        reason = response.json()["reason"]
        assert reason in EXPLAINED, f"{reason}: {response.text}"
