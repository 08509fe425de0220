//! The file `join` of a data directory without data: what `basaltctl reseed` leaves for the next start, which may have the
//! flags of a first one.

use serde::{Deserialize, Serialize};

use super::bootstrap::parse_initial_cluster;
use super::url::Url;

/// As whom a member without data joins which cluster.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JoinFile {
    /// Its id there, in hexadecimal digits.
    pub member_id: String,
    /// As the flag of that name: all members, this one too.
    pub initial_cluster: String,
    /// Where the others reach it.
    pub peer_urls: Vec<String>,
}

impl JoinFile {
    /// Its name in the data directory.
    pub const NAME: &str = "join";

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let advice = "run `basaltctl reseed` again";
        let file: Self = serde_json::from_slice(bytes).map_err(|error| format!("{error}; {advice}"))?;
        file.cluster().and_then(|_| file.urls()).map_err(|error| format!("{error}; {advice}"))?;
        Ok(file)
    }

    /// One line.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).expect("three texts always encode");
        text.push(b'\n');
        text
    }

    /// All members, sorted by name.
    ///
    /// # Errors
    /// A URL that is none.
    pub fn cluster(&self) -> Result<Vec<(String, Vec<Url>)>, String> {
        parse_initial_cluster(&self.initial_cluster)
    }

    /// Where the others reach this member.
    ///
    /// # Errors
    /// A URL that is none.
    pub fn urls(&self) -> Result<Vec<Url>, String> {
        self.peer_urls.iter().map(|url| Url::parse(url)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let file = JoinFile {
            member_id: "ab".to_owned(),
            initial_cluster: "a=http://a:2380,b=http://b:2380".to_owned(),
            peer_urls: vec!["http://b:2380".to_owned()],
        };
        let read = JoinFile::decode(&file.encode()).expect("written just now");
        assert_eq!((read.cluster().expect("URLs").len(), &read), (2, &file));
        for bad in [&b""[..], b"{}", b"[1]", b"{\"member_id\":\"a\",\"initial_cluster\":\"a=x\",\"peer_urls\":[]}"] {
            assert!(JoinFile::decode(bad).expect_err("not one").contains("basaltctl reseed"));
        }
    }
}
