"""The gateway's SOAP requests for every SOAP operation of the contracts, checked by lxml with schemas."""
import os
import pathlib

import foreign
import pytest
from conftest import ROOT
from lxml import etree

SCHEMAS = pathlib.Path(__file__).parent / "schemas"
# X-Road's own schemas (src/common of nordic-institute/X-Road), if present: xroad.xsd and identifiers.xsd.
OWN = pathlib.Path(os.environ.get("NDXP_XROAD_SCHEMAS", ROOT.parent / "shared/xroad"))
SOAP, XROAD = "{http://schemas.xmlsoap.org/soap/envelope/}", "{http://x-road.eu/xsd/xroad.xsd}"
SOURCES = {"population": ["VerifyCitizen", "GetCitizen", "GetHousehold"], "budgetunit": ["GetUnit", "RequestUnitCode"]}


@pytest.fixture(scope="module")
def emitted(stage, token, samples):
    """The envelopes of all SOAP operations, by operation, and the headers that they came with."""
    caller, found = foreign.Caller(stage, token), {}
    for source, names in SOURCES.items():
        seen = []
        server = foreign.HttpServer(("127.0.0.1", 0), foreign.handler(lambda _: (500, {}, b""), seen), foreign.tls(stage))
        requests = {one["operation"].split("/")[1]: one for one in samples if one["operation"].split(".")[1] == source}
        assert sorted(requests) == sorted(names)
        path, first = requests[names[0]]["operation"], requests[names[0]]["requests"][0]
        with foreign.serving(server) as port, foreign.instead(stage, source, port, caller, path, first, reached=lambda: bool(seen)):
            for name in names:
                seen.clear()
                reason = caller.refusal(requests[name]["operation"], requests[name]["requests"][0])
                # Whether a write was done is not known.
                assert reason == ("WRITE_OUTCOME_UNKNOWN" if name == "RequestUnitCode" else "SOURCE_UNAVAILABLE")
                found[name] = (etree.fromstring(seen[-1].body), seen[-1].headers)
    return found


def test_every_envelope_is_valid(emitted):
    schema = etree.XMLSchema(etree.parse(str(SCHEMAS / "envelope.xsd")))
    for name, (envelope, _) in emitted.items():
        schema.assertValid(envelope)
        assert len(envelope.find(f"{SOAP}Body")) == 1, name
    # The schema has an effect: a missing required element and an unknown one are detected.
    envelope = emitted["GetUnit"][0]
    for spoil in (lambda header: header.find(f"{XROAD}client").attrib.clear(),
                  lambda header: header.find(f"{XROAD}service").remove(header.find(f"{XROAD}service")[0]),
                  lambda header: header.find(f"{XROAD}client").append(header.find(f"{XROAD}client")[0]),
                  lambda header: etree.SubElement(header, f"{XROAD}purpose")):
        other = etree.fromstring(etree.tostring(envelope))
        spoil(other.find(f"{SOAP}Header"))
        assert not schema.validate(other)


def test_x_road_gets_each_block_once_and_the_headers_that_soap_requires(emitted):
    for name in SOURCES["budgetunit"]:
        envelope, headers = emitted[name]
        blocks = [block.tag for block in envelope.find(f"{SOAP}Header")]
        assert len(set(blocks)) == len(blocks) and {f"{XROAD}{one}" for one in ("client", "service", "id", "protocolVersion")} <= set(blocks)
        assert headers["content-type"] == "text/xml; charset=utf-8" and headers["soapaction"] == '""'
        # Section 2.2: all services of one envelope, and the body's element is named as the service.
        assert etree.QName(envelope.find(f"{SOAP}Body")[0]).localname == envelope.findtext(f".//{{*}}serviceCode")


def test_x_roads_own_schemas_agree(emitted):
    if not (OWN / "xroad.xsd").exists():
        pytest.skip(f"X-Road's schemas are not at {OWN}")

    class Beside(etree.Resolver):
        def resolve(self, url, _, context):
            name = url.rsplit("/", 1)[-1]
            if name == "xml.xsd":
                return self.resolve_string(XML, context)
            return self.resolve_filename(str(OWN / name), context)

    parser = etree.XMLParser()
    parser.resolvers.add(Beside())
    schema = etree.XMLSchema(etree.parse(str(OWN / "xroad.xsd"), parser))
    for name in SOURCES["budgetunit"]:
        for block in emitted[name][0].find(f"{SOAP}Header"):
            schema.assertValid(etree.fromstring(etree.tostring(block)))


XML = """<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="http://www.w3.org/XML/1998/namespace">
<xs:attribute name="lang" type="xs:language"/></xs:schema>"""
