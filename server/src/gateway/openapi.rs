//! The gateway as a document of OpenAPI 3.0, made of the table of [`routes`](super::routes) and the descriptors by which
//! requests are read: it has no path that is not served, and none is missing.
//!
//! etcd publishes three files of OpenAPI 2.0 that `protoc-gen-openapiv2` made. Names of schemas and operations are theirs, so
//! that a client generated from this document has the names that one generated from those has; 3.0, because what generates
//! and validates today takes it, and can say what a stream is.

use std::collections::BTreeMap;

use prost_reflect::{
    EnumDescriptor, FieldDescriptor, FileDescriptor, Kind as Type, MessageDescriptor, MethodDescriptor,
};
use serde_json::{Value, json};

use super::routes::{Kind, PREFIXES, all};
use super::transcoder::Transcoder;

const INFO: &str = "etcd's API over HTTP and JSON, as basalt serves it on its client ports. Numbers of 64 bits are strings, bytes are base64, \
                    what is zero or empty is left out of answers. The answer of a stream has a line for each message. Each path also \
                    takes a websocket, by GET: a text message for each request, and one for each line of the answer.";

/// As grpc-gateway calls what an error looks like.
const ERROR: &str = "googleRpcStatus";
/// The one type that etcd's documents name by all its parts: two of them were too few among all that its generator saw.
const PERMISSION_TYPE: &str = "authpb.Permission.Type";
/// How a client says who it is.
const TOKEN: &str = "ApiKey";
/// Asked by who has no token yet.
const LOGIN: (&str, &str) = ("etcdserverpb.Auth", "Authenticate");

/// The document, of a program of this version.
pub fn document(version: &str) -> Value {
    let transcoder = Transcoder::with_comments();
    let (mut schemas, mut paths) = (Schemas::default(), BTreeMap::new());
    let mut seen = BTreeMap::new();
    for (path, service, method) in all() {
        let name = operation_name(service, method);
        let count = seen.entry(name.clone()).and_modify(|count| *count += 1).or_insert(1);
        // As grpc-gateway tells a method's further paths apart.
        let id = if *count == 1 { name } else { format!("{name}{count}") };
        let descriptor = transcoder.method(service, method).expect("a test looks each route up");
        let kind = transcoder.signature(service, method).expect("it is there").kind;
        let operation = operation(&mut schemas, &descriptor, kind, service, method);
        for prefix in PREFIXES {
            let mut operation = operation.clone();
            let suffix = if prefix == PREFIXES[0] { "" } else { "_v3beta" };
            operation["operationId"] = format!("{id}{suffix}").into();
            if !suffix.is_empty() {
                operation["deprecated"] = true.into();
            }
            paths.insert(format!("{prefix}{path}"), json!({ "post": operation }));
        }
    }
    schemas.0.insert(ERROR.to_owned(), error_schema());
    json!({
        "openapi": "3.0.3",
        "info": { "title": "basalt", "version": version, "description": INFO },
        "servers": [{ "url": "http://127.0.0.1:2379" }],
        "paths": paths,
        "components": {
            "schemas": schemas.0,
            "securitySchemes": { TOKEN: {
                "type": "apiKey", "in": "header", "name": "Authorization",
                "description": "A token of `/v3/auth/authenticate`; needed while authentication is on.",
            } },
        },
        "security": [{ TOKEN: [] }, {}],
    })
}

/// `KV_Range` of `etcdserverpb.KV` and `Range`.
fn operation_name(service: &str, method: &str) -> String {
    format!("{}_{method}", last(service))
}

fn last(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

fn operation(schemas: &mut Schemas, descriptor: &MethodDescriptor, kind: Kind, service: &str, method: &str) -> Value {
    let response = schemas.of_message(&descriptor.output());
    let (asked, told, response) = match kind {
        Kind::Unary => ("", "", response),
        Kind::ServerStream => ("", " A line for each message.", line_schema(response)),
        Kind::Streams => ("One value after the other.", " A line for each message.", line_schema(response)),
    };
    let mut operation = json!({
        "tags": [last(service)],
        "requestBody": {
            "required": true,
            "description": asked,
            "content": { "application/json": { "schema": schemas.of_message(&descriptor.input()) } },
        },
        "responses": {
            "200": {
                "description": format!("A successful response.{told}"),
                "content": { "application/json": { "schema": response } },
            },
            "default": {
                "description": "An error. Plain text for a client that shows a certificate with a name while authentication is on.",
                "content": {
                    "application/json": { "schema": reference(ERROR) },
                    "text/plain": { "schema": { "type": "string" } },
                },
            },
        },
    });
    if let Some(text) = comment(&descriptor.parent_file(), descriptor.path()) {
        operation["summary"] = text.into();
    }
    if (service, method) == LOGIN {
        operation["security"] = json!([]);
    }
    operation
}

/// A line of a stream: a message, or how the stream failed.
fn line_schema(result: Value) -> Value {
    json!({ "type": "object", "properties": { "result": result, "error": reference(ERROR) } })
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "code": { "type": "integer", "format": "int32", "description": "A code of gRPC." },
            "message": { "type": "string" },
        },
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// What the `.proto` file says above something, or behind it.
fn comment(file: &FileDescriptor, path: &[i32]) -> Option<String> {
    let locations = &file.file_descriptor_proto().source_code_info.as_ref()?.location;
    let location = locations.iter().find(|location| location.path == path)?;
    let text = location.leading_comments.as_ref().or(location.trailing_comments.as_ref())?;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    Some(lines.join("\n").trim().to_owned()).filter(|text| !text.is_empty())
}

/// Messages and enumerations that operations lead to, by their names in the document.
#[derive(Default)]
struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    fn of_message(&mut self, message: &MessageDescriptor) -> Value {
        let name = schema_name(message.full_name());
        if !self.0.contains_key(&name) {
            // It stands there before its fields, which may lead back to it.
            self.0.insert(name.clone(), Value::Null);
            let fields: BTreeMap<_, _> =
                message.fields().map(|field| (field.name().to_owned(), self.of_field(&field))).collect();
            let mut schema = json!({ "type": "object", "properties": fields });
            if let Some(text) = comment(&message.parent_file(), message.path()) {
                schema["description"] = text.into();
            }
            self.0.insert(name.clone(), schema);
        }
        reference(&name)
    }

    fn of_field(&mut self, field: &FieldDescriptor) -> Value {
        assert!(!field.is_map(), "no map is on etcd's wire: {}", field.full_name());
        let one = self.of_type(&field.kind());
        let mut schema = if field.is_list() { json!({ "type": "array", "items": one }) } else { one };
        if let Some(text) = comment(&field.parent_message().parent_file(), field.path()) {
            if schema.get("$ref").is_some() {
                // Nothing beside a reference counts.
                schema = json!({ "allOf": [schema] });
            }
            schema["description"] = text.into();
        }
        schema
    }

    fn of_type(&mut self, kind: &Type) -> Value {
        match kind {
            Type::Bool => json!({ "type": "boolean" }),
            Type::String => json!({ "type": "string" }),
            Type::Bytes => json!({ "type": "string", "format": "byte" }),
            Type::Float => json!({ "type": "number", "format": "float" }),
            Type::Double => json!({ "type": "number", "format": "double" }),
            Type::Int32 | Type::Sint32 | Type::Sfixed32 => json!({ "type": "integer", "format": "int32" }),
            Type::Uint32 | Type::Fixed32 => json!({ "type": "integer", "format": "int64" }),
            Type::Int64 | Type::Sint64 | Type::Sfixed64 => json!({ "type": "string", "format": "int64" }),
            Type::Uint64 | Type::Fixed64 => json!({ "type": "string", "format": "uint64" }),
            Type::Message(message) => self.of_message(message),
            Type::Enum(values) => self.of_enum(values),
        }
    }

    fn of_enum(&mut self, descriptor: &EnumDescriptor) -> Value {
        let name = schema_name(descriptor.full_name());
        let values: Vec<String> = descriptor.values().map(|value| value.name().to_owned()).collect();
        let mut schema = json!({ "type": "string", "enum": values, "default": descriptor.default_value().name() });
        if let Some(text) = comment(&descriptor.parent_file(), descriptor.path()) {
            schema["description"] = text.into();
        }
        self.0.insert(name.clone(), schema);
        reference(&name)
    }
}

/// The last two parts of a full name, as `protoc-gen-openapiv2` names things where that is enough to tell them apart.
fn schema_name(full_name: &str) -> String {
    if full_name == PERMISSION_TYPE {
        return full_name.split('.').collect();
    }
    let parts: Vec<&str> = full_name.rsplitn(3, '.').take(2).collect();
    parts.into_iter().rev().collect()
}

#[cfg(test)]
#[path = "openapi_tests.rs"]
mod tests;
