//! Names of functions, from the files that the code came from.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use addr2line::{Loader, demangle_auto};

use super::modules::Mapped;

/// A function, and a line in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// Its name, as it stands in the source; empty if unknown.
    pub(super) function: String,
    /// Its name, as it stands in the file.
    pub(super) linked: String,
    /// The source file; empty if unknown.
    pub(super) file: String,
    /// The line; 0 if unknown.
    pub(super) line: u32,
}

/// Reads the debug information of each file when it is first asked for, and keeps it until dropped.
pub(super) struct Symbols<'a> {
    mapped: &'a [Mapped],
    files: HashMap<&'a Path, Option<Loader>>,
}

impl<'a> Symbols<'a> {
    pub(super) fn new(mapped: &'a [Mapped]) -> Self {
        Self { mapped, files: HashMap::new() }
    }

    /// Which of the mapped files an address lies in.
    pub(super) fn mapping(&self, address: u64) -> Option<usize> {
        self.mapped.iter().position(|mapped| mapped.addresses.contains(&address))
    }

    /// The functions at an address, innermost first: several where one was built into another. None where nothing is known.
    pub(super) fn lines(&mut self, address: u64) -> Vec<Line> {
        let Some(mapped) = self.mapping(address).map(|number| &self.mapped[number]) else { return Vec::new() };
        let file = self.files.entry(&mapped.path).or_insert_with(|| Loader::new(&mapped.path).ok());
        let Some(file) = file else { return Vec::new() };
        let stated = address.wrapping_sub(mapped.bias);
        let mut lines = inlined(file, stated);
        // The function that all others were built into has its name with all its path there; where there are lines only, the
        // debug information has less of it.
        if let Some(name) = file.find_symbol(stated) {
            let outermost = lines.pop().unwrap_or_default();
            let function = demangle_auto(Cow::Borrowed(name), None).into_owned();
            lines.push(Line { function, linked: name.to_owned(), ..outermost });
        }
        lines.retain(|line| !line.function.is_empty());
        lines
    }
}

/// What the debug information says. What is damaged there says nothing.
fn inlined(file: &Loader, stated: u64) -> Vec<Line> {
    let Ok(mut frames) = file.find_frames(stated) else { return Vec::new() };
    let mut lines = Vec::new();
    while let Ok(Some(frame)) = frames.next() {
        let function = frame.function.as_ref();
        let text = |name: Result<Cow<'_, str>, _>| name.map(Cow::into_owned).unwrap_or_default();
        let location = frame.location.as_ref();
        lines.push(Line {
            function: function.map(|function| text(function.demangle())).unwrap_or_default(),
            linked: function.map(|function| text(function.raw_name())).unwrap_or_default(),
            file: location.and_then(|location| location.file).unwrap_or_default().to_owned(),
            line: location.and_then(|location| location.line).unwrap_or_default(),
        });
    }
    lines
}
