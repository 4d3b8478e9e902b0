//! Writing elements.

use serde_json::Value;

/// Writes a root element with its namespace as the default one, so that every child is qualified.
pub fn write_root(out: &mut String, name: &str, namespace: Option<&str>, value: &Value) {
    out.push('<');
    out.push_str(name);
    if let Some(namespace) = namespace {
        out.push_str(" xmlns=\"");
        escape_into(out, namespace);
        out.push('"');
    }
    out.push('>');
    write_content(out, "", value);
    close(out, "", name);
}

/// Writes the content of an element: children in order, lists as repeated elements.
pub fn write_content(out: &mut String, prefix: &str, value: &Value) {
    match value {
        Value::Object(object) => {
            for (name, child) in object {
                write_element(out, prefix, name, child);
            }
        }
        Value::Null => {}
        Value::Array(items) => items.iter().for_each(|item| write_content(out, prefix, item)),
        Value::String(text) => escape_into(out, text),
        other => out.push_str(&other.to_string()),
    }
}

/// Writes one element, or one for each item of a list. An invalid XML name is omitted: names come from contracts, or
/// from a map's keys, which the caller provides.
pub fn write_element(out: &mut String, prefix: &str, name: &str, value: &Value) {
    if !is_name(name) {
        return;
    }
    if let Value::Array(items) = value {
        items.iter().for_each(|item| write_element(out, prefix, name, item));
        return;
    }
    out.push('<');
    out.push_str(prefix);
    out.push_str(name);
    out.push('>');
    write_content(out, prefix, value);
    close(out, prefix, name);
}

fn close(out: &mut String, prefix: &str, name: &str) {
    out.push_str("</");
    out.push_str(prefix);
    out.push_str(name);
    out.push('>');
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && chars.all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// Escapes text; characters that XML 1.0 cannot hold are omitted.
pub fn escape_into(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\r' => out.push_str("&#13;"),
            '\t' | '\n' => out.push(character),
            control if (control as u32) < 0x20 || matches!(control, '\u{fffe}' | '\u{ffff}') => {}
            plain => out.push(plain),
        }
    }
}
