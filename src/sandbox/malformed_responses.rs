//! Malformed responses, as real sources and the systems in front of them send them: a fault changes a correct response
//! (`docs/sandbox.md` lists each with the gateway's status).

use super::faults::{Fault, FaultKind};
use super::message::{HttpReply, HttpRequest};
use crate::contract::xml::{self, Element};
use serde_json::{Map, Value};
use std::io::Write;
use unicode_normalization::UnicodeNormalization;

/// Fields with a result or a success flag, in any source.
const VERDICTS: [&str; 7] = ["TonTai", "Status", "STATUS", "status", "error_code", "errorCode", "MSG"];
/// Fields with a code of an open list.
const CODED: [&str; 9] = [
    "GioiTinh",
    "gioiTinh",
    "nksGioiTinh",
    "TinhTrangHonNhan",
    "ENTERPRISE_STATUS",
    "trangThai",
    "TrangThaiHoSo",
    "DEC_STATUS_ID",
    "PropertyType",
];
/// An unknown code.
const NO_CODE: &str = "97";
/// The `Retry-After` of a busy source.
const BUSY_FOR_S: i64 = 20;
/// The error page of a web server in front of a source.
const NOT_FOUND_PAGE: &str = "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n<center><h1>404 Not Found</h1></center>\r\n<hr><center>nginx/1.18.0</center>\r\n</body>\r\n</html>\r\n";
/// The error document of an API gateway in front of a source, sent with status 200.
const GATEWAY_FAULT: &str = r#"{"fault":{"code":900900,"message":"Unclassified Authentication Failure","description":"Error while accessing backend services for API key validation"}}"#;

/// Returns the changed response; unchanged if the fault is of another kind.
pub fn altered(reply: HttpReply, fault: Fault) -> HttpReply {
    match fault.kind {
        FaultKind::NotFoundPage => HttpReply::typed(404, "text/html", NOT_FOUND_PAGE),
        FaultKind::EmptyBody => HttpReply { body: Vec::new(), ..reply },
        FaultKind::GatewayFault => HttpReply::typed(200, "application/json", GATEWAY_FAULT),
        FaultKind::OtherStatus => HttpReply { status: fault.status.unwrap_or(206), ..reply },
        FaultKind::BusyUntil => {
            let until = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(BUSY_FOR_S);
            let date = until.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            HttpReply::error(503, "busy").with("retry-after", date)
        }
        FaultKind::UnrequestedGzip => zipped(reply),
        FaultKind::TokenError if of_a_token(&reply) => HttpReply::json(
            &serde_json::json!({ "error": "invalid_client", "error_description": "Client authentication failed" }),
        ),
        FaultKind::TokenMalformed if of_a_token(&reply) => changed(marked(reply), &|_, value| match value {
            Value::Number(number) => Value::from(format!("{number}.0")),
            other => other,
        }),
        FaultKind::ByteOrderMark => marked(reply),
        FaultKind::Utf16 => wide(reply),
        FaultKind::DuplicateNames => doubled(reply),
        FaultKind::OtherNames => renamed(reply),
        FaultKind::NoVerdict => {
            changed(reply, &|name, value| if VERDICTS.contains(&name) { Value::Null } else { value })
        }
        FaultKind::UnknownCodes => {
            changed(reply, &|name, value| if CODED.contains(&name) { Value::from(NO_CODE) } else { value })
        }
        FaultKind::Whitespace => changed(reply, &|_, value| match value {
            Value::String(text) => Value::from(format!("\n      {text}\n    ")),
            other => other,
        }),
        FaultKind::Decomposed => changed(reply, &|_, value| match value {
            Value::String(text) => Value::from(text.nfd().collect::<String>()),
            other => other,
        }),
        FaultKind::LostZeros => changed(reply, &|_, value| lost_zeros(value)),
        FaultKind::Sentinels => changed(reply, &|_, value| sentinel(value)),
        FaultKind::CutLists => changed(reply, &|_, value| match value {
            Value::Array(items) if items.len() > 1 => Value::from(items[..items.len() / 2].to_vec()),
            other => other,
        }),
        FaultKind::ListsAsObjects => changed(reply, &|_, value| match value {
            Value::Array(items) if !items.is_empty() => {
                Value::Object(items.into_iter().enumerate().map(|(place, item)| (place.to_string(), item)).collect())
            }
            other => other,
        }),
        FaultKind::AddedNames => with_more(reply),
        FaultKind::OtherTypes => changed(reply, &|_, value| match value {
            Value::String(text) if text.starts_with(char::is_alphabetic) => serde_json::json!({ "noiDung": text }),
            other => other,
        }),
        FaultKind::SecondResponse => repeated(reply),
        FaultKind::DanglingReference => dangling(reply),
        _ => reply,
    }
}

/// A document with its response twice: two elements in a SOAP body, or two consecutive JSON values.
fn repeated(mut reply: HttpReply) -> HttpReply {
    if serde_json::from_slice::<Value>(&reply.body).is_ok() {
        reply.body = reply.body.repeat(2);
        return reply;
    }
    of_xml(reply, |root| {
        if let Some(body) = body_of(root) {
            body.children.extend_from_within(..1);
        }
    })
}

/// Changes an XML document; any other is unchanged.
fn of_xml(mut reply: HttpReply, change: impl FnOnce(&mut Element)) -> HttpReply {
    if let Ok(mut root) = xml::parse(&reply.body) {
        change(&mut root);
        reply.body = written(&root, &|element| Some(element.text.clone())).into_bytes();
    }
    reply
}

/// A SOAP response whose content is a reference (SOAP 1.1, section 5.4.1) to a missing element.
fn dangling(reply: HttpReply) -> HttpReply {
    of_xml(reply, |root| {
        let content = body_of(root).and_then(|body| body.children.first_mut()?.children.first_mut());
        if let Some(content) = content {
            content.children.clear();
            content.text.clear();
            content.attributes.push(("href".into(), "#id7".into()));
        }
    })
}

/// The body of a SOAP envelope.
fn body_of(root: &mut Element) -> Option<&mut Element> {
    root.children.iter_mut().find(|child| child.name == "Body" && !child.children.is_empty())
}

/// The request as read by a source with a fault: one that repeats its first page does not see another offset, and none
/// says that nothing has changed (304), since a fault is of a response with a body.
pub fn requested(mut request: HttpRequest, fault: Fault) -> HttpRequest {
    if fault.kind != FaultKind::None {
        request.headers.remove(http::header::IF_NONE_MATCH);
    }
    if fault.kind == FaultKind::RepeatedPages {
        request.query.iter_mut().filter(|(name, _)| name == "offset").for_each(|(_, from)| *from = "0".to_owned());
    }
    request
}

/// The added member.
const ADDED: &str = "truongMoi";

/// Adds a member to each structure of a document; in XML, to each outside the envelope.
fn with_more(mut reply: HttpReply) -> HttpReply {
    fn names(value: Value) -> Value {
        match value {
            Value::Array(items) => items.into_iter().map(names).collect(),
            Value::Object(fields) => {
                let mut fields: Map<_, _> = fields.into_iter().map(|(name, value)| (name, names(value))).collect();
                fields.insert(ADDED.to_owned(), Value::from("022199000123"));
                Value::Object(fields)
            }
            other => other,
        }
    }
    fn elements(element: &mut Element) {
        let envelope = ["Envelope", "Body"].contains(&element.name.as_str());
        element.children.iter_mut().filter(|child| child.name != "Header").for_each(elements);
        if !envelope && !element.children.is_empty() {
            let (namespace, text) = (element.namespace.clone(), "022199000123".to_owned());
            element.children.push(Element { name: ADDED.to_owned(), namespace, text, ..Element::default() });
        }
    }
    if let Ok(value) = serde_json::from_slice(&reply.body) {
        reply.body = names(value).to_string().into_bytes();
        return reply;
    }
    of_xml(reply, elements)
}

fn of_a_token(reply: &HttpReply) -> bool {
    reply.body.windows(14).any(|part| part == b"\"access_token\"")
}

/// Changes each value of a document, depth first; an item has its list's name.
fn changed(mut reply: HttpReply, change: &dyn Fn(&str, Value) -> Value) -> HttpReply {
    let (mark, body) = match reply.body.strip_prefix(MARK) {
        Some(body) => (MARK, body),
        None => (&[][..], reply.body.as_slice()),
    };
    let body = if let Ok(value) = serde_json::from_slice(body) {
        walk("", value, change).to_string()
    } else if let Ok(root) = xml::parse(body) {
        let text = |element: &Element| match change(&element.name, Value::from(element.text.clone())) {
            Value::Null => None,
            value => Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
        };
        written(&root, &text)
    } else {
        return reply;
    };
    reply.body = [mark, body.as_bytes()].concat();
    reply
}

fn walk(name: &str, value: Value, change: &dyn Fn(&str, Value) -> Value) -> Value {
    let inner = match value {
        Value::Array(items) => items.into_iter().map(|item| walk(name, item, change)).collect(),
        Value::Object(fields) => {
            let one = |(name, value): (String, Value)| {
                let value = walk(&name, value, change);
                (name, value)
            };
            Value::Object(fields.into_iter().map(one).collect())
        }
        other => other,
    };
    change(name, inner)
}

/// Changes the texts of a document; an element without a text is omitted.
fn written(root: &Element, text: &dyn Fn(&Element) -> Option<String>) -> String {
    fn one(element: &Element, text: &dyn Fn(&Element) -> Option<String>, out: &mut String) {
        let Some(own) = text(element) else { return };
        out.push('<');
        out.push_str(&element.name);
        out.push_str(" xmlns=\"");
        xml::escape_into(out, &element.namespace);
        if let Some((_, href)) = element.attributes.iter().find(|(name, _)| name == "href") {
            out.push_str("\" href=\"");
            xml::escape_into(out, href);
        }
        out.push_str("\">");
        if element.children.is_empty() {
            xml::escape_into(out, &own);
        }
        element.children.iter().for_each(|child| one(child, text, out));
        out.push_str(&format!("</{}>", element.name));
    }
    let mut out = String::from(xml::DECLARATION);
    one(root, text, &mut out);
    out
}

/// A code that was converted to a number.
fn lost_zeros(value: Value) -> Value {
    let Value::String(text) = &value else { return value };
    let code = text.len() > 1 && text.len() < 8 && text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u64>() {
        Ok(number) if code => Value::from(number),
        _ => value,
    }
}

/// The maximum date in the notation of the date that it replaces.
fn sentinel(value: Value) -> Value {
    let Value::String(text) = &value else { return value };
    let digits = |part: &str, count| part.len() == count && part.bytes().all(|b| b.is_ascii_digit());
    for mark in ['/', '.', '-'] {
        let of_time = text.find('T').filter(|_| mark == '-').unwrap_or(text.len());
        match text[..of_time].split(mark).collect::<Vec<_>>().as_slice() {
            [day, month, year] if digits(day, 2) && digits(month, 2) && digits(year, 4) => {
                return Value::from(format!("31{mark}12{mark}9999"));
            }
            [year, month, day] if digits(year, 4) && digits(month, 2) && digits(day, 2) => {
                return Value::from(format!("9999{mark}12{mark}31{}", &text[of_time..]));
            }
            _ => {}
        }
    }
    match text.as_str() {
        whole if digits(whole, 14) => Value::from("99991231235959"),
        whole if digits(whole, 8) && (whole.starts_with("19") || whole.starts_with("20")) => Value::from("99991231"),
        _ => value,
    }
}

/// Renames each name of a document, except the envelope's.
fn renamed(mut reply: HttpReply) -> HttpReply {
    fn names(value: Value) -> Value {
        match value {
            Value::Array(items) => items.into_iter().map(names).collect(),
            Value::Object(fields) => Value::Object(
                fields.into_iter().map(|(name, value)| (format!("x{name}"), names(value))).collect::<Map<_, _>>(),
            ),
            other => other,
        }
    }
    if let Ok(value) = serde_json::from_slice(&reply.body) {
        reply.body = names(value).to_string().into_bytes();
        return reply;
    }
    fn rename(element: &mut Element) {
        if !["Envelope", "Header", "Body", "Fault"].contains(&element.name.as_str()) {
            element.name.insert(0, 'x');
        }
        element.children.iter_mut().for_each(rename);
    }
    of_xml(reply, rename)
}

/// A JSON object with its first member twice, the second time with another value.
fn doubled(mut reply: HttpReply) -> HttpReply {
    if let Ok(Value::Object(fields)) = serde_json::from_slice(&reply.body)
        && let Some((name, _)) = fields.iter().next()
    {
        let whole = Value::Object(fields.clone()).to_string();
        let end = whole.len() - 1;
        reply.body = format!("{},{}:null}}", &whole[..end], Value::from(name.clone())).into_bytes();
    }
    reply
}

/// UTF-8's byte order mark.
const MARK: &[u8] = b"\xef\xbb\xbf";

fn marked(mut reply: HttpReply) -> HttpReply {
    reply.body = [MARK, &reply.body].concat();
    reply
}

/// XML in UTF-16 with a byte order mark and a declaration; JSON, which is UTF-8 by its standard, is unchanged.
fn wide(mut reply: HttpReply) -> HttpReply {
    if reply.body.starts_with(b"<")
        && let Ok(text) = std::str::from_utf8(&reply.body)
    {
        let text = text.replacen(xml::DECLARATION, "<?xml version=\"1.0\" encoding=\"UTF-16\"?>", 1);
        let units = std::iter::once(0xfeff).chain(text.encode_utf16());
        reply.body = units.flat_map(u16::to_le_bytes).collect();
        for (name, value) in &mut reply.headers {
            if name == "content-type" {
                *value = "text/xml; charset=utf-16".into();
            }
        }
    }
    reply
}

fn zipped(reply: HttpReply) -> HttpReply {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    match encoder.write_all(&reply.body).and_then(|()| encoder.finish()) {
        Ok(body) => HttpReply { body, ..reply }.with("content-encoding", "gzip"),
        Err(_) => reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lie(kind: FaultKind, body: &str) -> String {
        String::from_utf8(altered(HttpReply::typed(200, "application/json", body), kind.into()).body)
            .unwrap_or_default()
    }

    #[test]
    fn a_source_with_a_fault_has_always_changed() {
        let request = || {
            let headers =
                [(http::header::IF_NONE_MATCH, http::HeaderValue::from_static("\"a\""))].into_iter().collect();
            HttpRequest { headers, ..HttpRequest::default() }
        };
        let is_conditional = |kind: FaultKind| requested(request(), kind.into()).header("if-none-match").is_some();
        assert!(is_conditional(FaultKind::None) && !is_conditional(FaultKind::Garbage));
    }

    #[test]
    fn each_fault_changes_only_its_target() {
        let answer = r#"{"Status":"1","gioiTinh":"2","ma":"06673","ngay":"05/11/2026","ds":[1,2,3,4],"ten":"Hạ"}"#;
        for (kind, wanted) in [
            (
                FaultKind::NoVerdict,
                r#"{"Status":null,"gioiTinh":"2","ma":"06673","ngay":"05/11/2026","ds":[1,2,3,4],"ten":"Hạ"}"#,
            ),
            (
                FaultKind::UnknownCodes,
                r#"{"Status":"1","gioiTinh":"97","ma":"06673","ngay":"05/11/2026","ds":[1,2,3,4],"ten":"Hạ"}"#,
            ),
            (
                FaultKind::LostZeros,
                r#"{"Status":"1","gioiTinh":"2","ma":6673,"ngay":"05/11/2026","ds":[1,2,3,4],"ten":"Hạ"}"#,
            ),
            (
                FaultKind::Sentinels,
                r#"{"Status":"1","gioiTinh":"2","ma":"06673","ngay":"31/12/9999","ds":[1,2,3,4],"ten":"Hạ"}"#,
            ),
            (
                FaultKind::CutLists,
                r#"{"Status":"1","gioiTinh":"2","ma":"06673","ngay":"05/11/2026","ds":[1,2],"ten":"Hạ"}"#,
            ),
            (FaultKind::None, answer),
        ] {
            assert_eq!(lie(kind, answer), wanted, "{kind:?}");
        }
        let dates = r#"["05.11.2026","2026-11-05","2026-11-05T08:00:00","20261105","1.2.3","12-34"]"#;
        assert_eq!(
            lie(FaultKind::Sentinels, dates),
            r#"["31.12.9999","9999-12-31","9999-12-31T08:00:00","99991231","1.2.3","12-34"]"#
        );
        assert_eq!(lie(FaultKind::ListsAsObjects, r#"{"a":[7,8]}"#), r#"{"a":{"0":7,"1":8}}"#);
        assert_eq!(lie(FaultKind::DuplicateNames, r#"{"a":1}"#), r#"{"a":1,"a":null}"#);
        assert_eq!(lie(FaultKind::OtherNames, r#"{"a":[{"b":1}]}"#), r#"{"xa":[{"xb":1}]}"#);
        assert_eq!(lie(FaultKind::Decomposed, r#"{"a":"Hạ"}"#), "{\"a\":\"Ha\u{323}\"}");
        assert_eq!(lie(FaultKind::EmptyBody, answer), "");
        let more = r#"{"a":[{"b":1,"truongMoi":"022199000123"}],"truongMoi":"022199000123"}"#;
        assert_eq!(lie(FaultKind::AddedNames, r#"{"a":[{"b":1}]}"#), more);
        assert_eq!(lie(FaultKind::OtherTypes, r#"{"a":"Hạ","b":"1"}"#), r#"{"a":{"noiDung":"Hạ"},"b":"1"}"#);
        assert_eq!(lie(FaultKind::SecondResponse, r#"{"a":1}"#), r#"{"a":1}{"a":1}"#);
        assert_eq!(lie(FaultKind::DanglingReference, r#"{"a":1}"#), r#"{"a":1}"#);
        let soap = "<Envelope><Body><Found><Record><Name>Hạ</Name></Record></Found></Body></Envelope>";
        assert_eq!(lie(FaultKind::SecondResponse, soap).matches("<Found").count(), 2);
        let dangling = lie(FaultKind::DanglingReference, soap);
        assert!(dangling.contains(r##"<Record xmlns="" href="#id7"></Record>"##), "{dangling}");
        let xml = lie(FaultKind::UnknownCodes, "<a xmlns=\"n\"><GioiTinh>1</GioiTinh><b>&amp;</b></a>");
        assert!(
            xml.ends_with("<a xmlns=\"n\"><GioiTinh xmlns=\"n\">97</GioiTinh><b xmlns=\"n\">&amp;</b></a>"),
            "{xml}"
        );
    }
}
