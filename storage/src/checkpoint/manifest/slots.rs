//! Where the copies stand, and which of them counts.

use super::codec::{Unreadable, decode};
use super::content::Manifest;
use super::error::ManifestError;
use super::read_manifest::{BadCopy, ManifestFound, OUTDATED};

/// The manifest's file, in the root of the data directory.
pub const MANIFEST_NAME: &str = "manifest";
/// The longest manifest.
pub const SLOT_BYTES: usize = 64 << 10;
/// Generations alternate between so many slots.
pub(super) const SLOTS: u64 = 2;
/// Each slot stands so often in the file.
pub(super) const COPIES: u64 = 2;

/// The manifest's file, once all places are there.
pub const MANIFEST_FILE_BYTES: u64 = SLOTS * COPIES * SLOT_BYTES as u64;

/// One of the four places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: u64,
    pub(super) copy: u64,
}

impl Place {
    /// All places, in file order.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..COPIES).flat_map(|copy| (0..SLOTS).map(move |slot| Self { slot, copy }))
    }

    /// The places of a generation.
    pub(super) fn of(generation: u64) -> impl Iterator<Item = Self> {
        Self::all().filter(move |place| place.slot == generation % SLOTS)
    }

    pub(super) fn offset(self) -> u64 {
        (self.copy * SLOTS + self.slot) * SLOT_BYTES as u64
    }
}

/// Finds the newest valid of the copies, given the bytes of every place in order; `None` could not be read.
///
/// # Errors
/// [`ManifestError::Newer`] if a valid copy, old or not, is of a newer release.
pub(super) fn choose(copies: &[Option<bytes::Bytes>]) -> Result<ManifestFound, ManifestError> {
    let mut valid: Vec<(Place, Manifest)> = Vec::new();
    let mut bad = Vec::new();
    for (place, bytes) in Place::all().zip(copies) {
        match bytes.as_ref().map_or(Err(Unreadable::Damaged("unreadable")), |bytes| decode(bytes)) {
            Ok(manifest) if manifest.generation % SLOTS == place.slot => valid.push((place, manifest)),
            Ok(_) => bad.push((place, Some("of the other slot"))),
            Err(Unreadable::Blank) => bad.push((place, None)),
            Err(Unreadable::Damaged(reason)) => bad.push((place, Some(reason))),
            Err(Unreadable::Newer { version, features }) => return Err(ManifestError::Newer { version, features }),
        }
    }
    let newest = valid.iter().map(|(_, manifest)| manifest.generation).max().unwrap_or(0);
    // Before generation 2 the other slot is blank, and before generation 1 both are.
    let blank_is_fine = |place: Place| newest == 0 || (newest == 1 && place.slot != 1);
    bad.retain(|(place, reason)| reason.is_some() || !blank_is_fine(*place));
    let outdated = |(place, manifest): &(Place, Manifest)| {
        // A mirror that holds the generation before the last of its slot missed a write.
        let of_slot = valid.iter().filter(|(other, _)| other.slot == place.slot);
        of_slot.map(|(_, other)| other.generation).max() > Some(manifest.generation)
    };
    bad.extend(valid.iter().filter(|copy| outdated(copy)).map(|(place, _)| (*place, Some(OUTDATED))));
    bad.sort_by_key(|(place, _)| place.offset());
    let lost = |slot| {
        let intact = valid.iter().any(|(place, _)| place.slot == slot);
        !intact && bad.iter().any(|(place, _)| place.slot == slot)
    };
    let damaged = (0..SLOTS).any(lost);
    let bad_copies = bad
        .into_iter()
        .map(|(place, reason)| BadCopy { offset: place.offset(), reason: reason.unwrap_or("blank") })
        .collect();
    let manifest = valid.into_iter().map(|(_, manifest)| manifest).find(|manifest| manifest.generation == newest);
    Ok(ManifestFound { manifest, damaged, bad_copies })
}
