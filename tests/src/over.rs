//! The end of a simulated node's life.

use std::error::Error;

use basalt_storage::disk::InjectedFault;

/// A fault that a test injected ended this life of the node; what follows is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over(pub InjectedFault);

/// The end that `error` is.
///
/// # Panics
/// When the error does not come from an injected fault: nothing else may fail here, whatever was injected before.
pub fn over(doing: &str, error: &(dyn Error + 'static)) -> Over {
    let mut text = format!("{doing}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    Over(InjectedFault::behind(error).unwrap_or_else(|| panic!("{text}")))
}
