//! National Land Database: X-Road REST; sheet and parcel numbers are decimals if they are numbers, and texts if they are old.

use super::{Source, xroad};
use crate::sandbox::http::{HttpReply, HttpRequest};
use crate::sandbox::province::{Parcel, ParcelOwner, Province};
use crate::sandbox::sources::RequiredCredential;
use serde_json::{Value, json};
use std::sync::Arc;

/// Its member on X-Road.
const MEMBER: &str = "VN/GOV/MAE/DATDAI";

/// The source.
pub struct Land(pub Arc<Province>);

impl Source for Land {
    fn id(&self) -> &str {
        "land"
    }

    fn takes(&self, ask: &HttpRequest) -> bool {
        ask.path.starts_with(&format!("/r1/{MEMBER}/"))
    }

    fn required_credential(&self) -> RequiredCredential {
        RequiredCredential::XRoad
    }

    fn respond(&self, _ask: &HttpRequest) -> HttpReply {
        HttpReply::error(404, "only through X-Road")
    }

    fn xroad(&self, ask: &HttpRequest, clients: &[String]) -> HttpReply {
        xroad::rest(ask, clients, MEMBER, |service, path| match (service, path) {
            ("thuadat", [commune, sheet, number]) => {
                let fits = |one: &&Parcel| {
                    one.town.commune == *commune && one.sheet.to_string() == *sheet && one.number.to_string() == *number
                };
                Some(self.found(self.0.parcels.iter().find(fits)))
            }
            ("thuadat", [id]) => Some(self.found(self.0.parcels.iter().find(|parcel| parcel.id == *id))),
            ("chusudung", ["thuadat"]) => Some(self.owned(ask)),
            _ => None,
        })
    }
}

impl Land {
    fn found(&self, parcel: Option<&Parcel>) -> HttpReply {
        HttpReply::json(&json!({ "ThuaDat": parcel.map(|parcel| self.describe(parcel)) }))
    }

    fn owned(&self, ask: &HttpRequest) -> HttpReply {
        let (id, tax) = (ask.parameter("soDinhDanh"), ask.parameter("maSoThue"));
        let owns = |owner: &ParcelOwner| match owner {
            ParcelOwner::Person(index) => Some(self.0.people[*index].citizen_id.as_str()) == id,
            ParcelOwner::Enterprise(index) => Some(self.0.enterprises[*index].code.as_str()) == tax,
        };
        let found = self.0.parcels.iter().filter(|parcel| parcel.owners.iter().any(owns));
        HttpReply::json(&json!({ "DanhSachThuaDat": found.map(|parcel| self.describe(parcel)).collect::<Vec<_>>() }))
    }

    fn describe(&self, parcel: &Parcel) -> Value {
        let owner = |owner: &ParcelOwner| match owner {
            ParcelOwner::Person(index) => {
                let person = &self.0.people[*index];
                json!({ "TenChu": person.full_name(), "SoDinhDanh": person.citizen_id })
            }
            ParcelOwner::Enterprise(index) => {
                let enterprise = &self.0.enterprises[*index];
                json!({ "TenChu": enterprise.name, "MaSoThue": enterprise.code })
            }
        };
        let uses = parcel.uses.iter().map(|code| match *code {
            "SKC" => json!({ "KyHieuMucDichSuDung": code, "ThoiDiemBatDau": "2010", "ThoiDiemKetThuc": "01/06/2060" }),
            _ => json!({ "KyHieuMucDichSuDung": code, "ThoiDiemBatDau": "15/10/1993", "ThoiDiemKetThuc": null }),
        });
        let area = parcel.area_dm as f64 / 10.0;
        json!({
            "MaDinhDanhThuaDat": parcel.id, "MaXa": parcel.town.commune, "SoHieuToBanDo": parcel.sheet as f64,
            "SoThuTuThua": parcel.number as f64, "SoHieuToBanDoCu": format!("DC-{}", parcel.sheet),
            "SoThuTuThuaCu": format!("{}a", parcel.number), "DienTich": area,
            "DienTichPhapLy": area, "MucDichSuDung": uses.collect::<Vec<_>>(),
            "ChuSuDung": parcel.owners.iter().map(owner).collect::<Vec<_>>(),
            "GiayChungNhan": { "soPhatHanh": parcel.issue_number, "soVaoSo": format!("CH{:05}", parcel.number) },
        })
    }
}
