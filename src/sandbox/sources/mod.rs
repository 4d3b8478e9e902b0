//! The ten sources, each with its own protocol and quirks (../shared/sources.md), over one province.

pub mod budgetunit;
pub mod business;
pub mod catalogue;
pub mod civilstatus;
pub mod criminalrecord;
pub mod insurance;
pub mod land;
pub mod officials;
pub mod population;
pub mod publicservice;
pub mod recorded;
mod xroad;

use super::http::{HttpReply, HttpRequest};

/// The credential that a hub requires for a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequiredCredential {
    /// A token of its token endpoint.
    Bearer,
    /// The timestamped hash of its SOAP side.
    HashedBasic,
    /// X-Road: the calling member.
    XRoad,
}

/// A source behind a hub or with a direct endpoint.
pub trait Source: Send + Sync + 'static {
    /// Its id.
    fn id(&self) -> &str;
    /// Whether a request at a hub is for this source.
    fn takes(&self, ask: &HttpRequest) -> bool;
    /// The credential that a hub requires for it.
    fn required_credential(&self) -> RequiredCredential {
        RequiredCredential::Bearer
    }
    /// Returns the response to a request with checked credentials.
    fn respond(&self, ask: &HttpRequest) -> HttpReply;
    /// Returns the response to a request through X-Road.
    fn xroad(&self, _ask: &HttpRequest, _clients: &[String]) -> HttpReply {
        HttpReply::error(404, "not on X-Road")
    }
}

/// A string of a JSON body.
fn text<'v>(body: &'v serde_json::Value, name: &str) -> &'v str {
    body.get(name).and_then(serde_json::Value::as_str).unwrap_or("")
}
