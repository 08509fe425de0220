//! Answers of the state machine with the values that they show, in a form that a naive walk can make too.

use basalt_server::apply::answer::{Answer, DeleteAnswer, OpAnswer, PutAnswer, TxnAnswer};
use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::mvcc::range::{Hit, RangePlan};
use basalt_storage::mvcc::store::Store;
use basalt_tests::model::Version;

/// A key and what it is.
pub(super) type Found = (Vec<u8>, Version);

/// What a client is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    /// To a request that answers nothing but a header, or whose answer is compared elsewhere.
    Done,
    /// To a put.
    Put(Option<Found>),
    /// To a delete.
    Delete { deleted: usize, previous: Vec<Found> },
    /// To a range.
    Range { count: usize, found: Vec<Found>, more: bool },
    /// To a transaction.
    Txn { succeeded: bool, responses: Vec<Told> },
}

/// What an answer shows.
pub(super) fn shown(store: &Store, answer: &Answer) -> Told {
    match answer {
        Answer::Put(put) => of_put(store, put),
        Answer::DeleteRange(delete) => of_delete(store, delete),
        Answer::Txn(txn) => of_txn(store, txn),
        _ => Told::Done,
    }
}

/// The version that stands at `hit`.
pub(super) fn version(store: &Store, hit: Hit) -> Found {
    let stored = store.resident(hit).expect("no checkpoint took it out of memory");
    of_bytes(&stored)
}

fn of_bytes(stored: &[u8]) -> Found {
    let stored = KeyValue::parse(stored).expect("stored by the machine");
    (stored.key.to_vec(), Version::of(&stored))
}

fn of_put(store: &Store, put: &PutAnswer) -> Told {
    Told::Put(put.previous.map(|hit| version(store, hit)))
}

fn of_delete(store: &Store, delete: &DeleteAnswer) -> Told {
    let previous = delete.previous.iter().map(|hit| version(store, *hit)).collect();
    Told::Delete { deleted: delete.deleted as usize, previous }
}

fn of_range(store: &Store, plan: &RangePlan) -> Told {
    let values = plan.hits.iter().map(|hit| store.resident(*hit).expect("in memory")).collect();
    let result = plan.assemble(values).expect("stored by the machine");
    let found = result.key_values.iter().map(|bytes| of_bytes(bytes)).collect();
    Told::Range { count: plan.count as usize, found, more: result.more }
}

fn of_txn(store: &Store, txn: &TxnAnswer) -> Told {
    let responses = txn.responses.iter().map(|response| match response {
        OpAnswer::Range(plan) => of_range(store, plan),
        OpAnswer::Put(put) => of_put(store, put),
        OpAnswer::DeleteRange(delete) => of_delete(store, delete),
        OpAnswer::Txn(nested) => of_txn(store, nested),
    });
    Told::Txn { succeeded: txn.succeeded, responses: responses.collect() }
}
