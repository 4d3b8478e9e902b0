//! National Public Service Portal: a login returns a session that expires without notice; every later call is a POST to
//! one address with `session`, `madonvi` and `service` in its body; `error_code` is sometimes a number, sometimes a text.

use super::{Source, text};
use crate::sandbox::faults::{FaultKind, Faults};
use crate::sandbox::http::{HttpReply, HttpRequest};
use crate::sandbox::province::Province;
use crate::sandbox::province::names::PROCEDURES;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// The national store of digitised results.
const PAPERS: &str = "/KhoSoHoaDVCQG/GetDanhSachKetQua";
/// Maximum of calls in one session.
const SESSION_CALLS: u32 = 500;

/// The source.
pub struct PublicService {
    province: Arc<Province>,
    user: (String, String),
    faults: Arc<Faults>,
    state: Mutex<DossierState>,
}

#[derive(Default)]
struct DossierState {
    /// Remaining calls, and the epoch of its creation.
    sessions: HashMap<String, (u32, u64)>,
    /// Submitted dossiers, by number.
    synced: BTreeMap<String, Value>,
    progress: Vec<Value>,
    answers: u64,
}

impl Source for PublicService {
    fn id(&self) -> &str {
        "publicservice"
    }

    fn takes(&self, ask: &HttpRequest) -> bool {
        matches!(ask.path.as_str(), "/" | "/login" | PAPERS)
    }

    fn respond(&self, ask: &HttpRequest) -> HttpReply {
        let Some(body) = ask.json() else { return refuse("-1", "Dữ liệu không hợp lệ") };
        if ask.path == "/login" {
            return self.login(&body);
        }
        if !self.session_holds(text(&body, "session")) || text(&body, "madonvi").is_empty() {
            return match ask.path.as_str() {
                PAPERS => HttpReply::json(&json!({ "errorCode": "SESSION_EXPIRED", "result": null })),
                _ => self.reply(Err("SESSION_EXPIRED"), "result"),
            };
        }
        if ask.path == PAPERS {
            return self.papers(&body);
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
            _ => refuse("-1", "Dịch vụ không tồn tại"),
        }
    }
}

fn refuse(code: &str, message: &str) -> HttpReply {
    HttpReply::json(&json!({ "error_code": code, "message": message }))
}

fn procedure((code, name, field, field_name): &(&str, &str, &str, &str)) -> Value {
    json!({
        "MATTHC": code, "TENTTHC": name, "MACOQUANCONGBO": field.split('-').next(),
        "COQUANTHUCHIEN": [{ "MADONVI": "H49.12", "TENDONVI": "Ủy ban nhân dân cấp xã" }],
        "CACHTHUCTHUCHIEN": [{ "KENH": 1, "THOIGIAN": [{ "THOIGIANGIAIQUYET": 7, "DONVITINH": "Ngày làm việc" }] }],
        "TRANGTHAI": 1,
        "LINHVUCTHUCHIEN": [{ "MALINHVUC": field, "TENLINHVUC": field_name }],
    })
}

impl PublicService {
    /// Makes the portal with the one account that may log in.
    pub fn new(province: Arc<Province>, user: (String, String), faults: Arc<Faults>) -> Self {
        PublicService { province, user, faults, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, DossierState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn login(&self, body: &Value) -> HttpReply {
        let known = text(body, "username") == self.user.0 && text(body, "password") == self.user.1;
        if !known || self.faults.of("publicservice").kind == FaultKind::CredentialsRefused {
            return HttpReply::json(&json!({ "session": null, "error_code": "01" }));
        }
        let session = uuid::Uuid::new_v4().simple().to_string();
        self.state().sessions.insert(session.clone(), (SESSION_CALLS, self.faults.epoch("publicservice")));
        HttpReply::json(&json!({ "session": session, "error_code": 0 }))
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

    /// Success is the number 0 or the text "00", alternating.
    fn reply(&self, result: Result<Vec<Value>, &str>, key: &str) -> HttpReply {
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
        HttpReply::json(&Value::Object(answer))
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
            "MaHoSo": dossier.number, "MaTTHC": code, "TenTTHC": name, "MaLinhVuc": field, "TenLinhVuc": field_name,
            "KenhThucHien": "2", "SoGiayToChuHoSo": applicant.citizen_id, "ChuHoSo": applicant.full_name(),
            "LoaiDoiTuong": "1", "MaDoiTuong": format!("7c1d0c50-9905-4e77-8a11-{:012}", dossier.applicant),
            "DinhDanhCHS": [{ "LoaiDinhDanh": "1", "SoDinhDanh": applicant.citizen_id }],
            "SoDienThoai": applicant.phone, "NgayTiepNhan": dossier.received, "NgayHenTra": dossier.due,
            "TrangThaiHoSo": dossier.status, "DonViXuLy": "Trung tâm Phục vụ hành chính công thành phố Quảng Ninh",
            "DanhSachLePhi": [{
                "TenPhiLePhi": "Lệ phí", "MaPhiLePhi": "1", "HinhThucThu": "1", "Gia": "15000", "LoaiPhiLePhi": "1",
            }],
            "Email": "", "Fax": null, "NgayTuChoi": "", "DSKetNoiCSDL": [{ "MaCSDL": "7" }],
        }))
    }

    fn sync(&self, body: &Value) -> HttpReply {
        let data = body.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
        if !matches!(text(body, "isUpdating"), "True" | "False") || data.is_empty() {
            return refuse("-1", "Dữ liệu không hợp lệ");
        }
        for dossier in &data {
            let number = text(dossier, "MaHoSo");
            // The same dossier may be sent again; a different one with this number is refused.
            let other = self.dossier(number).is_some_and(|known| known != *dossier);
            if other && text(body, "isUpdating") == "False" {
                return refuse("3", &format!("Mã hồ sơ {number} đã tồn tại"));
            }
        }
        let mut state = self.state();
        for dossier in data {
            state.synced.insert(text(&dossier, "MaHoSo").to_owned(), dossier);
        }
        drop(state);
        self.done("Đồng bộ hồ sơ thành công")
    }

    fn progress(&self, body: &Value) -> HttpReply {
        let steps = body.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
        if !(1..=10).contains(&steps.len()) || steps.iter().any(|step| text(step, "ThoiDiemXuLy").len() != 14) {
            return refuse("-1", "Dữ liệu không hợp lệ");
        }
        if let Some(step) = steps.iter().find(|step| self.dossier(text(step, "MaHoSo")).is_none()) {
            return refuse("-1", &format!("Không tìm thấy hồ sơ {}", text(step, "MaHoSo")));
        }
        self.state().progress.extend(steps);
        self.done("Đồng bộ tiến trình thành công")
    }

    fn done(&self, message: &str) -> HttpReply {
        let error_code = self.success();
        HttpReply::json(&json!({ "error_code": error_code, "message": message }))
    }

    /// The documents of the national store: a result of each finished dossier.
    fn papers(&self, body: &Value) -> HttpReply {
        let id = text(body, "soDinhDanh");
        let dossiers = self.province.dossiers.iter();
        let done = dossiers.filter(|one| self.province.people[one.applicant].citizen_id == id && one.status == "10");
        let paper = |dossier: &crate::sandbox::province::Dossier| {
            let (code, name, ..) = PROCEDURES[dossier.procedure];
            json!({
                "MaKetQua": format!("KQ.{}", dossier.number), "TenGiayTo": name, "SoKyHieu": format!("{code}/2026"),
                "CoQuanChuQuan": "Ủy ban nhân dân thành phố Quảng Ninh",
                "DanhSachTepDinhKem": [{ "TenTep": "ket-qua.pdf", "DuongDan": "https://tep.example.com/ket-qua.pdf" }],
            })
        };
        let papers: Vec<Value> = done.map(paper).collect();
        HttpReply::json(&json!({
            "errorCode": "0", "message": "", "signature": "", "result": { "DanhSachGiayToKetQua": papers },
        }))
    }
}
