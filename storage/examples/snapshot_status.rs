//! Prints what `etcdutl snapshot status` prints of a snapshot or a copied database file: digest, entries of each
//! bucket, and the hash over all of them.

use std::error::Error;

use basalt_storage::hashes::{ContentHash, HashedContent};
use basalt_storage::snapshot::bbolt::{Item, Reader};
use basalt_storage::snapshot::check_digest;
use bytes::Bytes;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: snapshot_status FILE")?;
    let file = Bytes::from(std::fs::read(path)?);
    println!("digest {:?}", check_digest(&file)?);
    let mut hash = ContentHash::new(HashedContent::All);
    let mut counts: Vec<(String, u64)> = Vec::new();
    for item in Reader::open(file)?.items() {
        match item? {
            Item::Bucket(name) => {
                hash.bucket(&name);
                counts.push((String::from_utf8_lossy(&name).into_owned(), 0));
            }
            Item::Entry { key, value } => {
                hash.entry(&key, &value);
                counts.last_mut().ok_or("entry before any bucket")?.1 += 1;
            }
        }
    }
    counts.iter().for_each(|(name, count)| println!("bucket {name} {count}"));
    println!("hash {}", hash.finish());
    Ok(())
}
