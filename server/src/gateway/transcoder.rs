//! JSON to protobuf and back, by the descriptors of the wire.

use basalt_proto::FILE_DESCRIPTOR_SET;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};

use super::failure::Failure;
use super::routes::Kind;

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
        Self { pool: DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("our own descriptors are whole") }
    }

    /// The signature of a method; `None` for one that is not there.
    pub fn signature(&self, service: &str, method: &str) -> Option<Signature> {
        let service = self.pool.get_service_by_name(service)?;
        let method = service.methods().find(|candidate| candidate.name() == method)?;
        let kind = match (method.is_client_streaming(), method.is_server_streaming()) {
            (false, false) => Kind::Unary,
            (false, true) => Kind::ServerStream,
            (true, _) => Kind::Streams,
        };
        Some(Signature { kind, request: method.input(), response: method.output() })
    }
}

/// A message of gRPC from the first JSON value of `json`; an empty one from none. What stands behind the value is passed over, as
/// etcd's gateway does.
///
/// # Errors
/// [`Failure`] of what is no such message.
pub(super) fn from_json(descriptor: &MessageDescriptor, json: &[u8]) -> Result<Bytes, Failure> {
    if json.iter().all(u8::is_ascii_whitespace) {
        return Ok(Bytes::new());
    }
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let message = DynamicMessage::deserialize_with_options(descriptor.clone(), &mut deserializer, &options);
    let message = message.map_err(|error| {
        // In Go's words where it has some.
        Failure::invalid(if error.is_eof() { "unexpected EOF".to_owned() } else { format!("proto: {error}") })
    })?;
    Ok(message.encode_to_vec().into())
}

/// The JSON of a message.
///
/// # Errors
/// [`Failure`] of what is none: the server's fault.
pub(super) fn to_json(descriptor: &MessageDescriptor, message: &[u8]) -> Result<Vec<u8>, Failure> {
    let fault = |error: &dyn std::fmt::Display| Failure::new(13, format!("basalt: an answer cannot be shown: {error}"));
    let message = DynamicMessage::decode(descriptor.clone(), message).map_err(|error| fault(&error))?;
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(true);
    let mut serializer = serde_json::Serializer::new(Vec::new());
    message.serialize_with_options(&mut serializer, &options).map_err(|error| fault(&error))?;
    Ok(serializer.into_inner())
}

/// A message with gRPC's head.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a request is below 4 GiB"));
    frame.put_slice(message);
    frame.freeze()
}

/// Takes the first whole message out of gRPC's frames.
pub(super) fn take_message(frames: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(frames.get(1..5)?.try_into().ok()?) as usize;
    if frames.len() < 5 + length {
        return None;
    }
    let mut message = frames.split_to(5 + length);
    Some(message.split_off(5).freeze())
}
