//! The document against the table of paths, and against itself.

use std::collections::BTreeSet;

use super::super::routes::method_of;
use super::*;

fn paths(document: &Value) -> BTreeSet<&str> {
    document["paths"].as_object().expect("paths").keys().map(String::as_str).collect()
}

/// All that `$ref` names, anywhere below `value`.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get("$ref") {
                assert_eq!(fields.len(), 1, "what stands beside {target} would not count");
                found.insert(target);
            }
            fields.values().for_each(|inner| references(inner, found));
        }
        Value::Array(values) => values.iter().for_each(|inner| references(inner, found)),
        _ => {}
    }
}

#[test]
fn each_path_is_served_and_each_served_path_is_there() {
    let document = document("1");
    let served: BTreeSet<String> =
        PREFIXES.iter().flat_map(|prefix| all().map(move |(path, ..)| format!("{prefix}{path}"))).collect();
    assert_eq!(paths(&document), served.iter().map(String::as_str).collect());
    for path in paths(&document) {
        let (service, method) = method_of(path).expect(path);
        let operation = &document["paths"][path]["post"];
        assert_eq!(operation["tags"], json!([last(service)]), "{path}");
        let id = operation["operationId"].as_str().expect(path);
        assert!(id.starts_with(&operation_name(service, method)), "{path}: {id}");
        assert_eq!(document["paths"][path].as_object().map(serde_json::Map::len), Some(1), "{path}: POST alone");
        assert_eq!(operation["deprecated"] == true, path.starts_with("/v3beta/"), "{path}");
    }
}

#[test]
fn every_reference_leads_somewhere_and_nothing_is_left_over() {
    let document = document("1");
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    let there: BTreeSet<String> = schemas.keys().map(|name| format!("#/components/schemas/{name}")).collect();
    assert_eq!(found, there.iter().map(String::as_str).collect());
    assert!(schemas.values().all(Value::is_object));
    let ids: BTreeSet<&str> = paths(&document)
        .iter()
        .map(|path| document["paths"][path]["post"]["operationId"].as_str().expect("an id"))
        .collect();
    assert_eq!(ids.len(), paths(&document).len());
}

#[test]
fn no_two_types_share_a_name() {
    let transcoder = Transcoder::new();
    let mut names = BTreeMap::new();
    let mut waiting: Vec<MessageDescriptor> = all()
        .filter_map(|(_, service, method)| transcoder.method(service, method))
        .flat_map(|method| [method.input(), method.output()])
        .collect();
    let mut name = |full: &str| {
        let known = names.entry(schema_name(full)).or_insert_with(|| full.to_owned());
        assert_eq!(known, full);
    };
    let mut seen = BTreeSet::new();
    while let Some(message) = waiting.pop() {
        name(message.full_name());
        if seen.insert(message.full_name().to_owned()) {
            for field in message.fields() {
                match field.kind() {
                    Type::Message(inner) => waiting.push(inner),
                    Type::Enum(values) => name(values.full_name()),
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn types_are_as_the_transcoder_writes_them() {
    let document = document("1");
    let schemas = &document["components"]["schemas"];
    let kv = &schemas["mvccpbKeyValue"]["properties"];
    assert_eq!((&kv["key"]["format"], &kv["mod_revision"]["type"]), (&json!("byte"), &json!("string")));
    assert_eq!(kv["mod_revision"]["format"], "int64");
    let order = &schemas["RangeRequestSortOrder"];
    assert_eq!((&order["enum"], &order["default"]), (&json!(["NONE", "ASCEND", "DESCEND"]), &json!("NONE")));
    assert_eq!(schemas["etcdserverpbRangeResponse"]["properties"]["kvs"]["items"], reference("mvccpbKeyValue"));
    assert!(kv["lease"].is_object() && schemas["etcdserverpbMemberAddRequest"]["properties"]["peerURLs"].is_object());
    assert!(schemas["authpbPermissionType"]["enum"].is_array());
    // What a transaction nests leads back to it.
    let nested = &schemas["etcdserverpbRequestOp"]["properties"]["request_txn"];
    let mut found = BTreeSet::new();
    references(nested, &mut found);
    assert_eq!(found, BTreeSet::from(["#/components/schemas/etcdserverpbTxnRequest"]));
    let line = &document["paths"]["/v3/watch"]["post"]["responses"]["200"]["content"]["application/json"]["schema"];
    assert_eq!(line["properties"]["result"], reference("etcdserverpbWatchResponse"));
    assert_eq!(document["paths"]["/v3/auth/authenticate"]["post"]["security"], json!([]));
    let text = document["paths"]["/v3/kv/compaction"]["post"]["summary"].as_str();
    assert_eq!(text, Some("Makes revisions below the given one unreadable."));
}
