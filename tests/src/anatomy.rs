//! What each byte of a data directory is, by `docs/disk-format.md`. It trusts what it reads: for directories that are
//! whole.

use std::collections::BTreeMap;

use basalt_storage::disk::SimulatedDisk;

/// A kind of bytes.
#[expect(missing_docs, reason = "the names are those of the format")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    ManifestHeader,
    ManifestBody,
    SegmentHead,
    BatchHeader,
    BatchBody,
    RunHeader,
    RunFrame,
    RunPayload,
    RunTrailer,
    MapRootPage,
    IndexPage,
    BitmapPage,
    LeafHeader,
    SlotTable,
    Entry,
    BranchHeader,
    BranchEntries,
    /// Padding, and places that were never written.
    Unused,
}

/// Some bytes of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The file.
    pub name: String,
    /// Its first byte.
    pub from: usize,
    /// Behind its last byte.
    pub to: usize,
}

/// Everything in a data directory, by what it is.
#[derive(Clone, Debug, Default)]
pub struct Anatomy {
    /// The spans of each kind, in the order of the files.
    pub parts: BTreeMap<Part, Vec<Span>>,
    /// The last batch of the log, header and records.
    pub last_batch: Option<Span>,
}

const PAGE: usize = 4096;
const REGION_PAGES: usize = 32_768;
const MANIFEST_SLOT: usize = 64 << 10;

impl Anatomy {
    /// Takes a directory apart.
    pub fn of(disk: &SimulatedDisk) -> Self {
        let mut anatomy = Self::default();
        for name in disk.files() {
            let bytes = disk.contents(&name).expect("a listed file is there");
            let mut file = File { name: &name, bytes: &bytes, done: 0, anatomy: &mut anatomy };
            match name.split('/').next() {
                Some("manifest") => file.manifest(),
                Some("wal") if name.ends_with(".wal") => file.segment(),
                Some("runs") => file.run(),
                Some("pages") => file.pages(),
                _ => {}
            }
            file.skip_to(bytes.len());
        }
        anatomy
    }
}

/// A file that is being taken apart, from its beginning to its end.
struct File<'a> {
    name: &'a str,
    bytes: &'a [u8],
    done: usize,
    anatomy: &'a mut Anatomy,
}

impl File<'_> {
    fn u32_at(&self, at: usize) -> usize {
        let bytes = self.bytes[at..at + 4].try_into().expect("four bytes");
        u32::from_le_bytes(bytes) as usize
    }

    fn push(&mut self, part: Part, bytes: usize) {
        let span = Span { name: self.name.to_owned(), from: self.done, to: self.done + bytes };
        self.done = span.to;
        if bytes > 0 {
            self.anatomy.parts.entry(part).or_default().push(span);
        }
    }

    fn skip_to(&mut self, to: usize) {
        let bytes = to.checked_sub(self.done);
        self.push(
            Part::Unused,
            bytes.unwrap_or_else(|| panic!("{} at {}, which is behind {to}", self.name, self.done)),
        );
    }

    fn manifest(&mut self) {
        for place in (0..4).map(|place| place * MANIFEST_SLOT) {
            self.skip_to(place);
            if self.bytes[place..].starts_with(b"basaltMF") {
                self.push(Part::ManifestHeader, 32);
                self.push(Part::ManifestBody, self.u32_at(place + 24));
            }
        }
    }

    fn segment(&mut self) {
        if !self.is_begun() {
            return;
        }
        for head in [0, PAGE] {
            self.skip_to(head);
            if self.bytes[head..].starts_with(b"basltWAL") {
                self.push(Part::SegmentHead, 116);
            }
        }
        self.skip_to(2 * PAGE);
        // Batches of a former life of the file have another salt.
        let salt = self.bytes[48..56].to_vec();
        while self.bytes.len() >= self.done + 56
            && self.bytes[self.done..].starts_with(b"bBAT")
            && self.bytes[self.done + 16..self.done + 24] == salt
        {
            let (from, bytes) = (self.done, self.u32_at(self.done + 4));
            self.push(Part::BatchHeader, 56);
            self.push(Part::BatchBody, bytes - 56);
            self.anatomy.last_batch = Some(Span { name: self.name.to_owned(), from, to: self.done });
            self.skip_to(self.done.next_multiple_of(PAGE));
        }
    }

    /// Whether its head is that of this segment: a former one that was only renamed to be the next holds nothing.
    fn is_begun(&self) -> bool {
        let number = self.name.trim_start_matches("wal/").trim_end_matches(".wal");
        let sequence = u64::from_le_bytes(self.bytes[56..64].try_into().expect("eight bytes"));
        u64::from_str_radix(number, 16) == Ok(sequence)
    }

    fn run(&mut self) {
        self.push(Part::RunHeader, 64);
        while self.bytes.len() >= self.done + 16 {
            let (payload, kind) = (self.u32_at(self.done + 4), self.bytes[self.done + 12]);
            self.push(Part::RunFrame, 16);
            self.push(if kind == 2 { Part::RunTrailer } else { Part::RunPayload }, payload);
        }
    }

    fn pages(&mut self) {
        while self.done < self.bytes.len() {
            let at = self.done;
            match (at / PAGE % REGION_PAGES, self.bytes[at + 6]) {
                (0 | 7, _) => {}
                (1 | 2, _) => self.push(Part::BitmapPage, PAGE),
                (3 | 4, _) => self.push(Part::IndexPage, PAGE),
                (5 | 6, _) => self.push(Part::MapRootPage, PAGE),
                (_, kind @ 1..=2) if self.is_node() => self.node(kind == 1),
                _ => {}
            }
            self.skip_to((at + 1).max(self.done).next_multiple_of(PAGE));
        }
    }

    /// Whether a page of a tree begins here: it names itself.
    fn is_node(&self) -> bool {
        let at = self.done;
        let number = u64::from_le_bytes(self.bytes[at + 8..at + 16].try_into().expect("eight bytes"));
        number as usize == at / PAGE && at + self.u32_at(at + 24) <= self.bytes.len()
    }

    fn node(&mut self, is_leaf: bool) {
        let (at, bytes, count) = (self.done, self.u32_at(self.done + 24), self.u32_at(self.done + 28));
        if is_leaf {
            self.push(Part::LeafHeader, 72);
            self.push(Part::SlotTable, 48 * count);
            self.push(Part::Entry, at + bytes - self.done);
        } else {
            self.push(Part::BranchHeader, 72);
            self.push(Part::BranchEntries, bytes - 72);
        }
    }
}
