//! What the forms of a source's maintenance notice do.

use super::sources;
use crate::admin::api::admin_service_server::AdminService;
use crate::admin::api::{SetNoticeRequest, SourceId};
use crate::console::exchanges::instant;
use crate::console::failure::{Failure, FieldFaults, message_of};
use crate::console::form::Sent;
use crate::console::{Console, change};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use std::sync::Arc;

/// Sets a source's notice.
pub async fn set(
    State(console): State<Arc<Console>>,
    Path(source): Path<String>,
    Sent { session, form }: Sent,
) -> Result<Response, Failure> {
    let time = |name: &str| instant(form.text(name)).map(|us| us.div_euclid(1_000_000));
    let faulty = |name: &str| FieldFaults::one(session.locale, name, "notice-time-fault");
    let faults = match (time("starts"), time("ends")) {
        (Some(starts), Some(ends)) => {
            let (text_vi, text_en) = (form.text("text_vi").to_owned(), form.text("text_en").to_owned());
            let message = SetNoticeRequest { source: source.clone(), starts, ends, text_vi, text_en };
            match console.admin.set_notice(change(&session, &form, message)).await {
                Ok(_) => return Ok(Redirect::to(&format!("/console/sources/{source}#notice")).into_response()),
                Err(status) => FieldFaults::of(&session, &status)?,
            }
        }
        (None, _) => faulty("starts"),
        (_, None) => faulty("ends"),
    };
    let page = sources::with_notice_form(&console, &session, &source, (form, faults)).await?;
    Ok((StatusCode::BAD_REQUEST, page).into_response())
}

/// Removes a source's notice.
pub async fn clear(
    State(console): State<Arc<Console>>,
    Path(source): Path<String>,
    Sent { session, form }: Sent,
) -> Result<Redirect, Failure> {
    let cleared = console.admin.clear_notice(change(&session, &form, SourceId { id: source.clone() })).await;
    message_of(&session, cleared)?;
    Ok(Redirect::to(&format!("/console/sources/{source}#notice")))
}
