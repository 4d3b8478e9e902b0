//! A page that says why something was not done, and what to do.

use super::layout;
use super::session::SignedIn;
use super::text::Locale;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Why a page is not what was asked for.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    locale: Locale,
    /// With whose menu it is shown; without one where nobody has signed in.
    session: Option<Box<SignedIn>>,
    /// What happened, and more of it.
    lines: Vec<String>,
}

impl Failure {
    /// A page with a text of the console's own.
    pub fn plain(locale: Locale, status: StatusCode, key: &str) -> Self {
        Failure { status, locale, session: None, lines: vec![locale.text(key)] }
    }

    /// What a service says, in the reader's language, with each field that is wrong.
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

/// The message that a service answers with.
///
/// # Errors
/// The page that says why there is none.
pub fn message_of<T>(session: &SignedIn, said: Result<tonic::Response<T>, Status>) -> Result<T, Failure> {
    said.map(tonic::Response::into_inner).map_err(|status| Failure::of(session, &status))
}

/// What is wrong with the fields of a form, to stand beside each, and the words before it.
#[derive(Debug, Default)]
pub struct FieldFaults(Vec<(String, String)>, String);

impl FieldFaults {
    /// Those that a service names.
    ///
    /// # Errors
    /// The page that says why something was not done, where it is no field's fault.
    pub fn of(session: &SignedIn, status: &Status) -> Result<Self, Failure> {
        let details = status.get_error_details();
        match details.bad_request().filter(|wrong| !wrong.field_violations.is_empty()) {
            Some(wrong) => {
                let pair = |one: &tonic_types::FieldViolation| (one.field.clone(), one.description.clone());
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

    /// What is wrong with this field, or a part of it.
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

/// A path that is no page.
pub async fn not_found(headers: HeaderMap) -> Failure {
    Failure::plain(Locale::of(&headers), StatusCode::NOT_FOUND, "failure-not-found")
}
