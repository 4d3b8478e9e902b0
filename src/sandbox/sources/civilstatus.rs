//! Electronic Civil Status: REST, POST, asynchronous; a registration is an XML document inside a JSON string, a joined one a
//! JSON document; `status` is 1 for success and 0 for a failure with `errorCode`, but for a dossier it is the state itself;
//! lists have the source's own ids, records are rows.

use super::{Source, text};
use crate::contract::xml;
use crate::sandbox::http::{HttpReply, HttpRequest};
use crate::sandbox::province::{Gender, Person, Province};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The source.
pub struct CivilStatus {
    province: Arc<Province>,
    registrations: Mutex<BTreeMap<String, RegistrationRequest>>,
}

#[derive(Clone)]
struct RegistrationRequest {
    module: String,
    /// The commune that registers.
    unit: String,
    /// The registered values, by the names of a record's row.
    row: Value,
    /// `yyyy-MM-dd`.
    received: String,
    /// Number of state queries: the state advances with each.
    polls: u8,
    serial: usize,
}

/// The source's own id of a registration.
fn own_id(serial: usize) -> u64 {
    990_000_000 + serial as u64
}

/// `yyyy-MM-dd` as `dd/MM/yyyy`.
fn slashed(date: &str) -> String {
    date.split('-').rev().collect::<Vec<_>>().join("/")
}

impl Source for CivilStatus {
    fn id(&self) -> &str {
        "civilstatus"
    }

    fn takes(&self, ask: &HttpRequest) -> bool {
        ask.path.starts_with("/apiHoTichTuPhap/") || ask.path.starts_with("/apiLienThongKSKT/")
    }

    fn respond(&self, ask: &HttpRequest) -> HttpReply {
        let Some(body) = ask.json() else { return refuse(302, "DATA_TYPE_INVALID") };
        let service = ask.path.rsplit('/').next().unwrap_or("");
        let of_a_unit = ["dangKyHoTich", "traTrangThaiHoSo", "ketQuaDangKyHS", "nhanHoSoDKHT"];
        if of_a_unit.contains(&service) && unit(&body).is_none() {
            return refuse(106, "AGENCY_ID_INCORRECT");
        }
        match service {
            "dangKyHoTich" => self.register(&body),
            "traTrangThaiHoSo" => self.state(&body),
            "ketQuaDangKyHS" => self.result(&body),
            "dsHoSoDangKy" => self.list(&body),
            "traHoSo" => self.record(&body),
            "traDanhSachHoSo" => self.records(&body),
            "nhanHoSoDKHT" => self.register_joined(&body),
            "traKetQuaHoSo" => self.joined_results(&body),
            _ => HttpReply::error(404, "no such resource"),
        }
    }
}

/// The commune that registers: a text or a number, as clients and the guide use it.
fn unit(body: &Value) -> Option<String> {
    let unit = match body.get("maDonVi")? {
        Value::Number(number) => format!("{:05}", number.as_u64()?),
        Value::String(text) => text.clone(),
        _ => return None,
    };
    (unit.len() == 5).then_some(unit)
}

fn accept(value: Value) -> HttpReply {
    HttpReply::json(&json!({ "status": 1, "value": value }))
}

fn refuse(code: u16, words: &str) -> HttpReply {
    HttpReply::json(&json!({
        "status": 0, "statusDescription": "Đã có lỗi xảy ra", "value": null, "errorCode": code, "errorDescription": words,
    }))
}

/// Already accepted: reported only as text, with a code that means something else.
fn taken_already(number: &str) -> HttpReply {
    refuse(500, &format!("Hồ sơ {number} đã được tiếp nhận"))
}

impl CivilStatus {
    /// Makes the source with some registrations of children born this year.
    pub fn new(province: Arc<Province>) -> Self {
        let children = province.people.iter().filter(|person| person.father.is_some() && person.birth.0 >= 2010);
        let seeded = children.take(60).enumerate().map(|(serial, child)| {
            let day = 1 + serial % 24;
            let registration = RegistrationRequest {
                module: "KS".into(),
                unit: province.household(child).town.commune.to_owned(),
                row: row(&province, child),
                received: format!("2026-11-{day:02}"),
                polls: 9,
                serial: 1 + serial,
            };
            (format!("H49.12-2611{day:02}-{:04}", 9_000 + serial), registration)
        });
        let registrations = Mutex::new(seeded.collect());
        CivilStatus { province, registrations }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, RegistrationRequest>> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a registration, unless another one has its number.
    fn keep(&self, number: &str, module: &str, unit: String, row: Value, received: &str) -> Result<usize, HttpReply> {
        let mut all = self.all();
        if let Some(known) = all.get(number) {
            return if known.row == row { Ok(known.serial) } else { Err(taken_already(number)) };
        }
        let serial = 1_000 + all.len();
        let registration = RegistrationRequest {
            module: module.to_owned(),
            unit,
            row,
            received: received.to_owned(),
            polls: 0,
            serial,
        };
        all.insert(number.to_owned(), registration);
        Ok(serial)
    }

    fn register(&self, body: &Value) -> HttpReply {
        let document = xml::parse(text(body, "data").as_bytes());
        let hoso = document.ok().filter(|root| root.name == "hotich").and_then(|root| root.child("hoso").cloned());
        let Some(hoso) = hoso else { return refuse(302, "DATA_TYPE_INVALID") };
        let received = text(body, "ngayTiepNhan");
        if hoso.child_text("nksHoTen").unwrap_or("").is_empty() || received.split('-').count() != 3 {
            return refuse(500, "DATA_INCORRECT");
        }
        let unit = unit(body).unwrap_or_default();
        match self.keep(text(body, "maHoSo"), text(body, "module"), unit, hoso.into_value(), received) {
            Ok(serial) => accept(Value::from(format!("HT{serial:06}"))),
            Err(reply) => reply,
        }
    }

    fn register_joined(&self, body: &Value) -> HttpReply {
        let form: Option<Value> = serde_json::from_str(text(body, "data")).ok();
        let Some(form) = form.filter(|form| !text(form, "nksHoTen").is_empty()) else {
            return refuse(302, "DATA_TYPE_INVALID");
        };
        let (day, _) = text(body, "ngayTiepNhan").split_once(' ').unwrap_or_default();
        let received = day.split('/').rev().collect::<Vec<_>>().join("-");
        let unit = unit(body).unwrap_or_default();
        match self.keep(text(body, "maHoSoMCDT"), text(body, "module"), unit, form, &received) {
            Ok(_) => HttpReply::json(&json!({
                "status": "1", "statusDescription": "Thành công", "errorCode": null, "errorDescription": null,
            })),
            Err(reply) => reply,
        }
    }

    fn state(&self, body: &Value) -> HttpReply {
        let mut all = self.all();
        let Some(registration) = all.get_mut(text(body, "maHoSo")) else { return refuse(201, "RECORD_NOT_FOUND") };
        registration.polls = registration.polls.saturating_add(1);
        let (state, words) = match registration.polls {
            0 | 1 => (json!(1), "Đã tiếp nhận hồ sơ, chờ xử lý"),
            2 => (json!(3), "Đủ điều kiện đăng ký"),
            // Number or text: both occur.
            _ => (json!("4"), "Đã hoàn thành đăng ký"),
        };
        HttpReply::json(&json!({
            "status": state, "statusDescription": words, "value": null, "errorCode": null, "errorDescription": "",
        }))
    }

    /// The child's own id, which a birth registration assigns.
    fn citizen_id(&self, registration: &RegistrationRequest) -> &str {
        let person = self.province.people.get(registration.serial).filter(|_| registration.module.ends_with("KS"));
        person.map_or("", |person| person.citizen_id.as_str())
    }

    fn result(&self, body: &Value) -> HttpReply {
        let number = text(body, "maHoSo");
        match self.all().get(number) {
            Some(one) => accept(json!({
                "maHoSo": number, "soDangKy": one.serial, "quyenSo": "01/2026", "ngayDangKy": slashed(&one.received),
                "soDinhDanh": self.citizen_id(one),
            })),
            None => refuse(201, "RECORD_NOT_FOUND"),
        }
    }

    fn list(&self, body: &Value) -> HttpReply {
        let all = self.all();
        let fits = |one: &&RegistrationRequest| {
            one.module == text(body, "module") && slashed(&one.received) == text(body, "ngayCapNhat")
        };
        // A unit may lack its leading zero.
        let id = |one: &RegistrationRequest| json!({ "id": own_id(one.serial).to_string(), "maDonVi": one.unit.trim_start_matches('0') });
        accept(all.values().filter(fits).map(id).collect())
    }

    fn row(&self, one: &RegistrationRequest) -> Value {
        let own = json!({
            "id": own_id(one.serial).to_string(), "so": one.serial.to_string(), "quyenSo": "01/2026",
            "trangSo": one.serial.to_string(), "ngayDangKy": slashed(&one.received), "soDinhDanh": self.citizen_id(one),
        });
        match (own, one.row.clone()) {
            (Value::Object(mut own), Value::Object(row)) => {
                own.extend(row);
                Value::Object(own)
            }
            (own, _) => own,
        }
    }

    fn record(&self, body: &Value) -> HttpReply {
        let Some(id) = body.get("maHoSo").and_then(Value::as_u64) else { return refuse(302, "DATA_TYPE_INVALID") };
        let all = self.all();
        match all.values().find(|one| own_id(one.serial) == id && one.module == text(body, "module")) {
            Some(one) => accept(json!([self.row(one)])),
            None => refuse(201, "RECORD_NOT_FOUND"),
        }
    }

    fn records(&self, body: &Value) -> HttpReply {
        let wanted = body.get("dsMaHoSo").and_then(Value::as_array).cloned().unwrap_or_default();
        let all = self.all();
        let found = wanted.iter().filter_map(|number| all.get(number.as_str()?));
        accept(found.filter(|one| one.module == text(body, "module")).map(|one| self.row(one)).collect())
    }

    fn joined_results(&self, body: &Value) -> HttpReply {
        let wanted = body.get("maDinhDanhHoSo").and_then(Value::as_array).cloned().unwrap_or_default();
        let all = self.all();
        let one = |number: &Value| {
            let number = number.as_str()?;
            let one = all.get(number).filter(|one| one.module == text(body, "module"))?;
            Some(json!({
                "maDonVi": one.unit, "maTinh": "22", "module": one.module, "maHoSoLT": format!("G22.99.9-{}", &number[number.len().min(7)..]),
                "maHoSoMCDT": number, "errors": null, "trangThai": "4", "ghiChu": null, "hanBoSungHoSo": null,
                "ketQuaXuLy": {
                    "soDinhDanh": self.citizen_id(one), "ngayDangKy": slashed(&one.received).replace('/', "."),
                    "nksHoTen": one.row["nksHoTen"], "nksGioiTinh": one.row["nksGioiTinh"], "nksNgaySinh": one.row["nksNgaySinh"],
                    "meNgaySinh": one.row["meNgaySinh"], "chaNgaySinh": one.row["chaNgaySinh"],
                    "soDangKy": one.serial.to_string(), "quyenSo": "03/2026", "trangSo": one.serial.to_string(),
                },
            }))
        };
        accept(wanted.iter().filter_map(one).collect())
    }
}

/// A birth record.
fn row(province: &Province, child: &Person) -> Value {
    let parent = |index: Option<usize>| index.map(|index| &province.people[index]);
    let (mother, father) = (parent(child.mother), parent(child.father));
    json!({
        "nksHoTen": child.full_name(), "nksGioiTinh": if child.gender == Gender::Male { "1" } else { "2" },
        "nksNgaySinh": child.birth_text(), "nksSoDDCN": child.citizen_id, "nksDanToc": child.ethnicity,
        "meHoTen": mother.map(Person::full_name), "meSoDDCN": mother.map(|one| one.citizen_id.clone()),
        "chaHoTen": father.map(Person::full_name), "chaSoDDCN": father.map(|one| one.citizen_id.clone()),
    })
}
