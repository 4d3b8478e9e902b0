//! Budget-Relation Unit Codes: X-Road SOAP, message protocol 4.0.

use super::{Source, xroad};
use crate::contract::xml::{self, Element};
use crate::sandbox::http::{HttpReply, HttpRequest};
use crate::sandbox::province::{BudgetUnit, Province};
use crate::sandbox::sources::RequiredCredential;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const SPACE: &str = "http://dvqhns.mof.gov.vn/v1";
/// The element order of a request for a code (`xs:sequence`).
const ORDER: [&str; 6] = ["MaYeuCau", "TenDonVi", "MaChuong", "MaCapDuToan", "MaDonViCapTren", "DiaChi"];

/// The source.
pub struct BudgetUnits {
    province: Arc<Province>,
    requests: AtomicUsize,
}

impl BudgetUnits {
    /// The source.
    pub fn new(province: Arc<Province>) -> Self {
        BudgetUnits { province, requests: AtomicUsize::new(0) }
    }

    fn exchange(&self, content: &Element) -> Result<String, (&'static str, &'static str)> {
        if *content.namespace != *SPACE {
            return Err(("Client", "Sai không gian tên"));
        }
        let value = match content.name.as_str() {
            "TraCuuDonVi" => self.unit(content.child_text("MaDVQHNS").unwrap_or("")),
            "DeNghiCapMa" => self.request(content)?,
            _ => return Err(("Server.ServerProxy.UnknownService", "Unknown service")),
        };
        let mut body = String::new();
        xml::write_root(&mut body, &format!("{}Response", content.name), Some(SPACE), &value);
        Ok(body)
    }

    fn unit(&self, code: &str) -> Value {
        match self.province.budget_units.iter().find(|unit| unit.code == code) {
            Some(unit) => json!({ "KetQua": { "Ma": "0" }, "DonVi": describe(unit) }),
            None => json!({ "KetQua": { "Ma": "404", "MoTa": "Không tìm thấy" }, "DonVi": "" }),
        }
    }

    fn request(&self, content: &Element) -> Result<Value, (&'static str, &'static str)> {
        let places: Option<Vec<usize>> =
            content.children.iter().map(|child| ORDER.iter().position(|name| *name == child.name)).collect();
        if !places.is_some_and(|places| places.is_sorted()) {
            return Err(("Client", "Sai thứ tự trường"));
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        Ok(json!({
            "KetQua": { "Ma": "0" },
            "TiepNhan": { "SoTiepNhan": format!("TN-2026-{:05}", 1 + number), "NgayHenTra": "2026-12-05" },
        }))
    }
}

fn describe(unit: &BudgetUnit) -> Value {
    json!({
        "MaDVQHNS": unit.code, "TenDonVi": unit.name, "MaChuong": unit.chapter, "MaCapDuToan": unit.level.to_string(),
        "MaDonViCapTren": unit.parent.as_deref().unwrap_or(""), "DiaChi": unit.address, "NgayCap": "2025-07-01",
        "TrangThai": unit.status,
    })
}

impl Source for BudgetUnits {
    fn id(&self) -> &str {
        "budgetunit"
    }

    fn takes(&self, ask: &HttpRequest) -> bool {
        ask.path == "/dvqhns"
    }

    fn required_credential(&self) -> RequiredCredential {
        RequiredCredential::XRoad
    }

    fn respond(&self, _ask: &HttpRequest) -> HttpReply {
        HttpReply::error(404, "only through X-Road")
    }

    fn xroad(&self, ask: &HttpRequest, clients: &[String]) -> HttpReply {
        xroad::soap(ask, clients, |content| self.exchange(content))
    }
}
