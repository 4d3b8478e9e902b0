"""PHP's SoapServer, node-soap, strong-soap and Java's JAX-WS as the population database, the first three by the WSDL that spyne makes."""
import contextlib
import json
import os
import pathlib
import re
import subprocess

import foreign
import pytest
from conftest import ROOT, eventually
from spyne import Application
from spyne.interface.wsdl import Wsdl11
from spyne.protocol.soap import Soap11
from test_foreign_spyne import REQUEST, Population, asked

HERE = pathlib.Path(__file__).parent / "sources"
JAVA = pathlib.Path("/usr/share/java")
NODE_MODULES = pathlib.Path(os.environ.get("NDXP_NODE_MODULES", ROOT / "target/npm/node_modules"))
# JAX-WS takes no application/xml, which the population database wants: the same operations as another source.
REGISTER = """
syntax = "proto3";
package ndxp.register.v1;
import "ndxp/contract/v1/contract.proto";
import "ndxp/population/v1/population.proto";
service RegisterService {
  option (ndxp.contract.v1.source) = {
    id: "register" name: "Register"
    outcome: { absent_is_success: true no_record: { path: "/CongdanCollection" } failure: { codes: "Client.Authentication" meaning: CREDENTIALS } }
  };
  %s
}
"""
METHOD = """
  rpc {0}(ndxp.population.v1.{0}Request) returns (ndxp.population.v1.{1}) {{
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = {{
      scope: "register:read" data_class: PERSONAL purpose_required: true subject: ["citizen_id"]
      soap: {{ request: "{2}" namespace: "http://dancuquocgia.bca" response: "{3}" response_namespace: "http://www.mic.gov.vn/dancu/1.0" }}
      response_root: "{4}"
    }};
  }}
"""
METHODS = [("VerifyCitizen", "VerifyCitizenResponse", "XacThucThongTinCongDan", "XacThucThongTinCongDanResponse", "KetQuaXacThuc"),
           ("GetCitizen", "Citizen", "TraCuuThongTinCongDan", "CongdanCollection", "CongDan"),
           ("GetHousehold", "Household", "TraCuuThongTinHoGiaDinh", "TraCuuThongTinHoGiaDinhResponse", "HoGiaDinh")]


@pytest.fixture(scope="module")
def wsdl(tmp_path_factory):
    """Without parts that other readers reject: messages are in the target namespace, and the transport is HTTP."""
    made = Wsdl11(Application([Population], tns=REQUEST, in_protocol=Soap11(), out_protocol=Soap11()).interface)
    made.build_interface_document("http://localhost/")
    text = made.get_interface_document().decode().replace('message="s0:', 'message="tns:')
    file = tmp_path_factory.mktemp("wsdl") / "population.wsdl"
    file.write_text(re.sub('transport="[^"]*"', 'transport="http://schemas.xmlsoap.org/soap/http"', text))
    return file


@contextlib.contextmanager
def php(stage, wsdl, folder):
    port = foreign.free_port()
    with foreign.program(stage, "php", "-S", f"127.0.0.1:{port}", HERE / "population.php", port=port, WSDL=str(wsdl)) as front:
        yield front


@contextlib.contextmanager
def node(stage, wsdl, folder, package="soap"):
    pki = stage.folder / "pki"
    command = ["node", HERE / "population.js", NODE_MODULES, package, wsdl, pki / "sandbox.pem", pki / "sandbox.key", pki / "ca.pem"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(timeout=20)


def strong(stage, wsdl, folder):
    return node(stage, wsdl, folder, "strong-soap")


@contextlib.contextmanager
def java(stage, wsdl, folder):
    ways = os.pathsep.join(str(jar) for jar in JAVA.glob("*.jar") if "-jdk9" not in jar.name or "jaxws" not in jar.name)
    subprocess.run(["javac", "-encoding", "UTF-8", "-cp", ways, "-d", folder, HERE / "Population.java"], check=True, timeout=120)
    port = foreign.free_port()
    command = ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-cp", f"{folder}{os.pathsep}{ways}", "Population", str(port)]
    with foreign.program(stage, *command, port=port) as front:
        yield front


def granted(stage):
    """A grant of all that the new source has; once its contract is loaded, by two people."""
    try:
        grant = stage.cli("--output", "json", "grant", "add", "--client", "one-stop-shop", "--scope", "register:read", "--purpose", "*",
                          "--field", "*", "--legal-basis", "test")
    except AssertionError:
        return False
    with contextlib.suppress(AssertionError):
        stage.cli("grant", "approve", json.loads(grant)["id"], *stage.remote("approver"))
    return True


@pytest.fixture(scope="module", params=[php, node, strong, java], ids=["php", "node-soap", "strong-soap", "jax-ws"])
def caller(request, stage, token, wsdl, tmp_path_factory):
    caller = foreign.Caller(stage, token)
    source = "register" if request.param is java else "population"
    if request.param is java:
        folder = stage.folder / "contracts/ndxp/register/v1"
        folder.mkdir(parents=True)
        (folder / "register.proto").write_text(REGISTER % "".join(METHOD.format(*one) for one in METHODS))
        eventually(lambda: granted(stage), "the new source's scope is granted")
        stage.cli("token", "issue", "--client", "one-stop-shop", "--certificate", "pki/one-stop-shop.pem", "--out", "register.jwt")
        caller = foreign.Caller(stage, (stage.folder / "register.jwt").read_text())
    caller.service = f"ndxp.{source}.v1.{source.capitalize()}Service"
    household = f"{caller.service}/GetHousehold"
    with request.param(stage, wsdl, tmp_path_factory.mktemp("source")) as port:
        # The sandbox's own household of this number has other members.
        there = lambda: "Trần 3" in str(caller.attempt(household, {"citizenId": "022085455303"}))
        with foreign.instead(stage, source, port, caller, household, {"citizenId": "022085455303"}, reached=there):
            yield caller


def test_responses_are_mapped(caller):
    assert caller.call(f"{caller.service}/VerifyCitizen", asked("022085455303")) == {"matched": True}
    assert caller.call(f"{caller.service}/VerifyCitizen", asked("022085455303", "Nguyễn Văn B")) == {}
    assert caller.call(f"{caller.service}/GetCitizen", asked("022085455303")) == {
        "citizenId": "022085455303", "name": {"family": "Nguyễn", "given": "A"}, "birthDate": {"year": 1985, "month": 4, "day": 30}}
    household = caller.call(f"{caller.service}/GetHousehold", {"citizenId": "022085455303"})
    assert [member["name"]["given"] for member in household["members"]] == ["Trần 1", "Trần 2", "Trần 3"]
    assert [member["citizenId"] for member in household["members"]] == ["022085455301", "022085455302", "022085455303"]


@pytest.mark.parametrize("number, reason", [("022085455309", "RECORD_NOT_FOUND"), ("022085455308", "SOURCE_CREDENTIALS_REFUSED"),
                                            ("022085455307", "SOURCE_UNAVAILABLE")])
def test_absence_and_faults_are_distinguished(caller, number, reason):
    assert caller.refusal(f"{caller.service}/GetCitizen", asked(number)) == reason
