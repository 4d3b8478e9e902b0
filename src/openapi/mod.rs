//! Generates OpenAPI 3.1 from the contracts for plain JSON calls, `POST /v1/SOURCE/OPERATION`: required metadata, the fields of each
//! message with the contracts' Vietnamese descriptions, every status with its reasons, and examples of the sandbox.

mod responses;
mod schema;

use crate::contract::options::DataClass;
use crate::contract::{CallShape, Operation, SourceInfo, comments};
use crate::sandbox::samples::{self, Sample};
use responses::ByStatus;
use schema::{Schemas, Side};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The path of an operation as plain JSON.
pub fn path(operation: &Operation) -> String {
    format!("/v1/{}/{}", operation.source.id, operation.name)
}

/// Returns the document for operations. Of two operations with one path (two contracts of one source) the first is described.
/// `server`: the gateway's public URL (`https://…`).
///
/// Streaming operations are left out: plain JSON has no streams, and OpenAPI cannot describe Connect's.
pub fn document<'o>(operations: impl IntoIterator<Item = &'o Arc<Operation>>, server: &str) -> Value {
    let (mut schemas, by_status) = (Schemas::default(), responses::by_status());
    let mut by_path: BTreeMap<String, &Arc<Operation>> = BTreeMap::new();
    for operation in operations.into_iter().filter(|one| one.shape == CallShape::Unary) {
        by_path.entry(path(operation)).or_insert(operation);
    }
    let one = |(path, operation): (&String, &&Arc<Operation>)| {
        (path.clone(), json!({ "post": described(operation, &mut schemas, &by_status) }))
    };
    let paths: Map<String, Value> = by_path.iter().map(one).collect();
    let sources: BTreeMap<&str, &SourceInfo> =
        by_path.values().map(|one| (one.source.id.as_str(), one.source.as_ref())).collect();
    let tag = |source: &&SourceInfo| json!({ "name": source.id, "description": format!("{} / {}. {}", source.name_vi, source.name, source.owner) });
    let mut all = schemas.into_components();
    all.insert("Problem".into(), responses::problem(&by_status));
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "NDXP gateway / Cổng trao đổi dữ liệu",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every operation of the national databases that this gateway connects, as plain JSON over HTTPS with a client \
                certificate and an access token. Messages are Protobuf's JSON mapping; errors are problem details (RFC 9457).",
            "license": { "name": "Apache License 2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": server }],
        "tags": sources.values().map(tag).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": all,
            "responses": responses::components(&by_status),
            "headers": responses::headers(),
            "securitySchemes": {
                "certificate": { "type": "mutualTLS", "description": "The client's certificate of the province's CA." },
                "token": {
                    "type": "oauth2",
                    "description": "An access token of this gateway, bound to the certificate (RFC 8705).",
                    "flows": { "clientCredentials": {
                        "tokenUrl": format!("{}/oauth2/token", server.trim_end_matches('/')),
                        "scopes": scopes(by_path.values()),
                    } },
                },
            },
        },
    })
}

fn scopes<'o>(operations: impl Iterator<Item = &'o &'o Arc<Operation>>) -> Map<String, Value> {
    let mut scopes = Map::new();
    for operation in operations {
        scopes.entry(operation.scope.clone()).or_insert_with(|| operation.source.name_vi.clone().into());
    }
    scopes
}

fn described(operation: &Operation, schemas: &mut Schemas, by_status: &ByStatus) -> Value {
    let words = comments::of_method(&operation.method);
    let summary = words.split(['.', ':']).next().unwrap_or_default().trim();
    let mut request = json!({ "schema": schemas.reference(&operation.request, Side::Request) });
    let mut response = json!({ "schema": schemas.reference(&operation.response, Side::Response) });
    let sample = samples::of(&operation.full_name);
    if let Some(sample) = sample {
        if let Some(message) = sample.requests.first() {
            request["example"] = message.clone();
        }
        response["example"] = sample.expect.clone();
    }
    json!({
        "operationId": operation.full_name.replace(['.', '/'], "_"),
        "tags": [operation.source.id],
        "summary": if summary.is_empty() { operation.name.as_str() } else { summary },
        "description": words,
        "security": [{ "certificate": [], "token": [operation.scope] }],
        "parameters": parameters(operation, sample),
        "requestBody": { "required": true, "content": { "application/json": request } },
        "responses": responses::of(operation, response, by_status),
        "x-ndxp-data-class": operation.data_class.as_str_name(),
        "x-ndxp-writes": operation.writes,
        "x-ndxp-timeout-ms": operation.timeout.as_millis() as u64,
    })
}

/// The call metadata that a contract may require, as headers.
fn parameters(operation: &Operation, sample: Option<&Sample>) -> Value {
    let header = |name: &str, required: bool, words: &str, example: Option<&String>| {
        json!({
            "name": name, "in": "header", "required": required, "description": words,
            "schema": { "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z0-9._/-]+$" },
            "example": example.filter(|text| !text.is_empty()).map_or("1.004873", String::as_str),
        })
    };
    json!([
        header(
            "ndxp-purpose",
            operation.purpose_required,
            "What the data is for: a procedure code or a dossier number (mã thủ tục hành chính hoặc mã hồ sơ) that the grant covers.",
            sample.map(|sample| &sample.purpose),
        ),
        header(
            "ndxp-official",
            operation.official_required,
            "The acting official's id (cán bộ thực hiện).",
            sample.map(|sample| &sample.official),
        ),
    ])
}

/// Returns the field's data class, where it is higher than its operation's.
fn data_class(class: DataClass) -> Option<&'static str> {
    (class != DataClass::Unspecified).then(|| class.as_str_name())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::contract::ContractSet;
    use std::collections::HashSet;

    fn all_references<'v>(value: &'v Value, found: &mut HashSet<&'v str>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(name, value)| match value {
                Value::String(target) if name == "$ref" => {
                    found.insert(target);
                }
                value => all_references(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| all_references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_operation_with_one_response_is_described_and_every_reference_leads_somewhere() {
        let contracts = ContractSet::embedded().unwrap();
        let document = document(contracts.operations(), "https://gateway.example:8443");
        for operation in contracts.operations() {
            let described = document["paths"].get(path(operation));
            assert_eq!(described.is_some(), operation.shape == CallShape::Unary, "{}", operation.full_name);
            let Some(one) = described else { continue };
            assert!(one["post"]["requestBody"]["content"]["application/json"]["example"].is_object(), "{one}");
            assert_eq!(one["post"]["parameters"][0]["required"], operation.purpose_required);
        }
        let mut references = HashSet::new();
        all_references(&document, &mut references);
        assert!(references.len() > 50, "{}", references.len());
        for reference in references {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }

    #[test]
    fn a_request_has_what_its_contract_requires_and_nothing_else() {
        let contracts = ContractSet::embedded().unwrap();
        let document = document(contracts.operations(), "https://gateway.example:8443");
        let schema = |name: &str| document["components"]["schemas"][name].clone();
        let verify = schema("ndxp.population.v1.VerifyCitizenRequest");
        assert_eq!(verify["additionalProperties"], false);
        assert!(verify["required"].as_array().unwrap().contains(&"fullName".into()), "{verify}");
        assert_eq!(verify["oneOf"], json!([{ "required": ["citizenId"] }, { "required": ["oldCitizenId"] }]));
        assert!(verify["properties"]["citizenId"]["pattern"].is_string());
        let response = schema("ndxp.population.v1.VerifyCitizenResponse");
        assert_eq!((response.get("required"), response.get("additionalProperties")), (None, None), "{response}");
    }
}
