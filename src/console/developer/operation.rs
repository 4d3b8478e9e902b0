//! One operation: its request and response, its requirements, its errors, an example from the sandbox, and code snippets.

use super::snippets::snippets;
use crate::console::grants::class_of;
use crate::console::table::{properties, table};
use crate::console::text::Locale;
use crate::contract::options::DataClass;
use crate::contract::plan::{FieldKind, FieldPlan, MessagePlan};
use crate::contract::{CallShape, Operation, SourceInfo, comments, formats};
use crate::sandbox::samples::{self, Sample};
use crate::status::{FaultOwner, Reason};
use maud::{Markup, html};

/// The path of the catalogue.
pub(super) const HERE: &str = "/console/catalogue";
/// Maximum of fields of a message that a page shows.
const MAX_FIELDS: usize = 400;

/// The name of a source in the reader's language.
pub(super) fn source_name(locale: Locale, source: &SourceInfo) -> &str {
    if locale == Locale::Vietnamese { &source.name_vi } else { &source.name }
}

/// The shape of the call as text.
pub(super) fn shape(locale: Locale, operation: &Operation) -> String {
    locale.text(match operation.shape {
        CallShape::Unary => "shape-unary",
        CallShape::ServerStream => "shape-server-stream",
        CallShape::ClientStream => "shape-client-stream",
    })
}

/// The content of its page.
pub(super) fn page(locale: Locale, operation: &Operation) -> Markup {
    let yes = |holds: bool| html! { (locale.text(if holds { "answer-yes" } else { "answer-no" })) };
    let source = &operation.source;
    let seconds = locale.with("live-seconds", "seconds", locale.number(operation.timeout.as_secs()));
    html! {
        p { (comments::of_method(&operation.method)) }
        p.actions {
            a.button href={ "/console/may-i?operation=" (operation.full_name) } { (locale.text("may-i")) }
            a.button.quiet href={ (HERE) "?source=" (source.id) } { (source_name(locale, source)) }
        }
        (properties(locale, &[
            ("column-operation", html! { code { (operation.full_name) } }),
            ("column-scope", html! { code { (operation.scope) } }),
            ("column-class", class_of(locale, operation.data_class)),
            ("column-shape", html! { (shape(locale, operation)) }),
            ("operation-purpose", yes(operation.purpose_required)),
            ("operation-official", yes(operation.official_required)),
            ("operation-writes", yes(operation.writes)),
            ("operation-repeatable", yes(operation.repeatable)),
            ("operation-timeout", html! { (seconds) }),
            ("operation-protocol", html! { (operation.binding.protocol()) }),
        ]))
        h2 { (locale.text("operation-request")) }
        (fields(locale, "operation-request", operation, &operation.request, true))
        h2 { (locale.text("operation-response")) }
        p.hint { (locale.text("operation-response-hint")) }
        (fields(locale, "operation-response", operation, &operation.response, false))
        @let example = samples::of(&operation.full_name);
        h2 { (locale.text("operation-example")) }
        @match example {
            Some(one) => (sample(locale, one)),
            None => p.empty { (locale.text("nothing-here")) },
        }
        h2 { (locale.text("operation-snippets")) }
        p.hint { (locale.text("operation-snippets-hint")) }
        @for (language, text) in snippets(operation, example) {
            details { summary { (language) } pre tabindex="0" { code { (text) } } }
        }
        h2 { (locale.text("operation-statuses")) }
        details { summary { (locale.text("operation-statuses-all")) } (statuses(locale)) }
    }
}

fn sample(locale: Locale, one: &Sample) -> Markup {
    let json = |value: &serde_json::Value| serde_json::to_string_pretty(value).unwrap_or_default();
    html! {
        @for request in &one.requests { pre tabindex="0" { code { (json(request)) } } }
        p { (locale.text("operation-example-response")) }
        pre tabindex="0" { code { (json(&one.expect)) } }
    }
}

/// Each field with its path below the message.
fn flat<'p>(plan: &'p MessagePlan, above: &str, out: &mut Vec<(String, &'p FieldPlan)>) {
    for field in &plan.fields {
        if out.len() >= MAX_FIELDS {
            return;
        }
        let path = if above.is_empty() { field.name.clone() } else { format!("{above}.{}", field.name) };
        out.push((path.clone(), field));
        if let FieldKind::Message(inner) = &field.kind {
            flat(inner, &path, out);
        }
    }
}

fn fields(locale: Locale, name: &str, operation: &Operation, plan: &MessagePlan, request: bool) -> Markup {
    let mut all = Vec::new();
    flat(plan, "", &mut all);
    let row = |(path, field): &(String, &FieldPlan)| {
        let class = if field.data_class == DataClass::Unspecified { operation.data_class } else { field.data_class };
        let last = match request {
            true => html! { @if field.required { strong { (locale.text("field-required")) } } },
            false => class_of(locale, class),
        };
        vec![
            html! { code { (path) } },
            html! { (kind(field)) },
            html! { (comments::of_field(&field.field)) },
            html! { (field.format.map(formats::expectation).unwrap_or_default()) },
            last,
        ]
    };
    let headings = [
        "column-field",
        "column-type",
        "column-words",
        "column-format",
        if request { "column-required" } else { "column-class" },
    ];
    html! {
        (table(locale, name, &headings, &all.iter().map(row).collect::<Vec<_>>()))
        @if all.len() >= MAX_FIELDS { p.hint { (locale.with("fields-beyond", "count", locale.number(MAX_FIELDS as u64))) } }
    }
}

fn kind(field: &FieldPlan) -> String {
    let kind = match &field.kind {
        FieldKind::Text => "string".to_owned(),
        FieldKind::Bytes => "bytes".to_owned(),
        FieldKind::Int32 => "int32".to_owned(),
        FieldKind::Int64 => "int64".to_owned(),
        FieldKind::Uint32 => "uint32".to_owned(),
        FieldKind::Uint64 => "uint64".to_owned(),
        FieldKind::Double => "double".to_owned(),
        FieldKind::Float => "float".to_owned(),
        FieldKind::Bool { .. } => "bool".to_owned(),
        FieldKind::Enum(values) => values.iter().map(|value| value.name.as_str()).collect::<Vec<_>>().join(" | "),
        FieldKind::Message(inner) => inner.message.name().to_owned(),
        FieldKind::Date(_) => "PartialDate".to_owned(),
        FieldKind::Time(_) => "Timestamp".to_owned(),
        FieldKind::Remaining => "map<string, string>".to_owned(),
    };
    if field.list { format!("repeated {kind}") } else { kind }
}

fn statuses(locale: Locale) -> Markup {
    let row = |reason: &Reason| {
        let words = if locale == Locale::Vietnamese { reason.vietnamese() } else { reason.english() };
        let fault = match reason.fault() {
            FaultOwner::Caller => "fault-caller",
            FaultOwner::Gateway => "fault-gateway",
            FaultOwner::Hub => "fault-hub",
            FaultOwner::Source => "fault-source",
        };
        vec![
            html! { code { (format!("{:?}", reason.code())) } },
            html! { code { (reason.as_str()) } },
            html! { (locale.text(fault)) },
            html! { (words) },
        ]
    };
    let headings = ["column-code", "column-reason", "column-fault", "column-meaning"];
    table(locale, "operation-statuses", &headings, &Reason::ALL.iter().map(row).collect::<Vec<_>>())
}
