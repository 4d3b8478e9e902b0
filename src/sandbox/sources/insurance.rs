//! National Insurance: REST, POST; each response is one flat person, and every failure is in the body of a 200, under `errorCode`.

use super::{Source, text};
use crate::sandbox::http::{HttpReply, HttpRequest};
use crate::sandbox::province::{Gender, Person, Province};
use serde_json::{Value, json};
use std::sync::Arc;

/// The source.
pub struct Insurance(pub Arc<Province>);

impl Source for Insurance {
    fn id(&self) -> &str {
        "insurance"
    }

    fn takes(&self, ask: &HttpRequest) -> bool {
        ask.path.starts_with("/apiBHXH/")
    }

    fn respond(&self, ask: &HttpRequest) -> HttpReply {
        let Some(body) = ask.json() else { return HttpReply::json(&failed("99902")) };
        HttpReply::json(&match ask.path.rsplit('/').next() {
            Some("getTraCuuTtHgdByMaSoBhxh") => self.by_number(&body),
            Some("getMaSoBhxhTheoTieuChi") => self.number_of(&body),
            Some("getTraCuuThongTinHgd") => self.by_paper(&body),
            _ => return HttpReply::error(404, "no such resource"),
        })
    }
}

fn gender_code(person: &Person) -> &'static str {
    match person.gender {
        Gender::Male => "1",
        Gender::Female => "2",
    }
}

/// No match, or an invalid request: the source's codes are not public.
fn failed(code: &str) -> Value {
    json!({ "maSoBhxh": null, "trangThai": null, "errorCode": code })
}

/// `ngaySinh` with its precision: the source always writes a complete date.
fn birth(person: &Person) -> (String, &'static str) {
    match person.birth {
        (year, 0, _) => (format!("{year:04}0101"), "1"),
        (year, month, 0) => (format!("{year:04}{month:02}01"), "2"),
        (year, month, day) => (format!("{year:04}{month:02}{day:02}"), "0"),
    }
}

/// Participating, paused or ended; for some people an unknown word.
fn state(person: &Person) -> &'static str {
    match person.index % 53 {
        51 => "3",
        50 => "2",
        52 => "Chờ xác minh",
        _ => "1",
    }
}

impl Insurance {
    /// By the insurance number used until 2025-07, or by the citizen id used since.
    fn by_number(&self, body: &Value) -> Value {
        let number = text(body, "maSoBhxh");
        let found = self.0.people.iter().find(|one| one.insurance_number == number || one.citizen_id == number);
        let Some(person) = found else { return failed("99901") };
        let (born, precision) = birth(person);
        let place = self.0.household(person).town;
        json!({
            "hoTen": person.full_name(), "soSoCu": person.insurance_number, "ngaySinh": born,
            "loaiNgaySinh": precision, "gioiTinh": gender_code(person), "maTinhKs": "22",
            "maHuyenKs": place.old_district, "maXaKs": place.old_commune, "trangThai": state(person),
        })
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
            Some(person) => json!({ "maSoBhxh": person.citizen_id, "trangThai": state(person), "errorCode": "" }),
            None => failed("99901"),
        }
    }

    fn by_paper(&self, body: &Value) -> Value {
        if text(body, "ngaySinh").is_empty() || text(body, "gioiTinh").is_empty() {
            return failed("99902");
        }
        let (card, book, name) = (text(body, "maThe"), text(body, "soSo"), text(body, "hoTen").to_uppercase());
        let found = self.0.people.iter().find(|person| {
            let paper = if card.is_empty() { person.insurance_number == book } else { person.card_number() == card };
            paper && person.full_name().to_uppercase() == name
        });
        let Some(person) = found else { return failed("99901") };
        let (household, (born, precision)) = (self.0.household(person), birth(person));
        json!({
            "maSo": person.citizen_id, "hoTen": person.full_name(), "ngaySinh": born, "loaiNgaySinh": precision,
            "gioiTinh": gender_code(person), "maHo": household.number, "diaChi": household.address(),
            "trangThai": state(person),
        })
    }
}
