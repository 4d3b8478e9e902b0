//! Shared Electronic Catalogues: REST, GET, open data; ETag and `If-None-Match`; thousands of rows in one answer.

use super::Source;
use crate::contract::formats::PROVINCES;
use crate::sandbox::http::{Ask, Reply};
use crate::sandbox::province::Province;
use crate::sandbox::province::names::PLACES;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The source.
pub struct Catalogues(pub Arc<Province>);

type Catalogue = (&'static str, &'static str, &'static [(&'static str, &'static str, &'static str)]);

const CODED: &[(&str, &str, &str)] = &[("MA", "Mã", "String"), ("TEN", "Tên", "String")];
const PLACED: &[(&str, &str, &str)] = &[
    ("MA", "Mã", "String"),
    ("TEN", "Tên", "String"),
    ("MACHA", "Mã cấp trên", "String"),
    ("HIEULUC", "Hiệu lực từ", "DateTime"),
];

const ALL: &[Catalogue] = &[
    ("madantoc", "Danh mục dân tộc", CODED),
    ("matongiao", "Danh mục tôn giáo", CODED),
    ("magioitinh", "Danh mục giới tính", CODED),
    ("manhommau", "Danh mục nhóm máu", CODED),
    ("matinhtranghonnhan", "Danh mục tình trạng hôn nhân", CODED),
    ("donvihanhchinhcap1", "Danh mục đơn vị hành chính cấp tỉnh", PLACED),
    ("donvihanhchinhcap2", "Danh mục đơn vị hành chính cấp xã", PLACED),
    ("qlvanbandieuhanhcap2", "Danh mục mã định danh cơ quan", PLACED),
    ("mabuuchinhcap3", "Danh mục mã bưu chính", PLACED),
];

impl Source for Catalogues {
    fn id(&self) -> &str {
        "catalogue"
    }

    fn takes(&self, ask: &Ask) -> bool {
        ask.path.starts_with("/dmdc/")
    }

    fn answer(&self, ask: &Ask) -> Reply {
        let mut parts = ask.path.split('/').skip(3);
        let (kind, code) = (parts.next(), parts.next().unwrap_or(""));
        // Properties hardly ever change; rows do.
        let cache = if kind == Some("Metadata") { "max-age=2" } else { "max-age=0, must-revalidate" };
        let document = match (kind, code) {
            (Some("AllCategory"), _) => {
                ALL.iter().map(|(code, name, _)| json!({ "CategoryCode": code, "CategoryName": name })).collect()
            }
            (Some("Metadata"), code) => schema(code),
            (Some("Category"), code) => self.rows(code),
            _ => return Reply::error(404, "no such resource"),
        };
        let body = Value::from(document).to_string();
        let etag = format!("\"{:08x}\"", crc32c::crc32c(body.as_bytes()));
        if ask.header("if-none-match") == Some(&etag) {
            return Reply { status: 304, headers: Vec::new(), body: Vec::new() }.with("etag", etag);
        }
        Reply::typed(200, "application/json", body).with("etag", etag).with("cache-control", cache)
    }
}

fn schema(code: &str) -> Vec<Value> {
    let found = ALL.iter().find(|(known, _, _)| *known == code);
    let property = |(code, name, kind): &(&str, &str, &str)| json!({ "PropertyCode": code, "PropertyName": name, "PropertyType": kind });
    found.map(|(_, _, properties)| properties.iter().map(property).collect()).unwrap_or_default()
}

fn coded(rows: &[(&str, &str)]) -> Vec<Value> {
    rows.iter().map(|(code, name)| json!({ "MA": code, "TEN": name })).collect()
}

fn placed(code: &str, name: &str, above: &str) -> Value {
    let mut row = Map::new();
    for (key, value) in [("MA", code), ("TEN", name), ("MACHA", above), ("HIEULUC", "2025-07-01T00:00:00")] {
        row.insert(key.into(), Value::from(value));
    }
    Value::Object(row)
}

impl Catalogues {
    fn rows(&self, code: &str) -> Vec<Value> {
        match code {
            "madantoc" => coded(&[("01", "Kinh"), ("02", "Tày"), ("03", "Thái"), ("08", "Dao"), ("21", "Sán Dìu")]),
            "matongiao" => coded(&[("00", "Không"), ("01", "Phật giáo"), ("02", "Công giáo")]),
            "magioitinh" => coded(&[("1", "Nam"), ("2", "Nữ"), ("3", "Khác")]),
            "manhommau" => {
                coded(&[("O", "Nhóm máu O"), ("A", "Nhóm máu A"), ("B", "Nhóm máu B"), ("AB", "Nhóm máu AB")])
            }
            "matinhtranghonnhan" => coded(&[("1", "Chưa kết hôn"), ("2", "Đang có vợ/chồng"), ("3", "Đã ly hôn")]),
            "donvihanhchinhcap1" => PROVINCES.iter().map(|(code, name)| placed(code, name, "")).collect(),
            "donvihanhchinhcap2" => {
                PLACES.iter().map(|place| placed(place.commune, place.commune_name, "22")).collect()
            }
            "qlvanbandieuhanhcap2" => {
                let mut agencies: Vec<(&str, &str)> =
                    self.0.officials.iter().map(|official| (official.agency.as_str(), official.agency_name)).collect();
                agencies.sort_unstable();
                agencies.dedup();
                agencies.iter().map(|(code, name)| placed(code, name, "H49")).collect()
            }
            "mabuuchinhcap3" => {
                (0..3_000).map(|n| placed(&format!("{:05}", 1_000 + n), &format!("Bưu cục {n}"), "01")).collect()
            }
            _ => Vec::new(),
        }
    }
}
