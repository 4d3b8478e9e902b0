//! The maintenance notice on a source's page: what callers are told, and the forms that set and remove it.

use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{ListNoticesRequest, Notice};
use crate::console::failure::{Failure, FieldFaults, message_of};
use crate::console::form::Form;
use crate::console::layout::{self, justification};
use crate::console::session::SignedIn;
use crate::console::table::properties;
use crate::console::{Console, request};
use crate::registry::Role;
use maud::{Markup, html};

const ROLES: &[Role] = &[Role::Administrator, Role::Operator];

/// Returns the notice of a source, if it has one that is not over.
pub async fn of(console: &Console, session: &SignedIn, source: &str) -> Result<Option<Notice>, Failure> {
    let all = message_of(session, console.admin.list_notices(request(session, ListNoticesRequest {})).await)?;
    let now = crate::registry::now();
    Ok(all.notices.into_iter().find(|notice| notice.source == source && notice.ends > now))
}

/// Shows the notice of a source, with the forms of those who may change it.
pub fn section(
    session: &SignedIn,
    source: &str,
    notice: Option<&Notice>,
    (form, faults): (&Form, &FieldFaults),
) -> Markup {
    let locale = session.locale;
    let to = format!("/console/sources/{source}/notice");
    html! {
        h2 #notice { (locale.text("notice")) }
        @match notice {
            None => p { (locale.text("notice-none")) },
            Some(notice) => {
                div.notice role="status" {
                    (properties(locale, &[
                        ("notice-starts", html! { (locale.timestamp(notice.starts)) }),
                        ("notice-ends", html! { (locale.timestamp(notice.ends)) }),
                        ("notice-text-vi", html! { span lang="vi" { (notice.text_vi) } }),
                        ("notice-text-en", html! { span lang="en" { (notice.text_en) } }),
                    ]))
                }
                @if session.has(ROLES) {
                    form method="post" action={ (to) "/clear" } {
                        (layout::token(session))
                        button.quiet type="submit" { (locale.text("notice-clear")) }
                    }
                }
            },
        }
        @if session.has(ROLES) {
            details open[!faults.is_empty()] {
                summary { (locale.text("notice-set")) }
                form method="post" action=(to) {
                    (layout::token(session))
                    p.hint { (locale.text("notice-hint")) }
                    label { (locale.text("notice-starts")) input type="datetime-local" name="starts" value=(form.text("starts")); }
                    p.hint { (locale.text("notice-starts-hint")) }
                    (faults.of_field("starts"))
                    label { (locale.text("notice-ends")) input type="datetime-local" name="ends" required value=(form.text("ends")); }
                    (faults.of_field("ends"))
                    label { (locale.text("notice-text-vi")) input name="text_vi" lang="vi" required maxlength="300" value=(form.text("text_vi")); }
                    (faults.of_field("text_vi"))
                    label { (locale.text("notice-text-en")) input name="text_en" lang="en" maxlength="300" value=(form.text("text_en")); }
                    (justification(locale))
                    button type="submit" { (locale.text("notice-set")) }
                }
            }
        }
    }
}
