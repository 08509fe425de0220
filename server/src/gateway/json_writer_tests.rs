//! What is written piece by piece against what a library writes at once.

use basalt_proto::etcdserverpb::{RangeResponse, ResponseHeader};
use basalt_proto::mvccpb::KeyValue;
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions};

use super::super::routes::all;
use super::super::transcoder::{Transcoder, from_json, to_json};
use super::*;

/// The JSON of a message by prost-reflect, with the gateway's rules.
fn by_library(descriptor: &MessageDescriptor, message: &[u8]) -> Vec<u8> {
    let message = DynamicMessage::decode(descriptor.clone(), message).expect("a message");
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(true);
    let mut serializer = serde_json::Serializer::new(Vec::new());
    message.serialize_with_options(&mut serializer, &options).expect("it can be shown");
    serializer.into_inner()
}

fn descriptor(name: &str) -> MessageDescriptor {
    let pool = prost_reflect::DescriptorPool::decode(basalt_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    pool.get_message_by_name(name).expect(name)
}

/// Written from slices of this size.
fn in_pieces(descriptor: &MessageDescriptor, message: &[u8], slice_bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut pieces = Pieces::default();
    pieces.extend(message.chunks(slice_bytes).map(Bytes::copy_from_slice));
    let (mut writer, mut json) = (JsonWriter::new(descriptor.clone(), pieces), Vec::new());
    while !writer.is_done() {
        let mut piece = BytesMut::new();
        writer.write(&mut piece)?;
        assert!(!piece.is_empty() && piece.len() <= PIECE_BYTES + (4 << 10), "{} bytes at once", piece.len());
        json.extend_from_slice(&piece);
    }
    Ok(json)
}

/// JSON of all kinds of messages: a random tree of fields for each type.
fn message_json(descriptor: &MessageDescriptor, depth: usize) -> BoxedStrategy<String> {
    let fields: Vec<_> = descriptor.fields().collect();
    let oneofs: Vec<Option<String>> =
        fields.iter().map(|field| field.containing_oneof().map(|oneof| oneof.name().to_owned())).collect();
    let values: Vec<BoxedStrategy<Option<String>>> = fields
        .iter()
        .map(|field| {
            let one = field_json(field, depth);
            let value = if field.is_list() {
                prop::collection::vec(one, 0..4).prop_map(|values| format!("[{}]", values.join(","))).boxed()
            } else {
                one
            };
            prop::option::of(value).boxed()
        })
        .collect();
    let names: Vec<String> = fields.iter().map(|field| field.name().to_owned()).collect();
    values
        .prop_map(move |values| {
            let mut taken = std::collections::BTreeSet::new();
            let fields = names.iter().zip(&oneofs).zip(values).filter_map(|((name, oneof), value)| {
                let value = value?;
                let fits = oneof.as_ref().is_none_or(|oneof| taken.insert(oneof.clone()));
                fits.then(|| format!("\"{name}\":{value}"))
            });
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        })
        .boxed()
}

fn field_json(field: &FieldDescriptor, depth: usize) -> BoxedStrategy<String> {
    match field.kind() {
        Kind::Message(_) if depth == 0 => Just("{}".to_owned()).boxed(),
        Kind::Message(inner) => message_json(&inner, depth - 1),
        Kind::Bytes => prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|bytes| format!("\"{}\"", STANDARD.encode(bytes)))
            .boxed(),
        Kind::String => any::<String>().prop_map(|text| serde_json::to_string(&text).expect("a text")).boxed(),
        Kind::Bool => any::<bool>().prop_map(|value| value.to_string()).boxed(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => any::<i64>().prop_map(|n| format!("\"{n}\"")).boxed(),
        Kind::Uint64 | Kind::Fixed64 => any::<u64>().prop_map(|n| format!("\"{n}\"")).boxed(),
        Kind::Uint32 | Kind::Fixed32 => any::<u32>().prop_map(|n| n.to_string()).boxed(),
        // Enumerations too: known by name or not.
        _ => prop_oneof![0..5i32, any::<i32>()].prop_map(|n| n.to_string()).boxed(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_message_is_written_as_a_library_writes_it(
        (name, json) in prop::sample::select(messages()).prop_flat_map(|message| {
            message_json(&message, 3).prop_map(move |json| (message.full_name().to_owned(), json))
        }),
        slice_bytes in 1..50usize,
    ) {
        let descriptor = descriptor(&name);
        let framed = from_json(&descriptor, json.as_bytes(), usize::MAX).expect("JSON of the message");
        let expected = by_library(&descriptor, &framed);
        prop_assert_eq!(String::from_utf8(in_pieces(&descriptor, &framed, slice_bytes).expect("written")),
            String::from_utf8(expected), "{}", name);
    }

    #[test]
    fn bytes_of_all_kinds_fail_or_do_not(
        message in prop::sample::select(messages()), bytes in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        match in_pieces(&message, &bytes, 7) {
            Ok(json) => prop_assert_eq!((json.first(), json.last()), (Some(&b'{'), Some(&b'}'))),
            Err(failure) => prop_assert_eq!(failure.code, 13),
        }
    }
}

/// All that the gateway reads and writes.
fn messages() -> Vec<MessageDescriptor> {
    let transcoder = Transcoder::new();
    let signatures = all().filter_map(|(_, service, method)| transcoder.signature(service, method));
    signatures.flat_map(|signature| [signature.request, signature.response]).collect()
}

#[test]
fn a_large_value_is_written_a_piece_at_a_time() {
    let descriptor = descriptor("etcdserverpb.RangeResponse");
    for length in [PIECE_BYTES / 4 * 3 - 1, PIECE_BYTES, 100_000, 100_001, 100_002] {
        let kv = KeyValue { key: "k".into(), value: vec![7; length].into(), version: 1, ..KeyValue::default() };
        let header = Some(ResponseHeader { revision: -7, ..ResponseHeader::default() });
        let answer = RangeResponse { header, kvs: vec![kv.clone(), KeyValue::default(), kv], more: true, count: 3 };
        let message = answer.encode_to_vec();
        let expected = by_library(&descriptor, &message);
        assert_eq!(in_pieces(&descriptor, &message, 1_000).expect("written"), expected);
        assert_eq!(to_json(&descriptor, &message).expect("written"), expected);
    }
}

#[test]
fn what_was_written_is_let_go_of() {
    let guard = std::sync::Arc::new(());
    struct Owner(Vec<u8>, #[expect(dead_code, reason = "it is held")] std::sync::Arc<()>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let kv = KeyValue { key: "k".into(), value: vec![7; 200_000].into(), ..KeyValue::default() };
    let message = RangeResponse { kvs: vec![kv], ..RangeResponse::default() }.encode_to_vec();
    let (first, last) = message.split_at(100_000);
    let mut pieces = Pieces::default();
    pieces.push(Bytes::from_owner(Owner(first.to_vec(), guard.clone())));
    pieces.push(Bytes::from_owner(Owner(last.to_vec(), guard.clone())));
    let mut writer = JsonWriter::new(descriptor("etcdserverpb.RangeResponse"), pieces);
    let mut held = Vec::new();
    while !writer.is_done() {
        writer.write(&mut BytesMut::new()).expect("written");
        held.push(std::sync::Arc::strong_count(&guard) - 1);
    }
    assert!(held.starts_with(&[2, 2]) && held.ends_with(&[1, 0]), "{held:?}");
}

#[test]
fn what_no_server_writes_is_a_fault() {
    let range = descriptor("etcdserverpb.RangeResponse");
    let txn = descriptor("etcdserverpb.TxnResponse");
    let nested = |levels: usize| {
        (0..levels).fold(Vec::new(), |inner, _| {
            // `response_txn` of one of the `responses` of a transaction.
            [0x22, 0x1A].into_iter().fold(inner, |inner, key| {
                let mut outer = vec![key];
                prost::encoding::encode_varint(inner.len() as u64, &mut outer);
                [outer, inner].concat()
            })
        })
    };
    assert!(in_pieces(&txn, &nested(basalt_proto::TXN_NESTING_MAX), 100).is_ok());
    assert!(in_pieces(&txn, &nested(10_000), 100).is_err());
    for bytes in [&[0x12, 5, 1][..], &[0x20], &[0x20, 0x80], &[0x0B], &[0x22, 1, 1], &[0x10, 1], &[0x08, 1], &[0x20; 1]]
    {
        let told = in_pieces(&range, bytes, 1).map_err(|failure| failure.code);
        assert_eq!(told, Err(13), "{bytes:x?}");
    }
    // A field of a newer release is passed over.
    assert_eq!(in_pieces(&range, &[0xF8, 0x01, 7, 0x20, 2], 1).expect("written"), br#"{"count":"2"}"#);
}
