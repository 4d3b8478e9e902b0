//! National Population Database: SOAP 1.1 (1.2 for requests in 1.2), elements in a fixed order, empty elements for absent
//! values, an empty collection for no match.

use super::Source;
use crate::contract::formats::{Format, check};
use crate::contract::map::case::folded;
use crate::contract::xml::{self, Element};
use crate::drivers::credentials::wsse_digest;
use crate::sandbox::http::{HttpReply, HttpRequest};
use crate::sandbox::province::{Gender, Household, Person, Province};
use crate::sandbox::sources::RequiredCredential;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::sync::Arc;

const REQUEST: &str = "http://dancuquocgia.bca";
const ANSWER: &str = "http://www.mic.gov.vn/dancu/1.0";
const SOAP_11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const SOAP_12: &str = "http://www.w3.org/2003/05/soap-envelope";

/// The element order of the source's schema (`xs:sequence`).
const ORDER: [&str; 11] = [
    "MaYeuCau",
    "MaDVC",
    "MaTichHop",
    "MaCanBo",
    "MaDonVi",
    "TaiKhoan",
    "SoDienThoai",
    "SoDinhDanh",
    "SoCMND",
    "HoVaTen",
    "NgayThangNamSinh",
];

/// The source.
pub struct Population {
    /// The province.
    pub province: Arc<Province>,
}

/// A fault: code and text.
type Refused = (&'static str, &'static str);

impl Source for Population {
    fn id(&self) -> &str {
        "population"
    }

    fn takes(&self, ask: &HttpRequest) -> bool {
        ask.path.starts_with("/dancu")
    }

    fn required_credential(&self) -> RequiredCredential {
        RequiredCredential::HashedBasic
    }

    fn respond(&self, ask: &HttpRequest) -> HttpReply {
        match Envelope::read(ask) {
            Ok(envelope) => envelope.reply(self.exchange(&envelope.content)),
            Err(reply) => reply,
        }
    }
}

/// A request's envelope.
pub struct Envelope {
    space: &'static str,
    header: Option<Element>,
    /// The body's element.
    pub content: Element,
}

impl Envelope {
    /// Reads a request in either version.
    ///
    /// # Errors
    /// The reply to send (400) if the body is not a SOAP envelope.
    pub fn read(ask: &HttpRequest) -> Result<Self, HttpReply> {
        let refuse = || HttpReply::typed(400, "text/plain", "no SOAP envelope");
        let root = xml::parse(&ask.body).map_err(|_| refuse())?;
        let space = if *root.namespace == *SOAP_12 { SOAP_12 } else { SOAP_11 };
        // SOAP 1.1 needs SOAPAction (section 6.1.1).
        if *root.namespace != *space || space == SOAP_11 && ask.header("soapaction").is_none() {
            return Err(refuse());
        }
        let header = root.child("Header").cloned();
        let content = root.child("Body").and_then(|body| body.children.first()).cloned().ok_or_else(refuse)?;
        Ok(Envelope { space, header, content })
    }

    /// Makes a reply with a body element or with a fault.
    pub fn reply(&self, result: Result<(String, Value), Refused>) -> HttpReply {
        let kind =
            if self.space == SOAP_12 { "application/soap+xml; charset=utf-8" } else { "text/xml; charset=utf-8" };
        let mut body = String::new();
        let status = match result {
            Ok((name, value)) => {
                xml::write_root(&mut body, &name, Some(ANSWER), &value);
                200
            }
            Err((code, text)) => {
                body = self.fault(code, text);
                500
            }
        };
        let text =
            format!("{}<S:Envelope xmlns:S=\"{}\"><S:Body>{body}</S:Body></S:Envelope>", xml::DECLARATION, self.space);
        HttpReply::typed(status, kind, text)
    }

    fn fault(&self, code: &str, text: &str) -> String {
        if self.space == SOAP_11 {
            return format!("<S:Fault><faultcode>S:{code}</faultcode><faultstring>{text}</faultstring></S:Fault>");
        }
        let (head, whole) = match code.split_once('.') {
            Some(("Client", _)) => ("Sender", code),
            None if code == "Client" => ("Sender", "Sender"),
            _ => ("Receiver", code),
        };
        format!(
            "<S:Fault><S:Code><S:Value>S:{head}</S:Value><S:Subcode><S:Value>{whole}</S:Value></S:Subcode></S:Code>\
             <S:Reason><S:Text xml:lang=\"vi\">{text}</S:Text></S:Reason></S:Fault>"
        )
    }

    /// Whether the WS-Security header has this user's password digest.
    pub fn username_token_holds(&self, user: &str, password: &str) -> bool {
        let token = self.header.as_ref().and_then(|header| header.child("Security")?.child("UsernameToken"));
        let Some(token) = token else { return false };
        let text = |name| token.child_text(name).unwrap_or("");
        let Ok(nonce) = STANDARD.decode(text("Nonce")) else { return false };
        let created: Result<jiff::Timestamp, _> = text("Created").parse();
        let fresh = created.is_ok_and(|created| (jiff::Timestamp::now().as_second() - created.as_second()).abs() < 300);
        fresh && text("Username") == user && text("Password") == wsse_digest(&nonce, text("Created"), password)
    }
}

impl Population {
    fn exchange(&self, content: &Element) -> Result<(String, Value), Refused> {
        if *content.namespace != *REQUEST {
            return Err(("Client", "Sai không gian tên"));
        }
        let names: Vec<&str> = content.children.iter().map(|child| child.name.as_str()).collect();
        let places: Option<Vec<usize>> =
            names.iter().map(|name| ORDER.iter().position(|known| known == name)).collect();
        if !places.is_some_and(|places| places.is_sorted()) {
            return Err(("Client", "Sai thứ tự trường"));
        }
        for needed in ["MaYeuCau", "MaTichHop", "MaCanBo", "MaDonVi", "TaiKhoan"] {
            if content.child_text(needed).unwrap_or("").is_empty() {
                return Err(("Client", "Thiếu trường bắt buộc"));
            }
        }
        let text = |name| content.child_text(name).unwrap_or("");
        if check(Format::CitizenId, text("MaCanBo")).is_err() || text("MaDVC").len() > 20 || text("MaDonVi").len() > 35
        {
            return Err(("Client", "Sai mã cán bộ, mã dịch vụ công hoặc mã đơn vị"));
        }
        let code = text("MaTichHop");
        let value = match (content.name.as_str(), code) {
            ("XacThucThongTinCongDan", "003") => {
                json!({ "KetQuaXacThuc": { "TonTai": self.claimed(content)?.is_some().to_string() } })
            }
            ("TraCuuThongTinCongDan", "037") => match self.claimed(content)? {
                Some(person) => json!({ "CongdanCollection": { "CongDan": self.citizen(person) } }),
                None => json!({ "CongdanCollection": "" }),
            },
            ("TraCuuThongTinHoGiaDinh", "038") => {
                let id = content.child_text("SoDinhDanh").unwrap_or("");
                match self.province.by_citizen_id(id) {
                    Some(person) => json!({ "HoGiaDinh": self.household(self.province.household(person)) }),
                    None => json!({ "HoGiaDinh": "" }),
                }
            }
            _ => return Err(("Client", "Mã tích hợp không hợp lệ")),
        };
        // The collection is in the body itself; only other responses have a wrapper with the request's name.
        match value {
            Value::Object(mut fields) if fields.contains_key("CongdanCollection") => {
                let collection = fields.shift_remove("CongdanCollection").unwrap_or_default();
                Ok(("CongdanCollection".into(), collection))
            }
            value => Ok((format!("{}Response", content.name), value)),
        }
    }

    /// The person whose id, name and birth all match.
    fn claimed(&self, content: &Element) -> Result<Option<&Person>, Refused> {
        let text = |name| content.child_text(name).unwrap_or("");
        let name = text("HoVaTen");
        if name.is_empty() || name != name.to_uppercase() {
            return Err(("Client", "Họ và tên phải viết hoa"));
        }
        let person = match (text("SoDinhDanh"), text("SoCMND")) {
            ("", "") => return Err(("Client", "Thiếu số định danh")),
            ("", old) => self.province.by_old_id(old),
            (id, _) => self.province.by_citizen_id(id),
        };
        let birth = content.child("NgayThangNamSinh");
        let birth = |name| birth.and_then(|birth| birth.child_text(name)).unwrap_or("");
        Ok(person.filter(|person| {
            let born = match birth("NgayThangNam") {
                "" => person.birth.0.to_string() == birth("Nam"),
                day => person.birth_compact().as_deref() == Some(day),
            };
            // Clients send it folded; whether that is required is unknown.
            born && (person.full_name().to_uppercase() == name || folded(&person.full_name()) == name)
        }))
    }

    /// An address of the two-tier order, in force since 2025-07-01: there is no district.
    fn residence(household: &Household) -> Value {
        let place = household.town;
        json!({
            "MaTinhThanh": "22", "MaQuanHuyen": "", "MaPhuongXa": place.commune, "ChiTiet": household.detail, "QuocGia": "VN",
        })
    }

    /// An address of the three-tier order.
    fn address(household: &Household) -> Value {
        let place = household.town;
        json!({
            "MaTinhThanh": "22", "MaQuanHuyen": place.old_district, "MaPhuongXa": place.old_commune,
            "ChiTiet": household.detail, "QuocGia": "VN",
        })
    }

    fn name(person: &Person) -> Value {
        // The complete name is often in `Ten` alone.
        if person.index.is_multiple_of(3) {
            json!({ "Ho": "", "ChuDem": "", "Ten": person.full_name() })
        } else {
            json!({ "Ho": person.family, "ChuDem": person.middle, "Ten": person.given })
        }
    }

    fn birth(person: &Person) -> Value {
        match person.birth_compact() {
            Some(day) => json!({ "Nam": person.birth.0.to_string(), "NgayThangNam": day }),
            None => json!({ "Nam": person.birth.0.to_string(), "NgayThangNam": "" }),
        }
    }

    fn relative(&self, index: Option<usize>) -> Value {
        match index.map(|index| &self.province.people[index]) {
            Some(person) => json!({
                "HoVaTen": person.full_name().to_uppercase(), "QuocTich": "VN", "SoDinhDanh": person.citizen_id,
                "SoCMND": person.old_id.as_deref().unwrap_or(""),
            }),
            None => json!({ "HoVaTen": "", "QuocTich": "", "SoDinhDanh": "", "SoCMND": "" }),
        }
    }

    fn gender(person: &Person) -> &'static str {
        match person.gender {
            _ if person.bare() => "0",
            Gender::Male => "1",
            Gender::Female => "2",
        }
    }

    fn citizen(&self, person: &Person) -> Value {
        let household = self.province.household(person);
        let head = &self.province.people[household.members[0]];
        // People who moved since 2025-07-01 have an address of the two-tier order.
        let residence =
            if household.members[0].is_multiple_of(2) { Self::residence(household) } else { Self::address(household) };
        let address = Self::address(household);
        json!({
            "SoDinhDanh": person.citizen_id, "SoCMND": person.old_id.as_deref().unwrap_or(""),
            "HoVaTen": Self::name(person), "GioiTinh": Self::gender(person), "DanToc": person.ethnicity,
            "TonGiao": person.religion, "TinhTrangHonNhan": if person.bare() { "0" } else if person.married { "2" } else { "1" },
            "NhomMau": if person.bare() { "00" } else { person.blood }, "NgayThangNamSinh": Self::birth(person),
            "NoiDangKyKhaiSinh": address.clone(), "QueQuan": address.clone(), "ThuongTru": residence.clone(),
            "NoiOHienTai": residence, "QuocTich": "VN", "Cha": self.relative(person.father),
            "Me": self.relative(person.mother), "VoChong": self.relative(person.spouse), // Nobody is an element that is empty, or one with empty elements.
            "NguoiDaiDien": "",
            "ChuHo": {
                "QuanHe": person.relation, "SoDinhDanh": head.citizen_id,
                "SoCMND": head.old_id.as_deref().unwrap_or(""), "HoVaTen": head.full_name().to_uppercase(),
            },
            "SoSoHoKhau": household.number,
        })
    }

    fn household(&self, household: &Household) -> Value {
        let member = |index: &usize| {
            let person = &self.province.people[*index];
            json!({
                "SoDinhDanh": person.citizen_id, "HoVaTen": Self::name(person), "QuanHe": person.relation,
                "GioiTinh": Self::gender(person), "NgayThangNamSinh": Self::birth(person),
            })
        };
        let members: Vec<Value> = household.members.iter().map(member).collect();
        json!({
            "SoSoHoKhau": household.number, "ThuongTru": Self::address(household),
            "DanhSachThanhVien": { "ThanhVien": members },
        })
    }
}
