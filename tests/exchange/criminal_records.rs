//! Criminal records in the newer of two public shapes, which the connection entry chooses (`seeds/contracts/criminalrecord-v2.proto`).

use super::source_fixtures::{raw::Wire, stage};
use crate::support::{Actor, Stage, approved_grant, edit, show};
use ndxp_gateway::config::Config;
use serde_json::{Value, json};

const SUBMIT: &str = "/ndxp.criminalrecord.v2.CriminalRecordService/SubmitRequest";
const RESULT: &str = "/ndxp.criminalrecord.v2.CriminalRecordService/GetResult";
/// The province's key, as in its file.
const KEY: &str = "khoa-cua-tinh-0001";

/// Writes the contract and an entry that selects it.
pub(super) fn chosen(stage: &Stage) -> Actor {
    let folder = &stage.folder.path;
    std::fs::create_dir_all(folder.join("contracts/ndxp/criminalrecord/v2")).unwrap();
    let text = include_str!("../../seeds/contracts/criminalrecord-v2.proto");
    std::fs::write(folder.join("contracts/ndxp/criminalrecord/v2/criminalrecord.proto"), text).unwrap();
    std::fs::write(folder.join("secrets/criminalrecord-key"), format!("{KEY}\n")).unwrap();
    let entry = "source = \"criminalrecord\"\nhub = \"lgsp\"\ncontract = \"v2\"\n\n[settings]\nauth_key = { file = \"../secrets/criminalrecord-key\" }\nprovince_code = \"22\"\n\n[drift]\nall = \"refuse\"\n";
    std::fs::write(folder.join("sources/criminalrecord.toml"), entry).unwrap();
    stage.gateway.as_ref().unwrap().reload().unwrap();
    let config = Config::load(&stage.folder.gateway_config()).map_err(show).unwrap();
    // Certificates have a scope of their own, which no grant of the first contract has.
    approved_grant(stage, "one-stop-shop", &["criminalrecord:result"]);
    Actor { contracts: config.catalogue().map_err(show).unwrap().contracts, ..stage.actor("one-stop-shop") }
}

pub(super) fn submission() -> Value {
    json!({
        "dossierNumber": "H49.20-261102-9041", "registrationSource": "COUNTER", "receivedOn": { "year": 2026, "month": 11, "day": 2 },
        "declaration": {
            "form": "FORM_1", "quantity": 2, "fullName": "Trình Văn Khoa", "gender": "FEMALE",
            "birthDate": { "year": 1991, "month": 3, "day": 7 }, "paperKind": "3", "paperNumber": "022091990254",
            "residence": { "provinceCode": "22", "communeCode": "06685", "detail": "Tổ 1" },
            "residences": [{ "fromDate": "2005", "toDate": "nay", "place": "Hồng Gai" }],
        },
    })
}

pub(super) fn answer(body: &Value) -> Wire {
    Wire::of(&json!({ "status": 200, "headers": { "Content-Type": "application/json" } }), body.to_string().as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_sent_in_the_newer_shape_and_its_result_is_mapped() {
    let (stage, raw, _) = stage("criminalrecord", &[], "").await;
    let actor = chosen(&stage);
    raw.set(answer(&json!({ "status": 1, "statusDescription": "Gửi thông tin thành công", "errorCode": "", "errorDescription": null })));
    let told = actor.call(SUBMIT, submission()).await.ok();
    assert_eq!(told.messages[0], json!({}));
    let heard = raw.heard().unwrap();
    let body: Value = serde_json::from_slice(&heard.body).unwrap();
    let expected = [
        ("/authKey", KEY),
        ("/maTinh", "22"),
        ("/maHoSoMCDT", "H49.20-261102-9041"),
        ("/nguonDangKy", "3"),
        ("/ngayTiepNhan", "02/11/2026"),
        ("/toKhai/loaiPhieu", "1"),
        ("/toKhai/soLuongCap", "2"),
        ("/toKhai/nycHoTen", "Trình Văn Khoa"),
        ("/toKhai/nycGioiTinh", "2"),
        ("/toKhai/nycNgaySinh", "07/03/1991"),
        ("/toKhai/nycSoGiayTo", "022091990254"),
        ("/toKhai/nycThuongTru/maPhuongXa", "06685"),
        ("/toKhai/nycCuTru/0/noiCuTru", "Hồng Gai"),
    ];
    for (place, value) in expected {
        assert_eq!(body.pointer(place), Some(&json!(value)), "{place}: {body}");
    }
    assert!(body.get("tenTinh").is_none(), "without the setting it is left out");
    assert_eq!(stage.entry(&told.exchange()).entry.subjects.len(), 1);
    let result = json!({ "status": 1, "statusDescription": "Thành công", "value": [{
        "maHoSoMCDT": "H49.20-261102-9041", "trangThaiXuLy": "9",
        "ketQuaXuLy": { "soPhieuLLTP": "990254", "loaiPhieu": "1", "tinhTrangAnTich": "1", "tenTinhTrangAnTich": "Không có án tích",
            "thongTinAn": null, "dsCDNCV": [], "phieuLLTP": "JVBERi0=" },
    }] });
    raw.set(answer(&result));
    let told = actor.call(RESULT, json!({ "dossierNumber": "H49.20-261102-9041" })).await.ok();
    let one = &told.messages[0]["results"][0];
    assert_eq!((&one["state"], &one["certificate"]["convictions"]), (&json!("9"), &json!("Không có án tích")));
    assert_eq!(one["certificate"]["document"], "JVBERi0=");
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn failure_and_absence_differ_in_the_newer_shape() {
    let (stage, raw, _) = stage("criminalrecord", &[], "").await;
    let actor = chosen(&stage);
    let failed =
        |words: &str| json!({ "status": 0, "statusDescription": null, "errorCode": "", "errorDescription": words });
    for (body, reason) in [
        (failed("Hồ sơ ĐÃ ĐƯỢC TIẾP NHẬN, không thể cập nhật thông tin"), "RECORD_EXISTS"),
        (failed("Thiếu trường nycHoTen"), "SOURCE_REJECTED"),
        (json!({ "status": 7 }), "WRITE_OUTCOME_UNKNOWN"),
        (json!({ "message": "ok" }), "WRITE_OUTCOME_UNKNOWN"),
    ] {
        raw.set(answer(&body));
        assert_eq!(actor.call(SUBMIT, submission()).await.reason(), reason, "{body}");
    }
    for (body, reason) in [
        (json!({ "status": 1, "value": [] }), "RECORD_NOT_FOUND"),
        (json!({ "status": 1 }), "SOURCE_PROTOCOL_ERROR"),
        (json!({ "status": 1, "value": [{ "maHoSoMCDT": "H49.20-261102-9041" }] }), "SOURCE_PROTOCOL_ERROR"),
        (
            json!({ "status": 1, "value": [{ "maHoSoMCDT": "H49.20-261102-9041", "trangThaiXuLy": "9", "moi": 1 }] }),
            "SOURCE_DRIFTED",
        ),
    ] {
        raw.set(answer(&body));
        let told = actor.call(RESULT, json!({ "dossierNumber": "H49.20-261102-9041" })).await;
        assert_eq!(told.reason(), reason, "{body}");
    }
    // The first shape is not served while the entry selects the other.
    raw.set(Wire::nothing());
    let told = actor
        .call(
            "/ndxp.criminalrecord.v1.CriminalRecordService/GetRequestStatus",
            json!({ "dossierNumber": "H49.20-261102-9041" }),
        )
        .await;
    assert!(!told.reason().is_empty() && raw.heard().is_none());
    // A key in the entry itself is a text like any other setting; one from a missing file is refused.
    let file = stage.folder.path.join("sources/criminalrecord.toml");
    edit(&file, |text| text.replace("secrets/criminalrecord-key", "secrets/nothing"));
    let config = Config::load(&stage.folder.gateway_config()).map_err(show).unwrap();
    let fault = config.catalogue().map(|_| ()).map_err(show).unwrap_err();
    assert!(fault.contains("auth_key"), "{fault}");
}
