//! Messages that tonic neither encodes nor decodes: bytes in, bytes out.

use basalt_proto::etcdserverpb::WatchResponse;
use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// A message on its way out. Tonic copies it once, into the buffer of its connection.
#[derive(Clone)]
pub struct Answer {
    /// The encoded message, shared with all who get the same.
    pub message: Bytes,
    /// The watcher that it goes to: what messages of one event differ in. 0 adds nothing.
    pub watch_id: i64,
}

impl Answer {
    /// A message that goes out as it is.
    pub fn plain(message: Bytes) -> Self {
        Self { message, watch_id: 0 }
    }
}

/// The codec of all calls.
#[derive(Clone, Copy)]
pub struct Wire;

impl Codec for Wire {
    type Encode = Answer;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Wire {
    type Item = Answer;
    type Error = Status;

    fn encode(&mut self, answer: Answer, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(answer.message);
        // Fields may come in any order, so that one more can stand at the end.
        let own = WatchResponse { watch_id: answer.watch_id, ..Default::default() };
        own.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Wire {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
