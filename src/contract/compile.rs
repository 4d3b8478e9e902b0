//! Compiles contracts: the embedded ones and those of a folder, checked together.

use super::drift::DriftPolicy;
use super::fields::FieldTree;
use super::map::outcome::OutcomeRules;
use super::operation::{Binding, CallShape, FillPlan, Operation, Paging, Polling, ResponseShape, SourceInfo};
use super::options::{self, DataClass};
use super::plan::WirePath;
use binding::compile_binding;
use folder::{compile_folder, in_order, list_protos};
use prost_reflect::{DescriptorPool, ExtensionDescriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

mod binding;
mod folder;
mod message;

/// Longest timeout of an operation.
const MAX_TIMEOUT_MS: u32 = 600_000;
/// Default timeout of an operation.
const DEFAULT_TIMEOUT_MS: u32 = 10_000;
/// Persons and enterprises of a response that an entry names, by default, and at most: 15 kB of its 64.
const DEFAULT_RESPONSE_SUBJECTS: usize = 100;
const MAX_RESPONSE_SUBJECTS: usize = 500;

/// A fault of a contract, with its position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {reason}", if *line > 0 { format!(":{line}") } else { String::new() })]
pub struct ContractFault {
    /// The `.proto` file.
    pub file: String,
    /// Line, from 1; 0 for the file as a whole.
    pub line: u32,
    /// The fault, and how to fix it.
    pub reason: String,
}

/// Everything that the gateway serves, by path. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ContractSet {
    operations: HashMap<String, Arc<Operation>>,
    /// The files, for reflection, in order of dependency.
    files: Vec<FileDescriptor>,
}

impl ContractSet {
    /// Compiles the ten embedded contracts.
    ///
    /// # Errors
    /// All faults together, with file, line and reason.
    pub fn embedded() -> Result<Self, Vec<ContractFault>> {
        let whole = |reason: String| vec![ContractFault { file: "(embedded)".into(), line: 0, reason }];
        let pool = DescriptorPool::decode(super::EMBEDDED).map_err(|error| whole(error.to_string()))?;
        let mut set = ContractSet::default();
        set.add_pool(&pool)?;
        Ok(set)
    }

    /// The same with one additional contract of this text.
    #[cfg(test)]
    pub(crate) fn with_text(text: &str) -> Result<Self, Vec<ContractFault>> {
        let failed =
            |error: std::io::Error| vec![ContractFault { file: String::new(), line: 0, reason: error.to_string() }];
        let folder = tempfile::tempdir().map_err(failed)?;
        std::fs::write(folder.path().join("text.proto"), text).map_err(failed)?;
        Self::with_folder(folder.path())
    }

    /// Compiles the embedded contracts and those of a folder (every `.proto` below it).
    ///
    /// # Errors
    /// All faults together, with file, line and reason; a folder that cannot be read is one.
    pub fn with_folder(folder: &Path) -> Result<Self, Vec<ContractFault>> {
        let mut set = Self::embedded()?;
        let mut names = Vec::new();
        list_protos(folder, folder, &mut names).map_err(|error| {
            vec![ContractFault { file: folder.display().to_string(), line: 0, reason: error.to_string() }]
        })?;
        names.sort();
        if !names.is_empty() {
            set.add_pool(&compile_folder(folder, &names)?)?;
        }
        Ok(set)
    }

    fn add_pool(&mut self, pool: &DescriptorPool) -> Result<(), Vec<ContractFault>> {
        let mut faults = Vec::new();
        for service in pool.services() {
            let Some(source) = option::<options::Source>(pool, service.options(), "source") else { continue };
            if self.operations.values().any(|known| known.method.parent_service().full_name() == service.full_name()) {
                continue;
            }
            let here = DeclarationPath { file: service.parent_file(), path: service.path().to_vec() };
            let version = version(&service);
            let same = |known: &&Arc<Operation>| known.source.id == source.id && known.source.version == version;
            if let Some(other) = self.operations.values().find(same) {
                let file = &other.source.file;
                faults.push(
                    here.fault(format!("source {:?} is served by {file} already, in version {version}", source.id)),
                );
                continue;
            }
            match source_info(&source, &service) {
                Ok(info) => self.add_service(pool, &service, &source, &info, &mut faults),
                Err(reason) => faults.push(here.fault(reason)),
            }
        }
        for file in pool.files() {
            if !self.files.iter().any(|known| known.name() == file.name()) {
                self.files.push(file);
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(in_order(faults)) }
    }

    fn add_service(
        &mut self,
        pool: &DescriptorPool,
        service: &ServiceDescriptor,
        source: &options::Source,
        info: &Arc<SourceInfo>,
        faults: &mut Vec<ContractFault>,
    ) {
        for method in service.methods() {
            match compile_method(pool, &method, source, info) {
                Ok(operation) => {
                    self.operations.insert(operation.path.clone(), Arc::new(operation));
                }
                Err(found) => faults.extend(found),
            }
        }
    }

    /// Returns the operation at a gRPC path.
    pub fn operation(&self, path: &str) -> Option<&Arc<Operation>> {
        self.operations.get(path)
    }

    /// Returns the operations of a name: a full one, with or without the path's slash, or `Service/Method` without its package.
    pub fn named(&self, name: &str) -> Vec<&Arc<Operation>> {
        let name = name.trim_start_matches('/');
        let is_short = |full: &str| full.strip_suffix(name).is_some_and(|package| package.ends_with('.'));
        let fits = |one: &&Arc<Operation>| one.full_name == name || is_short(&one.full_name);
        self.operations().into_iter().filter(fits).collect()
    }

    /// Returns all operations, by source and then in the order of the contract.
    pub fn operations(&self) -> Vec<&Arc<Operation>> {
        let mut all: Vec<_> = self.operations.values().collect();
        let place = |one: &Arc<Operation>| (one.source.id.clone(), one.source.version.clone(), one.method.index());
        all.sort_by_key(|operation| place(operation));
        all
    }

    /// Returns the versions of a source's contract, in order.
    pub fn versions(&self, source: &str) -> Vec<&str> {
        let of = self.operations.values().filter(|operation| operation.source.id == source);
        let mut all: Vec<&str> = of.map(|operation| operation.source.version.as_str()).collect();
        all.sort_unstable_by_key(|version| (version.len(), *version));
        all.dedup();
        all
    }

    /// Returns all sources, by id; of several contracts of one source, the first version's.
    pub fn sources(&self) -> Vec<&Arc<SourceInfo>> {
        let mut all: Vec<_> = self.operations.values().map(|operation| &operation.source).collect();
        all.sort_by_key(|source| (source.id.clone(), source.version.len(), source.version.clone()));
        all.dedup_by(|a, b| a.id == b.id);
        all
    }

    /// Returns every file that a reflection client may request, encoded with its options.
    pub fn files(&self) -> &[FileDescriptor] {
        &self.files
    }

    /// Returns the names of the gRPC services.
    pub fn services(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .operations
            .values()
            .map(|operation| operation.method.parent_service().full_name().to_owned())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// The position of a fault: a file, and the path of the declaration in it.
pub(super) struct DeclarationPath {
    file: FileDescriptor,
    path: Vec<i32>,
}

impl DeclarationPath {
    pub(super) fn fault(&self, reason: impl Into<String>) -> ContractFault {
        let info = self.file.file_descriptor_proto().source_code_info.as_ref();
        let location = info.and_then(|info| info.location.iter().find(|location| location.path == self.path));
        let line = location.and_then(|location| location.span.first()).map_or(0, |line| *line as u32 + 1);
        ContractFault { file: self.file.name().to_owned(), line, reason: reason.into() }
    }
}

/// Reads one of the contract options.
pub(super) fn option<T: prost::Message + Default>(
    pool: &DescriptorPool,
    options: prost_reflect::DynamicMessage,
    name: &str,
) -> Option<T> {
    let extension: ExtensionDescriptor = pool.get_extension_by_name(&format!("ndxp.contract.v1.{name}"))?;
    if !options.has_extension(&extension) {
        return None;
    }
    options.get_extension(&extension).as_message()?.transcode_to().ok()
}

fn source_info(source: &options::Source, service: &ServiceDescriptor) -> Result<Arc<SourceInfo>, String> {
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !plain(&source.id) {
        return Err(format!("source id {:?} must be lower-case letters and digits", source.id));
    }
    Ok(Arc::new(SourceInfo {
        id: source.id.clone(),
        name: source.name.clone(),
        name_vi: source.name_vi.clone(),
        owner: source.owner.clone(),
        file: service.parent_file().name().to_owned(),
        version: version(service),
    }))
}

/// Returns the last part of a service's package, if it is a version; "v1" otherwise.
fn version(service: &ServiceDescriptor) -> String {
    let last = service.package_name().rsplit('.').next().unwrap_or("");
    let is_version = last.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if is_version { last.to_owned() } else { "v1".to_owned() }
}

/// Returns the result; on an error adds its faults to the others and returns `None`.
fn take<T>(result: Result<T, Vec<ContractFault>>, faults: &mut Vec<ContractFault>) -> Option<T> {
    result.map_err(|found| faults.extend(found)).ok()
}

fn compile_method(
    pool: &DescriptorPool,
    method: &MethodDescriptor,
    source: &options::Source,
    info: &Arc<SourceInfo>,
) -> Result<Operation, Vec<ContractFault>> {
    let place = DeclarationPath { file: method.parent_file(), path: method.path().to_vec() };
    let fail = |reason: String| vec![place.fault(format!("{}: {reason}", method.full_name()))];
    let mut faults = Vec::new();
    let request = take(message::plan(pool, &method.input(), 0), &mut faults);
    let answer = take(message::plan(pool, &method.output(), 0), &mut faults);
    let Some(said) = option::<options::Operation>(pool, method.options(), "operation") else {
        faults.extend(fail("has no (ndxp.contract.v1.operation) option".into()));
        return Err(faults);
    };
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let shape = take(shape(method).map_err(fail), &mut faults);
    let binding = take(compile_binding(&said, &path).map_err(fail), &mut faults);
    faults.extend(wrong(&said, source, shape, binding.as_ref()).into_iter().flat_map(fail));
    let subject = take(subject_paths(&said, method).map_err(fail), &mut faults);
    let fills = take(fills(&said, method).map_err(fail), &mut faults);
    let outcome = said.outcome.as_ref().or(source.outcome.as_ref());
    let outcome = take(OutcomeRules::compile(outcome).map_err(fail), &mut faults);
    let polling = match (&said.polling, &answer) {
        (Some(polling), Some(answer)) => take(compile_polling(polling, answer).map_err(fail), &mut faults),
        _ => None,
    };
    let (Some(request), Some(answer), Some(shape), Some(binding), Some(subject), Some(fills), Some(outcome), true) =
        (request, answer, shape, binding, subject, fills, outcome, faults.is_empty())
    else {
        return Err(faults);
    };
    let level = method.method_descriptor_proto().options.as_ref().map(|options| options.idempotency_level());
    let level = level.unwrap_or(prost_types::method_options::IdempotencyLevel::IdempotencyUnknown);
    use prost_types::method_options::IdempotencyLevel::{IdempotencyUnknown, NoSideEffects};
    let timeout_ms = if said.timeout_ms == 0 { DEFAULT_TIMEOUT_MS } else { said.timeout_ms };
    let mut operation = Operation {
        full_name: path[1..].to_owned(),
        path,
        name: method.name().to_owned(),
        source: info.clone(),
        method: method.clone(),
        scope: said.scope.clone(),
        data_class: said.data_class(),
        purpose_required: said.purpose_required,
        official_required: said.official_required || said.data_class() == DataClass::Sensitive,
        writes: level != NoSideEffects,
        repeatable: level != IdempotencyUnknown,
        subject,
        timeout: Duration::from_millis(u64::from(timeout_ms)),
        shape,
        fills,
        response_root: match said.response_root.as_slice() {
            [] => vec![Vec::new()],
            roots => roots.iter().map(|root| WirePath::parse(root).parts).collect(),
        },
        outcome,
        paging: said.paging.as_ref().map(paging),
        polling,
        binding,
        response_fields: FieldTree::new(&answer),
        max_response_subjects: match said.max_response_subjects {
            0 => DEFAULT_RESPONSE_SUBJECTS,
            max => max as usize,
        },
        request,
        response: answer,
        response_shape: ResponseShape::default(),
        drift: DriftPolicy::of(said.drift()).or_else(|| DriftPolicy::of(source.drift())),
    };
    operation.response_shape =
        ResponseShape::of(&operation, &source.ignored, &said.ignored).map_err(|fault| fail(fault.to_string()))?;
    Ok(operation)
}

fn shape(method: &MethodDescriptor) -> Result<CallShape, String> {
    match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => Ok(CallShape::Unary),
        (false, true) => Ok(CallShape::ServerStream),
        (true, false) => Ok(CallShape::ClientStream),
        (true, true) => Err("streams both ways: no source needs that".into()),
    }
}

/// Returns the faults of an operation's options; a part that could not be compiled has a fault of its own.
fn wrong(
    said: &options::Operation,
    source: &options::Source,
    shape: Option<CallShape>,
    binding: Option<&Binding>,
) -> Vec<String> {
    let data_class = said.data_class();
    let kept = matches!(binding, Some(Binding::Rest(rest)) if rest.etag && (data_class != DataClass::Open || rest.method != http::Method::GET));
    let in_group = said.scope.strip_prefix(&source.id).and_then(|rest| rest.strip_prefix(':')).is_some_and(is_group);
    let other_client_stream =
        shape == Some(CallShape::ClientStream) && binding.is_some_and(|binding| !matches!(binding, Binding::Grpc(_)));
    let no_server_stream = shape.is_some_and(|shape| shape != CallShape::ServerStream);
    let rules = [
        (data_class == DataClass::Unspecified, "must say its data_class".to_owned()),
        (
            data_class >= DataClass::Personal && !said.purpose_required,
            "gives personal data, so purpose_required must be true".to_owned(),
        ),
        (
            said.max_response_subjects as usize > MAX_RESPONSE_SUBJECTS,
            format!("max_response_subjects is more than {MAX_RESPONSE_SUBJECTS}"),
        ),
        (!in_group, format!("scope {:?} must be \"{}:group\"", said.scope, source.id)),
        (said.timeout_ms > MAX_TIMEOUT_MS, format!("timeout_ms is more than {MAX_TIMEOUT_MS}")),
        (kept, "caches responses (etag), which is only allowed for open data by get".to_owned()),
        (other_client_stream, "a client stream needs a grpc binding".to_owned()),
        (
            said.paging.as_ref().is_some_and(|paging| {
                let alone = paging.offset.is_empty() && paging.total.is_empty() && paging.more.is_empty();
                alone || paging.offset.is_empty() != paging.limit.is_empty()
            }),
            "paging needs offset and limit, or total or more".to_owned(),
        ),
        (
            (said.paging.is_some() || said.polling.is_some()) && no_server_stream,
            "paging and polling are for server streams".to_owned(),
        ),
    ];
    rules.into_iter().filter_map(|(broken, reason)| broken.then_some(reason)).collect()
}

fn is_group(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn paging(said: &options::Paging) -> Paging {
    Paging {
        offset: said.offset.clone(),
        limit: said.limit.clone(),
        size: if said.size == 0 { 100 } else { said.size.min(10_000) },
        max_pages: if said.max_pages == 0 { 1_000 } else { said.max_pages },
        total: (!said.total.is_empty()).then(|| WirePath::parse(&said.total)),
        more: (!said.more.is_empty()).then(|| WirePath::parse(&said.more)),
    }
}

fn compile_polling(said: &options::Polling, answer: &super::plan::MessagePlan) -> Result<Polling, String> {
    if answer.field(&said.watch).is_none() {
        return Err(format!("polling watches {:?}, which the response does not have", said.watch));
    }
    Ok(Polling {
        watch: said.watch.clone(),
        until: said.until.clone(),
        interval: Duration::from_millis(u64::from(if said.interval_ms == 0 {
            5_000
        } else {
            said.interval_ms.max(100)
        })),
        max: Duration::from_millis(u64::from(if said.max_ms == 0 { 3_600_000 } else { said.max_ms })),
    })
}

fn fills(said: &options::Operation, method: &MethodDescriptor) -> Result<Vec<FillPlan>, String> {
    let one = |fill: &options::Fill| {
        let value = fill.value.clone().ok_or_else(|| format!("fill {:?} has no value", fill.name))?;
        if fill.name.is_empty() {
            return Err("a fill has no name".to_owned());
        }
        if let options::fill::Value::Field(path) = &value {
            request_path(path, method).map_err(|reason| format!("fill {:?}: {reason}", fill.name))?;
        }
        Ok(FillPlan {
            name: WirePath::parse(&fill.name),
            location: fill.location(),
            value,
            format: Some(fill.format()).filter(|format| *format != options::Format::Unspecified),
            max_length: (fill.max_length > 0).then_some(fill.max_length as usize),
            otherwise: Some(fill.otherwise.clone()).filter(|text| !text.is_empty()),
            optional: fill.optional,
        })
    };
    said.fill.iter().map(one).collect()
}

fn subject_paths(said: &options::Operation, method: &MethodDescriptor) -> Result<Vec<Vec<String>>, String> {
    said.subject.iter().map(|text| request_path(text, method).map_err(|reason| format!("subject: {reason}"))).collect()
}

/// Returns the path of a request field, in its parts.
fn request_path(text: &str, method: &MethodDescriptor) -> Result<Vec<String>, String> {
    let parts: Vec<String> = text.split('.').map(str::to_owned).collect();
    let mut message = Some(method.input());
    for part in &parts {
        let field = message.as_ref().and_then(|message| message.get_field_by_name(part));
        let field = field.ok_or_else(|| format!("{text:?} is no field of {}", method.input().name()))?;
        message = field.kind().as_message().cloned();
    }
    Ok(parts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_contracts_serve_every_operation_of_the_ten_sources() {
        let set = ContractSet::embedded().unwrap();
        assert_eq!(set.sources().len(), 10);
        assert_eq!(set.operations().len(), 41);
    }

    #[test]
    fn a_wrong_contract_is_refused_with_file_line_and_reason() {
        let folder = tempfile::tempdir().unwrap();
        let head = "syntax = \"proto3\";\npackage x.v1;\nimport \"ndxp/contract/v1/contract.proto\";\n";
        let wrong = format!(
            "{head}service S {{\n option (ndxp.contract.v1.source) = {{ id: \"x\" }};\n rpc A(M) returns (M) {{\n  option (ndxp.contract.v1.operation) = {{ scope: \"y:read\" data_class: OPEN rest: {{ get: \"/a\" }} }};\n }}\n rpc B(M) returns (M);\n}}\nmessage M {{ string a = 1; }}\n"
        );
        std::fs::write(folder.path().join("wrong.proto"), &wrong).unwrap();
        let lines = |faults: &[ContractFault]| faults.iter().map(|fault| fault.line).collect::<Vec<_>>();
        let faults = ContractSet::with_folder(folder.path()).unwrap_err();
        assert_eq!(lines(&faults), [6, 9]);
        assert!(faults[0].reason.contains("scope") && faults[1].reason.contains("operation"), "{faults:?}");
        let kept =
            wrong.replace("\"y:read\" data_class: OPEN rest: {", "\"x:read\" data_class: SHARED rest: { etag: true");
        std::fs::write(folder.path().join("wrong.proto"), kept).unwrap();
        let faults = ContractSet::with_folder(folder.path()).unwrap_err();
        assert!(faults[0].line == 6 && faults[0].reason.contains("open data"), "{faults:?}");
        std::fs::write(folder.path().join("wrong.proto"), format!("{head}message M {{ strin a = 1; }}\n")).unwrap();
        let faults = ContractSet::with_folder(folder.path()).unwrap_err();
        assert_eq!(faults[0].line, 4, "{faults:?}");
        std::fs::write(folder.path().join("wrong.proto"), format!("{head}message M {{ string a = ; }}\n")).unwrap();
        let faults = ContractSet::with_folder(folder.path()).unwrap_err();
        assert_eq!(faults[0].line, 4, "{faults:?}");
        // All faults of one operation, including its messages' fields; a message of two operations once.
        let more = wrong.replace("data_class: OPEN", "data_class: PERSONAL timeout_ms: 700000").replace(
            "string a = 1;",
            "string a = 1;\n int32 b = 2 [(ndxp.contract.v1.field).format = CITIZEN_ID];\n map<string, int32> c = 3;",
        );
        std::fs::write(folder.path().join("wrong.proto"), more).unwrap();
        let faults = ContractSet::with_folder(folder.path()).unwrap_err();
        assert_eq!(lines(&faults), [6, 6, 6, 9, 12, 13], "{faults:?}");
        // Two that the compiler finds.
        let text = format!("{head}message M {{ strin a = 1; }}\nmessage N {{ Nothing b = 1; }}\n");
        std::fs::write(folder.path().join("wrong.proto"), text).unwrap();
        let faults = ContractSet::with_folder(folder.path()).unwrap_err();
        assert_eq!(lines(&faults), [4, 5], "{faults:?}");
        // A fill overwrites an existing field.
        let fills = |field: &str| {
            let text = wrong.replace("\"y:read\"", "\"x:read\"").replace(" rpc B(M) returns (M);\n", "");
            text.replace("get: \"/a\" }", &format!("get: \"/a\" }} fill: {{ name: \"b\" field: \"{field}\" }}"))
        };
        std::fs::write(folder.path().join("wrong.proto"), fills("nothing")).unwrap();
        let faults = ContractSet::with_folder(folder.path()).unwrap_err();
        assert!(faults[0].line == 6 && faults[0].reason.contains("\"nothing\" is no field"), "{faults:?}");
        std::fs::write(folder.path().join("wrong.proto"), fills("a")).unwrap();
        ContractSet::with_folder(folder.path()).unwrap();
    }
}
