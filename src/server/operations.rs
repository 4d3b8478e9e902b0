//! The operations that are served, as the HTTPS port finds them: by their plain JSON path as well, and described.

use crate::config::Catalogue;
use crate::contract::{CallShape, Operation};
use crate::openapi;
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

/// Returns the operations whose source has a connection entry. The entry has selected one of several contracts of one source.
pub fn connected(catalogue: &Catalogue) -> impl Iterator<Item = &Arc<Operation>> {
    let is_selected = |operation: &&Arc<Operation>| {
        let entry = catalogue.sources.get(&operation.source.id);
        entry.is_some_and(|entry| entry.contract == operation.source.version)
    };
    catalogue.contracts.operations().into_iter().filter(is_selected)
}

/// The operations of one catalogue.
#[derive(Default)]
pub struct ServedOperations {
    by_plain_path: HashMap<String, Arc<Operation>>,
    read_by_get: HashSet<String>,
    has_stream: HashMap<String, bool>,
    document: OnceLock<Bytes>,
}

impl ServedOperations {
    /// Of a catalogue.
    pub fn of(catalogue: &Catalogue) -> Self {
        let by_plain_path = connected(catalogue).map(|one| (openapi::path(one), one.clone())).collect();
        let is_open =
            |one: &&Arc<Operation>| one.shape == CallShape::Unary && !one.writes && one.has_no_personal_data();
        let read_by_get = connected(catalogue).filter(is_open).map(|one| one.path.clone()).collect();
        let has_stream = connected(catalogue).map(|one| (one.path.clone(), one.shape != CallShape::Unary)).collect();
        ServedOperations { by_plain_path, read_by_get, has_stream, document: OnceLock::new() }
    }

    /// Returns whether the operation of a gRPC path may be called with its message in the address: it has one response, changes nothing,
    /// and neither its request nor its response concerns a person or an enterprise.
    pub fn is_read_by_get(&self, path: &str) -> bool {
        self.read_by_get.contains(path)
    }

    /// Returns whether the operation of a gRPC path has a stream of requests or of responses; `None` if there is no such operation.
    pub fn has_stream(&self, path: &str) -> Option<bool> {
        self.has_stream.get(path).copied()
    }

    /// Returns the operation of a plain JSON path, `/v1/SOURCE/OPERATION`.
    pub fn find_plain(&self, path: &str) -> Option<&Arc<Operation>> {
        self.by_plain_path.get(path)
    }

    /// Returns their description by OpenAPI, some 200 kB. Blocks some 50 ms the first time.
    pub fn document(&self, server: &str) -> Bytes {
        let made = || openapi::document(self.by_plain_path.values(), server).to_string().into();
        self.document.get_or_init(made).clone()
    }
}
