//! Drift: differences of a source's response from the shape that its contract describes, even if the response can be
//! read.
//!
//! An operation's [`DocumentShape`] is computed once, when its contract loads: every name at the source that the
//! contract reads, or knows and ignores. A response is compared with it in one walk that looks each name up once, and
//! allocates nothing while everything matches. A noticed difference has a path, a kind and two type names, never a
//! value: see [`name`].

mod describe;
mod grpc;
mod kind;
mod message_shape;
mod name;
mod shape;
#[cfg(test)]
mod tests;
mod walk;

pub use kind::{Drift, DriftKind, DriftPolicy};
pub use message_shape::MessageShape;
pub use shape::{DocumentShape, ShapeFault};

use super::operation::Operation;
use super::plan::{FieldKind, MessagePlan};

/// Longest stored path, in bytes.
pub const MAX_PATH: usize = 200;

impl Drift {
    /// Returns its path at the source, from the document's root.
    pub fn source_path(&self, operation: &Operation) -> String {
        let mut path = if self.field.is_empty() { String::new() } else { wire_path(operation, &self.field) };
        if !path.is_empty() && !self.path.is_empty() {
            path.push('/');
        }
        path.push_str(&self.path);
        bounded(path)
    }
}

/// Truncates a path to at most [`MAX_PATH`] bytes.
fn bounded(mut path: String) -> String {
    if path.len() > MAX_PATH {
        let end = (0..=MAX_PATH - 1).rev().find(|at| path.is_char_boundary(*at)).unwrap_or(0);
        path.truncate(end);
        path.push('*');
    }
    path
}

/// Returns the path at the source of a response's field (`household_head.gender`).
fn wire_path(operation: &Operation, field: &str) -> String {
    let mut parts: Vec<&str> = operation.response_root.first().into_iter().flatten().map(String::as_str).collect();
    let mut plan: Option<&MessagePlan> = Some(&operation.response);
    for name in field.split('.') {
        let Some(found) = plan.and_then(|plan| plan.field(name)) else {
            parts.push(name);
            continue;
        };
        if let Some(first) = found.names.first() {
            if first.absolute {
                parts.clear();
            }
            parts.extend(first.parts.iter().map(String::as_str));
        }
        parts.extend(found.item.as_deref());
        plan = if let FieldKind::Message(inner) = &found.kind { Some(inner) } else { None };
    }
    parts.join("/")
}
