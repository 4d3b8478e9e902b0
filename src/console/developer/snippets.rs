//! Code snippets that call an operation by gRPC, for the command line and for the languages of provincial systems.

use crate::contract::{CallShape, Operation};
use crate::sandbox::samples::Sample;
use serde_json::Value;

/// The parts of a snippet.
struct Parts<'o> {
    /// `ndxp.population.v1`.
    package: &'o str,
    /// `population`: the file without its folder and ending.
    file: String,
    /// The path of the `.proto` file.
    path: String,
    service: &'o str,
    method: &'o str,
    request: &'o str,
    json: String,
    shape: CallShape,
    /// Names and values of the metadata other than the token.
    metadata: Vec<(&'static str, String)>,
    /// The C# and Java namespaces of the contract's options.
    java: String,
    csharp: String,
    php: String,
}

/// Every snippet, with the name of its language.
pub(super) fn snippets(operation: &Operation, example: Option<&Sample>) -> Vec<(&'static str, String)> {
    let service = operation.method.parent_service();
    let input = operation.method.input();
    let file = operation.method.parent_file();
    let options = file.file_descriptor_proto().options.clone().unwrap_or_default();
    let stem = file.name().rsplit('/').next().unwrap_or_default().trim_end_matches(".proto").to_owned();
    let request =
        example.and_then(|one| one.requests.first()).cloned().unwrap_or(Value::Object(serde_json::Map::new()));
    let mut metadata = Vec::new();
    if operation.purpose_required {
        metadata.push(("ndxp-purpose", example.map_or("1.004222", |one| one.purpose.as_str()).to_owned()));
    }
    if operation.official_required {
        metadata.push(("ndxp-official", example.map_or("CB-0001", |one| one.official.as_str()).to_owned()));
    }
    let parts = Parts {
        package: service.package_name(),
        file: stem,
        path: file.name().to_owned(),
        service: service.name(),
        method: &operation.name,
        request: input.name(),
        json: request.to_string(),
        shape: operation.shape,
        metadata,
        java: options.java_package().to_owned(),
        csharp: options.csharp_namespace().to_owned(),
        php: options.php_namespace().to_owned(),
    };
    vec![
        ("ndxp-gateway call", command(&parts)),
        ("Python (grpcio)", python(&parts)),
        ("Node.js (@grpc/grpc-js)", node(&parts)),
        ("Java (grpc-java)", java(&parts)),
        ("C# (Grpc.Net.Client)", csharp(&parts)),
        ("PHP (grpc/grpc)", php(&parts)),
    ]
}

/// A text in single quotation marks of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn command(parts: &Parts<'_>) -> String {
    let more: String = parts
        .metadata
        .iter()
        .map(|(name, value)| format!(" \\\n  --{} {}", name.trim_start_matches("ndxp-"), quoted(value)))
        .collect();
    format!(
        "ndxp-gateway call {}/{} --data {} \\\n  --to https://GATEWAY:7443 --ca ca.pem --certificate client.pem --token-file token.jwt{more}\n",
        parts.service,
        parts.method,
        quoted(&parts.json)
    )
}

/// The metadata as pairs, each formatted by `pair`.
fn pairs(parts: &Parts<'_>, pair: impl Fn(&str, &str) -> String) -> String {
    parts.metadata.iter().map(|(name, value)| pair(name, value)).collect()
}

fn python(parts: &Parts<'_>) -> String {
    let metadata = pairs(parts, |name, value| format!(", ({name:?}, {value:?})"));
    let (module, file) = (parts.package, &parts.file);
    let call = match parts.shape {
        CallShape::Unary => format!("print(stub.{}(request, metadata=metadata, timeout=30))", parts.method),
        CallShape::ServerStream => {
            format!(
                "for response in stub.{}(request, metadata=metadata, timeout=300):\n        print(response)",
                parts.method
            )
        }
        CallShape::ClientStream => {
            format!("print(stub.{}(iter([request]), metadata=metadata, timeout=300))", parts.method)
        }
    };
    format!(
        r#"# pip install grpcio grpcio-tools
# python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. {path}
import grpc
from google.protobuf import json_format
from {module} import {file}_pb2, {file}_pb2_grpc


def read(name):
    with open(name, "rb") as file:
        return file.read()


credentials = grpc.ssl_channel_credentials(read("ca.pem"), read("client.key"), read("client.pem"))
metadata = [("authorization", "Bearer " + read("token.jwt").decode().strip()){metadata}]
with grpc.secure_channel("GATEWAY:7443", credentials) as channel:
    stub = {file}_pb2_grpc.{service}Stub(channel)
    request = json_format.Parse('''{json}''', {file}_pb2.{request}())
    {call}
"#,
        path = parts.path,
        service = parts.service,
        json = parts.json,
        request = parts.request,
    )
}

fn node(parts: &Parts<'_>) -> String {
    let metadata = pairs(parts, |name, value| format!("metadata.set({name:?}, {value:?});\n"));
    let print = "(error, response) => console.log(error ?? response)";
    let call = match parts.shape {
        CallShape::Unary => format!("client.{}(request, metadata, {print});", parts.method),
        CallShape::ServerStream => {
            format!(
                "client.{}(request, metadata).on(\"data\", console.log).on(\"error\", console.error);",
                parts.method
            )
        }
        CallShape::ClientStream => {
            format!("const stream = client.{}(metadata, {print});\nstream.write(request);\nstream.end();", parts.method)
        }
    };
    format!(
        r#"// npm install @grpc/grpc-js @grpc/proto-loader
const {{ readFileSync }} = require("fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const {{ {package} }} = grpc.loadPackageDefinition(loader.loadSync("{path}", {{ includeDirs: ["proto"] }}));
const credentials = grpc.credentials.createSsl(readFileSync("ca.pem"), readFileSync("client.key"), readFileSync("client.pem"));
const client = new {package}{rest}.{service}("GATEWAY:7443", credentials);
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${{readFileSync("token.jwt", "utf8").trim()}}`);
{metadata}const request = {json};
{call}
"#,
        package = parts.package.split('.').next().unwrap_or_default(),
        rest = parts.package.split_once('.').map(|(_, rest)| format!(".{rest}")).unwrap_or_default(),
        path = parts.path,
        service = parts.service,
        json = parts.json,
    )
    .replace("includeDirs: [\"proto\"]", "includeDirs: [\"proto\"], keepCase: true, longs: String, enums: String")
}

fn java(parts: &Parts<'_>) -> String {
    let metadata = pairs(parts, |name, value| {
        format!("metadata.put(Metadata.Key.of({name:?}, Metadata.ASCII_STRING_MARSHALLER), {value:?});\n")
    });
    let stub = format!("{}Grpc", parts.service);
    let mut method = parts.method.chars();
    let method: String = method.next().into_iter().flat_map(char::to_lowercase).chain(method).collect();
    let call = match parts.shape {
        CallShape::Unary => format!(
            "System.out.println({stub}.newBlockingStub(channel).withInterceptors(with).{method}(request.build()));"
        ),
        CallShape::ServerStream => {
            format!(
                "{stub}.newBlockingStub(channel).withInterceptors(with).{method}(request.build()).forEachRemaining(System.out::println);"
            )
        }
        CallShape::ClientStream => format!(
            "// responses: your own StreamObserver\nvar stream = {stub}.newStub(channel).withInterceptors(with).{method}(responses);\nstream.onNext(request.build());\nstream.onCompleted();"
        ),
    };
    format!(
        r#"// io.grpc:grpc-netty-shaded, grpc-protobuf, grpc-stub, com.google.protobuf:protobuf-java-util
import com.google.protobuf.util.JsonFormat;
import io.grpc.*;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.nio.file.*;
import {java}.*;

var credentials = TlsChannelCredentials.newBuilder()
    .trustManager(new File("ca.pem")).keyManager(new File("client.pem"), new File("client.key")).build();
ManagedChannel channel = Grpc.newChannelBuilder("GATEWAY:7443", credentials).build();
Metadata metadata = new Metadata();
metadata.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER),
    "Bearer " + Files.readString(Path.of("token.jwt")).strip());
{metadata}ClientInterceptor with = MetadataUtils.newAttachHeadersInterceptor(metadata);
{request}.Builder request = {request}.newBuilder();
JsonFormat.parser().merge("""
    {json}""", request);
{call}
"#,
        java = parts.java,
        request = parts.request,
        json = parts.json,
    )
}

fn csharp(parts: &Parts<'_>) -> String {
    let metadata = pairs(parts, |name, value| format!(", {{ {name:?}, {value:?} }}"));
    let call = match parts.shape {
        CallShape::Unary => format!("Console.WriteLine(await client.{}Async(request, headers));", parts.method),
        CallShape::ServerStream => format!(
            "using var call = client.{}(request, headers);\nawait foreach (var response in call.ResponseStream.ReadAllAsync()) Console.WriteLine(response);",
            parts.method
        ),
        CallShape::ClientStream => format!(
            "using var call = client.{}(headers);\nawait call.RequestStream.WriteAsync(request);\nawait call.RequestStream.CompleteAsync();\nConsole.WriteLine(await call.ResponseAsync);",
            parts.method
        ),
    };
    format!(
        r#"// dotnet add package Grpc.Net.Client Google.Protobuf Grpc.Tools
using System.Security.Cryptography.X509Certificates;
using Google.Protobuf;
using Grpc.Core;
using Grpc.Net.Client;
using {csharp};

var handler = new SocketsHttpHandler();
handler.SslOptions.ClientCertificates = new X509CertificateCollection {{ X509Certificate2.CreateFromPemFile("client.pem", "client.key") }};
// The province's CA is in the machine's store of trusted roots.
using var channel = GrpcChannel.ForAddress("https://GATEWAY:7443", new GrpcChannelOptions {{ HttpHandler = handler }});
var client = new {service}.{service}Client(channel);
var headers = new Metadata {{ {{ "authorization", "Bearer " + File.ReadAllText("token.jwt").Trim() }}{metadata} }};
var request = JsonParser.Default.Parse<{request}>("""{json}""");
{call}
"#,
        csharp = parts.csharp,
        service = parts.service,
        request = parts.request,
        json = parts.json,
    )
}

fn php(parts: &Parts<'_>) -> String {
    let metadata = pairs(parts, |name, value| format!(", '{name}' => ['{value}']"));
    let call = match parts.shape {
        CallShape::Unary => format!(
            "[$response, $status] = $client->{}($request, $metadata)->wait();\necho $status->code === Grpc\\STATUS_OK ? $response->serializeToJsonString() : $status->details, PHP_EOL;",
            parts.method
        ),
        CallShape::ServerStream => format!(
            "foreach ($client->{}($request, $metadata)->responses() as $response) {{\n    echo $response->serializeToJsonString(), PHP_EOL;\n}}",
            parts.method
        ),
        CallShape::ClientStream => format!(
            "$call = $client->{}($metadata);\n$call->write($request);\n[$response, $status] = $call->wait();\necho $status->details, PHP_EOL;",
            parts.method
        ),
    };
    format!(
        r"<?php
// pecl install grpc; composer require grpc/grpc google/protobuf
require 'vendor/autoload.php';

$credentials = Grpc\ChannelCredentials::createSsl(
    file_get_contents('ca.pem'), file_get_contents('client.key'), file_get_contents('client.pem'));
$client = new {php}\{service}Client('GATEWAY:7443', ['credentials' => $credentials]);
$metadata = ['authorization' => ['Bearer ' . trim(file_get_contents('token.jwt'))]{metadata}];
$request = new {php}\{request}();
$request->mergeFromJsonString({json});
{call}
",
        php = parts.php,
        service = parts.service,
        request = parts.request,
        json = quoted_php(&parts.json),
    )
}

fn quoted_php(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::contract::ContractSet;

    #[test]
    fn every_operation_has_a_snippet_in_each_language_with_its_name_and_required_metadata() {
        for operation in ContractSet::embedded().unwrap().operations() {
            let all = snippets(operation, None);
            assert_eq!(all.len(), 6);
            for (language, text) in all {
                let named = text.to_lowercase().contains(&operation.name.to_lowercase());
                assert!(named && text.contains("token.jwt"), "{language}: {text}");
                let purpose = text.contains("ndxp-purpose") || text.contains("--purpose");
                assert_eq!(purpose, operation.purpose_required, "{language}: {text}");
            }
        }
    }

    #[test]
    fn quotation_marks_are_escaped_in_every_language() {
        assert_eq!((quoted("a'b").as_str(), quoted_php(r"a'\b").as_str()), (r"'a'\''b'", r"'a\'\\b'"));
    }
}
