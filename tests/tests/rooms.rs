//! Crates, and the rooms of a crate, use each other in one direction only, as ARCHITECTURE.md and each `lib.rs` draw it,
//! and the pure ones know neither clock nor thread nor runtime, and no order or number that another run would not have.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Our crates, and those of ours that they may use, tests and benchmarks among them.
const CRATES: Order = &[
    ("proto", &[]),
    ("storage", &[]),
    ("server", &["proto", "storage"]),
    ("tests", &["proto", "storage", "server"]),
    ("bench", &["proto", "storage", "server", "tests"]),
    ("tests/fuzz", &["proto", "storage", "server", "tests"]),
];

/// A room, and the rooms that it may use; these stand above it, so that there is no way round in a circle.
type Order = &'static [(&'static str, &'static [&'static str])];

/// `checkpoint` writes what `mvcc` freezes, and asks whether there is a log where it finds no manifest; `snapshot` and
/// `hashes` read Views: they stand behind it.
const STORAGE: Order = &[
    ("disk", &[]),
    ("revision", &[]),
    ("job", &["disk"]),
    ("planted", &[]),
    ("wal", &["disk", "job", "planted"]),
    ("runs", &["disk", "job"]),
    ("pages", &["disk", "job", "planted", "revision"]),
    ("mvcc", &["job", "pages", "planted", "revision"]),
    ("checkpoint", &["disk", "job", "planted", "revision", "wal", "pages", "runs", "mvcc"]),
    ("snapshot", &["disk", "job", "revision", "pages", "mvcc"]),
    ("hashes", &["job", "revision", "pages", "mvcc", "snapshot"]),
    ("import", &["disk", "revision", "mvcc", "checkpoint", "snapshot"]),
    ("check", &["disk", "job", "revision", "wal", "pages", "runs", "mvcc", "checkpoint"]),
];

const SERVER: Order = &[
    ("config", &[]),
    ("logging", &["config"]),
    ("metrics", &["config"]),
    ("resolution", &["config"]),
    ("memory", &[]),
    ("read_again", &[]),
    ("lease", &[]),
    ("apply", &[]),
    ("traces", &["config", "metrics", "apply"]),
    ("watch", &["apply"]),
    ("auth", &["apply", "read_again"]),
    ("admission", &["apply"]),
    ("transfer", &["apply"]),
    ("import", &["apply"]),
    ("failpoints", &["config"]),
    (
        "node",
        &["failpoints", "memory", "metrics", "lease", "watch", "auth", "admission", "apply", "transfer", "import"],
    ),
    ("listen", &["config", "logging", "metrics", "read_again"]),
    ("peer", &["config", "metrics", "resolution", "listen", "apply", "transfer", "node"]),
    ("discovery", &["config", "listen"]),
    (
        "api",
        &[
            "failpoints",
            "config",
            "logging",
            "metrics",
            "traces",
            "lease",
            "watch",
            "auth",
            "apply",
            "node",
            "listen",
            "peer",
        ],
    ),
    ("http", &["config", "logging", "metrics"]),
    ("profiles", &["http"]),
    ("corruption", &["apply", "node", "peer"]),
    ("auto_compaction", &["config"]),
    ("pages", &["config", "metrics", "node", "listen", "api", "http", "profiles"]),
    ("gateway", &["config", "listen", "api"]),
    ("control", &["config", "resolution", "apply", "import", "node", "listen", "peer", "gateway"]),
    ("edge", &["metrics", "listen", "api", "gateway", "pages"]),
    ("peer_edge", &["failpoints", "logging", "listen", "node", "peer", "api", "edge"]),
    (
        "program",
        &[
            "failpoints",
            "config",
            "logging",
            "memory",
            "metrics",
            "resolution",
            "traces",
            "apply",
            "auth",
            "node",
            "listen",
            "discovery",
            "api",
            "http",
            "corruption",
            "auto_compaction",
            "gateway",
            "pages",
            "edge",
            "peer",
            "peer_edge",
        ],
    ),
];

/// Uses against the order, each with its reason. One that is no longer needed fails the test.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// What pure code never names, as it stands in code.
const IMPURE: &[&str] = &[
    "tokio",
    "tonic",
    "hyper",
    "std::thread",
    "std::sync::mpsc",
    "Instant",
    "SystemTime",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    // Randomness that no seed replays. A generator made from a seed that came as input is an input.
    "from_os_rng",
    "OsRng",
    "rand::rng",
    "thread_rng",
    "rand::random",
    "RandomState",
];

/// What a room of storage never names, but for those of `IN_DISK` in its room `disk`, the door to the system.
const IMPURE_STORAGE: &[&str] = &["tokio", "tonic", "prost", "std::thread", "std::sync::mpsc", "std::net", "std::env"];
const IN_DISK: &[&str] = &["std::fs", "rustix", "Instant", "SystemTime", "std::os"];

/// How a hash map shows its order, which differs from one run to the next.
const HASH_ORDERS: &[&str] = &[
    ".iter()",
    ".iter_mut()",
    ".into_iter()",
    ".keys()",
    ".into_keys()",
    ".values()",
    ".values_mut()",
    ".drain()",
    ".retain(",
];

/// Pure rooms and files of the server, as paths below its `src`.
const PURE: &[&str] = &[
    "admission",
    "apply",
    "watch",
    "lease",
    "auto_compaction",
    "node/checkpoint_schedule.rs",
    "node/core",
    "node/log_store.rs",
];

/// A source file that is no test.
struct Source {
    /// Below `src`, without extension: room first.
    modules: Vec<String>,
    /// Below `src`.
    path: PathBuf,
    /// Without comments and test modules.
    code: String,
}

fn sources(name: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src");
    let mut sources = Vec::new();
    collect(&root, &root, &mut sources);
    assert!(sources.len() > 20, "the sources of {name} were not found");
    sources
}

fn collect(root: &Path, directory: &Path, sources: &mut Vec<Source>) {
    let mut paths: Vec<_> =
        fs::read_dir(directory).expect("readable").map(|entry| entry.expect("there").path()).collect();
    paths.sort();
    let tests = test_modules(&paths);
    for path in paths {
        let stem = path.file_stem().expect("named").to_string_lossy().into_owned();
        if stem == "tests" || stem.ends_with("_tests") || tests.contains(&stem) {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let path_below = path.strip_prefix(root).expect("below the root").to_owned();
            let mut modules: Vec<_> = path_below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            modules.pop();
            modules.extend((stem != "mod").then_some(stem));
            let code = without_tests(&fs::read_to_string(&path).expect("UTF-8"));
            sources.push(Source { modules, path: path_below, code });
        }
    }
}

/// Names of the files that doors declare for tests only.
fn test_modules(paths: &[PathBuf]) -> BTreeSet<String> {
    let texts = paths.iter().filter(|path| path.is_file()).map(|path| fs::read_to_string(path).expect("UTF-8"));
    let mut names = BTreeSet::new();
    for text in texts {
        for (_, rest) in text.match_indices("#[cfg(test)]\n").map(|(at, found)| text.split_at(at + found.len())) {
            let declared = rest.trim_start_matches("pub(crate) ").strip_prefix("mod ");
            names.extend(declared.and_then(|rest| rest.lines().next()?.strip_suffix(';')).map(str::to_owned));
        }
    }
    names
}

fn without_tests(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| format!("{line}\n")).collect()
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// First names of all paths that begin at the root of the crate: `crate::name`, `crate::{name, ...}`, and as many
/// `super::` as lead there.
fn rooms_used(source: &Source) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let climb = "super::".repeat(source.modules.len());
    for root in ["crate::", &climb] {
        for (at, _) in source.code.match_indices(root) {
            let (before, path) = (&source.code[..at], &source.code[at + root.len()..]);
            if before.ends_with("::") || before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            match path.strip_prefix('{') {
                Some(group) => used.extend(first_names(group)),
                None => used.extend([identifier(path).to_owned()]),
            }
        }
    }
    used
}

/// First names of the paths of a group, up to its closing brace.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut begins) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && !c.is_whitespace() => {
                names.push(identifier(&group[at..]).to_owned());
                begins = false;
            }
            _ => {}
        }
    }
    names
}

/// Uses that `order` does not allow, as file, room and used room.
fn violations(name: &str, order: Order) -> Vec<(PathBuf, String, String)> {
    let mut found = Vec::new();
    for source in sources(name) {
        let Some(room) = source.modules.first().filter(|room| *room != "lib" && *room != "bin") else { continue };
        let allowed = order.iter().find(|(of, _)| of == room);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{name} has a room {room} that no order names"));
        for used in rooms_used(&source) {
            let is_room = order.iter().any(|(room, _)| *room == used);
            if is_room && used != *room && !allowed.contains(&used.as_str()) {
                found.push((source.path.clone(), room.clone(), used));
            }
        }
    }
    found
}

#[test]
fn the_orders_have_no_circle() {
    for order in [CRATES, STORAGE, SERVER] {
        for (position, (room, uses)) in order.iter().enumerate() {
            let above = |used: &&str| order[..position].iter().any(|(room, _)| room == used);
            assert!(uses.iter().all(above), "{room} uses {uses:?}, which do not all stand above it");
        }
    }
}

#[test]
fn rooms_use_each_other_in_one_direction() {
    let mut found = violations("storage", STORAGE);
    found.extend(violations("server", SERVER));
    for (room, used, reason) in EXCEPTIONS {
        let before = found.len();
        found.retain(|(_, from, to)| from != room || to != used);
        assert!(found.len() < before, "{room} uses {used} no more: remove the exception ({reason})");
    }
    assert!(found.is_empty(), "against the order: {found:#?}");
}

/// Whether `code` names `path`: as a whole word, not as the end of another.
fn names(code: &str, path: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(path).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + path.len()..]);
        !before.ends_with(is_word) && !after.starts_with(is_word)
    })
}

#[test]
fn pure_code_knows_no_clock_no_thread_and_no_runtime() {
    let server = sources("server").into_iter().filter(|source| PURE.iter().any(|pure| source.path.starts_with(pure)));
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for source in server {
        seen.extend(PURE.iter().filter(|pure| source.path.starts_with(pure)));
        let found: Vec<_> = IMPURE.iter().filter(|impure| names(&source.code, impure)).collect();
        assert!(found.is_empty(), "{:?} names {found:?}", source.path);
        let orders = hash_orders(&source.code);
        assert!(orders.is_empty(), "{:?} goes through hash maps in their order: {orders:?}", source.path);
    }
    assert_eq!(seen.len(), PURE.len(), "a pure room is gone");
    for source in sources("storage") {
        let elsewhere = if source.modules[0] == "disk" { &[] } else { IN_DISK };
        let found: Vec<_> =
            IMPURE_STORAGE.iter().chain(elsewhere).filter(|impure| names(&source.code, impure)).collect();
        assert!(found.is_empty(), "{:?} names {found:?}", source.path);
    }
}

/// Places where `code` goes through a field or variable that it declares as a hash map or set.
fn hash_orders(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in ["HashMap<", "HashSet<"].iter().flat_map(|kind| code.match_indices(kind)) {
        let before = code[..at].trim_end();
        let name = match before.strip_suffix(':') {
            Some(before) => before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default(),
            None if before.ends_with('(') => "0",
            None => continue,
        };
        let uses = HASH_ORDERS.iter().map(|order| format!(".{name}{order}"));
        let uses = uses.chain(["in &self.", "in &mut self.", "in self."].map(|loops| format!("{loops}{name} ")));
        found.extend(uses.filter(|usage| code.contains(usage)));
    }
    found
}

/// Our crates that the manifest of `name` depends on, in any of its tables.
fn crates_used(name: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("Cargo.toml");
    let text = fs::read_to_string(path).expect("UTF-8");
    let lines = text.lines().filter_map(|line| line.strip_prefix("basalt-"));
    lines.map(|rest| identifier(rest).to_owned()).collect()
}

#[test]
fn crates_use_each_other_in_one_direction() {
    for (name, allowed) in CRATES {
        let used = crates_used(name);
        assert_eq!(used, allowed.iter().map(|of| (*of).to_owned()).collect(), "crates of ours that {name} uses");
    }
}

#[test]
fn uses_are_found_in_all_their_forms() {
    let code = "use crate::mvcc::{a, b};\nuse crate::{pages::{Page, x}, runs};\nlet x = super::super::wal::Log;\n\
                use super::sibling;\nuse basalt_crate::nothing;";
    let modules = vec!["checkpoint".to_owned(), "job".to_owned()];
    let source = Source { modules, path: PathBuf::new(), code: code.to_owned() };
    assert_eq!(rooms_used(&source), ["mvcc", "pages", "runs", "wal"].map(str::to_owned).into());
    assert!(names("use tokio::sync;", "tokio") && !names("tokio_rustls::x", "tokio"));
    let maps = "struct A { leases: HashMap<i64, u8>, b: BTreeMap<u8, u8> }\nstruct B(HashSet<u8>);\n";
    assert!(hash_orders(&format!("{maps} self.leases.get(&1); self.b.iter()")).is_empty());
    assert_eq!(hash_orders(&format!("{maps} self.leases.keys()")), [".leases.keys()"]);
    assert_eq!(hash_orders(&format!("{maps} for x in &self.leases {{}}")), ["in &self.leases "]);
    assert_eq!(hash_orders(&format!("{maps} self.0.iter()")), [".0.iter()"]);
    assert_eq!(without_tests("a\n// crate::x\n#[cfg(test)]\nmod tests {\n}\n"), "a\n");
}
