//! Every clause of the contract is cited by a test, or docs/contract.md says what it waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Clauses of the contract.
const CLAUSES: std::ops::RangeInclusive<u32> = 1..=59;
/// What stands before the numbers of a citation.
const CITATION: &str = "etcd-contract ";
/// The heading of docs/contract.md under which clauses wait.
const WAITING: &str = "## Clauses that no test cites yet";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's root").to_owned()
}

/// Numbers of the rows of tables, `| number | … |`.
fn rows(text: &str) -> BTreeSet<u32> {
    text.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect()
}

/// The clauses that a text cites: `etcd-contract 7`, `etcd-contract 22, 25 and 28`, `etcd-contract 6 to 8`. `2.4` is a section.
fn cited(text: &str) -> BTreeSet<u32> {
    let mut clauses = BTreeSet::new();
    for citation in text.split(CITATION).skip(1) {
        let (mut rest, mut first) = (citation, None);
        loop {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let Ok(number) = rest[..digits].parse::<u32>() else { break };
            rest = &rest[digits..];
            match rest.strip_prefix('.').filter(|more| more.starts_with(|c: char| c.is_ascii_digit())) {
                Some(section) => rest = section.trim_start_matches(|c: char| c.is_ascii_digit()),
                None => clauses.extend(first.unwrap_or(number)..=number),
            }
            first = rest.starts_with(" to ").then_some(number);
            match [", ", " and ", " to "].into_iter().find_map(|between| rest.strip_prefix(between)) {
                Some(next) => rest = next,
                None => break,
            }
        }
    }
    clauses
}

/// What of a file is test: all of a file of tests, the module at the end of another.
fn test_part<'a>(path: &Path, text: &'a str) -> &'a str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let in_tests = path.components().any(|part| part.as_os_str() == "tests");
    if in_tests || name.ends_with("_tests.rs") || name == "tests.rs" {
        return text;
    }
    text.find("#[cfg(test)]\nmod ").map_or("", |at| &text[at..])
}

fn visit(directory: &Path, found: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(directory).expect("a directory of ours") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !["target", "bin"].contains(&name) && !name.starts_with('.') {
                visit(&path, found);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            found(&path, &text);
        }
    }
}

#[test]
fn every_clause_is_cited_by_a_test_or_waits() {
    let document = fs::read_to_string(root().join("docs/contract.md")).expect("docs/contract.md");
    let (listed, waiting) = document.split_once(WAITING).expect("a list of what waits");
    let waiting = waiting.split("\n## ").next().unwrap_or_default();
    let (listed, waiting) = (rows(listed), rows(waiting));
    assert!(CLAUSES.eq(listed.iter().copied()), "docs/contract.md lists {listed:?}");

    let mut citations: BTreeMap<u32, Vec<PathBuf>> = BTreeMap::new();
    for directory in ["storage", "server", "tests"] {
        visit(&root().join(directory), &mut |path, text| {
            // This file cites none, it shows how.
            if !path.ends_with("tests/tests/contract.rs") && path.extension().is_none_or(|kind| kind != "md") {
                cited(test_part(path, text))
                    .into_iter()
                    .for_each(|n| citations.entry(n).or_default().push(path.into()));
            }
        });
    }
    for clause in CLAUSES {
        match (citations.get(&clause), waiting.contains(&clause)) {
            (None, false) => panic!("no test cites etcd-contract {clause}, and docs/contract.md does not say why"),
            (Some(places), true) => panic!("docs/contract.md says that {clause} waits, but {places:?} cite it"),
            _ => {}
        }
    }
}

#[test]
fn citations_are_read() {
    let numbers = |text| cited(text).into_iter().collect::<Vec<_>>();
    assert_eq!(numbers("(etcd-contract 22, 25); etcd-contract 7 and 13."), [7, 13, 22, 25]);
    assert_eq!(numbers("etcd-contract 2.4, 42 and etcd-contract, section 3"), [42]);
    assert_eq!(numbers("etcd-contract 43."), [43]);
    assert_eq!(numbers("etcd-contract 3, 6 to 8, 10"), [3, 6, 7, 8, 10]);
}
