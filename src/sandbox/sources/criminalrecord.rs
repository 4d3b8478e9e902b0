//! Criminal Records: REST, POST, asynchronous; codes are JSON numbers; a request's state moves on as it is asked for.

use super::{Source, text};
use crate::sandbox::http::{Ask, Reply};
use crate::sandbox::province::Province;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The source.
pub struct CriminalRecord {
    requests: Mutex<BTreeMap<String, u8>>,
}

impl Source for CriminalRecord {
    fn id(&self) -> &str {
        "criminalrecord"
    }

    fn takes(&self, ask: &Ask) -> bool {
        ask.path.starts_with("/apiLyLichTuPhap/")
    }

    fn answer(&self, ask: &Ask) -> Reply {
        let Some(body) = ask.json() else { return refuse(400, "Dữ liệu không hợp lệ") };
        match ask.path.rsplit('/').next() {
            Some("nhanHoSoDangKy") => self.submit(&body),
            Some("traTrangThaiHs") => self.state(&body),
            Some("traDsTrangThaiHs") => self.list(&body),
            _ => Reply::error(404, "no such resource"),
        }
    }
}

fn refuse(status: u16, text: &str) -> Reply {
    Reply::json(&json!({ "STATUS": status, "DESCRIPTION": text, "ID": null, "DATA": null }))
}

/// How many requests there are at first.
const REQUESTS: usize = 30;
/// A request goes on each time that it is asked for; one that has been asked for so often does not.
const STAYS: u8 = 128;

impl CriminalRecord {
    /// The source, with a request for some of the portal's dossiers. The last of them stays in progress.
    pub fn new(province: &Arc<Province>) -> Self {
        let requests = province.dossiers.iter().take(REQUESTS).enumerate();
        let asked = |n| if n + 1 == REQUESTS { STAYS } else { (n % 3) as u8 * 2 };
        CriminalRecord { requests: Mutex::new(requests.map(|(n, one)| (one.number.clone(), asked(n))).collect()) }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u8>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, body: &Value) -> Reply {
        let form = body.get("declarationWSForm").cloned().unwrap_or_default();
        // The source refuses codes that are texts.
        let numbers = ["genderId", "reRegionId", "idTypeId", "formType"];
        if !numbers.iter().all(|name| form.get(name).is_some_and(Value::is_number)) {
            return refuse(400, "Mã phải là số");
        }
        if text(&form, "fullName").is_empty() || text(&form, "birthDateStr").is_empty() {
            return refuse(400, "Thiếu họ tên hoặc ngày sinh");
        }
        let mut all = self.all();
        let id = 700_000 + all.len();
        all.insert(text(body, "idReceivedDec").to_owned(), 0);
        Reply::json(&json!({ "STATUS": 1, "DESCRIPTION": "Thành công", "ID": id }))
    }

    fn state(&self, body: &Value) -> Reply {
        if !body.get("infoType").is_some_and(Value::is_number) {
            return refuse(400, "infoType phải là số");
        }
        let number = text(body, "idReceivedDec");
        let mut all = self.all();
        let Some(asked) = all.get_mut(number) else { return refuse(404, "Không tìm thấy hồ sơ") };
        *asked = asked.saturating_add(1);
        Reply::json(&json!({ "STATUS": 1, "DATA": describe(number, *asked) }))
    }

    fn list(&self, body: &Value) -> Reply {
        if text(body, "fromDate").len() != 10 {
            return refuse(400, "fromDate không hợp lệ");
        }
        let all: Vec<Value> = self.all().iter().map(|(number, asked)| describe(number, *asked)).collect();
        Reply::json(&json!({ "STATUS": 1, "DATA": all }))
    }
}

fn describe(number: &str, asked: u8) -> Value {
    let (state, approved, issued) = match asked {
        0 | 1 => (3, None, None),
        STAYS.. => (4, None, None),
        2 => (4, Some("20/11/2026"), None),
        _ => (5, Some("20/11/2026"), Some("24/11/2026")),
    };
    json!({ "ID_RECEIVED_DEC": number, "DEC_STATUS_ID": state, "APPROVE_DATE": approved, "ISSUE_DATE": issued })
}
