//! Log files that were put aside: their names, how many stay and how long, and their compression.
//!
//! All is named as lumberjack names it, which etcd rotates with: `etcd.log` becomes `etcd-2026-08-20T15-13-15.123.log`, and
//! that with `.gz` behind it. So whoever ships these files goes on, and each of the two programs tidies up behind the other.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Duration, OffsetDateTime, PrimitiveDateTime, UtcOffset};

use crate::config::LogRotation;

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]-[minute]-[second].[subsecond digits:3]");
const COMPRESSED: &str = ".gz";
/// Times that are tried for a name that is not taken; files are put aside once in a mebibyte of lines.
const NAME_TRIES: i64 = 1000;

/// The files that one log file has left.
#[derive(Debug)]
pub(super) struct Backups {
    folder: PathBuf,
    /// What stands before the time, with its dash.
    prefix: String,
    /// What stands behind it, with its dot.
    suffix: String,
    rules: LogRotation,
}

/// One of them.
#[derive(Debug)]
struct Backup {
    /// As its name tells it.
    time: PrimitiveDateTime,
    /// Without the ending of a compressed one.
    plain_name: String,
    is_compressed: bool,
}

impl Backup {
    fn name(&self) -> String {
        if self.is_compressed { format!("{}{COMPRESSED}", self.plain_name) } else { self.plain_name.clone() }
    }
}

impl Backups {
    /// Those of the file at `path`.
    pub(super) fn of(path: &Path, rules: LogRotation) -> Self {
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let (stem, suffix) = name.split_at(name.rfind('.').unwrap_or(name.len()));
        Self { folder, prefix: format!("{stem}-"), suffix: suffix.to_owned(), rules }
    }

    /// A name for what is put aside at `now`: the next free one, since no line may be lost to a second file of the same time.
    pub(super) fn free_name(&self, now: OffsetDateTime) -> io::Result<PathBuf> {
        let offset = if self.rules.local_time { local_offset(now) } else { UtcOffset::UTC };
        for milliseconds in 0..NAME_TRIES {
            let time = (now + Duration::milliseconds(milliseconds)).to_offset(offset);
            let time = time.format(TIME).map_err(io::Error::other)?;
            let name = format!("{}{time}{}", self.prefix, self.suffix);
            let is_taken = |name: &str| fs::symlink_metadata(self.folder.join(name)).is_ok();
            if !is_taken(&name) && !is_taken(&format!("{name}{COMPRESSED}")) {
                return Ok(self.folder.join(name));
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Whether there is ever anything to be done.
    pub(super) fn need_tidying(&self) -> bool {
        self.rules.backups_max > 0 || self.rules.age_days_max > 0 || self.rules.compress
    }

    /// Removes those that are too many or too old, and compresses the others.
    ///
    /// # Errors
    /// The first; what could be done was done.
    pub(super) fn tidy(&self, now: OffsetDateTime) -> io::Result<()> {
        let mut result = Ok(());
        let mut stay = Vec::new();
        // A time in a name counts as UTC, whatever it is, as in lumberjack.
        let now = PrimitiveDateTime::new(now.to_offset(UtcOffset::UTC).date(), now.to_offset(UtcOffset::UTC).time());
        let days = i64::try_from(self.rules.age_days_max).unwrap_or(i64::MAX);
        let oldest = (days > 0).then(|| now.checked_sub(Duration::days(days.min(MANY_DAYS)))).flatten();
        let mut seen: Vec<String> = Vec::new();
        for backup in self.list()? {
            // One whose compression was cut off is there twice.
            if seen.last() != Some(&backup.plain_name) {
                seen.push(backup.plain_name.clone());
            }
            let is_too_many = self.rules.backups_max > 0 && seen.len() > self.rules.backups_max;
            if is_too_many || oldest.is_some_and(|oldest| backup.time < oldest) {
                result = result.and(fs::remove_file(self.folder.join(backup.name())));
            } else {
                stay.push(backup);
            }
        }
        for backup in stay.iter().filter(|backup| self.rules.compress && !backup.is_compressed) {
            let source = self.folder.join(&backup.plain_name);
            result = result.and(compress(&source, &self.folder.join(format!("{}{COMPRESSED}", backup.plain_name))));
        }
        result
    }

    /// The newest first.
    fn list(&self) -> io::Result<Vec<Backup>> {
        let mut backups = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|_| entry.file_type().is_ok_and(|kind| kind.is_file())) else {
                continue;
            };
            let plain = name.strip_suffix(COMPRESSED);
            for (plain_name, is_compressed) in [(Some(name), false), (plain, true)] {
                if let Some(plain_name) = plain_name
                    && let Some(time) = self.time_in(plain_name)
                {
                    backups.push(Backup { time, plain_name: plain_name.to_owned(), is_compressed });
                    break;
                }
            }
        }
        backups.sort_by(|one, other| (other.time, &other.plain_name).cmp(&(one.time, &one.plain_name)));
        Ok(backups)
    }

    fn time_in(&self, name: &str) -> Option<PrimitiveDateTime> {
        let time = name.strip_prefix(&self.prefix)?.strip_suffix(&self.suffix)?;
        PrimitiveDateTime::parse(time, TIME).ok()
    }
}

/// More than there are days since the beginning of the calendar: nothing is as old.
const MANY_DAYS: i64 = 1_000_000;

/// A compression that was cut off leaves the source, and is begun anew.
fn compress(source: &Path, target: &Path) -> io::Result<()> {
    let mut plain = File::open(source)?;
    let mode = plain.metadata()?.permissions().mode();
    let packed = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(target)?;
    let mut packer = GzEncoder::new(packed, Compression::default());
    let copied = io::copy(&mut plain, &mut packer).and_then(|_| packer.finish());
    match copied {
        Ok(_) => fs::remove_file(source),
        Err(error) => {
            // What is cut off is no backup; if it stays, the next try writes over it.
            let _ = fs::remove_file(target);
            Err(error)
        }
    }
}

/// What local time is ahead of UTC; nothing where the system does not say.
fn local_offset(now: OffsetDateTime) -> UtcOffset {
    let zone = match std::env::var("TZ") {
        Ok(name) if name.is_empty() => return UtcOffset::UTC,
        Ok(name) => tz::TimeZone::from_posix_tz(&name),
        Err(_) => tz::TimeZone::local(),
    };
    let seconds = zone.ok().and_then(|zone| Some(zone.find_local_time_type(now.unix_timestamp()).ok()?.ut_offset()));
    seconds.and_then(|seconds| UtcOffset::from_whole_seconds(seconds).ok()).unwrap_or(UtcOffset::UTC)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use tempfile::TempDir;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-08-20 15:13:15.123 UTC);

    fn rules() -> LogRotation {
        LogRotation { size_bytes_max: 1 << 20, age_days_max: 0, backups_max: 0, local_time: false, compress: false }
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder.path()).expect("listed");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }

    fn with(files: &[&str]) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for name in files {
            fs::write(folder.path().join(name), name).expect("written");
        }
        folder
    }

    #[test]
    fn names_are_lumberjacks() {
        let folder = with(&["etcd-2026-08-20T15-13-15.123.log", "etcd-2026-08-20T15-13-15.124.log.gz"]);
        let name = |file: &str| {
            let backups = Backups::of(&folder.path().join(file), rules());
            backups.free_name(NOW).expect("free").file_name().expect("a name").to_owned()
        };
        assert_eq!(name("other.log"), "other-2026-08-20T15-13-15.123.log");
        assert_eq!(name("a.b.c"), "a.b-2026-08-20T15-13-15.123.c");
        assert_eq!(name("plain"), "plain-2026-08-20T15-13-15.123");
        assert_eq!(name(".log"), "-2026-08-20T15-13-15.123.log");
        assert_eq!(
            name("etcd.log"),
            "etcd-2026-08-20T15-13-15.125.log",
            "neither the plain nor the packed one is lost"
        );
        assert_eq!(Backups::of(Path::new("etcd.log"), rules()).folder, Path::new("."));
    }

    #[test]
    fn those_that_are_too_many_go() {
        let days = ["21", "22", "23", "24"].map(|day| format!("etcd-2026-07-{day}T00-00-00.000.log"));
        let mut files: Vec<&str> = days.iter().map(String::as_str).collect();
        // The newest is there twice: its compression was cut off.
        let twice = format!("{}.gz", days[3]);
        files.extend([
            &*twice,
            "etcd.log",
            "etcd-what.log",
            "etcd-2026-07-20T00-00-00.000.txt",
            "x-2026-07-20T00-00-00.000.log",
        ]);
        let folder = with(&files);
        fs::create_dir(folder.path().join("etcd-2026-07-01T00-00-00.000.log")).expect("made");
        Backups::of(&folder.path().join("etcd.log"), LogRotation { backups_max: 2, ..rules() })
            .tidy(NOW)
            .expect("tidied");
        let mut expected: Vec<&str> =
            files.into_iter().filter(|name| !name.contains("07-21") && !name.contains("07-22")).collect();
        expected.push("etcd-2026-07-01T00-00-00.000.log");
        expected.sort_unstable();
        assert_eq!(names(&folder), expected);
    }

    #[test]
    fn those_that_are_too_old_go() {
        let files = ["e-2026-08-10T15-13-15.122", "e-2026-08-10T15-13-15.123", "e-0001-01-01T00-00-00.000.gz"];
        let folder = with(&files);
        let backups = |days| Backups::of(&folder.path().join("e"), LogRotation { age_days_max: days, ..rules() });
        backups(u64::MAX).tidy(NOW).expect("tidied");
        assert_eq!(names(&folder).len(), 3);
        backups(10).tidy(NOW).expect("tidied");
        assert_eq!(names(&folder), [files[1]]);
    }

    #[test]
    fn those_that_stay_are_packed() {
        let name = "e-2026-08-10T00-00-00.000.log";
        let folder = with(&[name]);
        let backups = Backups::of(&folder.path().join("e.log"), LogRotation { compress: true, ..rules() });
        fs::write(folder.path().join(format!("{name}.gz")), "half").expect("cut off");
        backups.tidy(NOW).expect("tidied");
        backups.tidy(NOW).expect("nothing is left to do");
        assert_eq!(names(&folder), [format!("{name}.gz")]);
        let mut text = String::new();
        let packed = File::open(folder.path().join(format!("{name}.gz"))).expect("opened");
        GzDecoder::new(packed).read_to_string(&mut text).expect("gzip");
        assert_eq!(text, name);
    }
}
