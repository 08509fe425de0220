//! The form of what members say: a hello, then batches with a checksum.

use basalt_proto::peer::deliver_request::Kind;
use basalt_proto::peer::{Batch, DeliverRequest, Hello};
use basalt_storage::planted::{Bug, is_planted};
use bytes::Bytes;
use raft::prelude::Message;
use raft_prost::Message as _;
use thiserror::Error;

use crate::apply::members::Members;

/// Newest form of what members say that this release knows.
pub const PROTOCOL_VERSION: u32 = if cfg!(feature = "next-version") { 2 } else { 1 };

/// The form to speak in: that of the rules that all members know, whatever this release could do.
pub fn protocol_of(members: &Members) -> u32 {
    members.apply_version().min(PROTOCOL_VERSION)
}

/// Who speaks to whom, on one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The cluster of both.
    pub cluster_id: u64,
    /// The sender.
    pub from: u64,
    /// The receiver.
    pub to: u64,
    /// Of the sender's data directory.
    pub incarnation: u128,
    /// The form of what follows, from 1.
    pub protocol: u32,
}

/// Why a stream is refused or ended.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// It does not begin with a hello, or has another one.
    #[error("a stream between members begins with one hello, and holds batches")]
    NoHello,
    /// The sender is newer.
    #[error("protocol {found} is newer than {PROTOCOL_VERSION}, which this release speaks: update this member first")]
    Newer {
        /// Its protocol.
        found: u32,
    },
    /// Another cluster.
    #[error("cluster ID mismatch: this member belongs to cluster {own:x}, the other to {found:x}")]
    Cluster {
        /// Here.
        own: u64,
        /// There.
        found: u64,
    },
    /// The address belongs to somebody else.
    #[error("this is member {own:x}, not {wanted:x}: check the peer URLs of both")]
    Receiver {
        /// Who is here.
        own: u64,
        /// Who was wanted.
        wanted: u64,
    },
    /// The sender left.
    #[error("member {0:x} was removed from the cluster: give it an empty data directory and add it as a new member")]
    Removed(u64),
    /// The cluster knows the sender's data directory, and it is another one.
    #[error(
        "member {0:x} has lost its data: it has no vote any more; remove it, then add it as a new member with an empty data \
         directory"
    )]
    Wiped(u64),
    /// It spoke from another data directory before, and the cluster does not know yet from which.
    #[error("member {0:x} speaks from a second data directory: only the first one heard is listened to")]
    Second(u64),
    /// Bytes changed on the way.
    #[error("a batch whose checksum does not hold")]
    Checksum,
    /// No Raft message.
    #[error("a batch with what is no message")]
    Malformed,
    /// A message from somebody else than the stream.
    #[error("a message of another member than the one that introduced itself")]
    Foreign,
    /// The node found it impossible.
    #[error("{0}")]
    Impossible(String),
}

impl Introduction {
    /// The first message of a stream.
    pub fn hello(&self, peer_urls: &[String]) -> DeliverRequest {
        DeliverRequest { kind: Some(Kind::Hello(self.hello_message(peer_urls))) }
    }

    /// Who speaks to whom.
    pub fn hello_message(&self, peer_urls: &[String]) -> Hello {
        Hello {
            protocol_version: self.protocol,
            cluster_id: self.cluster_id,
            from: self.from,
            to: self.to,
            incarnation: Bytes::copy_from_slice(&self.incarnation.to_le_bytes()),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            peer_urls: peer_urls.to_vec(),
        }
    }

    /// Reads the hello of a stream to member `own` of this cluster.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn read_hello(hello: &Hello, cluster_id: u64, own: u64, members: &Members) -> Result<Self, Refused> {
        if hello.protocol_version > PROTOCOL_VERSION {
            return Err(Refused::Newer { found: hello.protocol_version });
        }
        if hello.cluster_id != cluster_id {
            return Err(Refused::Cluster { own: cluster_id, found: hello.cluster_id });
        }
        if hello.to != own || hello.from == own {
            return Err(Refused::Receiver { own, wanted: hello.to });
        }
        if members.is_removed(hello.from) {
            return Err(Refused::Removed(hello.from));
        }
        let incarnation = <[u8; 16]>::try_from(&*hello.incarnation).map_err(|_| Refused::NoHello)?;
        let incarnation = u128::from_le_bytes(incarnation);
        if members.is_wiped(hello.from, incarnation) {
            return Err(Refused::Wiped(hello.from));
        }
        let protocol = hello.protocol_version;
        Ok(Self { cluster_id, from: hello.from, to: own, incarnation, protocol })
    }

    /// Messages in their form.
    pub fn batch<'a>(&self, messages: impl IntoIterator<Item = &'a Message>) -> DeliverRequest {
        let messages = messages.into_iter().map(|message| message.encode_to_vec().into()).collect::<Vec<Bytes>>();
        let crc = self.checksum(&messages);
        DeliverRequest { kind: Some(Kind::Batch(Batch { messages, crc })) }
    }

    /// The messages of a batch of this stream.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn messages(&self, request: DeliverRequest) -> Result<Vec<Message>, Refused> {
        let Some(Kind::Batch(batch)) = request.kind else { return Err(Refused::NoHello) };
        if self.checksum(&batch.messages) != batch.crc && !is_planted(Bug::ChecksumSkipped) {
            return Err(Refused::Checksum);
        }
        let message = |bytes: &Bytes| {
            let message = Message::decode(&**bytes).map_err(|_| Refused::Malformed)?;
            if message.from == self.from && message.to == self.to { Ok(message) } else { Err(Refused::Foreign) }
        };
        batch.messages.iter().map(message).collect()
    }

    fn checksum(&self, messages: &[Bytes]) -> u32 {
        let ids = [self.cluster_id, self.from, self.to].map(u64::to_le_bytes).concat();
        let mut salted = crc32c::crc32c_append(crc32c::crc32c(&ids), &self.incarnation.to_le_bytes());
        if self.protocol > 1 {
            salted = crc32c::crc32c_append(salted, &self.protocol.to_le_bytes());
        }
        messages.iter().fold(salted, |crc, message| {
            let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_le_bytes();
            crc32c::crc32c_append(crc32c::crc32c_append(crc, &length), message)
        })
    }
}

/// The checksums of a snapshot's parts: each covers all before it, so that none is lost, repeated or out of place.
pub struct PartChecksum(u32);

impl PartChecksum {
    /// Before the first part.
    pub fn new(snapshot_id: u64) -> Self {
        Self(crc32c::crc32c(&snapshot_id.to_le_bytes()))
    }

    /// That of the next part.
    pub fn add(&mut self, chunk: &[u8]) -> u32 {
        self.0 = crc32c::crc32c_append(crc32c::crc32c(&self.0.to_le_bytes()), chunk);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::log::MemberDescription;
    use basalt_proto::members::Member;
    use raft::prelude::MessageType;

    use super::*;

    fn read(request: DeliverRequest, cluster_id: u64, own: u64, members: &Members) -> Result<Introduction, Refused> {
        let Some(Kind::Hello(hello)) = request.kind else { return Err(Refused::NoHello) };
        Introduction::read_hello(&hello, cluster_id, own, members)
    }

    const STREAM: Introduction = Introduction { cluster_id: 1, from: 2, to: 3, incarnation: 4, protocol: 1 };

    fn members() -> Members {
        Members::first([2, 3].map(|id| Member { id, ..Member::default() }).into())
    }

    fn heartbeat() -> Message {
        let mut message = Message { from: 2, to: 3, term: 9, ..Message::default() };
        message.set_msg_type(MessageType::MsgHeartbeat);
        message
    }

    #[test]
    fn what_is_said_is_heard() {
        let heard = read(STREAM.hello(&[]), 1, 3, &members());
        assert_eq!(heard, Ok(STREAM));
        let said = [heartbeat(), heartbeat()];
        assert_eq!(STREAM.messages(STREAM.batch(&said)), Ok(said.to_vec()));
    }

    #[test]
    fn whoever_does_not_belong_here_is_refused() {
        let refused = |cluster, own| read(STREAM.hello(&[]), cluster, own, &members()).expect_err("refused");
        assert_eq!(refused(5, 3), Refused::Cluster { own: 5, found: 1 });
        assert_eq!(refused(1, 7), Refused::Receiver { own: 7, wanted: 3 });
        let mut described = members();
        let description =
            |id| MemberDescription { id, incarnation: vec![9; 16].into(), ..MemberDescription::default() };
        described.describe(&description(STREAM.from));
        assert_eq!(read(STREAM.hello(&[]), 1, 3, &described), Err(Refused::Wiped(STREAM.from)));
        let same = Introduction { incarnation: u128::from_le_bytes([9; 16]), ..STREAM };
        assert_eq!(read(same.hello(&[]), 1, 3, &described), Ok(same));
        // A member that lags behind does not know all others yet.
        let stranger = Introduction { from: 8, ..STREAM };
        assert_eq!(read(stranger.hello(&[]), 1, 3, &members()), Ok(stranger));
        assert_eq!(read(DeliverRequest::default(), 1, 3, &members()), Err(Refused::NoHello));
        let Some(Kind::Hello(hello)) = STREAM.hello(&[]).kind else { unreachable!("a hello") };
        let found = PROTOCOL_VERSION + 1;
        let newer = Hello { protocol_version: found, ..hello };
        let newer = read(DeliverRequest { kind: Some(Kind::Hello(newer)) }, 1, 3, &members());
        assert_eq!(newer, Err(Refused::Newer { found }));
    }

    #[test]
    fn no_flipped_bit_passes() {
        let batch = STREAM.batch(&[heartbeat()]);
        let Some(Kind::Batch(batch)) = batch.kind else { unreachable!("a batch") };
        for bit in 0..batch.messages[0].len() * 8 {
            let mut bytes = batch.messages[0].to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let flipped = Batch { messages: vec![bytes.into()], ..batch.clone() };
            let heard = STREAM.messages(DeliverRequest { kind: Some(Kind::Batch(flipped)) });
            assert_eq!(heard, Err(Refused::Checksum));
        }
        let elsewhere = Introduction { to: 5, ..STREAM };
        assert_eq!(elsewhere.messages(STREAM.batch(&[heartbeat()])), Err(Refused::Checksum));
        let foreign = Message { from: 7, ..heartbeat() };
        assert_eq!(STREAM.messages(STREAM.batch(&[foreign])), Err(Refused::Foreign));
    }
}
