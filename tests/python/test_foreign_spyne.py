"""A spyne server as the population database: it validates the gateway's requests with its own schema, and zeep reads them with its WSDL."""
import foreign
import pytest
import zeep
from conftest import eventually
from lxml import etree
from spyne import Application, ComplexModel, Fault, Iterable, ServiceBase, Unicode, rpc
from spyne.protocol.soap import Soap11
from spyne.server.wsgi import WsgiApplication

REQUEST, ANSWER = "http://dancuquocgia.bca", "http://www.mic.gov.vn/dancu/1.0"
POPULATION = "ndxp.population.v1.PopulationService"


def record(namespace, name, *fields):
    return type(name, (ComplexModel,), {"__namespace__": namespace, "_type_info": list(fields)})


text = lambda **rules: Unicode(min_occurs=0, **rules)
Asked = record(REQUEST, "NgaySinh", ("Nam", text(pattern="[0-9]{4}")), ("NgayThangNam", text(pattern="[0-9]{8}")))
COMMON = [Unicode(pattern="[0-9a-f-]{36}", min_occurs=1), text(max_len=20), Unicode(min_occurs=1), Unicode(pattern="[0-9]{12}", min_occurs=1),
          Unicode(max_len=35, min_occurs=1), Unicode(min_occurs=1), text()]
NAMES = ["MaYeuCau", "MaDVC", "MaTichHop", "MaCanBo", "MaDonVi", "TaiKhoan", "SoDienThoai", "SoDinhDanh"]
PERSON = COMMON + [text(pattern="[0-9]{12}"), text(), Unicode(min_occurs=1), Asked]
PERSON_NAMES = NAMES + ["SoCMND", "HoVaTen", "NgayThangNamSinh"]
Verdict = record(ANSWER, "KetQuaXacThuc", ("TonTai", Unicode))
Name = record(ANSWER, "HoVaTen", ("Ho", Unicode), ("ChuDem", Unicode), ("Ten", Unicode))
Born = record(ANSWER, "NgayThangNamSinh", ("Nam", Unicode), ("NgayThangNam", Unicode))
Citizen = record(ANSWER, "CongDan", ("SoDinhDanh", Unicode), ("HoVaTen", Name), ("GioiTinh", Unicode), ("NgayThangNamSinh", Born),
                 ("NguoiDaiDien", Unicode))
Member = record(ANSWER, "ThanhVien", ("SoDinhDanh", Unicode), ("HoVaTen", Name), ("QuanHe", Unicode))
Members = record(ANSWER, "DanhSachThanhVien", ("ThanhVien", Member.customize(max_occurs="unbounded")))
Household = record(ANSWER, "HoGiaDinh", ("SoSoHoKhau", Unicode), ("DanhSachThanhVien", Members))


class Population(ServiceBase):
    @rpc(*PERSON, _args=PERSON_NAMES, _in_message_name="XacThucThongTinCongDan", _returns=Verdict,
         _out_message_name=f"{{{ANSWER}}}XacThucThongTinCongDanResponse", _out_variable_name="KetQuaXacThuc")
    def verify(context, *fields):
        return Verdict(TonTai="true" if fields[9] == "NGUYENVANA" else "false")

    @rpc(*PERSON, _args=PERSON_NAMES, _in_message_name="TraCuuThongTinCongDan", _returns=Citizen,
         _out_message_name=f"{{{ANSWER}}}CongdanCollection", _out_variable_name="CongDan")
    def citizen(context, *fields):
        if fields[7].endswith("9"):
            return None
        if fields[7].endswith("8"):
            raise Fault("Client.Authentication", "Sai tài khoản")
        if fields[7].endswith("7"):
            raise ValueError("a bug of the source's")
        return Citizen(SoDinhDanh=fields[7], HoVaTen=Name(Ho="Nguyễn", ChuDem="Văn <&>", Ten="A"), GioiTinh="1",
                       NgayThangNamSinh=Born(Nam="1985", NgayThangNam=fields[10].NgayThangNam))

    @rpc(*COMMON, Unicode(min_occurs=1), _args=NAMES, _in_message_name="TraCuuThongTinHoGiaDinh", _returns=Household,
         _out_message_name=f"{{{ANSWER}}}TraCuuThongTinHoGiaDinhResponse", _out_variable_name="HoGiaDinh")
    def household(context, *fields):
        members = [Member(SoDinhDanh=f"02208545530{n}", HoVaTen=Name(Ten=f"Trần {n}"), QuanHe=f"CH0{n}") for n in (1, 2, 3)]
        return Household(SoSoHoKhau="220001000", DanhSachThanhVien=Members(ThanhVien=members))


@pytest.fixture(scope="module")
def served(stage, token):
    seen = []
    application = Application([Population], tns=REQUEST, in_protocol=Soap11(validator="lxml"), out_protocol=Soap11())
    application.event_manager.add_listener("method_call", lambda context: seen.append(etree.tostring(context.in_document)))
    server = foreign.WsgiServer(("127.0.0.1", 0), foreign.QuietWsgi, foreign.tls(stage))
    server.set_app(WsgiApplication(application))
    caller = foreign.Caller(stage, token)
    with foreign.serving(server) as port:
        with foreign.instead(stage, "population", port, caller, f"{POPULATION}/GetHousehold", {"citizenId": "022085455303"},
                             reached=lambda: bool(seen)):
            yield caller, seen, port


def asked(number, name="Nguyễn Văn A"):
    return {"citizenId": number, "fullName": name, "birthDate": {"year": 1985, "month": 4, "day": 30}}


def test_responses_of_spyne_are_mapped(served):
    caller, _, _ = served
    verdict = f"{POPULATION}/VerifyCitizen"
    assert caller.call(verdict, asked("022085455303")) == {"matched": True}
    assert caller.call(verdict, asked("022085455303", "Nguyễn Văn B")) == {}
    citizen = caller.call(f"{POPULATION}/GetCitizen", asked("022085455303"))
    assert citizen == {"citizenId": "022085455303", "name": {"family": "Nguyễn", "middle": "Văn <&>", "given": "A"}, "gender": "MALE",
                       "birthDate": {"year": 1985, "month": 4, "day": 30}}
    household = caller.call(f"{POPULATION}/GetHousehold", {"citizenId": "022085455303"})
    assert [member["name"]["given"] for member in household["members"]] == ["Trần 1", "Trần 2", "Trần 3"]


@pytest.mark.parametrize("number, reason", [("022085455309", "RECORD_NOT_FOUND"), ("022085455308", "SOURCE_CREDENTIALS_REFUSED"),
                                            ("022085455307", "SOURCE_UNAVAILABLE")])
def test_absence_and_faults_of_spyne_are_distinguished(served, number, reason):
    caller, _, _ = served
    assert caller.refusal(f"{POPULATION}/GetCitizen", asked(number)) == reason


def test_requests_match_spynes_own_wsdl(served, stage):
    """spyne refuses elements outside its schema; zeep, another reader, finds the same values with the same WSDL."""
    caller, seen, port = served
    caller.call(f"{POPULATION}/GetCitizen", asked("022085455303"))
    import requests
    session = requests.Session()
    session.trust_env = False
    session.verify, session.cert = str(stage.folder / "pki/ca.pem"), (
        str(stage.folder / "pki/to-sources.pem"), str(stage.folder / "pki/to-sources.key"))
    client = zeep.Client(f"https://127.0.0.1:{port}/?wsdl", transport=zeep.Transport(session=session))
    body = etree.fromstring(seen[-1])
    if etree.QName(body).localname == "Envelope":
        body = body.find("{*}Body")[0]
    read = client.get_element(f"{{{REQUEST}}}TraCuuThongTinCongDan").parse(body, client.wsdl.types)
    assert (read.MaTichHop, read.MaCanBo, read.MaDVC, read.SoDinhDanh) == ("037", foreign.OFFICIAL, "1.004222", "022085455303")
    assert (read.HoVaTen, read.NgayThangNamSinh.NgayThangNam) == ("NGUYENVANA", "19850430")
    assert read.TaiKhoan == "QUANGNINH_NDXP" and len(read.MaYeuCau) == 36
