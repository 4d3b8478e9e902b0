//! Shared Electronic Catalogues: REST, GET, open data; ETag and `If-None-Match`; thousands of rows in one response, with nulls; rows
//! are added by POST.

use super::Source;
use crate::contract::formats::PROVINCES;
use crate::sandbox::http::{HttpReply, HttpRequest};
use crate::sandbox::province::Province;
use crate::sandbox::province::names::TOWNS;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The source.
pub struct Catalogues {
    /// The province.
    pub province: Arc<Province>,
    /// Added rows by catalogue; they are not returned: the ministry publishes them first.
    pub added: Mutex<BTreeMap<String, Vec<Value>>>,
}

/// Maximum of rows added to one catalogue.
const MAX_ADDED: usize = 10_000;

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

    fn takes(&self, ask: &HttpRequest) -> bool {
        ask.path.starts_with("/dmdc/")
    }

    fn respond(&self, ask: &HttpRequest) -> HttpReply {
        let mut parts = ask.path.split('/').skip(3);
        let (kind, code) = (parts.next(), parts.next().unwrap_or(""));
        if ask.method == http::Method::POST {
            return if kind == Some("Category") {
                self.add(code, ask)
            } else {
                HttpReply::error(404, "no such resource")
            };
        }
        // Properties rarely change; rows do.
        let cache = if kind == Some("Metadata") { "max-age=2" } else { "max-age=0, must-revalidate" };
        let document = match (kind, code) {
            (Some("AllCategory"), _) => {
                ALL.iter().map(|(code, name, _)| json!({ "CategoryCode": code, "CategoryName": name })).collect()
            }
            (Some("Metadata"), code) => schema(code),
            (Some("Category"), code) => self.rows(code),
            _ => return HttpReply::error(404, "no such resource"),
        };
        let body = Value::from(document).to_string();
        let etag = format!("\"{:08x}\"", crc32c::crc32c(body.as_bytes()));
        if ask.header("if-none-match") == Some(&etag) {
            return HttpReply { status: 304, headers: Vec::new(), body: Vec::new() }.with("etag", etag);
        }
        HttpReply::typed(200, "application/json", body).with("etag", etag).with("cache-control", cache)
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
    // A centrally-run city since 2026-09-01 (Resolution 36/2026/QH16).
    let since = if above.is_empty() && code == "22" { "01/09/2026" } else { "01/07/2025" };
    for (key, value) in [("MA", code), ("TEN", name), ("MACHA", above), ("HIEULUC", since)] {
        // A missing value is null.
        row.insert(key.into(), if value.is_empty() { Value::Null } else { Value::from(value) });
    }
    Value::Object(row)
}

impl Catalogues {
    /// Adds rows, unless one of them has a first property that already exists.
    fn add(&self, code: &str, ask: &HttpRequest) -> HttpReply {
        let refuse = |words: String| HttpReply::json(&json!({ "MSG": words, "Count": 0 }));
        let Some(Value::Array(rows)) = ask.json() else { return refuse("Data not insert: not a list".to_owned()) };
        let Some((_, _, [(key, ..), ..])) = ALL.iter().find(|(known, _, _)| *known == code) else {
            return refuse("Data not insert: no such category".to_owned());
        };
        let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        let there = added.entry(code.to_owned()).or_default();
        let known = self.rows(code);
        for (place, row) in rows.iter().enumerate() {
            let value = row.get(key).and_then(Value::as_str).unwrap_or("");
            if value.is_empty()
                || known.iter().chain(there.iter()).any(|one| one.get(key).and_then(Value::as_str) == Some(value))
            {
                return refuse(format!("Data not insert: Record {}: {key} {value} is duplicate", place + 1));
            }
        }
        if there.len() + rows.len() > MAX_ADDED {
            return refuse("Data not insert: too many".to_owned());
        }
        let count = rows.len();
        there.extend(rows);
        HttpReply::json(&json!({ "MSG": "Done", "Count": count }))
    }

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
            "donvihanhchinhcap2" => TOWNS.iter().map(|place| placed(place.commune, place.commune_name, "22")).collect(),
            "qlvanbandieuhanhcap2" => {
                let mut agencies: Vec<(&str, &str)> = self
                    .province
                    .officials
                    .iter()
                    .map(|official| (official.agency.as_str(), official.agency_name))
                    .collect();
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
