//! A shard map as text, as an operator writes it: `main;events=/registry/events/;leases=/a/,/b/`.
//!
//! Shards are separated by `;`, the first has a name alone and takes the rest, each other one a name, `=` and its
//! prefixes, separated by `,`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::shard_map::{ShardMap, ShardSpec};

/// Shards of one map: each costs files, a hub of watchers and a share of every budget.
pub const SHARDS_MAX: usize = 16;
/// Prefixes of one map, of all its shards together. With [`PREFIX_BYTES_MAX`] they take a quarter of a manifest's slot.
pub const PREFIXES_MAX: usize = 64;
/// Bytes of one prefix.
pub const PREFIX_BYTES_MAX: usize = 256;
/// Bytes of a shard's name, which is a label of metrics.
pub const NAME_BYTES_MAX: usize = 32;

/// Why a text is no shard map.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShardMapTextError {
    /// Not a name.
    #[error("the name {0:?} of a shard is not 1 to 32 of a-z, 0-9 and -")]
    Name(String),
    /// Metrics could not tell them apart.
    #[error("two shards have the name {0:?}")]
    NameTwice(String),
    /// The first shard takes what no prefix claims.
    #[error("the first shard takes all keys that no other claims: {0:?} must be a name alone")]
    FirstWithPrefixes(String),
    /// A further shard would stay empty.
    #[error("the shard {0:?} has no prefixes: write name=/prefix/")]
    WithoutPrefixes(String),
    /// Not a prefix.
    #[error(
        "the prefix {0:?} is not 1 to 256 printable characters of ASCII, other than space , ; and =, that end in '/'"
    )]
    Prefix(String),
    /// Which shard would have it?
    #[error("the prefix {0:?} stands there twice")]
    PrefixTwice(String),
    /// Too many of them.
    #[error("{count} {what} are more than {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
}

impl FromStr for ShardMap {
    type Err = ShardMapTextError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let specs: Vec<_> = text.split(';').collect();
        limit("shards", specs.len(), SHARDS_MAX)?;
        let (mut names, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
        let mut shards = Vec::with_capacity(specs.len());
        for (position, spec) in specs.into_iter().enumerate() {
            let shard = shard(position, spec)?;
            if !names.insert(shard.name.clone()) {
                return Err(ShardMapTextError::NameTwice(shard.name));
            }
            for prefix in &shard.prefixes {
                if !prefixes.insert(prefix.clone()) {
                    return Err(ShardMapTextError::PrefixTwice(String::from_utf8_lossy(prefix).into_owned()));
                }
            }
            shards.push(shard);
        }
        limit("prefixes", prefixes.len(), PREFIXES_MAX)?;
        Ok(Self::new(shards))
    }
}

fn limit(what: &'static str, count: usize, most: usize) -> Result<(), ShardMapTextError> {
    if count > most {
        return Err(ShardMapTextError::TooMany { what, count, most });
    }
    Ok(())
}

fn shard(position: usize, spec: &str) -> Result<ShardSpec, ShardMapTextError> {
    let (name, list) = spec.split_once('=').map_or((spec, None), |(name, list)| (name, Some(list)));
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_name) {
        return Err(ShardMapTextError::Name(name.to_owned()));
    }
    let prefixes = match (position, list) {
        (0, None) => Vec::new(),
        (0, Some(_)) => return Err(ShardMapTextError::FirstWithPrefixes(spec.to_owned())),
        (_, None | Some("")) => return Err(ShardMapTextError::WithoutPrefixes(name.to_owned())),
        (_, Some(list)) => list.split(',').map(prefix).collect::<Result<_, _>>()?,
    };
    Ok(ShardSpec { name: name.to_owned(), prefixes })
}

fn prefix(text: &str) -> Result<Vec<u8>, ShardMapTextError> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !b",;=".contains(&byte);
    if !text.ends_with('/') || text.len() > PREFIX_BYTES_MAX || !text.bytes().all(fits) {
        return Err(ShardMapTextError::Prefix(text.to_owned()));
    }
    Ok(text.as_bytes().to_vec())
}

impl fmt::Display for ShardMap {
    /// The text that [`FromStr`] reads, for a map that came from one.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, shard) in self.shards().iter().enumerate() {
            let prefixes: Vec<_> = shard.prefixes.iter().map(|prefix| String::from_utf8_lossy(prefix)).collect();
            let separator = if position == 0 { "" } else { ";" };
            let equals = if prefixes.is_empty() { "" } else { "=" };
            write!(formatter, "{separator}{}{equals}{}", shard.name, prefixes.join(","))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mvcc::shard_map::ShardId;

    #[test]
    fn a_map_is_read_and_written_as_the_same_text() {
        let default = "main;events=/registry/events/;leases=/registry/leases/,/registry/masterleases/";
        assert_eq!(default.parse(), Ok(ShardMap::default()));
        for text in ["main", default, "a;b=/;c-1=/x/,/x/y/;d=x/"] {
            assert_eq!(text.parse::<ShardMap>().expect(text).to_string(), text);
        }
        let nested: ShardMap = "main;a=/x/;b=/x/y/".parse().expect("prefixes may lie in each other");
        assert_eq!(nested.shard_of(b"/x/y"), ShardId(2));
    }

    #[test]
    fn what_is_no_map_says_why() {
        let many = |count: usize| (1..count).map(|n| format!(";s{n}=/{n}/")).collect::<String>();
        let prefixes = |count: usize| (0..count).map(|n| format!("/{n}/")).collect::<Vec<_>>().join(",");
        assert!(format!("main{}", many(SHARDS_MAX)).parse::<ShardMap>().is_ok());
        assert!(format!("main;a={}", prefixes(PREFIXES_MAX)).parse::<ShardMap>().is_ok());
        for (text, part) in [
            (String::new(), "the name \"\""),
            ("Main".to_owned(), "the name \"Main\""),
            ("a".repeat(NAME_BYTES_MAX + 1), "is not 1 to 32"),
            ("main;".to_owned(), "the name \"\""),
            ("main;main=/a/".to_owned(), "two shards have the name \"main\""),
            ("main=/a/".to_owned(), "\"main=/a/\" must be a name alone"),
            ("main;a".to_owned(), "the shard \"a\" has no prefixes"),
            ("main;a=".to_owned(), "the shard \"a\" has no prefixes"),
            ("main;a=/a".to_owned(), "the prefix \"/a\" is not"),
            ("main;a=/a/,".to_owned(), "the prefix \"\" is not"),
            ("main;a=/ä/".to_owned(), "the prefix \"/ä/\" is not"),
            ("main;a=/a /".to_owned(), "the prefix \"/a /\" is not"),
            (format!("main;a={}/", "x".repeat(PREFIX_BYTES_MAX)), "is not 1 to 256"),
            ("main;a=/a/;b=/a/".to_owned(), "the prefix \"/a/\" stands there twice"),
            ("main;a=/a/,/a/".to_owned(), "the prefix \"/a/\" stands there twice"),
            (format!("main{}", many(SHARDS_MAX + 1)), "17 shards are more than 16"),
            (format!("main;a={}", prefixes(PREFIXES_MAX + 1)), "65 prefixes are more than 64"),
        ] {
            let error = text.parse::<ShardMap>().expect_err(&text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn texts_never_panic(text in "[a/=;,-]{0,24}") {
            if let Ok(map) = text.parse::<ShardMap>() {
                prop_assert_eq!(map.to_string(), text);
            }
        }
    }
}
