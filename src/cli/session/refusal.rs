//! Explains a refusal of the services to the user of the command line, with what to do about it.

use super::shown;
use crate::caller::{ALERT, CallerError};
use crate::cli::CliError;
use std::error::Error;
use std::path::Path;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A status as an error of the command line, with what to do.
pub fn explained(status: &Status, certificate: Option<&Path>) -> CliError {
    if let Some(error) = transport_error(status) {
        return match error {
            CallerError::Unreachable(base, reason) => unreachable(base, reason, certificate),
            other => CliError::Failed(other.to_string()),
        };
    }
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    let mut text = if reason.is_empty() {
        format!("{:?}: {}", status.code(), status.message())
    } else {
        format!("{reason}: {}", status.message())
    };
    let violations: Vec<_> = details.bad_request().iter().flat_map(|bad| &bad.field_violations).collect();
    // The message names a single violation already.
    for violation in violations.iter().skip(usize::from(violations.len() == 1)) {
        text.push_str(&format!("\n  {}: {}", violation.field, violation.description));
    }
    if let Some(hint) = hint(status.code(), &reason, certificate) {
        text.push_str(&format!("\n  {hint}"));
    }
    if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
        text.push_str(&format!("\n  try again in {:.1} s", delay.as_secs_f64()));
    }
    let exit_code = if status.code() == Code::InvalidArgument { 2 } else { 1 };
    CliError::Refused { text, exit_code, status: Box::new(status.clone()) }
}

fn transport_error(status: &Status) -> Option<&CallerError> {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<CallerError>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// Explains a failed connection: a network failure, or a refused certificate.
fn unreachable(base: &str, reason: &str, certificate: Option<&Path>) -> CliError {
    if let Some((_, alert)) = reason.split_once(ALERT) {
        return CliError::Failed(format!(
            "the gateway at {base} refused {}: {alert}\n  it must be valid, not revoked, and of the CA that the gateway \
             takes clients from (tls.client_ca)",
            shown(certificate)
        ));
    }
    if reason.contains("invalid peer certificate") {
        return CliError::Unreachable(format!(
            "the gateway at {base} cannot be believed: {reason}\n  does --ca (or the profile's ca) name its CA, and is the \
             address the one in its certificate?"
        ));
    }
    CliError::Unreachable(format!(
        "the gateway at {base} cannot be reached: {reason}\n  does it run, and is this the address of its gRPC port?"
    ))
}

/// Returns what to do about a reason.
fn hint(code: Code, reason: &str, certificate: Option<&Path>) -> Option<String> {
    Some(match reason {
        "STAFF_UNKNOWN" => format!(
            "{} is that of no registered member of staff: ask an administrator for `staff add`, or choose another \
             certificate (--profile, --certificate)",
            shown(certificate)
        ),
        "ROLE_MISSING" => "`staff list` tells who has which role".to_owned(),
        "" if code == Code::Unimplemented => {
            "the gateway is older than this command line, or this is not its gRPC port".to_owned()
        }
        _ => return None,
    })
}
