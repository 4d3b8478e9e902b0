//! Criminal Records: REST, POST, asynchronous; codes are JSON numbers, responses are flat; a request's state advances with each query, and
//! a change is listed until it is acknowledged.

use super::{Source, text};
use crate::sandbox::http::{HttpReply, HttpRequest};
use crate::sandbox::province::Province;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The source.
pub struct CriminalRecord {
    requests: Mutex<BTreeMap<String, u8>>,
    /// Number of state queries by dossier number.
    acknowledged: Mutex<BTreeMap<String, u8>>,
}

impl Source for CriminalRecord {
    fn id(&self) -> &str {
        "criminalrecord"
    }

    fn takes(&self, ask: &HttpRequest) -> bool {
        ask.path.starts_with("/apiLyLichTuPhap/")
    }

    fn respond(&self, ask: &HttpRequest) -> HttpReply {
        let Some(body) = ask.json() else { return refuse("Dữ liệu không hợp lệ") };
        match ask.path.rsplit('/').next() {
            Some("nhanHoSoDangKy") => self.submit(&body),
            Some("traTrangThaiHs") => self.state(&body),
            Some("traDsTrangThaiHs") => self.list(&body),
            Some("danhDauHsThanhCong") => self.acknowledge(&body),
            _ => HttpReply::error(404, "no such resource"),
        }
    }
}

fn refuse(text: &str) -> HttpReply {
    HttpReply::json(&json!({ "STATUS": "0", "DESCRIPTION": text, "ID": null }))
}

/// The source's own number of a request: an encrypted text there, and a similar one here.
fn own_number(number: &str) -> String {
    STANDARD.encode(number)
}

/// Initial number of requests.
const REQUESTS: usize = 30;
/// A request advances with each query; from this number of queries on, it does not.
const STAYS: u8 = 128;

impl CriminalRecord {
    /// Makes the source with a request for some of the portal's dossiers. The last of them stays in progress.
    pub fn new(province: &Arc<Province>) -> Self {
        let requests = province.dossiers.iter().take(REQUESTS).enumerate();
        let polls = |n| if n + 1 == REQUESTS { STAYS } else { (n % 3) as u8 * 2 };
        let requests = requests.map(|(n, one)| (one.number.clone(), polls(n))).collect();
        CriminalRecord { requests: Mutex::new(requests), acknowledged: Mutex::default() }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u8>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, body: &Value) -> HttpReply {
        let form = body.get("declarationWSForm").cloned().unwrap_or_default();
        // The source refuses codes as texts.
        let numbers = [
            "genderId",
            "reRegionId",
            "idTypeId",
            "formType",
            "nationalityId",
            "declareTypeId",
            "requestQty",
            "objectRequestId",
        ];
        if !numbers.iter().all(|name| form.get(name).is_some_and(Value::is_number)) {
            return refuse("Mã phải là số");
        }
        let texts = ["fullName", "birthDateStr", "phone", "declareDate", "receiveNo"];
        if let Some(name) = texts.iter().find(|name| text(&form, name).is_empty()) {
            return refuse(&format!("{name}: bắt buộc"));
        }
        if !body.get("idMinistryJustice").is_some_and(Value::is_string) {
            return refuse("idMinistryJustice: phải là chuỗi");
        }
        let number = text(body, "idReceivedDec");
        self.all().insert(number.to_owned(), 0);
        HttpReply::json(&json!({ "STATUS": "1", "DESCRIPTION": null, "ID": own_number(number) }))
    }

    fn state(&self, body: &Value) -> HttpReply {
        if text(body, "infoType") != "2" {
            return refuse("infoType phải là chuỗi");
        }
        let number = text(body, "idReceivedDec");
        let mut all = self.all();
        let Some(polls) = all.get_mut(number) else { return refuse("Không tìm thấy hồ sơ") };
        *polls = polls.saturating_add(1);
        let mut state = describe(*polls);
        state.insert("STATUS".into(), json!("1"));
        state.insert("DESCRIPTION".into(), json!(""));
        HttpReply::json(&Value::Object(state))
    }

    fn list(&self, body: &Value) -> HttpReply {
        if text(body, "infoType") != "2" {
            return refuse("infoType phải là chuỗi");
        }
        let all = self.all();
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = all.iter().filter(|(number, polls)| acknowledged.get(*number) != Some(&state_of(**polls).0));
        let one = |(number, polls): (&String, &u8)| {
            let mut row = describe(*polls);
            row.insert("DECLARATION_ID".into(), json!(own_number(number)));
            row.insert("RECEIVE_NO".into(), json!(number));
            row.insert("APPOINTMENT_NO".into(), Value::Null);
            Value::Object(row)
        };
        HttpReply::json(
            &json!({ "STATUS": "1", "DESCRIPTION": null, "LISTCONTENT": changed.map(one).collect::<Vec<_>>() }),
        )
    }

    /// An acknowledged change is not listed again; the next change is.
    fn acknowledge(&self, body: &Value) -> HttpReply {
        let all = self.all();
        let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        for own in text(body, "declarationId").split(';') {
            let Some((number, polls)) = all.iter().find(|(number, _)| own_number(number) == own) else {
                return refuse("Không tìm thấy hồ sơ");
            };
            acknowledged.insert(number.clone(), state_of(*polls).0);
        }
        HttpReply::json(&json!({ "STATUS": "1", "DESCRIPTION": null }))
    }
}

/// State, its text, and the days of approval and issue.
fn state_of(polls: u8) -> (u8, &'static str, &'static str, &'static str) {
    match polls {
        0 | 1 => (3, "STP đã tiếp nhận", "", ""),
        STAYS.. => (4, "Đang xử lý", "", ""),
        2 => (4, "Đang xử lý", "20/11/2026", ""),
        _ => (5, "Đã có phiếu", "20/11/2026", "24/11/2026"),
    }
}

fn describe(polls: u8) -> Map<String, Value> {
    let (state, words, approved, issued) = state_of(polls);
    let fields = [
        // Number or text, alternating.
        ("DEC_STATUS_ID", if state == 5 { json!(state) } else { json!(state.to_string()) }),
        ("DEC_STATUS_NAME", json!(words)),
        ("APPROVE_DATE", json!(approved)),
        ("ISSUE_DATE", json!(issued)),
    ];
    fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}
