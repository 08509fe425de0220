//! The bytes of a manifest. `docs/disk-format-manifest.md` shows the same in tables.

use bytes::Bytes;

use super::content::{Manifest, ShardManifest};
use super::error::ManifestError;
use super::slots::SLOT_BYTES;
use crate::pages::allocator::TransactionId;
use crate::runs::{RUN_META_LEN, RunMeta};

pub(super) const MAGIC: [u8; 8] = *b"basaltMF";
/// The first form.
pub const VERSION_FIRST: u16 = 1;
/// The newest form that this release knows.
pub(super) const VERSION: u16 = if cfg!(feature = "next-version") { 2 } else { 1 };
/// Features without which a reader would misread the data directory.
pub(super) const FEATURES: u32 = FEATURE_LOG_RESTARTS;
/// See [`Manifest::log_restarts`].
pub(super) const FEATURE_LOG_RESTARTS: u32 = 1;
pub(super) const HEADER_LEN: usize = 32;
pub(super) const CRC_AT: usize = 28;
/// A length or count.
pub(super) const LENGTH_LEN: usize = 4;
/// What of a body has the same length in every manifest.
pub(super) const FIXED_LEN: usize = 100;
/// What of a shard has.
pub(super) const SHARD_FIXED_LEN: usize = 72;

/// What the bytes of a copy are, if they are no manifest that we can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Never written.
    Blank,
    Damaged(&'static str),
    Newer {
        version: u16,
        features: u32,
    },
}

/// The bytes of one copy.
///
/// # Errors
/// [`ManifestError::TooLarge`], [`ManifestError::Inconsistent`].
pub(super) fn encode(manifest: &Manifest) -> Result<Bytes, ManifestError> {
    manifest.check().map_err(ManifestError::Inconsistent)?;
    let mut bytes = Vec::with_capacity(1024);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&manifest.version.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    let features = if manifest.log_restarts { FEATURE_LOG_RESTARTS } else { 0 };
    bytes.extend_from_slice(&features.to_le_bytes());
    bytes.extend_from_slice(&manifest.generation.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    put_body(&mut bytes, manifest);
    if bytes.len() > SLOT_BYTES {
        return Err(ManifestError::TooLarge(bytes.len()));
    }
    let body = (bytes.len() - HEADER_LEN) as u32;
    bytes[24..28].copy_from_slice(&body.to_le_bytes());
    let crc = copy_crc(&bytes);
    bytes[CRC_AT..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes.into())
}

/// CRC of header and body, without the CRC's own place.
pub(super) fn copy_crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CRC_AT]);
    hasher.update(&bytes[HEADER_LEN..]);
    hasher.finalize()
}

fn put_body(bytes: &mut Vec<u8>, manifest: &Manifest) {
    bytes.extend_from_slice(&manifest.cluster_id.to_le_bytes());
    bytes.extend_from_slice(&manifest.member_id.to_le_bytes());
    bytes.extend_from_slice(&manifest.incarnation.to_le_bytes());
    bytes.extend_from_slice(&manifest.applied_index.to_le_bytes());
    bytes.extend_from_slice(&manifest.applied_term.to_le_bytes());
    bytes.extend_from_slice(&manifest.revision.to_le_bytes());
    bytes.extend_from_slice(&manifest.compact_revision.to_le_bytes());
    bytes.extend_from_slice(&manifest.time_unix_ns.to_le_bytes());
    bytes.extend_from_slice(&manifest.system_sum.to_le_bytes());
    put_bytes(bytes, &manifest.conf_state);
    put_runs(bytes, &manifest.system_runs);
    put_count(bytes, manifest.shards.len());
    for shard in &manifest.shards {
        bytes.extend_from_slice(&shard.shard.to_le_bytes());
        bytes.extend_from_slice(&shard.sum.to_le_bytes());
        bytes.extend_from_slice(&shard.page_file.to_le_bytes());
        bytes.extend_from_slice(&shard.transaction.0.to_le_bytes());
        bytes.extend_from_slice(&shard.live_bytes.to_le_bytes());
        bytes.extend_from_slice(&shard.entries.to_le_bytes());
        put_bytes(bytes, shard.name.as_bytes());
        put_count(bytes, shard.prefixes.len());
        shard.prefixes.iter().for_each(|prefix| put_bytes(bytes, prefix));
        put_bytes(bytes, &shard.tree_root);
        put_bytes(bytes, &shard.map_root);
        put_runs(bytes, &shard.index_runs);
    }
}

/// A count; one beyond `u32` makes a body that is refused as too large.
fn put_count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_bytes(bytes: &mut Vec<u8>, field: &[u8]) {
    put_count(bytes, field.len());
    bytes.extend_from_slice(field);
}

fn put_runs(bytes: &mut Vec<u8>, runs: &[RunMeta]) {
    put_count(bytes, runs.len());
    runs.iter().for_each(|run| bytes.extend_from_slice(&run.encode()));
}

/// Reads one copy; bytes after it are ignored.
pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, Unreadable> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Err(Unreadable::Blank);
    }
    let damaged = Unreadable::Damaged;
    let header = bytes.first_chunk::<HEADER_LEN>().ok_or(damaged("cut short"))?;
    let mut fields = Fields { rest: header };
    if fields.array::<8>() != Ok(MAGIC) {
        return Err(damaged("not a manifest"));
    }
    let version = u16::from_le_bytes(fields.array().map_err(damaged)?);
    fields.array::<2>().map_err(damaged)?;
    let features = fields.u32().map_err(damaged)?;
    let generation = fields.u64().map_err(damaged)?;
    let body = fields.u32().map_err(damaged)? as usize;
    let crc = fields.u32().map_err(damaged)?;
    let copy = bytes.get(..HEADER_LEN + body).ok_or(damaged("cut short"))?;
    if copy_crc(copy) != crc {
        return Err(damaged("CRC mismatch"));
    }
    if !(VERSION_FIRST..=VERSION).contains(&version) || features & !FEATURES != 0 {
        return Err(Unreadable::Newer { version, features });
    }
    let mut manifest = take_body(generation, &copy[HEADER_LEN..]).map_err(damaged)?;
    manifest.version = version;
    manifest.log_restarts = features & FEATURE_LOG_RESTARTS != 0;
    manifest.check().map_err(damaged)?;
    Ok(manifest)
}

fn take_body(generation: u64, body: &[u8]) -> Result<Manifest, &'static str> {
    let mut fields = Fields { rest: body };
    let manifest = Manifest {
        version: VERSION_FIRST,
        generation,
        cluster_id: fields.u64()?,
        member_id: fields.u64()?,
        incarnation: fields.u128()?,
        applied_index: fields.u64()?,
        applied_term: fields.u64()?,
        revision: i64::from_le_bytes(fields.array()?),
        compact_revision: i64::from_le_bytes(fields.array()?),
        time_unix_ns: fields.u64()?,
        system_sum: fields.u128()?,
        conf_state: fields.bytes()?,
        system_runs: fields.list(Fields::run)?,
        shards: fields.list(Fields::shard)?,
        log_restarts: false,
    };
    if fields.rest.is_empty() { Ok(manifest) } else { Err("bytes after the last field") }
}

/// The fields not yet read.
struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (field, rest) = self.rest.split_first_chunk::<N>().ok_or("a field is cut short")?;
        self.rest = rest;
        Ok(*field)
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        self.array().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Result<u128, &'static str> {
        self.array().map(u128::from_le_bytes)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, &'static str> {
        let length = self.u32()? as usize;
        let (field, rest) = self.rest.split_at_checked(length).ok_or("a field is cut short")?;
        self.rest = rest;
        Ok(field.to_vec())
    }

    /// As many as a count says. Each takes at least a byte, so that a false count ends with the bytes; nothing is
    /// reserved for it.
    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, &'static str>) -> Result<Vec<T>, &'static str> {
        (0..self.u32()?).map(|_| item(self)).collect()
    }

    fn run(&mut self) -> Result<RunMeta, &'static str> {
        self.array::<RUN_META_LEN>().map(|bytes| RunMeta::decode(&bytes))
    }

    fn shard(&mut self) -> Result<ShardManifest, &'static str> {
        Ok(ShardManifest {
            shard: self.u32()?,
            sum: self.u128()?,
            page_file: self.u64()?,
            transaction: TransactionId(self.u64()?),
            live_bytes: self.u64()?,
            entries: self.u64()?,
            name: String::from_utf8(self.bytes()?).map_err(|_| "a name is not UTF-8")?,
            prefixes: self.list(Fields::bytes)?,
            tree_root: self.bytes()?,
            map_root: self.bytes()?,
            index_runs: self.list(Fields::run)?,
        })
    }
}
