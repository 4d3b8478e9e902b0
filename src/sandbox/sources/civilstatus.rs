//! Electronic Civil Status: REST, POST, asynchronous; a registration is an XML document inside a JSON string; `status` 1
//! is success, 0 a failure with `errorCode`.

use super::{Source, text};
use crate::contract::xml;
use crate::sandbox::http::{Ask, Reply};
use crate::sandbox::province::{Gender, Person, Province};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The source.
pub struct CivilStatus {
    province: Arc<Province>,
    registrations: Mutex<BTreeMap<String, Registration>>,
}

#[derive(Clone)]
struct Registration {
    module: String,
    document: String,
    received: String,
    /// How often its state was asked for: it moves on with each.
    asked: u8,
    serial: usize,
}

impl Source for CivilStatus {
    fn id(&self) -> &str {
        "civilstatus"
    }

    fn takes(&self, ask: &Ask) -> bool {
        ask.path.starts_with("/apiHoTichTuPhap/")
    }

    fn answer(&self, ask: &Ask) -> Reply {
        let Some(body) = ask.json() else { return refuse("302") };
        if !body.get("maDonVi").is_some_and(Value::is_number) {
            return refuse("106");
        }
        match ask.path.rsplit('/').next() {
            Some("dangKyHoTich") => self.register(&body),
            Some("traTrangThaiHoSo") => self.state(&body),
            Some("ketQuaDangKyHS") => self.result(&body),
            Some("dsHoSoDangKy") => self.list(&body),
            Some("traHoSo") => self.record(&body),
            _ => Reply::error(404, "no such resource"),
        }
    }
}

fn accept(value: Value) -> Reply {
    Reply::json(&json!({ "status": 1, "value": value }))
}

fn refuse(code: &str) -> Reply {
    Reply::json(&json!({ "status": 0, "errorCode": code, "value": null }))
}

impl CivilStatus {
    /// The source, with some registrations of children born this year.
    pub fn new(province: Arc<Province>) -> Self {
        let children = province.people.iter().filter(|person| person.father.is_some() && person.birth.0 >= 2010);
        let seeded = children.take(60).enumerate().map(|(serial, child)| {
            let day = 1 + serial % 24;
            let registration = Registration {
                module: "KS".into(),
                document: document(&province, child),
                received: format!("{day:02}/11/2026"),
                asked: 9,
                serial: 1 + serial,
            };
            (format!("H49.12-2611{day:02}-{:04}", 9_000 + serial), registration)
        });
        let registrations = Mutex::new(seeded.collect());
        CivilStatus { province, registrations }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Registration>> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, body: &Value) -> Reply {
        let parsed = xml::parse(text(body, "data").as_bytes());
        let Ok(root) = parsed else { return refuse("302") };
        if root.name != "hotich" || root.child_text("hoTen").unwrap_or("").is_empty() {
            return refuse("200");
        }
        let mut all = self.all();
        let serial = 1_000 + all.len();
        let registration = Registration {
            module: text(body, "module").to_owned(),
            document: text(body, "data").to_owned(),
            received: text(body, "ngayTiepNhan").to_owned(),
            asked: 0,
            serial,
        };
        all.insert(text(body, "maHoSo").to_owned(), registration);
        accept(Value::from(format!("HT{serial:06}")))
    }

    fn state(&self, body: &Value) -> Reply {
        let number = text(body, "maHoSo");
        let mut all = self.all();
        let Some(registration) = all.get_mut(number) else { return refuse("201") };
        registration.asked = registration.asked.saturating_add(1);
        let state = match registration.asked {
            0 | 1 => 1,
            2 => 3,
            _ => 4,
        };
        accept(json!({ "maHoSo": number, "trangThai": state, "ghiChu": "" }))
    }

    fn outcome(&self, number: &str, registration: &Registration) -> Value {
        let id = self.province.people.get(registration.serial).map_or("", |person| person.citizen_id.as_str());
        json!({
            "maHoSo": number, "soDangKy": format!("{}", registration.serial), "quyenSo": "01/2026",
            "ngayDangKy": registration.received, "soDinhDanh": if registration.module == "KS" { id } else { "" },
        })
    }

    fn result(&self, body: &Value) -> Reply {
        let number = text(body, "maHoSo");
        match self.all().get(number) {
            Some(registration) => accept(self.outcome(number, registration)),
            None => refuse("201"),
        }
    }

    fn list(&self, body: &Value) -> Reply {
        let all = self.all();
        let fits =
            |one: &&Registration| one.module == text(body, "module") && one.received == text(body, "ngayCapNhat");
        let found = all.iter().filter(|(_, one)| fits(one)).map(|(number, one)| self.outcome(number, one));
        accept(found.collect())
    }

    fn record(&self, body: &Value) -> Reply {
        let number = text(body, "maHoSo");
        match self.all().get(number).filter(|one| one.module == text(body, "module")) {
            Some(one) => accept(json!({ "maHoSo": number, "module": one.module, "data": one.document })),
            None => refuse("201"),
        }
    }
}

/// A birth as recorded.
fn document(province: &Province, child: &Person) -> String {
    let parent = |index: Option<usize>| {
        let person = index.map(|index| &province.people[index]);
        person.map(|person| json!({ "hoTen": person.full_name(), "soDinhDanh": person.citizen_id })).unwrap_or_default()
    };
    let value = json!({
        "hoTen": child.full_name(), "gioiTinh": if child.gender == Gender::Male { "1" } else { "2" },
        "ngaySinh": child.birth_text(), "soDinhDanh": child.citizen_id,
        "noiSinhDVHC": province.household(child).place.commune, "danToc": child.ethnicity,
        "cha": parent(child.father), "me": parent(child.mother),
    });
    let mut text = String::from(xml::DECLARATION);
    xml::write_root(&mut text, "hotich", None, &value);
    text
}
