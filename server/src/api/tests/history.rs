//! History for watchers: in steps of bounded size, and past damage.

use std::path::PathBuf;
use std::sync::Arc;

use basalt_storage::disk::Disk;
use basalt_storage::mvcc::shard_map::ShardId;
use basalt_storage::mvcc::view::View;
use basalt_storage::revision::Revision;

use super::rig::Rig;
use crate::node::watch_history::{SCAN_BYTES_MAX, Scanned, previous, scan};
use crate::watch::{Event, PreviousValue};

const MAIN: [ShardId; 1] = [ShardId(0)];

struct History {
    rig: Rig,
    view: Arc<View>,
}

impl History {
    /// Values in pages, the first at revision 2.
    async fn of(values: Vec<Vec<u8>>) -> Self {
        let rig = Rig::start();
        for (key, value) in values.into_iter().enumerate() {
            rig.put(&format!("k{key:03}"), value).await;
        }
        rig.service.node.checkpoint().await.expect("a checkpoint");
        let view = rig.service.node.view();
        Self { rig, view }
    }

    /// Reads on a thread of the node.
    async fn read<T: Send + 'static>(&self, work: impl FnOnce(&Arc<View>, &dyn Disk) -> T + Send + 'static) -> T {
        let view = self.view.clone();
        let read = self.rig.service.node.walk_readers().submit(move |disk| Ok(work(&view, disk)));
        read.await.expect("the node runs").expect("an answer")
    }

    async fn step(&self, from: i64) -> Scanned {
        self.read(move |view, disk| scan(view, &MAIN, from, view.revision, 1000, disk)).await
    }

    async fn events(&self, from: i64) -> (Vec<Event>, Option<i64>) {
        match self.step(from).await {
            Scanned::Events { events, next } => (events, next),
            Scanned::Damaged => panic!("nothing from {from} on can be read"),
        }
    }

    async fn revisions(&self, from: i64) -> Vec<i64> {
        self.events(from).await.0.iter().map(|event| event.revision.main).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_history_is_bounded_in_bytes() {
    let large = (0..20).map(|_| vec![b'l'; 1 << 20]);
    let history = History::of(large.chain((0..300).map(|_| vec![b's'; 10])).collect()).await;
    let (mut from, mut steps, mut told) = (2, 0, Vec::new());
    loop {
        let (events, next) = history.events(from).await;
        let bytes: usize = events.iter().map(|event| event.key_value.len()).sum();
        assert!(bytes < 2 * SCAN_BYTES_MAX, "{bytes} bytes in a step");
        told.extend(events.iter().map(|event| event.revision.main));
        steps += 1;
        let Some(next) = next else { break };
        from = next;
    }
    assert_eq!(told, (2..=321).collect::<Vec<i64>>());
    assert!(steps >= 4, "{steps}");
}

/// Changes a byte of the only place where `marker` is stored.
fn damage(directory: PathBuf, marker: &[u8]) {
    let mut directories = vec![directory];
    let mut damaged = 0;
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            // The log has it too, and is not read by anybody here.
            if path.to_string_lossy().contains("wal") {
                continue;
            }
            let mut bytes = std::fs::read(&path).expect("a file");
            if let Some(at) = bytes.windows(marker.len()).position(|window| window == marker) {
                bytes[at] ^= 1;
                std::fs::write(&path, bytes).expect("a file");
                damaged += 1;
            }
        }
    }
    assert_eq!(damaged, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_ends_history_where_it_is_and_nothing_else() {
    let value = |byte: u8| vec![byte; 100_000];
    let mut bad = value(b'x');
    bad.extend_from_slice(b"the damaged place");
    let history = History::of(vec![value(b'a'), value(b'b'), bad, value(b'd'), value(b'e')]).await;
    assert_eq!(history.revisions(2).await, [2, 3, 4, 5, 6]);
    damage(history.rig.data_dir(), b"the damaged place");
    assert_eq!(history.revisions(2).await, [2, 3]);
    assert_eq!(history.events(2).await.1, Some(4));
    assert!(matches!(history.step(4).await, Scanned::Damaged));
    assert_eq!(history.revisions(5).await, [5, 6]);
    let hits = [3, 4, 5].map(|main| (ShardId(0), Revision::new(main, 0)));
    let values = history.read(move |view, disk| previous(view, &hits, disk)).await;
    assert!(matches!(values[..], [PreviousValue::Value(_), PreviousValue::Damaged, PreviousValue::Value(_)]));
}
