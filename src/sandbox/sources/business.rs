//! National Business Registration: REST, GET; `Status` "1" or "0" in every response; one representative is an object,
//! several are a list; money has decimals, area codes are numbers without their leading zeros; no match is a success
//! without `MainInformation`.

use super::Source;
use crate::sandbox::http::{HttpReply, HttpRequest};
use crate::sandbox::province::names::TRADES;
use crate::sandbox::province::{Enterprise, Province, Registration};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The source.
pub struct Business(pub Arc<Province>);

impl Source for Business {
    fn id(&self) -> &str {
        "business"
    }

    fn takes(&self, ask: &HttpRequest) -> bool {
        ask.path.starts_with("/apiCSDLDKDN/")
    }

    fn respond(&self, ask: &HttpRequest) -> HttpReply {
        let data = match ask.path.rsplit('/').next() {
            Some("chiTietDoanhNghiep") => self.enterprise(ask),
            Some("danhSachHoSo") => self.registrations(ask),
            Some("danhSachHoSoTrongNgay") => self.of_today(ask),
            Some("tinhTrangHoSo") => self.registration(ask),
            _ => return HttpReply::error(404, "no such resource"),
        };
        HttpReply::json(&match data {
            Ok((data, count)) => json!({ "Data": data, "DataCount": count, "Status": "1", "Message": "success" }),
            Err(message) => json!({ "Data": null, "DataCount": 0, "Status": "0", "Message": message }),
        })
    }
}

/// The results and their number, or the error in the request.
type EnterpriseResult = Result<(Value, usize), &'static str>;

/// No match: a success.
fn nobody() -> (Value, usize) {
    (json!({ "MainInformation": null, "HOAdress": null, "BusinessActivity": [], "Member": [] }), 0)
}

/// A sum of đồng: number(21,3).
fn sum(amount: u64) -> String {
    format!("{amount}.000")
}

/// A code as a number.
fn number(code: &str) -> Value {
    code.parse::<u64>().map(Value::from).unwrap_or_default()
}

impl Business {
    fn enterprise(&self, ask: &HttpRequest) -> EnterpriseResult {
        let code = ask.parameter("msdn").unwrap_or("");
        let found = self.0.enterprises.iter().find(|enterprise| enterprise.code == code);
        Ok(found.map_or_else(nobody, |enterprise| (self.describe(enterprise), 1)))
    }

    fn describe(&self, enterprise: &Enterprise) -> Value {
        let people: Vec<_> = enterprise.representatives.iter().map(|index| &self.0.people[*index]).collect();
        let names: Vec<String> = people.iter().map(|person| person.full_name().to_uppercase()).collect();
        let representatives: Vec<Value> = people
            .iter()
            .map(|person| {
                json!({
                    "FULL_NAME": person.full_name().to_uppercase(), "POSITION_NAME": "Giám đốc",
                    "BIRTH_DATE": person.birth_text(), "IDENTITY_NO": person.citizen_id,
                })
            })
            .collect();
        let share = 100.0 / people.len() as f64;
        let members: Vec<Value> = people
            .iter()
            .map(|person| {
                json!({
                    "MEMBER_NAME": person.full_name().to_uppercase(),
                    "AMOUNT": sum(enterprise.capital / people.len() as u64),
                    "RATIO_PERCENT": share, "COUNTRY": "Việt Nam",
                })
            })
            .collect();
        let (trade, second) = (TRADES[enterprise.trade], TRADES[(enterprise.trade + 1) % TRADES.len()]);
        let (day, month, year) = enterprise.founded;
        let place = enterprise.town;
        json!({
            "MainInformation": {
                "ENTERPRISE_ID": 4_000_000 + enterprise.capital / 100_000_000,
                "ENTERPRISE_GDT_CODE": enterprise.code, "IMP_BUSINESS_CODE": "",
                "ENTERPRISE_TYPE_ID": enterprise.kind.0, "ENTERPRISE_TYPE_NAME": enterprise.kind.1,
                "NAME": enterprise.name, "SHORT_NAME": enterprise.short_name, "NAME_F": null,
                "FOUNDING_DATE": format!("{day:02}/{month:02}/{year}"), "LAST_AMEND_DATE": "15/06/2025",
                "NUMBER_CHANGES": "2", "ENTERPRISE_STATUS": enterprise.status,
                "ENTERPRISE_STATUS_NAME": "Đang hoạt động", "LEGAL_NAMES": names.join("; "),
                "CAPITAL_AMOUNT": sum(enterprise.capital),
            },
            "HOAdress": {
                "CityID": 22, "CityName": "Tỉnh Quảng Ninh", "DistrictID": number(place.old_district),
                "DistrictName": place.old_district_name, "WardID": number(place.old_commune),
                "WardName": place.old_commune_name, "StreetNumber": enterprise.detail,
                "AddressFullText": format!("{}, {}, Tỉnh Quảng Ninh", enterprise.detail, place.commune_name),
            },
            "Representatives": one_or_many(representatives),
            "BusinessActivity": [
                { "CODE": trade.0, "NAME": trade.1, "IS_MAIN": "Y" },
                { "CODE": second.0, "NAME": second.1, "IS_MAIN": "N" },
            ],
            "Member": members,
        })
    }

    fn registrations(&self, ask: &HttpRequest) -> EnterpriseResult {
        let day = |name| Some(ask.parameter(name)?.split('/').collect::<Vec<_>>()).and_then(day_number);
        let (Some(from), Some(to)) = (day("from_date"), day("to_date")) else {
            return Err("Ngày không hợp lệ");
        };
        if to < from || to - from > 5 {
            return Err("Khoảng thời gian tối đa 5 ngày");
        }
        let in_period = |one: &&Registration| {
            let received = day_number(vec![&format!("{:02}", one.day), "11", "2026"]);
            received.is_some_and(|received| (from..=to).contains(&received))
        };
        self.page(ask, &in_period)
    }

    /// The registrations of some hours of the day: the sandbox's today is 2026-11-24.
    fn of_today(&self, ask: &HttpRequest) -> EnterpriseResult {
        let time = |name| ask.parameter(name).filter(|text| text.len() == 5 && text.contains(':'));
        match (time("from_ts"), time("to_ts")) {
            (Some(from), Some(to)) if from <= to => self.page(ask, &|one| one.day == 24),
            _ => Err("Giờ không hợp lệ"),
        }
    }

    /// A page of a list, with the total.
    fn page(&self, ask: &HttpRequest, fits: &dyn Fn(&&Registration) -> bool) -> EnterpriseResult {
        let number = |name| ask.parameter(name).and_then(|text| text.parse::<usize>().ok());
        let (Some(offset), Some(limit)) = (number("offset"), number("limit")) else {
            return Err("Thiếu offset, limit");
        };
        let found: Vec<&Registration> = self.0.registrations.iter().filter(fits).collect();
        let page: Vec<Value> =
            found.iter().skip(offset).take(limit).map(|one| Value::Object(self.journal(one))).collect();
        Ok((Value::from(page), found.len()))
    }

    fn registration(&self, ask: &HttpRequest) -> EnterpriseResult {
        let journal = ask.parameter("in_journal_no").unwrap_or("");
        let found = self.0.registrations.iter().find(|one| one.journal == journal);
        let state = |one: &Registration| {
            let person = &self.0.people[self.0.enterprises[one.enterprise].representatives[0]];
            let mut state = self.journal(one);
            let contact = [
                ("ENTERPRISE_TYPE_ID", json!(self.0.enterprises[one.enterprise].kind.0)),
                ("REGISTRATION_DATE", Value::Null),
                ("SUPPLEMENT_DATE", Value::Null),
                ("SUBMISSION_TYPE", json!("Trực tuyến")),
                ("CONTACT_FULL_NAME", json!(person.full_name())),
                ("CONTACT_ADDRESS", json!(self.0.household(person).address())),
                ("CONTACT_ID_NO", json!(person.citizen_id)),
                ("CONTACT_PHONE", json!(person.phone)),
                ("CONTACT_EMAIL", Value::Null),
            ];
            state.extend(contact.map(|(name, value)| (name.to_owned(), value)));
            (json!({ "MainInformation": state }), 1)
        };
        Ok(found.map_or_else(|| (json!({ "MainInformation": null }), 0), state))
    }

    fn journal(&self, one: &Registration) -> Map<String, Value> {
        let enterprise = &self.0.enterprises[one.enterprise];
        let words = ["Đã tiếp nhận", "Đang xử lý", "Đã chấp thuận"];
        let fields = [
            ("IN_JOURNAL_NO", number(&one.journal)),
            ("DOCUMENT_TYPE", json!("Đăng ký thay đổi")),
            ("ENTERPRISE_CODE", json!(format!("00{}", &enterprise.code[2..]))),
            ("ENTERPRISE_GDT_CODE", json!(enterprise.code)),
            ("NAME", json!(enterprise.name)),
            ("SITE_ID", json!(2201)),
            ("RECEIPT_DATE", json!(format!("{:02}/11/2026", one.day))),
            ("PLAN_DATE", json!(format!("{:02}/12/2026", one.day))),
            (
                "PROCESS_STATUS",
                json!(words[one.status.parse::<usize>().unwrap_or_default().saturating_sub(1) % words.len()]),
            ),
        ];
        fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
    }
}

fn one_or_many(mut values: Vec<Value>) -> Value {
    if values.len() == 1 { values.remove(0) } else { Value::from(values) }
}

/// Days on a calendar of months of 31 days: only differences matter.
fn day_number(parts: Vec<&str>) -> Option<i64> {
    let [day, month, year] = parts.as_slice() else { return None };
    Some(year.parse::<i64>().ok()? * 372 + month.parse::<i64>().ok()? * 31 + day.parse::<i64>().ok()?)
}
