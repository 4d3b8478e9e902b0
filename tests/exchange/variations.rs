//! Every response of `tests/fixtures`, written in equivalent ways, which must give the same result; and spoilt in ways that leave
//! nothing to be trusted, which must give neither a value nor "no such record".

use super::source_fixtures::{Fixture, faults, fixtures, raw::Wire, stage, told};
use serde_json::{Map, Value, json};
use tonic::Code;
use unicode_normalization::UnicodeNormalization;

/// The breaker stays closed, so that each response is read.
const GUARD: &str = "\n[guard]\nbreaker_window = 1000\nbreaker_failures_percent = 100\nattempts = 1\n";

/// A response as sent: HTTP headers and body.
type Answer = (Value, Vec<u8>);

/// A notation of a fixture's response; `None` if it does not apply to this one.
type Way = fn(&Fixture) -> Option<Answer>;

fn is_json(fixture: &Fixture) -> bool {
    matches!(fixture.body.first(), Some(b'{' | b'['))
}

fn parsed(fixture: &Fixture) -> Option<Value> {
    is_json(fixture).then(|| serde_json::from_slice(&fixture.body).unwrap())
}

fn xml(fixture: &Fixture) -> Option<String> {
    (!is_json(fixture)).then(|| String::from_utf8(fixture.body.clone()).unwrap())
}

fn as_before(fixture: &Fixture, body: impl Into<Vec<u8>>) -> Option<Answer> {
    Some((fixture.expect["http"].clone(), body.into()))
}

fn with_type(fixture: &Fixture, content_type: &str) -> Option<Answer> {
    let mut http = fixture.expect["http"].clone();
    http["headers"]["Content-Type"] = json!(content_type);
    Some((http, fixture.body.clone()))
}

/// A JSON value with each part changed from the leaves up.
fn changed(value: &Value, change: &dyn Fn(Value) -> Value) -> Value {
    change(match value {
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, one)| (name.clone(), changed(one, change))).collect())
        }
        Value::Array(items) => items.iter().map(|one| changed(one, change)).collect(),
        other => other.clone(),
    })
}

fn json_changed(fixture: &Fixture, change: &dyn Fn(Value) -> Value) -> Option<Answer> {
    as_before(fixture, changed(&parsed(fixture)?, change).to_string())
}

/// Text between tags, changed; blanks alone stay.
fn texts_changed(fixture: &Fixture, change: &dyn Fn(&str) -> String) -> Option<Answer> {
    let text = xml(fixture)?;
    let mut out = String::new();
    for (place, part) in text.split('>').enumerate() {
        if place > 0 {
            out.push('>');
        }
        match part.split_once('<') {
            Some((words, tag)) if place > 0 && !words.trim().is_empty() => {
                out.push_str(&change(words));
                out.push('<');
                out.push_str(tag);
            }
            _ => out.push_str(part),
        }
    }
    as_before(fixture, out)
}

fn is_row_source(fixture: &Fixture) -> bool {
    // A catalogue's rows are whatever columns it has.
    fixture.expect["source"] == "catalogue"
}

const SAME: &[(&str, Way)] = &[
    ("as it is", |one| as_before(one, one.body.clone())),
    ("JSON over several lines", |one| as_before(one, serde_json::to_string_pretty(&parsed(one)?).unwrap())),
    ("JSON in ASCII", |one| {
        let text = parsed(one)?.to_string();
        let escaped = text.chars().map(|c| match c {
            c if c.is_ascii() => c.to_string(),
            c => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        });
        as_before(one, escaped.collect::<String>())
    }),
    ("a byte order mark", |one| as_before(one, ["\u{feff}".as_bytes(), &one.body].concat())),
    ("JSON with more properties", |one| {
        json_changed(one, &|value| match value {
            Value::Object(mut fields) if !is_row_source(one) => {
                fields.insert("thuocTinhMoi".into(), json!("mới"));
                Value::Object(fields)
            }
            other => other,
        })
    }),
    ("JSON texts decomposed", |one| {
        json_changed(one, &|value| match value {
            Value::String(text) => json!(text.nfd().collect::<String>()),
            other => other,
        })
    }),
    ("JSON texts between blanks", |one| {
        json_changed(one, &|value| match value {
            Value::String(text) if !text.is_empty() => json!(format!(" {text}\n")),
            other => other,
        })
    }),
    ("JSON numbers as texts", |one| {
        json_changed(one, &|value| match value {
            Value::Number(number) => json!(number.to_string()),
            other => other,
        })
    }),
    ("JSON lists of one as the one", |one| {
        json_changed(one, &|value| match value {
            Value::Array(items) if items.len() == 1 && items[0].is_object() => items[0].clone(),
            other => other,
        })
    }),
    ("JSON lists as PHP's objects", |one| {
        json_changed(one, &|value| match value {
            Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_object) => {
                let numbered = items.into_iter().enumerate().map(|(place, item)| (place.to_string(), item));
                Value::Object(numbered.collect::<Map<_, _>>())
            }
            other => other,
        })
    }),
    ("JSON without nulls", |one| {
        let (http, body) = json_changed(one, &|value| match value {
            Value::Object(fields) => Value::Object(fields.into_iter().filter(|(_, value)| !value.is_null()).collect()),
            other => other,
        })?;
        // Without its content, a response cannot be understood.
        (body != b"{}").then_some((http, body))
    }),
    ("JSON with a charset", |one| is_json(one).then(|| with_type(one, "application/json; charset=utf-8"))?),
    ("XML in UTF-16", |one| {
        let text = xml(one)?.replace("UTF-8", "UTF-16").replace("utf-8", "utf-16");
        let units: Vec<u8> = "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        as_before(one, units)
    }),
    ("XML without a declaration", |one| {
        let text = xml(one)?;
        let rest = text.split_once("?>").filter(|_| text.starts_with("<?xml")).map_or(text.as_str(), |(_, rest)| rest);
        as_before(one, rest.trim_start())
    }),
    ("XML with comments", |one| as_before(one, xml(one)?.replace("</", "<!-- 1 < 2 --></"))),
    ("XML texts in CDATA", |one| {
        texts_changed(one, &|text| {
            if text.contains('&') { text.to_owned() } else { format!("<![CDATA[{text}]]>") }
        })
    }),
    ("XML texts as references", |one| {
        texts_changed(one, &|text| {
            let one = |c: char| if c.is_ascii() { c.to_string() } else { format!("&#x{:x};", u32::from(c)) };
            text.chars().map(one).collect()
        })
    }),
    ("XML texts decomposed", |one| texts_changed(one, &|text| text.nfd().collect())),
    ("XML texts between blanks", |one| texts_changed(one, &|text| format!("\n   {text}\t"))),
    ("XML with more elements", |one| {
        let text = xml(one)?;
        let (mut out, mut after_closing) = (String::new(), false);
        for part in text.split_inclusive('>') {
            let closes = part.trim_start().starts_with("</");
            let outer = ["Envelope>", "Body>", "Header>"].iter().any(|name| part.ends_with(name));
            if closes && after_closing && !outer {
                out.push_str("<PhanTuMoi kieu=\"1\">mới</PhanTuMoi>");
            }
            out.push_str(part);
            after_closing = closes || part.ends_with("/>");
        }
        as_before(one, out)
    }),
    ("XML as text/xml", |one| xml(one).and_then(|_| with_type(one, "text/xml"))),
    ("XML as application/xml", |one| xml(one).and_then(|_| with_type(one, "application/xml;charset=utf-8"))),
];

const SPOILT: &[(&str, Way)] = &[
    ("an empty body", |one| as_before(one, "")),
    ("half of it", |one| {
        let mut end = one.body.len() / 2;
        while one.body[end] & 0xc0 == 0x80 {
            end += 1;
        }
        as_before(one, &one.body[..end])
    }),
    ("a page of a login", |one| {
        let mut http = one.expect["http"].clone();
        http["headers"]["Content-Type"] = json!("text/html");
        Some((http, b"<!DOCTYPE html><html><body><form>login</form></body></html>".to_vec()))
    }),
    ("a well-formed page", |one| as_before(one, "<html><body><p>Bad gateway</p></body></html>")),
    ("HTTP 404 from in between", |one| {
        let page = b"<html><body>404 Not Found<hr/>nginx</body></html>".to_vec();
        is_read(one).then(|| (json!({ "status": 404, "headers": { "Content-Type": "text/html" } }), page))
    }),
    ("HTTP 404 with the record", |one| with_status(one, 404)),
    ("HTTP 502 with the record", |one| with_status(one, 502)),
    ("HTTP 206 with the record", |one| with_status(one, 206)),
    // A catalogue's rows are cached with their ETag and requested conditionally: 304 is a valid response there.
    ("HTTP 304", |one| {
        (!is_row_source(one))
            .then_some((json!({ "status": 304, "headers": one.expect["http"]["headers"] }), Vec::new()))
    }),
    ("HTTP 204", |one| Some((json!({ "status": 204, "headers": one.expect["http"]["headers"] }), Vec::new()))),
    ("an empty object", |one| is_json(one).then(|| as_before(one, "{}"))?),
    ("null", |one| is_json(one).then(|| as_before(one, "null"))?),
    ("a text", |one| is_json(one).then(|| as_before(one, "\"OK\""))?),
    ("an error of somebody else", |one| {
        let error = json!({ "error": "server_error", "error_description": "try again", "status_text": "failed" });
        is_json(one).then(|| as_before(one, error.to_string()))?
    }),
    ("other names", |one| {
        if is_row_source(one) {
            return None;
        }
        json_changed(one, &|value| match value {
            Value::Object(fields) => {
                Value::Object(fields.into_iter().map(|(name, v)| (format!("x_{name}"), v)).collect())
            }
            other => other,
        })
    }),
    ("a name twice", |one| {
        let text = parsed(one)?.to_string();
        let rest = text.strip_prefix('{').filter(|_| text.len() > 2)?;
        as_before(one, format!("{{\"moi\":1,\"moi\":2,{rest}"))
    }),
    ("a DTD", |one| {
        let text = xml(one)?;
        let (declaration, rest) = text.split_once("?>").unwrap_or(("<?xml version=\"1.0\"", &text));
        as_before(one, format!("{declaration}?><!DOCTYPE a [<!ENTITY b \"c\">]>{rest}"))
    }),
    ("a forbidden character", |one| as_before(one, xml(one)?.replacen("</", "&#1;</", 1))),
    ("an empty SOAP body", |one| {
        let text = xml(one)?;
        let (start, end) = (text.find("Body>")? + 5, text.rfind("</")?);
        let tail = text[..end].rfind("</")?;
        as_before(one, format!("{}{}", &text[..start], &text[tail..]))
    }),
];

fn with_status(fixture: &Fixture, status: u64) -> Option<Answer> {
    let mut http = fixture.expect["http"].clone();
    http["status"] = json!(status);
    Some((http, fixture.body.clone()))
}

fn is_read(fixture: &Fixture) -> bool {
    let (_, method) = fixture.expect["operation"].as_str().unwrap().split_once('/').unwrap();
    ["Get", "List", "Stream", "Find", "Verify"].iter().any(|verb| method.starts_with(verb))
}

/// Answers that give something.
fn is_answered(fixture: &Fixture) -> bool {
    let expect = &fixture.expect["expect"];
    fixture.expect["kind"] == "answer"
        && expect["accept"].is_null()
        && (expect["status"] == "OK" || expect["status"].is_null())
}

async fn every_variation_of(source: &str, settings: &[(&str, &str)]) {
    let (stage, raw, actor) = stage(source, settings, GUARD).await;
    let all = fixtures(source);
    let (mut failed, mut count) = (Vec::new(), 0);
    for fixture in all.iter().filter(|one| one.expect["kind"] == "answer") {
        for (way, write) in SAME {
            let Some((http, body)) = write(fixture) else { continue };
            let (mut expect, name) = (fixture.expect.clone(), fixture.name.clone());
            expect["http"] = http;
            let found = faults(&stage, &raw, &actor, &Fixture { name, body, expect }).await;
            count += 1;
            if !found.is_empty() {
                failed.push(format!("{source}/{}, {way}:\n   {}", fixture.name, found.join("\n   ")));
            }
        }
        for (way, write) in SPOILT.iter().filter(|_| is_answered(fixture)) {
            let Some((http, body)) = write(fixture) else { continue };
            raw.set(Wire::of(&http, &body));
            let told = told(&actor, fixture).await.unwrap();
            count += 1;
            let asked = raw.heard().is_some();
            let by_source = matches!(
                told.reason().as_str(),
                "SOURCE_PROTOCOL_ERROR" | "SOURCE_UNAVAILABLE" | "SOURCE_FAILED" | "WRITE_OUTCOME_UNKNOWN"
            );
            if !asked || told.code() == Code::Ok || !by_source {
                let what = format!("{:?} {} {:?}", told.code(), told.reason(), told.messages);
                failed.push(format!("{source}/{}, {way}: asked {asked}, {what}", fixture.name));
            }
        }
    }
    stage.verify();
    assert!(failed.is_empty(), "{} of {count} fail\n{}", failed.len(), failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn population() {
    every_variation_of("population", &[("account", "QUANGNINH_NDXP"), ("phone", "02033825566")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publicservice() {
    every_variation_of("publicservice", &[("unit", "H49")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn business() {
    every_variation_of("business", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn insurance() {
    every_variation_of("insurance", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn civilstatus() {
    every_variation_of("civilstatus", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn criminalrecord() {
    every_variation_of("criminalrecord", &[("ministry_id", "49")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn land() {
    every_variation_of("land", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn catalogue() {
    every_variation_of("catalogue", &[]).await;
}
