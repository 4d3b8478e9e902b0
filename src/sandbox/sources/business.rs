//! National Business Registration: REST, GET; `Status` "1" or "0" in every answer; one representative is an object,
//! several are a list; texts where one would expect numbers.

use super::Source;
use crate::sandbox::http::{Ask, Reply};
use crate::sandbox::province::names::TRADES;
use crate::sandbox::province::{Enterprise, Province, Registration};
use serde_json::{Value, json};
use std::sync::Arc;

/// The source.
pub struct Business(pub Arc<Province>);

impl Source for Business {
    fn id(&self) -> &str {
        "business"
    }

    fn takes(&self, ask: &Ask) -> bool {
        ask.path.starts_with("/apiCSDLDKDN/")
    }

    fn answer(&self, ask: &Ask) -> Reply {
        let data = match ask.path.rsplit('/').next() {
            Some("chiTietDoanhNghiep") => self.enterprise(ask),
            Some("danhSachHoSo") => self.registrations(ask),
            Some("tinhTrangHoSo") => self.registration(ask),
            _ => return Reply::error(404, "no such resource"),
        };
        Reply::json(&match data {
            Ok(data) => {
                let count = data.as_array().map_or(1, Vec::len);
                json!({ "Data": data, "DataCount": count, "Status": "1", "Message": "Success" })
            }
            Err((status, message)) => json!({ "Data": null, "DataCount": 0, "Status": status, "Message": message }),
        })
    }
}

type Found = Result<Value, (&'static str, &'static str)>;

impl Business {
    fn enterprise(&self, ask: &Ask) -> Found {
        let code = ask.parameter("msdn").unwrap_or("");
        let found = self.0.enterprises.iter().find(|enterprise| enterprise.code == code);
        found.map(|enterprise| self.describe(enterprise)).ok_or(("404", "Không tìm thấy doanh nghiệp"))
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
                    "AMOUNT": (enterprise.capital / people.len() as u64).to_string(),
                    "RATIO_PERCENT": share, "COUNTRY": "Việt Nam",
                })
            })
            .collect();
        let (trade, second) = (TRADES[enterprise.trade], TRADES[(enterprise.trade + 1) % TRADES.len()]);
        let (day, month, year) = enterprise.founded;
        let place = enterprise.place;
        json!({
            "MainInformation": {
                "ENTERPRISE_ID": (4_000_000 + enterprise.capital / 100_000_000).to_string(),
                "ENTERPRISE_GDT_CODE": enterprise.code, "IMP_BUSINESS_CODE": "",
                "ENTERPRISE_TYPE_ID": enterprise.kind.0, "ENTERPRISE_TYPE_NAME": enterprise.kind.1,
                "NAME": enterprise.name, "SHORT_NAME": enterprise.short_name, "NAME_F": null,
                "FOUNDING_DATE": format!("{day:02}/{month:02}/{year}"), "LAST_AMEND_DATE": "15/06/2025",
                "NUMBER_CHANGES": "2", "ENTERPRISE_STATUS": enterprise.status,
                "ENTERPRISE_STATUS_NAME": "Đang hoạt động", "LEGAL_NAMES": names.join("; "),
                "CAPITAL_AMOUNT": enterprise.capital.to_string(),
            },
            "HOAdress": {
                "CityID": "22", "CityName": "Tỉnh Quảng Ninh", "DistrictID": place.old_district,
                "DistrictName": place.old_district_name, "WardID": place.old_commune,
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

    fn registrations(&self, ask: &Ask) -> Found {
        let day = |name| Some(ask.parameter(name)?.split('/').collect::<Vec<_>>()).and_then(day_number);
        let (Some(from), Some(to)) = (day("from_date"), day("to_date")) else {
            return Err(("-2", "Ngày không hợp lệ"));
        };
        if to < from || to - from > 5 {
            return Err(("-2", "Khoảng thời gian tối đa 5 ngày"));
        }
        let number = |name| ask.parameter(name).and_then(|text| text.parse::<usize>().ok());
        let (Some(offset), Some(limit)) = (number("offset"), number("limit")) else {
            return Err(("-2", "Thiếu offset, limit"));
        };
        let in_period = |one: &&Registration| {
            let received = day_number(vec![&format!("{:02}", one.day), "11", "2026"]);
            received.is_some_and(|received| (from..=to).contains(&received))
        };
        let page: Vec<Value> = self
            .0
            .registrations
            .iter()
            .filter(in_period)
            .skip(offset)
            .take(limit)
            .map(|one| self.journal(one))
            .collect();
        Ok(Value::from(page))
    }

    fn registration(&self, ask: &Ask) -> Found {
        let journal = ask.parameter("in_journal_no").unwrap_or("");
        let found = self.0.registrations.iter().find(|one| one.journal == journal);
        found.map(|one| self.journal(one)).ok_or(("404", "Không tìm thấy hồ sơ"))
    }

    fn journal(&self, one: &Registration) -> Value {
        let enterprise = &self.0.enterprises[one.enterprise];
        json!({
            "IN_JOURNAL_NO": one.journal, "ENTERPRISE_GDT_CODE": enterprise.code, "NAME": enterprise.name,
            "JOURNAL_TYPE": "Đăng ký thay đổi", "RECEIPT_DATE": format!("{:02}/11/2026", one.day),
            "JOURNAL_STATUS": one.status,
        })
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
