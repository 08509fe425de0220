//! Decoding of messages that nest deeper than prost follows.
//!
//! prost gives up 100 messages deep, which protects the stack from whoever sends nothing but beginnings. A level of a
//! nested transaction is two messages, and the log adds two: so much nesting as etcd's clients may send can be written and
//! never read again. What nests is walked here by hand, to a limit of its own; the rest of each level is left to prost,
//! which counts anew there. (Its feature `no-recursion-limit` would lift the limit from everything, unknown groups
//! included.)

use bytes::{Buf, Bytes};
use prost::{DecodeError, Message};

use crate::etcdserverpb::request_op::Request as Op;
use crate::etcdserverpb::{Compare, RequestOp, TxnRequest};
use crate::log::request::Kind;
use crate::log::{LogEntry, Request};

/// How many transactions may stand inside one another, the outermost counted, in a request that is to enter the log.
/// etcd sets no limit of its own.
pub const TXN_NESTING_MAX: usize = 128;

/// Why a message could not be decoded.
#[derive(Clone, Debug, PartialEq)]
pub enum NestingError {
    /// Transactions are nested more than [`TXN_NESTING_MAX`] deep.
    TooDeep,
    /// It is no message of its kind; what is wrong with it.
    Malformed(String),
}

impl std::fmt::Display for NestingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NestingError::TooDeep => write!(f, "transactions are nested more than {TXN_NESTING_MAX} deep"),
            NestingError::Malformed(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for NestingError {}

impl From<DecodeError> for NestingError {
    fn from(cause: DecodeError) -> Self {
        NestingError::Malformed(cause.to_string())
    }
}

/// Decodes a transaction.
///
/// # Errors
/// [`NestingError`]. Stack use is bounded whatever the bytes are.
pub fn decode_txn(bytes: Bytes) -> Result<TxnRequest, NestingError> {
    // Nearly all there are; only what prost gives up is looked at again.
    TxnRequest::decode(bytes.clone()).or_else(|cause| by_hand(cause, txn(bytes, 1)))
}

/// Of two complaints about the same bytes, prost's is the one that clients know.
fn by_hand<M>(cause: DecodeError, walked: Result<M, NestingError>) -> Result<M, NestingError> {
    match walked {
        Err(NestingError::Malformed(_)) => Err(cause.into()),
        walked => walked,
    }
}

/// Decodes an entry of the log.
///
/// # Errors
/// As [`decode_txn`].
pub fn decode_log_entry(bytes: Bytes) -> Result<LogEntry, NestingError> {
    LogEntry::decode(bytes.clone()).or_else(|cause| by_hand(cause, log_entry(bytes)))
}

/// LogEntry: requests 5.
fn log_entry(bytes: Bytes) -> Result<LogEntry, NestingError> {
    let mut others = Vec::new();
    let mut requests = Vec::new();
    for field in fields(bytes)? {
        match field {
            Field { number: 5, payload: Some(payload), .. } => requests.push(request(payload)?),
            other => others.extend_from_slice(&other.whole),
        }
    }
    Ok(LogEntry { requests, ..LogEntry::decode(&*others)? })
}

/// Request: txn 5, among the kinds of which one is set.
fn request(bytes: Bytes) -> Result<Request, NestingError> {
    let mut others = Vec::new();
    let mut found = None;
    for field in fields(bytes)? {
        match field {
            Field { number: 5, payload: Some(payload), .. } => merge(found.get_or_insert_default(), txn(payload, 1)?),
            other => others.extend_from_slice(&other.whole),
        }
    }
    let others = Request::decode(&*others)?;
    let kind = match (found, others.kind) {
        (Some(_), Some(_)) => return Err(malformed("a request of two kinds")),
        (found, kind) => found.map(Kind::Txn).or(kind),
    };
    Ok(Request { kind, id: others.id, principal: others.principal })
}

/// TxnRequest: compare 1, success 2, failure 3.
fn txn(bytes: Bytes, depth: usize) -> Result<TxnRequest, NestingError> {
    if depth > TXN_NESTING_MAX {
        return Err(NestingError::TooDeep);
    }
    let mut txn = TxnRequest::default();
    for field in fields(bytes)? {
        match (field.number, field.payload) {
            (1, Some(payload)) => txn.compare.push(Compare::decode(payload)?),
            (2, Some(payload)) => txn.success.push(operation(payload, depth)?),
            (3, Some(payload)) => txn.failure.push(operation(payload, depth)?),
            (1..=3, None) => return Err(malformed("a field of another wire type")),
            _ => {}
        }
    }
    Ok(txn)
}

/// RequestOp: one of range 1, put 2, delete_range 3, txn 4. Of several the last one counts, and pieces of one that follow
/// each other are one; those that do not count must be sound too, as for prost.
fn operation(bytes: Bytes, depth: usize) -> Result<RequestOp, NestingError> {
    let mut op = RequestOp::default();
    for field in fields(bytes)? {
        match (field.number, field.payload, &mut op.request) {
            (4, Some(payload), Some(Op::RequestTxn(nested))) => merge(nested, txn(payload, depth + 1)?),
            (4, Some(payload), request) => *request = Some(Op::RequestTxn(txn(payload, depth + 1)?)),
            (4, None, _) => return Err(malformed("a field of another wire type")),
            _ => op.merge(field.whole)?,
        }
    }
    Ok(op)
}

/// A piece of a message behind those before it.
fn merge(txn: &mut TxnRequest, piece: TxnRequest) {
    txn.compare.extend(piece.compare);
    txn.success.extend(piece.success);
    txn.failure.extend(piece.failure);
}

/// One field on the wire.
struct Field {
    number: u64,
    /// Key and value.
    whole: Bytes,
    /// The value of one that has a length.
    payload: Option<Bytes>,
}

/// The fields of a message. Groups, which nothing of ours has, are refused.
fn fields(mut bytes: Bytes) -> Result<Vec<Field>, NestingError> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let mut rest = bytes.clone();
        let key = varint(&mut rest)?;
        if key >> 3 == 0 || key > u64::from(u32::MAX) {
            return Err(malformed("an impossible number of a field"));
        }
        let mut payload = None;
        let skipped = match key & 7 {
            0 => varint(&mut rest).map(|_| 0)?,
            1 => 8,
            2 => {
                let length = varint(&mut rest)?;
                let length = usize::try_from(length).ok().filter(|length| *length <= rest.len()).ok_or_else(cut_off)?;
                payload = Some(rest.slice(..length));
                length
            }
            5 => 4,
            _ => return Err(malformed("a group or an unknown wire type")),
        };
        if skipped > rest.len() {
            return Err(cut_off());
        }
        rest.advance(skipped);
        let whole = bytes.split_to(bytes.len() - rest.len());
        fields.push(Field { number: key >> 3, whole, payload });
    }
    Ok(fields)
}

fn varint(bytes: &mut Bytes) -> Result<u64, NestingError> {
    let mut value = 0;
    for at in 0..10 {
        let byte = bytes.try_get_u8().map_err(|_| cut_off())?;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            // The tenth byte holds the highest bit alone.
            return if at < 9 || byte < 2 { Ok(value) } else { Err(malformed("a number of more than 64 bits")) };
        }
    }
    Err(malformed("a number of more than ten bytes"))
}

fn cut_off() -> NestingError {
    malformed("a field that is cut off")
}

fn malformed(what: &'static str) -> NestingError {
    NestingError::Malformed(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcdserverpb::{PutRequest, RangeRequest};

    fn field(number: u8, payload: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2];
        prost::encoding::encode_varint(payload.len() as u64, &mut field);
        field.extend_from_slice(payload);
        field
    }

    /// A transaction so deep that prost gives up, with these bytes as the innermost.
    fn deep(innermost: &[u8]) -> Bytes {
        (0..60).fold(innermost.to_vec(), |inner, _| field(2, &field(4, &inner))).into()
    }

    #[test]
    fn what_prost_refuses_is_refused_by_hand_at_any_depth() {
        let sound = TxnRequest::default().encode_to_vec();
        assert!(TxnRequest::decode(deep(&sound)).is_err() && decode_txn(deep(&sound)).is_ok());
        let put = |key: &[u8]| field(2, &field(1, key));
        for (what, bytes) in [
            ("field 0", vec![0x00, 0x00]),
            ("a number of a field above 32 bits", vec![0xf8, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00]),
            ("a number of more than 64 bits", vec![0x28, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]),
            ("an operation that another one takes the place of", field(2, &[field(1, &[0xff]), put(b"k")].concat())),
            ("a piece of a transaction that is cut off", field(2, &[field(4, &[0x12]), field(4, &[0x00])].concat())),
        ] {
            assert!(TxnRequest::decode(&*bytes).is_err(), "{what}");
            assert!(decode_txn(bytes.clone().into()).is_err(), "{what}");
            assert!(decode_txn(deep(&bytes)).is_err(), "{what}, deep");
        }
    }

    #[test]
    fn pieces_of_an_operation_are_one_and_the_last_kind_counts() {
        let piece = |key: &str| {
            let put = PutRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..PutRequest::default() };
            field(4, &field(2, &RequestOp { request: Some(Op::RequestPut(put)) }.encode_to_vec()))
        };
        let range = field(1, &RangeRequest { key: "r".into(), ..RangeRequest::default() }.encode_to_vec());
        for parts in
            [[piece("a"), piece("b"), vec![]], [piece("a"), range.clone(), piece("b")], [piece("a"), piece("b"), range]]
        {
            let bytes = field(2, &parts.concat());
            let expected = TxnRequest::decode(&*bytes).expect("sound");
            let mut read = decode_txn(deep(&bytes)).expect("sound");
            for _ in 0..60 {
                let Some(Op::RequestTxn(inner)) = read.success.pop().and_then(|op| op.request) else {
                    panic!("a level is lost")
                };
                read = inner;
            }
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn a_request_is_of_one_kind() {
        let txn = field(5, &deep(&[]));
        let put = |number| field(number, &PutRequest { key: "k".into(), ..PutRequest::default() }.encode_to_vec());
        assert!(decode_log_entry(field(5, &txn).into()).is_ok());
        assert!(decode_log_entry(field(5, &[put(3), txn].concat()).into()).is_err());
    }
}
