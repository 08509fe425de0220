//! A list that was encoded before anybody asked for it.

use basalt_proto::etcdserverpb::{RangeRequest, RangeResponse, RangeStreamResponse};
use basalt_proto::mvccpb::KeyValue;
use bytes::Bytes;
use prost::Message;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tonic::Status;

use super::canned::{HEADER, encoded};
use crate::workload::{KeySpace, LIST_VALUE_BYTES, PAGE_KEYS, random_value};

/// Keys of the first message of a stream, as basalt and etcd begin.
const STREAM_KEYS_FIRST: usize = 10;
/// Messages of a stream double until they are half as large as the largest request, as in basalt and etcd.
const STREAM_MESSAGE_BYTES: usize = 1_572_864;

/// All keys of the loads on lists, in the two forms they are asked for.
pub struct List {
    /// Pages of [`PAGE_KEYS`] keys, in order.
    pages: Vec<Bytes>,
    /// The messages of a RangeStream.
    messages: Vec<Bytes>,
}

impl List {
    /// A list of `keys` keys with random values, twice in memory.
    pub fn new(keys: usize) -> Self {
        let (space, mut random) = (KeySpace::listed(keys), StdRng::seed_from_u64(0));
        let kvs = (0..keys).map(|number| KeyValue {
            key: space.key(number),
            value: random_value(&mut random, LIST_VALUE_BYTES),
            create_revision: 1,
            mod_revision: 1,
            version: 1,
            lease: 0,
        });
        let kvs: Vec<_> = kvs.collect();
        Self { pages: pages(&kvs), messages: messages(&kvs) }
    }

    /// The page that a request asks for.
    ///
    /// # Errors
    /// It starts where no page starts.
    pub fn page(&self, request: &RangeRequest) -> Result<Bytes, Status> {
        let page = first_key(&request.key).filter(|first| first % PAGE_KEYS == 0);
        let page =
            page.and_then(|first| self.pages.get(first / PAGE_KEYS)).filter(|_| request.limit == PAGE_KEYS as i64);
        page.cloned().ok_or_else(|| Status::unimplemented(format!("the floor has pages of {PAGE_KEYS} keys only")))
    }

    /// The messages of the whole list.
    pub fn messages(&self) -> Vec<Bytes> {
        self.messages.clone()
    }
}

fn pages(kvs: &[KeyValue]) -> Vec<Bytes> {
    let count = kvs.len() as i64;
    let page = |(number, page): (usize, &[KeyValue])| {
        let more = (number + 1) * PAGE_KEYS < kvs.len();
        // etcd counts what is left from the start of the page.
        let count = count - (number * PAGE_KEYS) as i64;
        encoded(&RangeResponse { header: Some(HEADER), kvs: page.to_vec(), more, count })
    };
    kvs.chunks(PAGE_KEYS).enumerate().map(page).collect()
}

fn messages(kvs: &[KeyValue]) -> Vec<Bytes> {
    let (mut rest, mut keys, mut messages) = (kvs, STREAM_KEYS_FIRST, Vec::new());
    while !rest.is_empty() {
        let (part, after) = rest.split_at(keys.min(rest.len()));
        let last = after.is_empty();
        let header = last.then_some(HEADER);
        let count = if last { kvs.len() as i64 } else { 0 };
        let part = RangeResponse { header, kvs: part.to_vec(), more: false, count };
        if part.encoded_len() < STREAM_MESSAGE_BYTES / 2 {
            keys *= 2;
        }
        messages.push(encoded(&RangeStreamResponse { range_response: Some(part) }));
        rest = after;
    }
    messages
}

/// The number of the first key at or above `key`: the prefix alone, or the least key above a numbered one.
fn first_key(key: &[u8]) -> Option<usize> {
    let name = key.rsplit(|byte| *byte == b'/').next()?;
    let Some(number) = name.strip_suffix(&[0]) else { return name.is_empty().then_some(0) };
    std::str::from_utf8(number).ok()?.parse::<usize>().ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let list = List::new(PAGE_KEYS + 1);
        let mut page =
            RangeRequest { key: KeySpace::listed(0).range().0, limit: PAGE_KEYS as i64, ..Default::default() };
        let decode = |bytes: Bytes| RangeResponse::decode(bytes).expect("a page");
        let first = decode(list.page(&page).expect("the first page"));
        assert_eq!((first.kvs.len(), first.more, first.count), (PAGE_KEYS, true, PAGE_KEYS as i64 + 1));
        page.key = [&first.kvs[PAGE_KEYS - 1].key[..], &[0]].concat().into();
        let second = decode(list.page(&page).expect("the second page"));
        assert_eq!((second.kvs.len(), second.more, second.count), (1, false, 1));
    }

    #[test]
    fn other_pages_are_refused() {
        let list = List::new(PAGE_KEYS);
        let prefix = KeySpace::listed(0).range().0;
        let after = |number| [&KeySpace::listed(0).key(number)[..], &[0]].concat().into();
        let keys: [Bytes; 4] =
            [after(3), after(PAGE_KEYS - 1), "a/\u{3b1}\0".into(), "a/18446744073709551615\0".into()];
        for (key, limit) in keys.into_iter().map(|key| (key, PAGE_KEYS as i64)).chain([(prefix, 7)]) {
            list.page(&RangeRequest { key: key.clone(), limit, ..Default::default() }).expect_err(&format!("{key:?}"));
        }
    }

    #[test]
    fn a_stream_has_every_key_in_growing_messages() {
        let sizes = List::new(1000).messages.into_iter().map(|message| {
            let message = RangeStreamResponse::decode(message).expect("a message").range_response.expect("a part");
            message.kvs.len()
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [10, 20, 40, 80, 160, 320, 320, 50]);
    }
}
