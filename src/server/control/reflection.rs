//! Server reflection (https://github.com/grpc/grpc/blob/master/doc/server-reflection.md): describes what the gateway
//! serves, as compiled files, byte for byte. A request for something that does not exist gets an error response, and
//! the stream continues: clients look for what may be missing.

use crate::server::own_calls::OwnService;
use crate::status::{Reason, Refusal};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::server_reflection_server::{ServerReflection, ServerReflectionServer};
use tonic_reflection::pb::v1::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest,
    ServerReflectionResponse, ServiceResponse,
};

/// Requests of one stream: more than there are files and services.
const MAX_REQUESTS: usize = 1_024;

/// A `FileDescriptorSet` of files as they were compiled: as messages of `prost-types` they would lose the contracts' options.
#[derive(Clone, PartialEq, prost::Message)]
struct EncodedFiles {
    #[prost(bytes = "vec", repeated, tag = "1")]
    files: Vec<Vec<u8>>,
}

/// Files, and their declarations.
#[derive(Debug, Default)]
pub(in crate::server) struct DescribedFiles {
    services: BTreeSet<String>,
    by_name: HashMap<String, Arc<[u8]>>,
    by_symbol: HashMap<String, Arc<[u8]>>,
    /// By the extended message, and the field's number.
    by_extension: HashMap<String, BTreeMap<i32, Arc<[u8]>>>,
}

/// Full name of something declared in a scope.
fn within(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

impl DescribedFiles {
    /// Describes these services.
    pub(in crate::server) fn new(services: impl IntoIterator<Item = String>) -> Self {
        DescribedFiles { services: services.into_iter().collect(), ..DescribedFiles::default() }
    }

    /// Adds the files of an encoded `FileDescriptorSet`; `None` if it is not one.
    pub(in crate::server) fn set(self, encoded: &[u8]) -> Option<Self> {
        EncodedFiles::decode(encoded).ok()?.files.into_iter().try_fold(self, Self::file)
    }

    /// Adds an encoded file; `None` if it is not one. A file with a known name is skipped.
    pub(in crate::server) fn file(mut self, encoded: Vec<u8>) -> Option<Self> {
        let file = FileDescriptorProto::decode(encoded.as_slice()).ok()?;
        let encoded: Arc<[u8]> = encoded.into();
        if self.by_name.contains_key(file.name()) {
            return Some(self);
        }
        self.by_name.insert(file.name().to_owned(), encoded.clone());
        let package = file.package();
        file.message_type.iter().for_each(|message| self.message(package, message, &encoded));
        file.enum_type.iter().for_each(|one| self.enumeration(package, one, &encoded));
        self.extensions(package, &file.extension, &encoded);
        for service in &file.service {
            let name = within(package, service.name());
            service.method.iter().for_each(|method| self.symbol(within(&name, method.name()), &encoded));
            self.symbol(name, &encoded);
        }
        Some(self)
    }

    fn symbol(&mut self, name: String, file: &Arc<[u8]>) {
        self.by_symbol.insert(name, file.clone());
    }

    fn message(&mut self, scope: &str, message: &DescriptorProto, file: &Arc<[u8]>) {
        let name = within(scope, message.name());
        message.nested_type.iter().for_each(|nested| self.message(&name, nested, file));
        message.enum_type.iter().for_each(|nested| self.enumeration(&name, nested, file));
        message.field.iter().for_each(|field| self.symbol(within(&name, field.name()), file));
        message.oneof_decl.iter().for_each(|oneof| self.symbol(within(&name, oneof.name()), file));
        self.extensions(&name, &message.extension, file);
        self.symbol(name, file);
    }

    /// An enum's values are declared beside it, not in it.
    fn enumeration(&mut self, scope: &str, one: &EnumDescriptorProto, file: &Arc<[u8]>) {
        one.value.iter().for_each(|value| self.symbol(within(scope, value.name()), file));
        self.symbol(within(scope, one.name()), file);
    }

    fn extensions(&mut self, scope: &str, extensions: &[FieldDescriptorProto], file: &Arc<[u8]>) {
        for extension in extensions {
            self.symbol(within(scope, extension.name()), file);
            let extended = extension.extendee().trim_start_matches('.').to_owned();
            self.by_extension.entry(extended).or_default().insert(extension.number(), file.clone());
        }
    }

    fn answer(&self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let found = match &request.message_request {
            Some(MessageRequest::FileByFilename(name)) => self.by_name.get(name).map(described),
            Some(MessageRequest::FileContainingSymbol(name)) => self.by_symbol.get(name).map(described),
            Some(MessageRequest::FileContainingExtension(one)) => {
                let files = self.by_extension.get(&one.containing_type);
                files.and_then(|files| files.get(&one.extension_number)).map(described)
            }
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => self.extension_numbers(name),
            Some(MessageRequest::ListServices(_)) => Some(MessageResponse::ListServicesResponse(ListServiceResponse {
                service: self.services.iter().map(|name| ServiceResponse { name: name.clone() }).collect(),
            })),
            None => Some(error(Code::InvalidArgument, "the request is empty")),
        };
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            message_response: Some(found.unwrap_or_else(|| error(Code::NotFound, "there is nothing of this name"))),
            original_request: Some(request),
        }
    }

    fn extension_numbers(&self, name: &str) -> Option<MessageResponse> {
        let numbers = self.by_extension.get(name);
        (numbers.is_some() || self.by_symbol.contains_key(name)).then(|| {
            let extension_number = numbers.map(|numbers| numbers.keys().copied().collect()).unwrap_or_default();
            let base_type_name = name.to_owned();
            MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse { base_type_name, extension_number })
        })
    }
}

fn described(file: &Arc<[u8]>) -> MessageResponse {
    MessageResponse::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto: vec![file.to_vec()] })
}

fn error(code: Code, message: &str) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse { error_code: code as i32, error_message: message.to_owned() })
}

/// The service.
#[derive(Debug, Clone)]
pub(in crate::server) struct Reflection(Arc<DescribedFiles>);

impl Reflection {
    /// Returns the server for these descriptions; its requests are bounded as its service's.
    pub(in crate::server) fn server(described: DescribedFiles) -> ServerReflectionServer<Self> {
        let server = ServerReflectionServer::new(Reflection(Arc::new(described)));
        server.max_decoding_message_size(OwnService::Reflection.max_message())
    }
}

#[tonic::async_trait]
impl ServerReflection for Reflection {
    type ServerReflectionInfoStream = BoxStream<'static, Result<ServerReflectionResponse, Status>>;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let described = self.0.clone();
        let answers = request.into_inner().enumerate().map(move |(number, request)| {
            if number >= MAX_REQUESTS {
                let detail = format!("{MAX_REQUESTS} requests of one stream");
                return Err(Refusal::with(Reason::RateLimited, detail).to_status(""));
            }
            Ok(described.answer(request?))
        });
        // Any error ends the stream.
        let until_error = stream::unfold(Some(answers.boxed()), |answers| async {
            let mut answers = answers?;
            let next = answers.next().await?;
            let goes_on = next.is_ok().then_some(answers);
            Some((next, goes_on))
        });
        Ok(Response::new(until_error.boxed()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::contract::EMBEDDED;
    use tonic_reflection::pb::v1::ExtensionRequest;

    fn response_to(described: &DescribedFiles, request: MessageRequest) -> MessageResponse {
        let request = ServerReflectionRequest { host: "h".into(), message_request: Some(request) };
        let answer = described.answer(request.clone());
        assert_eq!((answer.valid_host.as_str(), answer.original_request.unwrap()), ("h", request));
        answer.message_response.unwrap()
    }

    fn file(response: MessageResponse) -> FileDescriptorProto {
        let MessageResponse::FileDescriptorResponse(files) = response else { panic!("no file: {response:?}") };
        FileDescriptorProto::decode(files.file_descriptor_proto[0].as_slice()).unwrap()
    }

    #[test]
    fn c_whatever_is_declared_is_found_and_nothing_else() {
        let described = DescribedFiles::new(["ndxp.admin.v1.AdminService".into()]).set(EMBEDDED).unwrap();
        for symbol in [
            "ndxp.admin.v1.AdminService",
            "ndxp.admin.v1.AdminService.AddClient",
            "ndxp.admin.v1.AddClientRequest",
            "ndxp.admin.v1.AddClientRequest.id",
        ] {
            let found = file(response_to(&described, MessageRequest::FileContainingSymbol(symbol.into())));
            assert_eq!(found.package(), "ndxp.admin.v1", "{symbol}");
        }
        let options = "google.protobuf.MethodOptions";
        let numbers = response_to(&described, MessageRequest::AllExtensionNumbersOfType(options.into()));
        let MessageResponse::AllExtensionNumbersResponse(numbers) = numbers else { panic!("{numbers:?}") };
        assert!(numbers.base_type_name == options && !numbers.extension_number.is_empty());
        let first = ExtensionRequest { containing_type: options.into(), extension_number: numbers.extension_number[0] };
        assert_eq!(
            file(response_to(&described, MessageRequest::FileContainingExtension(first))).package(),
            "ndxp.contract.v1"
        );
        for unknown in [
            MessageRequest::FileContainingSymbol("ndxp.admin.v1".into()),
            MessageRequest::FileContainingSymbol(String::new()),
            MessageRequest::FileByFilename("../ndxp/admin/v1/admin.proto".into()),
            MessageRequest::AllExtensionNumbersOfType("no.Such".into()),
            MessageRequest::FileContainingExtension(ExtensionRequest::default()),
        ] {
            let answer = response_to(&described, unknown);
            assert!(
                matches!(answer, MessageResponse::ErrorResponse(ErrorResponse { error_code: 5, .. })),
                "{answer:?}"
            );
        }
        assert!(
            DescribedFiles::default().set(b"nonsense").is_none()
                && DescribedFiles::default().file(vec![0xff]).is_none()
        );
    }

    #[test]
    fn c_files_keep_the_contracts_options() {
        let described = DescribedFiles::default().set(EMBEDDED).unwrap();
        let name = "ndxp/land/v1/land.proto";
        let sets = EncodedFiles::decode(EMBEDDED).unwrap();
        let compiled =
            sets.files.iter().find(|one| FileDescriptorProto::decode(one.as_slice()).unwrap().name() == name);
        let answer = response_to(&described, MessageRequest::FileByFilename(name.into()));
        let MessageResponse::FileDescriptorResponse(files) = answer else { panic!("{answer:?}") };
        assert_eq!(files.file_descriptor_proto[0], *compiled.unwrap());
    }
}
