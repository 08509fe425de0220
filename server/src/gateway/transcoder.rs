//! JSON to protobuf and back, by the descriptors of the wire.

use basalt_proto::{COMMENTED_DESCRIPTOR_SET, FILE_DESCRIPTOR_SET};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor};

use super::failure::Failure;
use super::json_writer::JsonWriter;
use super::routes::Kind;
use crate::api::pieces::Pieces;
use crate::listen::Part;

/// Before a message of gRPC: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// So many values one JSON may hold whatever transactions may: fields, elements, objects and lists. Each takes up to a kilobyte
/// while it is read, though three bytes can say it.
const VALUES_MIN: usize = 32 << 10;
/// And so many for each operation that a transaction may have: a comparison and an operation of either branch, with all their fields.
const VALUES_PER_OPERATION: usize = 32;

/// How many values the JSON of one message may hold where a transaction may have so many operations.
pub(super) fn values_max(txn_ops_max: usize) -> usize {
    VALUES_MIN.max(txn_ops_max.saturating_mul(VALUES_PER_OPERATION))
}

/// Refuses what holds more values than any message needs, before anything is made of it.
fn refuse_many_values(json: &[u8], values_max: usize) -> Result<(), Failure> {
    // Each takes a byte at least.
    if json.len() <= values_max {
        return Ok(());
    }
    let (mut values, mut in_text, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' | b',' if !in_text => values += 1,
            _ => {}
        }
    }
    if values > values_max {
        return Err(Failure::invalid(format!("basalt: JSON of {values} values, of which there may be {values_max}")));
    }
    Ok(())
}

/// What a method takes and gives.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    pub kind: Kind,
    pub request: MessageDescriptor,
    pub response: MessageDescriptor,
}

/// All messages of the wire.
#[derive(Clone, Debug)]
pub(super) struct Transcoder {
    pool: DescriptorPool,
}

impl Transcoder {
    pub fn new() -> Self {
        Self::of(FILE_DESCRIPTOR_SET)
    }

    /// One that knows what the `.proto` files say of each message, which is not needed to serve.
    pub fn with_comments() -> Self {
        Self::of(COMMENTED_DESCRIPTOR_SET)
    }

    fn of(descriptors: &[u8]) -> Self {
        Self { pool: DescriptorPool::decode(descriptors).expect("our own descriptors are whole") }
    }

    /// The signature of a method; `None` for one that is not there.
    pub fn signature(&self, service: &str, method: &str) -> Option<Signature> {
        let method = self.method(service, method)?;
        let kind = match (method.is_client_streaming(), method.is_server_streaming()) {
            (false, false) => Kind::Unary,
            (false, true) => Kind::ServerStream,
            (true, _) => Kind::Streams,
        };
        Some(Signature { kind, request: method.input(), response: method.output() })
    }

    /// A method as the wire describes it; `None` for one that is not there.
    pub fn method(&self, service: &str, method: &str) -> Option<MethodDescriptor> {
        let service = self.pool.get_service_by_name(service)?;
        service.methods().find(|candidate| candidate.name() == method)
    }
}

/// A message of gRPC from the first JSON value of `json`; an empty one from none. What stands behind the value is passed over, as
/// etcd's gateway does.
///
/// # Errors
/// [`Failure`] of what is no such message, or holds more than `values_max` values.
pub(super) fn from_json(descriptor: &MessageDescriptor, json: &[u8], values_max: usize) -> Result<Bytes, Failure> {
    if json.iter().all(u8::is_ascii_whitespace) {
        return Ok(Bytes::new());
    }
    refuse_many_values(json, values_max)?;
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let message = DynamicMessage::deserialize_with_options(descriptor.clone(), &mut deserializer, &options);
    let message = message.map_err(|error| {
        // In Go's words where it has some.
        Failure::invalid(if error.is_eof() { "unexpected EOF".to_owned() } else { format!("proto: {error}") })
    })?;
    Ok(message.encode_to_vec().into())
}

/// The JSON of a message, at once.
///
/// # Errors
/// [`Failure`] of what is none: the server's fault.
pub(super) fn to_json(descriptor: &MessageDescriptor, message: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut writer = JsonWriter::new(descriptor.clone(), Bytes::copy_from_slice(message).into());
    let mut json = BytesMut::new();
    while !writer.is_done() {
        writer.write(&mut json)?;
    }
    Ok(json.into())
}

/// A message with gRPC's head.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a request is below 4 GiB"));
    frame.put_slice(message);
    frame.freeze()
}

/// Takes the first whole message out of gRPC's frames; nothing of it is copied.
pub(super) fn take_message(frames: &mut Pieces) -> Option<Pieces> {
    if frames.remaining() < HEAD_BYTES {
        return None;
    }
    let mut head = frames.clone();
    head.advance(1);
    let length = head.get_u32() as usize;
    if head.remaining() < length {
        return None;
    }
    frames.advance(HEAD_BYTES);
    Some(frames.split_to(length))
}
