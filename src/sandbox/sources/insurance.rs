//! National Insurance: REST, POST; every failure is in the body of a 200, under `errorCode` or `maLoi`.

use super::{Source, text};
use crate::sandbox::http::{Ask, Reply};
use crate::sandbox::province::{Gender, Household, Person, Province};
use serde_json::{Value, json};
use std::sync::Arc;

/// The source.
pub struct Insurance(pub Arc<Province>);

impl Source for Insurance {
    fn id(&self) -> &str {
        "insurance"
    }

    fn takes(&self, ask: &Ask) -> bool {
        ask.path.starts_with("/apiBHXH/")
    }

    fn answer(&self, ask: &Ask) -> Reply {
        let Some(body) = ask.json() else { return Reply::json(&json!({ "maLoi": "400", "isError": true })) };
        Reply::json(&match ask.path.rsplit('/').next() {
            Some("getTraCuuTtHgdByMaSoBhxh") => self.by_number(&body),
            Some("getMaSoBhxhTheoTieuChi") => self.number_of(&body),
            Some("getTraCuuThongTinHgd") => self.by_paper(&body),
            _ => return Reply::error(404, "no such resource"),
        })
    }
}

fn gender_code(person: &Person) -> &'static str {
    match person.gender {
        Gender::Male => "1",
        Gender::Female => "2",
    }
}

impl Insurance {
    fn by_number(&self, body: &Value) -> Value {
        let number = text(body, "maSoBhxh");
        match self.0.people.iter().find(|person| person.insurance_number == number) {
            Some(person) => self.household(self.0.household(person)),
            None => json!({ "errorCode": "404", "moTaLoi": "Không tìm thấy mã số BHXH" }),
        }
    }

    /// By name, birth with its precision, and sex.
    fn number_of(&self, body: &Value) -> Value {
        let born = |person: &Person| {
            let (year, month, _) = person.birth;
            match text(body, "loaiNgaySinh") {
                "0" => person.birth_compact().as_deref() == Some(text(body, "ngaySinh")),
                "1" => format!("{year:04}0101") == text(body, "ngaySinh"),
                "2" => format!("{year:04}{month:02}01") == text(body, "ngaySinh"),
                _ => false,
            }
        };
        let name = text(body, "hoTen").to_uppercase();
        let found = self.0.people.iter().find(|person| {
            person.full_name().to_uppercase() == name && gender_code(person) == text(body, "gioiTinh") && born(person)
        });
        match found {
            Some(person) => json!({ "maSoBhxh": person.insurance_number, "trangThai": 1, "errorCode": "" }),
            None => json!({ "maSoBhxh": null, "trangThai": null, "maLoi": "BHXH_404", "isError": true }),
        }
    }

    fn by_paper(&self, body: &Value) -> Value {
        let (card, book, name) = (text(body, "maThe"), text(body, "soSo"), text(body, "hoTen").to_uppercase());
        let found = self.0.people.iter().find(|person| {
            let paper = if card.is_empty() { person.insurance_number == book } else { person.card_number() == card };
            paper && person.full_name().to_uppercase() == name
        });
        match found {
            Some(person) => self.household(self.0.household(person)),
            None => json!({ "maLoi": "404", "moTaLoi": "Không tìm thấy hộ gia đình", "isError": true }),
        }
    }

    fn household(&self, household: &Household) -> Value {
        let member = |index: &usize| {
            let person = &self.0.people[*index];
            let (year, month, day) = person.birth;
            let (birth, precision) = match (month, day) {
                (0, _) => (format!("{year:04}0101"), "1"),
                _ => (format!("{year:04}{month:02}{day:02}"), "0"),
            };
            json!({
                "maSoBhxh": person.insurance_number, "hoTen": person.full_name(), "ngaySinh": birth,
                "loaiNgaySinh": precision, "gioiTinh": gender_code(person), "soCccd": person.citizen_id,
                "maThe": person.card_number(), "quanHe": person.relation, "trangThai": "1",
            })
        };
        let head = &self.0.people[household.members[0]];
        json!({
            "errorCode": "0",
            "hoGiaDinh": {
                "maHoGiaDinh": household.number, "tenChuHo": head.full_name(), "diaChi": household.address(),
                "dsThanhVien": household.members.iter().map(member).collect::<Vec<_>>(),
            },
        })
    }
}
