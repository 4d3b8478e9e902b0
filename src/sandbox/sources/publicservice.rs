//! National Public Service Portal: a login gives a session that expires without notice; every later call is a POST to
//! one address with `session`, `madonvi` and `service` in its body; `error_code` is now a number, now a text.

use super::{Source, text};
use crate::sandbox::faults::{FaultKind, Faults};
use crate::sandbox::http::{Ask, Reply};
use crate::sandbox::province::Province;
use crate::sandbox::province::names::PROCEDURES;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Calls that one session lasts.
const SESSION_CALLS: u32 = 500;

/// The source.
pub struct PublicService {
    province: Arc<Province>,
    user: (String, String),
    faults: Arc<Faults>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Calls left, and the epoch in which it was made.
    sessions: HashMap<String, (u32, u64)>,
    /// Dossiers that were handed in, by number.
    synced: BTreeMap<String, Value>,
    progress: Vec<Value>,
    answers: u64,
}

impl Source for PublicService {
    fn id(&self) -> &str {
        "publicservice"
    }

    fn takes(&self, ask: &Ask) -> bool {
        matches!(ask.path.as_str(), "/" | "/login")
    }

    fn answer(&self, ask: &Ask) -> Reply {
        let Some(body) = ask.json() else { return self.reply(Err("02"), "result") };
        if ask.path == "/login" {
            return self.login(&body);
        }
        if !self.session_holds(text(&body, "session")) || text(&body, "madonvi").is_empty() {
            return self.reply(Err("SESSION_EXPIRED"), "result");
        }
        match text(&body, "service") {
            "LayDanhSachTTHC" => self.reply(Ok(PROCEDURES.iter().map(procedure).collect()), "result"),
            "LayThuTuc" => {
                let found = PROCEDURES.iter().find(|known| known.0 == text(&body, "maTTHC")).map(procedure);
                self.reply(Ok(found.into_iter().collect()), "result")
            }
            "TraCuuHoSo" => self.reply(Ok(self.dossier(text(&body, "mahoso")).into_iter().collect()), "result"),
            "DongBoHoSoMC" => self.sync(&body),
            "CapNhatTienDoHoSoMC" => self.progress(&body),
            _ => self.reply(Err("03"), "result"),
        }
    }
}

fn procedure((code, name, field, field_name): &(&str, &str, &str, &str)) -> Value {
    json!({
        "MATTHC": code, "TENTTHC": name, "COQUANTHUCHIEN": "Ủy ban nhân dân cấp xã",
        "LINHVUCTHUCHIEN": [{ "MALINHVUC": field, "TENLINHVUC": field_name }],
    })
}

impl PublicService {
    /// The portal, with the one account that may log in.
    pub fn new(province: Arc<Province>, user: (String, String), faults: Arc<Faults>) -> Self {
        PublicService { province, user, faults, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn login(&self, body: &Value) -> Reply {
        let known = text(body, "username") == self.user.0 && text(body, "password") == self.user.1;
        if !known || self.faults.of("publicservice").kind == FaultKind::CredentialsRefused {
            return Reply::json(&json!({ "session": null, "error_code": "01" }));
        }
        let session = uuid::Uuid::new_v4().simple().to_string();
        self.state().sessions.insert(session.clone(), (SESSION_CALLS, self.faults.epoch("publicservice")));
        Reply::json(&json!({ "session": session, "error_code": 0 }))
    }

    fn session_holds(&self, session: &str) -> bool {
        if self.faults.of("publicservice").kind == FaultKind::CredentialsRefused {
            return false;
        }
        let epoch = self.faults.epoch("publicservice");
        match self.state().sessions.get_mut(session) {
            Some((left, made)) if *left > 0 && *made == epoch => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }

    /// Success is the number 0 or the text "00", as it comes.
    fn reply(&self, result: Result<Vec<Value>, &str>, key: &str) -> Reply {
        let mut answer = Map::new();
        match result {
            Ok(values) => {
                answer.insert(key.into(), Value::from(values));
                answer.insert("error_code".into(), self.success());
            }
            Err(code) => {
                answer.insert("error_code".into(), Value::from(code));
            }
        }
        Reply::json(&Value::Object(answer))
    }

    fn success(&self) -> Value {
        let mut state = self.state();
        state.answers += 1;
        if state.answers.is_multiple_of(2) { Value::from(0) } else { Value::from("00") }
    }

    fn dossier(&self, number: &str) -> Option<Value> {
        if let Some(synced) = self.state().synced.get(number) {
            return Some(synced.clone());
        }
        let dossier = self.province.dossiers.iter().find(|dossier| dossier.number == number)?;
        let applicant = &self.province.people[dossier.applicant];
        let (code, name, field, field_name) = PROCEDURES[dossier.procedure];
        Some(json!({
            "MAHOSO": dossier.number, "MATTHC": code, "TENTTHC": name, "MALINHVUC": field, "TENLINHVUC": field_name,
            "CHUHOSO": applicant.full_name(), "LOAIDOITUONG": "1", "MADOITUONG": applicant.citizen_id,
            "SODIENTHOAI": applicant.phone, "NGAYTIEPNHAN": dossier.received, "NGAYHENTRA": dossier.due,
            "TRANGTHAIHOSO": dossier.status, "DONVIXULY": "Trung tâm Phục vụ hành chính công tỉnh Quảng Ninh",
            "DANHSACHLEPHI": [{ "TenPhiLePhi": "Lệ phí", "SoTien": "15000" }], "EMAIL": "", "FAX": null,
        }))
    }

    fn sync(&self, body: &Value) -> Reply {
        let data = body.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
        if !matches!(text(body, "isUpdating"), "True" | "False") || data.is_empty() {
            return self.reply(Err("02"), "result");
        }
        let accepted = data.len();
        let mut state = self.state();
        for dossier in data {
            state.synced.insert(text(&dossier, "MaHoSo").to_owned(), dossier);
        }
        drop(state);
        let error_code = self.success();
        Reply::json(&json!({ "accepted": accepted, "error_code": error_code }))
    }

    fn progress(&self, body: &Value) -> Reply {
        let step = body.get("data").cloned().unwrap_or_default();
        let number = text(&step, "MaHoSo");
        if self.dossier(number).is_none() {
            return self.reply(Err("04"), "result");
        }
        if text(&step, "ThoiDiemXuLy").len() != 14 {
            return self.reply(Err("02"), "result");
        }
        self.state().progress.push(step);
        let error_code = self.success();
        Reply::json(&json!({ "error_code": error_code }))
    }
}
