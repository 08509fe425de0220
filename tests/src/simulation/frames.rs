//! The frames in which members put what they say: a bit that flips on the way must be seen.

use basalt_proto::peer::DeliverRequest;
use basalt_server::peer::frame::{Introduction, PROTOCOL_VERSION};
use prost::Message as _;
use rand::Rng;
use rand::rngs::StdRng;

use super::network::Spoken;
use crate::opening::CLUSTER_ID;

fn introduction(Spoken { message, incarnation }: &Spoken) -> Introduction {
    let incarnation = *incarnation;
    Introduction { cluster_id: CLUSTER_ID, from: message.from, to: message.to, incarnation, protocol: PROTOCOL_VERSION }
}

/// A message in its frame comes out as it went in.
///
/// # Panics
/// When it does not.
pub fn carries(spoken: &Spoken) {
    let (introduction, message) = (introduction(spoken), &spoken.message);
    let bytes = introduction.batch([message]).encode_to_vec();
    let framed = DeliverRequest::decode(&bytes[..]).expect("a frame is whole");
    assert_eq!(introduction.messages(framed).as_deref(), Ok(&[message.clone()][..]), "a frame changed what it carries");
}

/// One bit of a message in its frame flips.
///
/// # Panics
/// When the receiver takes it for another message.
pub fn flip(spoken: &Spoken, random: &mut StdRng) {
    let (introduction, message) = (introduction(spoken), &spoken.message);
    let mut bytes = introduction.batch([message]).encode_to_vec();
    let bit = random.random_range(0..bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    if let Ok(framed) = DeliverRequest::decode(&bytes[..])
        && let Ok(heard) = introduction.messages(framed)
    {
        assert!(heard.is_empty() || heard == [message.clone()], "a flipped bit passed: {message:?} became {heard:?}");
    }
}
