"""Third-party OAuth2 libraries get a token and use it, unchanged."""
import authlib.integrations.requests_client as authlib_client
import grpc
import pytest
import requests
from authlib.jose import JsonWebKey, jwt
from oauthlib.oauth2 import BackendApplicationClient
from conftest import eventually, eventually_refused
from requests_oauthlib import OAuth2Session


@pytest.fixture(scope="module")
def web(stage):
    config = (stage.folder / "gateway.toml").read_text()
    return "https://" + config.split('https = "')[1].split('"')[0]


@pytest.fixture(scope="module")
def tls(stage):
    pki = stage.folder / "pki"
    return {"verify": str(pki / "ca.pem"), "cert": (str(pki / "one-stop-shop.pem"), str(pki / "one-stop-shop.key"))}


def post(web, tls, path, **form):
    return requests.post(web + path, data=form, timeout=5, **tls)


def call(stage, token, path="/ndxp.budgetunit.v1.BudgetUnitService/GetUnit", message=b"\n\x071057000"):
    with stage.channel("one-stop-shop") as channel:
        ask = channel.unary_unary(path)
        return ask(message, metadata=[("authorization", f"Bearer {token}")], timeout=5)


def test_the_metadata_leads_to_everything(web, tls):
    metadata = requests.get(web + "/.well-known/oauth-authorization-server", verify=tls["verify"], timeout=5)
    assert "max-age" in metadata.headers["cache-control"]
    metadata = metadata.json()
    assert metadata["issuer"] == web and metadata["tls_client_certificate_bound_access_tokens"] is True
    assert metadata["token_endpoint"] == web + "/oauth2/token"
    assert requests.get(metadata["jwks_uri"], verify=tls["verify"], timeout=5).json()["keys"]


def test_authlib_gets_a_token_that_works_and_verifies_it(stage, web, tls):
    # authlib sends client_id in the body; the certificate identifies the client (RFC 8705, section 2.1).
    session = authlib_client.OAuth2Session("one-stop-shop", token_endpoint_auth_method="none")
    token = session.fetch_token(web + "/oauth2/token", grant_type="client_credentials", scope="budgetunit:read", **tls)
    assert token["token_type"] == "Bearer" and token["scope"] == "budgetunit:read"
    assert call(stage, token["access_token"])
    keys = JsonWebKey.import_key_set(requests.get(web + "/oauth2/jwks.json", verify=tls["verify"], timeout=5).json())
    claims = jwt.decode(token["access_token"], keys)
    claims.validate()
    assert claims["client_id"] == "one-stop-shop" and claims.header["typ"] == "at+jwt"
    # Narrowed: another operation is not in it.
    with pytest.raises(grpc.RpcError) as refused:
        call(stage, token["access_token"], "/ndxp.catalogue.v1.CatalogueService/GetSchema", b"\n\x08madantoc")
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_requests_oauthlib_gets_a_token_that_works(stage, web, tls):
    session = OAuth2Session(client=BackendApplicationClient("one-stop-shop"))
    token = session.fetch_token(web + "/oauth2/token", include_client_id=True, client_secret="", **tls)
    assert call(stage, token["access_token"])


def test_errors_are_those_of_rfc_6749(web, tls):
    cases = [
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({}, 400, "invalid_request"),
        ({"grant_type": "client_credentials", "scope": "moon:read"}, 400, "invalid_scope"),
        ({"grant_type": "client_credentials", "client_id": "other"}, 401, "invalid_client"),
    ]
    for form, status, error in cases:
        answer = post(web, tls, "/oauth2/token", **form)
        assert (answer.status_code, answer.json()["error"]) == (status, error), form
        assert answer.headers["cache-control"] == "no-store"
    twice = requests.post(web + "/oauth2/token", data=[("grant_type", "client_credentials")] * 2, timeout=5, **tls)
    assert twice.json()["error"] == "invalid_request"
    no_form = requests.post(web + "/oauth2/token", json={"grant_type": "client_credentials"}, timeout=5, **tls)
    assert no_form.json()["error"] == "invalid_request"
    nobody = requests.post(web + "/oauth2/token", data={"grant_type": "client_credentials"}, verify=tls["verify"], timeout=5)
    assert (nobody.status_code, nobody.json()["error"]) == (401, "invalid_client")
    assert requests.get(web + "/oauth2/token", timeout=5, **tls).status_code == 405
    assert requests.post(web + "/oauth2/token", data="x" * 100_000, timeout=5, **tls).status_code == 413


def test_introspection_and_revocation(stage, web, tls):
    fetched = post(web, tls, "/oauth2/token", grant_type="client_credentials").json()["access_token"]
    told = post(web, tls, "/oauth2/introspect", token=fetched).json()
    assert told["active"] is True and told["client_id"] == "one-stop-shop" and told["cnf"]["x5t#S256"]
    assert post(web, tls, "/oauth2/introspect", token="nonsense").json() == {"active": False}

    # Another client may neither see nor revoke it.
    stage.cli("certs", "issue", "other", "--folder", "pki")
    stage.cli("client", "add", "other", "--agency", "H49.3")
    pki = stage.folder / "pki"
    other = {"verify": tls["verify"], "cert": (str(pki / "other.pem"), str(pki / "other.key"))}
    eventually(lambda: post(web, other, "/oauth2/introspect", token=fetched).status_code == 200, "the other client is known")
    assert post(web, other, "/oauth2/introspect", token=fetched).json() == {"active": False}
    refused = post(web, other, "/oauth2/revoke", token=fetched)
    assert (refused.status_code, refused.json()["error"]) == (400, "unauthorized_client")
    assert post(web, tls, "/oauth2/introspect", token=fetched).json()["active"] is True
    # Unless it is allowed to introspect.
    stage.cli("grant", "add", "--client", "other", "--scope", "gateway:introspect", "--field", "*", "--legal-basis", "test")
    eventually(lambda: post(web, other, "/oauth2/introspect", token=fetched).json()["active"], "it may introspect")

    assert call(stage, fetched)
    assert post(web, tls, "/oauth2/revoke", token=fetched).status_code == 200
    assert eventually_refused(lambda: call(stage, fetched), "TOKEN_REVOKED").code() == grpc.StatusCode.UNAUTHENTICATED
    assert post(web, tls, "/oauth2/introspect", token=fetched).json() == {"active": False}
    assert post(web, tls, "/oauth2/revoke", token="nonsense").status_code == 200


def test_keys_rotate_with_overlap_and_eddsa_works(stage, web, tls):
    before = post(web, tls, "/oauth2/token", grant_type="client_credentials").json()["access_token"]
    stage.cli("keys", "rotate", "--algorithm", "eddsa", "--now")
    published = lambda: requests.get(web + "/oauth2/jwks.json", verify=tls["verify"], timeout=5).json()["keys"]
    eventually(lambda: len(published()) == 2, "the new key is published")
    keys = published()
    after = post(web, tls, "/oauth2/token", grant_type="client_credentials").json()["access_token"]
    assert [key["alg"] for key in keys] == ["ES256", "EdDSA"]
    claims = jwt.decode(after, JsonWebKey.import_key_set({"keys": keys}))
    assert claims.header["alg"] == "EdDSA"
    assert call(stage, before) and call(stage, after)


def test_token_requests_are_in_the_log(stage):
    found = stage.cli("--output", "json", "audit", "search", "--client", "one-stop-shop", "--limit", "200")
    assert found.count('"token.fetch"') >= 4
    assert "verified" in stage.cli("audit", "verify")
