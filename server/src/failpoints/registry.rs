//! Which points do what now.

use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use thiserror::Error;

use super::Point;
use super::http;
use super::terms::{Action, Terms};

/// What each point is to do, by its number.
static TERMS: Mutex<Vec<Option<Terms>>> = Mutex::new(Vec::new());

/// Held while a request is answered: a point that it armed stops the process after the answer.
pub(super) static ANSWERING: OnceLock<tokio::sync::Mutex<()>> = OnceLock::new();

/// Why points cannot be set. The texts are gofail's.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FailpointError {
    /// No point of that name.
    #[error("failpoint: failpoint does not exist")]
    NoExist,
    /// Nothing was asked of it.
    #[error("failpoint: failpoint is disabled")]
    Disabled,
    /// Words that mean nothing.
    #[error("failpoint: could not parse terms")]
    BadParse,
    /// Not `name=terms`.
    #[error("bad failpoint {0:?}")]
    BadPair(String),
}

fn terms() -> MutexGuard<'static, Vec<Option<Terms>>> {
    let mut terms = TERMS.lock().expect("no one panics while holding the terms");
    terms.resize(Point::ALL.len(), None);
    terms
}

fn find(name: &str) -> Result<usize, FailpointError> {
    Point::ALL.iter().position(|point| point.name() == name).ok_or(FailpointError::NoExist)
}

/// `name=terms` pairs behind each other.
pub(super) fn pairs(text: &str) -> Result<Vec<(&str, &str)>, FailpointError> {
    let pair = |pair| match str::split_once(pair, '=') {
        Some((name, terms)) if !terms.contains('=') => Ok((name, terms)),
        _ => Err(FailpointError::BadPair(pair.to_owned())),
    };
    text.split(';').filter(|pair| !pair.is_empty()).map(pair).collect()
}

pub(super) fn enable(name: &str, words: &str) -> Result<(), FailpointError> {
    let number = find(name)?;
    let parsed = Terms::parse(words).ok_or(FailpointError::BadParse)?;
    terms()[number] = Some(parsed);
    Ok(())
}

pub(super) fn disable(name: &str) -> Result<(), FailpointError> {
    let number = find(name)?;
    terms()[number].take().map(drop).ok_or(FailpointError::Disabled)
}

/// What a point is to do, and how often it did.
pub(super) fn status(name: &str) -> Result<(String, u64), FailpointError> {
    let number = find(name)?;
    let terms = terms();
    let set = terms[number].as_ref().ok_or(FailpointError::Disabled)?;
    Ok((set.text().to_owned(), set.count))
}

/// `name=terms` of all points, by name.
pub(super) fn list() -> String {
    let mut names: Vec<_> = Point::ALL.iter().map(|point| point.name()).collect();
    names.sort_unstable();
    let line = |name: &&str| format!("{name}={}\n", status(name).map(|(text, _)| text).unwrap_or_default());
    names.iter().map(line).collect()
}

/// Sets what the environment asks for (`GOFAIL_FAILPOINTS`), and serves who asks for more (`GOFAIL_HTTP`).
///
/// # Errors
/// A line that says what cannot be done.
pub fn start() -> Result<(), String> {
    ANSWERING.get_or_init(tokio::sync::Mutex::default);
    if let Ok(text) = std::env::var("GOFAIL_FAILPOINTS") {
        for (name, words) in pairs(&text).map_err(|error| format!("fail to parse failpoint: {error}"))? {
            // A name of etcd's that has no place here is none of ours to refuse.
            match enable(name, words) {
                Ok(()) | Err(FailpointError::NoExist) => {}
                Err(error) => return Err(format!("failed to enable \"{name}={words}\" ({error})")),
            }
        }
    }
    match std::env::var("GOFAIL_HTTP") {
        Ok(address) if !address.is_empty() => http::serve(&address).map_err(|error| format!("{address}: {error}")),
        _ => Ok(()),
    }
}

fn due(point: Point) -> Option<Action> {
    let number = Point::ALL.iter().position(|other| *other == point)?;
    terms()[number].as_mut()?.due()
}

fn stop(point: Point, text: Option<String>) -> ! {
    let text = text.unwrap_or_else(|| point.name().to_owned());
    eprintln!("panic: failpoint panic: {text}");
    std::process::abort();
}

pub(super) fn hit(point: Point) {
    match due(point) {
        Some(Action::Sleep(span)) => std::thread::sleep(span),
        Some(Action::Panic(text)) => {
            // On a thread of a runtime, waiting would be a panic of another kind.
            while ANSWERING.get().is_some_and(|answering| answering.try_lock().is_err()) {
                std::thread::sleep(Duration::from_millis(1));
            }
            stop(point, text)
        }
        Some(Action::Print) => println!("failpoint print: {}", point.name()),
        Some(Action::Off | Action::Return) | None => {}
    }
}

pub(super) async fn hit_in_task(point: Point) {
    match due(point) {
        Some(Action::Sleep(span)) => tokio::time::sleep(span).await,
        Some(Action::Panic(text)) => {
            if let Some(answering) = ANSWERING.get() {
                drop(answering.lock().await);
            }
            stop(point, text)
        }
        Some(Action::Print) => println!("failpoint print: {}", point.name()),
        Some(Action::Off | Action::Return) | None => {}
    }
}

pub(super) fn returns(point: Point) -> bool {
    match due(point) {
        Some(Action::Return) => true,
        Some(Action::Sleep(span)) => {
            std::thread::sleep(span);
            false
        }
        Some(Action::Panic(text)) => stop(point, text),
        Some(Action::Off | Action::Print) | None => false,
    }
}
