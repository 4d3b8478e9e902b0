//! The error page: why an action failed, and what to do.

use super::layout;
use super::session::SignedIn;
use super::text::Locale;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// An error, shown as a page.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    locale: Locale,
    /// The session whose menu the page has; no menu without one.
    session: Option<Box<SignedIn>>,
    /// The error, with details.
    lines: Vec<String>,
}

impl Failure {
    /// Makes a page with a text of the console.
    pub fn plain(locale: Locale, status: StatusCode, key: &str) -> Self {
        Failure { status, locale, session: None, lines: vec![locale.text(key)] }
    }

    /// The same, with a constant word for who runs the gateway.
    pub fn with_cause(locale: Locale, status: StatusCode, key: &str, cause: &'static str) -> Self {
        let lines = vec![locale.text(key), locale.with("failure-cause", "cause", cause)];
        Failure { status, locale, session: None, lines }
    }

    /// Makes a page from a service's status, in the reader's language, with each invalid field.
    pub fn of(session: &SignedIn, status: &Status) -> Self {
        let details = status.get_error_details();
        let own = details.localized_message().filter(|_| session.locale == Locale::Vietnamese);
        let mut lines = vec![own.map_or_else(|| status.message().to_owned(), |own| own.message.clone())];
        if let Some(wrong) = details.bad_request() {
            lines.extend(wrong.field_violations.iter().map(|one| format!("{}: {}", one.field, one.description)));
        }
        if let Some(info) = details.error_info() {
            lines.push(info.reason.clone());
        }
        let (session, locale) = (Some(Box::new(session.clone())), session.locale);
        Failure { status: http_status(status.code()), locale, session, lines }
    }
}

/// Returns the message of a service's response.
///
/// # Errors
/// The error page of the service's status.
pub fn message_of<T>(session: &SignedIn, response: Result<tonic::Response<T>, Status>) -> Result<T, Failure> {
    response.map(tonic::Response::into_inner).map_err(|status| Failure::of(session, &status))
}

/// The errors of a form's fields, shown beside each field, and the locale's text in front of them.
#[derive(Debug, Default)]
pub struct FieldFaults(Vec<(String, String)>, String);

impl FieldFaults {
    /// Reads the field violations of a service's status.
    ///
    /// # Errors
    /// The error page, if the status names no field.
    pub fn of(session: &SignedIn, status: &Status) -> Result<Self, Failure> {
        let details = status.get_error_details();
        match details.bad_request().filter(|wrong| !wrong.field_violations.is_empty()) {
            Some(wrong) => {
                // With one field, the status's own words in Vietnamese are about it.
                let own = details
                    .localized_message()
                    .filter(|_| session.locale == Locale::Vietnamese && wrong.field_violations.len() == 1);
                let description = |one: &tonic_types::FieldViolation| {
                    own.map_or_else(|| one.description.clone(), |own| own.message.clone())
                };
                let pair = |one: &tonic_types::FieldViolation| (one.field.clone(), description(one));
                let words = session.locale.text("field-fault");
                Ok(FieldFaults(wrong.field_violations.iter().map(pair).collect(), words))
            }
            None => Err(Failure::of(session, status)),
        }
    }

    /// One that the console sees itself, with its text.
    pub fn one(locale: Locale, field: &str, key: &str) -> Self {
        FieldFaults(vec![(field.to_owned(), locale.text(key))], String::new())
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Shows the error of this field or of a part of it.
    pub fn of_field(&self, field: &str) -> Markup {
        let own =
            |name: &str| name == field || name.strip_prefix(field).is_some_and(|rest| rest.starts_with(['.', '[']));
        html! { @for (_, what) in self.0.iter().filter(|(name, _)| own(name)) { p.fault role="alert" { (self.1) " " (what) } } }
    }
}

fn http_status(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable | Code::DeadlineExceeded => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let title = self.locale.text("failure-title");
        let body = html! {
            div.notice.wrong role="alert" {
                @for line in &self.lines { p { (line) } }
            }
            p { a href="/console/" { (self.locale.text("to-overview")) } }
        };
        let page = match &self.session {
            Some(session) => layout::page(session, "", &title, &body),
            None => layout::anonymous(self.locale, &title, &body),
        };
        (self.status, page).into_response()
    }
}

/// The error page for an unknown path.
pub async fn not_found(headers: HeaderMap) -> Failure {
    Failure::plain(Locale::of(&headers), StatusCode::NOT_FOUND, "failure-not-found")
}
