//! Scripts in, whole traces out. A line with `>` is an input, the lines with `<` behind it are all its outputs; the rest
//! is comment. With `UPDATE_GOLDEN=1` in the environment the traces are written anew, to be reviewed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use bytes::Bytes;
use prost::Message;

use super::super::{Input, Output, StreamId, WatchConfig, Watches};
use super::store::{Store, Write};

struct Script {
    room: Watches,
    store: Store,
    now: Duration,
    /// Asked and not answered, oldest first.
    questions: Vec<Output>,
}

impl Script {
    /// `figures key=value…` overrides limits.
    fn new(figures: &BTreeMap<&str, &str>) -> Self {
        let figure = |name: &str, default: usize| figures.get(name).map_or(default, |n| n.parse().unwrap());
        let store = Store::default();
        let config = WatchConfig {
            cluster_id: 1,
            member_id: 2,
            raft_term: 3,
            progress_notify_interval: Duration::from_secs(5),
            fragment_bytes: figure("fragment_bytes", 1000),
            ring_bytes: figure("ring_bytes", 10_000),
            stream_queue_bytes_max: figure("stream_queue_bytes_max", 10_000),
            queue_bytes_max: 64 << 20,
            watcher_bytes_max: 64 << 20,
            scan_revisions_max: figure("scan_revisions_max", 1000),
            seed: 1,
        };
        let room = Watches::new(config, store.map.clone(), store.revision, store.compact_revision);
        Self { room, store, now: Duration::ZERO, questions: Vec::new() }
    }

    fn run(&mut self, line: &str) -> Vec<Output> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let stream = || StreamId(words[1].parse().unwrap());
        let number = |at: usize| words[at].parse::<i64>().unwrap();
        let input = match words[0] {
            "open" => Input::Open(stream()),
            "close" => Input::Close(stream()),
            "create" => Input::Create { stream: stream(), request: create_request(&words[2..]) },
            "cancel" => Input::Cancel { stream: stream(), watch_id: number(2) },
            "progress" => Input::Progress { stream: stream() },
            "write" => {
                let mut events = Vec::new();
                // Transactions are parted by a semicolon and applied together.
                for transaction in words[1..].split(|word| *word == ";") {
                    events.extend(self.store.write(&transaction.iter().map(|word| write(word)).collect::<Vec<_>>()));
                }
                Input::Applied { revision: self.store.revision, events }
            }
            // On another member: this one hears of it by a snapshot.
            "write_elsewhere" => {
                self.store.write(&words[1..].iter().map(|word| write(word)).collect::<Vec<_>>());
                return Vec::new();
            }
            "restore" => {
                let (revision, compact_revision) = (self.store.revision, self.store.compact_revision);
                Input::Restored { revision, compact_revision }
            }
            "compact" => {
                self.store.compact_revision = number(1);
                Input::Compacted(number(1))
            }
            "term" => Input::Term(number(1) as u64),
            "answer" => self.store.answer(&self.questions.remove(0)),
            "drained" => Input::Drained { stream: stream(), bytes: number(2) as usize },
            "wait" => {
                self.now += Duration::from_millis(number(1) as u64);
                Input::Tick
            }
            other => panic!("no such input: {other}"),
        };
        let mut out = Vec::new();
        self.room.handle(input, self.now, &mut out);
        self.questions.extend(out.iter().filter(|output| !matches!(output, Output::Send { .. })).cloned());
        out
    }
}

/// `key=value`, `key=*N` for N bytes, or `-key` to delete.
fn write(word: &str) -> Write {
    let Some((key, value)) = word.split_once('=') else {
        return (Bytes::copy_from_slice(word.trim_start_matches('-').as_bytes()), None);
    };
    let value = match value.strip_prefix('*') {
        Some(len) => vec![b'x'; len.parse().unwrap()].into(),
        None => Bytes::copy_from_slice(value.as_bytes()),
    };
    (Bytes::copy_from_slice(key.as_bytes()), Some(value))
}

fn create_request(words: &[&str]) -> WatchCreateRequest {
    let mut request = WatchCreateRequest::default();
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("key", key) => request.key = Bytes::copy_from_slice(key.as_bytes()),
            ("end", end) => request.range_end = Bytes::copy_from_slice(end.replace("\\0", "\0").as_bytes()),
            ("start", start) => request.start_revision = start.parse().unwrap(),
            ("id", id) => request.watch_id = id.parse().unwrap(),
            ("prev_kv", _) => request.prev_kv = true,
            ("fragment", _) => request.fragment = true,
            ("progress_notify", _) => request.progress_notify = true,
            ("noput", _) => request.filters.push(0),
            ("nodelete", _) => request.filters.push(1),
            (other, _) => panic!("no such option: {other}"),
        }
    }
    request
}

fn show(output: &Output) -> String {
    match output {
        Output::Send { stream, message, .. } => format!("{}: {}", stream.0, show_response(&message.concat())),
        Output::Scan { shards, from, to, revisions_max, .. } => {
            let shards: Vec<_> = shards.iter().map(|shard| shard.0).collect();
            format!("scan shards={shards:?} from={from} to={to} max={revisions_max}")
        }
        Output::FetchPrevious { hits, .. } => {
            let hits: Vec<_> = hits.iter().map(|(shard, at)| format!("{}@{}.{}", shard.0, at.main, at.sub)).collect();
            format!("fetch {}", hits.join(" "))
        }
    }
}

fn show_response(bytes: &[u8]) -> String {
    let response = WatchResponse::decode(bytes).expect("a WatchResponse");
    assert_eq!(response.encode_to_vec(), bytes, "canonical wire form");
    let header = response.header.unwrap();
    assert_eq!((header.cluster_id, header.member_id), (1, 2));
    let mut line = format!("id={} revision={} term={}", response.watch_id, header.revision, header.raft_term);
    for (set, name) in [(response.created, "created"), (response.canceled, "canceled"), (response.fragment, "fragment")]
    {
        if set {
            write!(line, " {name}").unwrap();
        }
    }
    if response.compact_revision != 0 {
        write!(line, " compact_revision={}", response.compact_revision).unwrap();
    }
    if !response.cancel_reason.is_empty() {
        write!(line, " reason={:?}", response.cancel_reason).unwrap();
    }
    for event in &response.events {
        let show = |kv: &basalt_proto::mvccpb::KeyValue| {
            let value = match kv.value.len() {
                0..=20 => String::from_utf8_lossy(&kv.value).into_owned(),
                len => format!("*{len}"),
            };
            format!(
                "{}={value}@{}/{}v{}",
                String::from_utf8_lossy(&kv.key),
                kv.create_revision,
                kv.mod_revision,
                kv.version
            )
        };
        let kind = if event.r#type == 0 { "put" } else { "delete" };
        write!(line, " [{kind} {}", show(event.kv.as_ref().unwrap())).unwrap();
        if let Some(previous) = &event.prev_kv {
            write!(line, " was {}", show(previous)).unwrap();
        }
        line.push(']');
    }
    line
}

#[test]
fn scripts_give_their_traces() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/watch/tests/scripts");
    let mut scripts: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for path in scripts {
        let expected = std::fs::read_to_string(&path).unwrap();
        let mut script = Script::new(&BTreeMap::new());
        let mut trace = String::new();
        for line in expected.lines().filter(|line| !line.starts_with('<')) {
            writeln!(trace, "{line}").unwrap();
            if let Some(figures) = line.strip_prefix("> figures ") {
                script = Script::new(&figures.split_whitespace().filter_map(|word| word.split_once('=')).collect());
            } else if let Some(input) = line.strip_prefix("> ") {
                script.run(input).iter().for_each(|output| writeln!(trace, "< {}", show(output)).unwrap());
            }
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &trace).unwrap();
        }
        assert_eq!(trace, std::fs::read_to_string(&path).unwrap(), "{}", path.display());
    }
}
