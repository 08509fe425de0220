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
    let mut kind = None;
    for field in fields(bytes)? {
        match field {
            Field { number: 5, payload: Some(payload), .. } => kind = Some(Kind::Txn(txn(payload, 1)?)),
            other => others.extend_from_slice(&other.whole),
        }
    }
    let others = Request::decode(&*others)?;
    Ok(Request { kind: kind.or(others.kind), id: others.id, principal: others.principal })
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
/// each other are one.
fn operation(bytes: Bytes, depth: usize) -> Result<RequestOp, NestingError> {
    let kinds: Vec<Field> = fields(bytes)?.into_iter().filter(|field| (1..=4).contains(&field.number)).collect();
    let Some(last) = kinds.last().map(|field| field.number) else { return Ok(RequestOp::default()) };
    let pieces = kinds.iter().rev().take_while(|field| field.number == last).count();
    let pieces = &kinds[kinds.len() - pieces..];
    if last != 4 {
        let whole: Vec<u8> = pieces.iter().flat_map(|field| field.whole.iter().copied()).collect();
        return Ok(RequestOp::decode(Bytes::from(whole))?);
    }
    let payloads: Option<Vec<Bytes>> = pieces.iter().map(|field| field.payload.clone()).collect();
    let payloads = payloads.ok_or_else(|| malformed("a field of another wire type"))?;
    let nested = match &payloads[..] {
        [only] => only.clone(),
        several => several.concat().into(),
    };
    Ok(RequestOp { request: Some(Op::RequestTxn(txn(nested, depth + 1)?)) })
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
            return Ok(value);
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
