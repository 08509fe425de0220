//! `reseed`: a member whose log or pages are damaged comes back with the others' data (docs/decisions/0024).
//!
//! ```text
//!   removed ─► added as a learner ─► file `join` ─► old data moved aside ─► (started) ─► brought the state ─► promoted
//! ```
//!
//! Each step finds out whether it was done before: the same command goes on where it was stopped.

use std::path::{Path, PathBuf};
use std::{fs, io};

use basalt_proto::etcdserverpb::Member;
use basalt_storage::checkpoint::manifest::{Manifest, read_job};
use basalt_storage::disk::{LockError, RealDisk};
use basalt_storage::job::{BUDGET_UNLIMITED, run};
use time::OffsetDateTime;
use time::macros::format_description;

use super::connection::Connector;
use super::members::{add, initial_cluster, remove, unstarted_at};
use super::waiting::until_promoted;
use super::{ClusterError, ClusterOptions};
use crate::apply::members::Members;
use crate::config::{GENERATED_FOLDER, JoinFile};

/// How the place of the old data begins; a time follows.
const ASIDE: &str = "reseeded-";
/// What stays where it is.
const LOCK: &str = "lock";

/// Which member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) struct ReseedOptions {
    pub data_dir: PathBuf,
    pub wal_dir: Option<PathBuf>,
    /// Its id, for a directory that cannot say it any more.
    pub member: Option<u64>,
    /// Whether it is waited for, and promoted.
    pub waits: bool,
}

/// Who a member was.
struct Former {
    id: u64,
    name: String,
    peer_urls: Vec<String>,
}

/// Does it; gives what to print.
pub(in crate::control) async fn reseed(
    options: &ReseedOptions,
    cluster: &ClusterOptions,
) -> Result<String, ClusterError> {
    let directory = &options.data_dir;
    let failed = |error: io::Error| ClusterError::Other(format!("cannot use {}: {error}", directory.display()));
    if !fs::metadata(directory).map_err(failed)?.is_dir() {
        return Err(ClusterError::Other(format!("{} is no directory", directory.display())));
    }
    let connector = Connector::new(cluster);
    let (connection, members) = connector.any(&cluster.endpoints).await?;
    let pending = pending(directory)?;

    let disk = RealDisk::open(directory).map_err(failed)?;
    let id = match (disk.lock(), &pending) {
        (Ok(_lock), _) => {
            let manifest = run(&mut read_job(), &disk, BUDGET_UNLIMITED).ok().and_then(|found| found.manifest);
            match under_way(pending.as_ref(), manifest.as_ref(), &members) {
                Some(id) => {
                    eprintln!("member {id:x} was added before; going on");
                    move_aside(options)?;
                    id
                }
                None => {
                    let former = former(options, manifest.as_ref(), pending.as_ref(), &members)?;
                    let id = exchange(&connector, &connection, &former, &members, directory).await?;
                    move_aside(options)?;
                    id
                }
            }
        }
        // It was started already: only the rest is to do.
        (Err(LockError::Held { .. }), Some(file)) => parsed_id(&file.member_id)?,
        (Err(error), _) => {
            return Err(ClusterError::Other(format!(
                "{error}: stop the member first, so that its data can be moved aside"
            )));
        }
    };
    if !options.waits {
        return Ok(format!("Start the member with its flags; then: basaltctl member promote {id:x}\n"));
    }
    eprintln!("start the member now, with its flags; it is promoted when it has caught up");
    until_promoted(&connector, &connection, id, cluster.wait_timeout).await?;
    Ok(format!(
        "Member {id:x} has the data of the others and votes. Remove {ASIDE}* from its directories when you do not need the old data\n"
    ))
}

/// What an earlier try left.
fn pending(directory: &Path) -> Result<Option<JoinFile>, ClusterError> {
    let path = directory.join(JoinFile::NAME);
    match fs::read(&path) {
        // Written whole or not at all: one that cannot be read is somebody else's, and is said to be.
        Ok(bytes) => JoinFile::decode(&bytes)
            .map(Some)
            .map_err(|error| ClusterError::Other(format!("{}: {error}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ClusterError::Other(format!("{}: {error}", path.display()))),
    }
}

/// The member that an earlier try has added, if it has never run: then what lies there is the old data yet.
fn under_way(pending: Option<&JoinFile>, manifest: Option<&Manifest>, members: &[Member]) -> Option<u64> {
    let id = u64::from_str_radix(&pending?.member_id, 16).ok()?;
    let has_run = manifest.is_some_and(|manifest| manifest.member_id == id);
    let waits = members.iter().any(|member| member.id == id && member.name.is_empty());
    (waits && !has_run).then_some(id)
}

/// Who the member was: as its directory says, or as it is told.
fn former(
    options: &ReseedOptions,
    manifest: Option<&Manifest>,
    pending: Option<&JoinFile>,
    members: &[Member],
) -> Result<Former, ClusterError> {
    let joined = pending.and_then(|file| u64::from_str_radix(&file.member_id, 16).ok());
    let id = options.member.or(manifest.map(|manifest| manifest.member_id)).or(joined).ok_or_else(|| {
        ClusterError::Other(format!(
            "{} does not say any more which member's it was: find it with `basaltctl member list`, and give --member ID",
            options.data_dir.display()
        ))
    })?;
    let listed = members.iter().find(|member| member.id == id);
    if let Some(Member { name, peer_urls, .. }) = listed {
        return Ok(Former { id, name: name.clone(), peer_urls: peer_urls.clone() });
    }
    // Removed by an earlier try, or by somebody else.
    let known = manifest.and_then(|manifest| Members::decode(&manifest.conf_state).ok());
    let known = known.as_ref().and_then(|known| known.get(id));
    known.map(|member| Former { id, name: member.name.clone(), peer_urls: member.peer_urls.clone() }).ok_or_else(|| {
        ClusterError::Other(format!(
            "no member {id:x} is in this cluster: check --endpoints, or add one (`basaltctl member add`) and start it with an \
             empty directory"
        ))
    })
}

/// Removes the member, adds it anew as a learner, and writes down as whom it is to come back.
async fn exchange(
    connector: &Connector,
    connection: &super::connection::Connection,
    former: &Former,
    members: &[Member],
    directory: &Path,
) -> Result<u64, ClusterError> {
    let Former { id, name, peer_urls } = former;
    if members.iter().any(|member| member.id == *id) {
        remove(connector, connection, *id).await?;
        eprintln!("member {id:x} removed");
    }
    let added = match unstarted_at(members, peer_urls) {
        Some(member) => member.id,
        None => add(connector, connection, peer_urls, true).await?.member.map_or(0, |member| member.id),
    };
    let members =
        connector.within(connection.members()).await.map_err(ClusterError::refused("cannot list the members"))?;
    let file = JoinFile {
        member_id: format!("{added:x}"),
        initial_cluster: initial_cluster(&members, added, name),
        peer_urls: peer_urls.clone(),
    };
    let path = directory.join(JoinFile::NAME);
    write_durably(directory, &path, &file.encode())
        .map_err(|error| ClusterError::Other(format!("cannot write {}: {error}", path.display())))?;
    eprintln!("member {added:x} added as a learner in its place");
    Ok(added)
}

/// Moves all data aside, within its directory: that may be a file system of its own.
fn move_aside(options: &ReseedOptions) -> Result<(), ClusterError> {
    for directory in std::iter::once(&options.data_dir).chain(&options.wal_dir) {
        let moved = move_names(directory);
        let place = moved.map_err(|error| {
            ClusterError::Other(format!(
                "cannot move the data in {} aside: {error}; run the same command again",
                directory.display()
            ))
        })?;
        if let Some(place) = place {
            eprintln!("the old data is in {}", place.display());
        }
    }
    Ok(())
}

fn move_names(directory: &Path) -> io::Result<Option<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let stays = name == LOCK
            || name == JoinFile::NAME
            || name == GENERATED_FOLDER
            || name.to_string_lossy().starts_with(ASIDE);
        if !stays {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Ok(None);
    }
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let time = OffsetDateTime::now_utc().format(format).map_err(io::Error::other)?;
    let place = directory.join(format!("{ASIDE}{time}"));
    fs::create_dir_all(&place)?;
    for name in names {
        fs::rename(directory.join(&name), place.join(&name))?;
    }
    fs::File::open(&place)?.sync_all()?;
    fs::File::open(directory)?.sync_all()?;
    Ok(Some(place))
}

/// A whole file or none, after a crash too.
fn write_durably(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, bytes)?;
    fs::File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, path)?;
    fs::File::open(directory)?.sync_all()
}

fn parsed_id(text: &str) -> Result<u64, ClusterError> {
    u64::from_str_radix(text, 16).map_err(|_| ClusterError::Other(format!("{text:?} is no member's id")))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn file(id: u64) -> JoinFile {
        JoinFile { member_id: format!("{id:x}"), initial_cluster: "a=http://a:1".to_owned(), peer_urls: Vec::new() }
    }

    fn member(id: u64, name: &str) -> Member {
        Member { id, name: name.to_owned(), peer_urls: vec!["http://m:1".to_owned()], ..Member::default() }
    }

    #[test]
    fn a_member_that_has_run_is_no_earlier_try() {
        let of = |member_id| Manifest { member_id, ..Manifest::default() };
        assert_eq!(under_way(None, None, &[member(5, "")]), None);
        assert_eq!(under_way(Some(&file(5)), Some(&of(4)), &[member(5, "")]), Some(5));
        assert_eq!(under_way(Some(&file(5)), None, &[member(5, "")]), Some(5));
        // Its data is new, or it said its name: the directory holds what it was brought.
        assert_eq!(under_way(Some(&file(5)), Some(&of(5)), &[member(5, "")]), None);
        assert_eq!(under_way(Some(&file(5)), None, &[member(5, "five")]), None);
        assert_eq!(under_way(Some(&file(5)), None, &[]), None);
    }

    #[test]
    fn a_directory_that_says_nothing_needs_to_be_told() {
        let options = |member| ReseedOptions { data_dir: "d".into(), wal_dir: None, member, waits: true };
        let members = [member(5, "five")];
        assert!(
            former(&options(None), None, None, &members).err().expect("unknown").to_string().contains("--member ID")
        );
        assert_eq!(
            former(&options(Some(5)), None, None, &members).ok().map(|former| former.name),
            Some("five".to_owned())
        );
        assert_eq!(former(&options(None), None, Some(&file(5)), &members).ok().map(|former| former.id), Some(5));
        assert!(former(&options(Some(6)), None, None, &members).is_err());
        // Removed before: its own directory knows where it was reached.
        let known = basalt_proto::members::Member { id: 7, name: "seven".to_owned(), ..Default::default() };
        let manifest =
            Manifest { member_id: 7, conf_state: Members::first(vec![known]).encode().to_vec(), ..Manifest::default() };
        assert_eq!(
            former(&options(None), Some(&manifest), None, &members).ok().map(|former| former.name),
            Some("seven".to_owned())
        );
    }

    #[test]
    fn old_data_is_moved_aside_and_a_second_time_nothing_is() {
        let directory = TempDir::new().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        for name in [LOCK, JoinFile::NAME, "manifest"] {
            fs::write(path(name), name).expect("room for it");
        }
        fs::create_dir(path("pages")).expect("room for it");
        fs::create_dir(path(GENERATED_FOLDER)).expect("room for it");
        let place = move_names(directory.path()).expect("moved").expect("there was something");
        assert_eq!(fs::read(place.join("manifest")).expect("there"), b"manifest");
        assert!(place.join("pages").is_dir() && !path("manifest").exists());
        // Clients may trust the certificate there as itself.
        assert!(path(LOCK).exists() && path(JoinFile::NAME).exists() && path(GENERATED_FOLDER).exists());
        assert_eq!(move_names(directory.path()).expect("looked"), None);
    }

    #[test]
    fn the_file_is_there_whole() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join(JoinFile::NAME);
        assert_eq!(pending(directory.path()).expect("none is none"), None);
        write_durably(directory.path(), &path, &file(5).encode()).expect("room for it");
        assert_eq!(pending(directory.path()).expect("written just now"), Some(file(5)));
        fs::write(&path, "{").expect("room for it");
        assert!(pending(directory.path()).is_err());
    }
}
