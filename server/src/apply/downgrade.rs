//! A downgrade under way: the cluster says that it is of the minor release before, so that a snapshot of it is one for that
//! release. etcd's members are replaced one by one then; ours stay, since no other release reads their files, and the way
//! down is the snapshot (docs/decisions/0033).

use std::fmt;

use basalt_proto::membershippb::DowngradeInfoSetRequest;
use basalt_storage::mvcc::system::{System, Table};
use bytes::Bytes;
use thiserror::Error;

use super::answer::{Answer, Refusal};
use super::effects::Effect;

/// Where the target stands in [`Table::Cluster`], as text; nothing stands there while none is under way.
const KEY: &[u8] = b"downgrade";

/// A minor release of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    major: i64,
    minor: i64,
}

/// The release that we speak like (DESIGN D6).
pub const NEWEST: Release = Release { major: 3, minor: 7 };

/// A record of a downgrade that this release cannot be in.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "a downgrade to {found:?} is under way in this data, which this release knows nothing of: start the one that began it"
)]
pub struct UnknownDowngrade {
    found: String,
}

/// What is under way, if anything is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Downgrade {
    target: Option<Release>,
}

impl Release {
    /// Reads a version as etcd's semver does: three numbers, or two; what makes a patch or a candidate of it is dropped.
    pub fn parse(text: &str) -> Option<Self> {
        Self::of_triple(text).or_else(|| Self::of_triple(&format!("{text}.0")))
    }

    fn of_triple(text: &str) -> Option<Self> {
        let (text, metadata) = text.split_once('+').unwrap_or((text, ""));
        let (text, candidate) = text.split_once('-').unwrap_or((text, ""));
        if !is_identifier(metadata) || !is_identifier(candidate) {
            return None;
        }
        let mut numbers = text.splitn(3, '.').map(|number| number.parse::<i64>().ok());
        let (major, minor, _patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(Self { major, minor })
    }

    /// The one before, to which alone etcd goes down.
    pub fn before(self) -> Self {
        Self { minor: self.minor - 1, ..self }
    }

    /// Without the patch, as etcd labels its metric of the cluster's version and answers about downgrades.
    pub fn minor_text(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

/// Words of letters, digits and dashes between dots; or nothing.
fn is_identifier(text: &str) -> bool {
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    text.is_empty() || text.split('.').all(is_word)
}

impl fmt::Display for Release {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.0", self.major, self.minor)
    }
}

impl Downgrade {
    /// To a release, or none.
    ///
    /// # Errors
    /// One that this release cannot go down to.
    pub fn to(target: Option<&str>) -> Result<Self, UnknownDowngrade> {
        let Some(text) = target else { return Ok(Self::default()) };
        match Release::parse(text) {
            Some(target) if target == NEWEST.before() => Ok(Self { target: Some(target) }),
            _ => Err(UnknownDowngrade { found: text.chars().take(40).collect() }),
        }
    }

    /// What the tables say.
    ///
    /// # Errors
    /// [`UnknownDowngrade`]: a later release went down from what this one does not know.
    pub fn load(system: &System) -> Result<Self, UnknownDowngrade> {
        let target = system.get(Table::Cluster, KEY).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Self::to(target.as_deref())
    }

    /// The record in [`Table::Cluster`].
    pub fn record(self) -> (&'static [u8], Option<Bytes>) {
        (KEY, self.target.map(|target| target.to_string().into()))
    }

    /// Whether a record of [`Table::Cluster`] is this one's.
    pub fn is_key(key: &[u8]) -> bool {
        key == KEY
    }

    /// Where to.
    pub fn target(self) -> Option<Release> {
        self.target
    }

    /// What the cluster says that it is, and what its snapshots are.
    pub fn cluster_version(self) -> Release {
        self.target.unwrap_or(NEWEST)
    }

    /// Whether one to `target` may begin.
    ///
    /// # Errors
    /// etcd's two, in its order.
    pub fn check(self, target: Option<Release>) -> Result<Release, Refusal> {
        match target {
            Some(target) if target == self.cluster_version().before() => match self.target {
                Some(_) => Err(Refusal::DowngradeUnderWay),
                None => Ok(target),
            },
            _ => Err(Refusal::DowngradeTarget),
        }
    }

    /// Begins or ends one. The answer tells the version before, as etcd's does, whose leader changes it a moment later.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn evaluate(self, request: &DowngradeInfoSetRequest, revision: i64) -> Result<(Vec<Effect>, Answer), Refusal> {
        let target = if request.enabled { Some(self.check(Release::parse(&request.ver))?) } else { None };
        let after = Self { target };
        let effects = (after != self).then_some(Effect::DowngradeSet(after)).into_iter().collect();
        Ok((effects, Answer::Downgrade { revision, cluster_version: self.cluster_version() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enable(version: &str) -> DowngradeInfoSetRequest {
        DowngradeInfoSetRequest { enabled: true, ver: version.to_owned() }
    }

    #[test]
    fn versions_are_read_as_semver_reads_them() {
        let minor = |text| Release::parse(text).map(|release| release.to_string());
        for text in ["3.6", "3.6.0", "3.6.9", "3.6.0-rc.1", "3.6.0+build-7", "3.6.0-a+b"] {
            assert_eq!(minor(text).as_deref(), Some("3.6.0"), "{text}");
        }
        for text in [
            "",
            "3",
            "x",
            "v3.6",
            "3.6.0.0",
            "3.6.x",
            "3..0",
            "3.6.0-",
            "3.6.0-a..b",
            "3.6.0-ü",
            "9".repeat(30).as_str(),
        ] {
            let is_empty_suffix = text.ends_with('-');
            assert_eq!(minor(text).is_some(), is_empty_suffix, "{text}");
        }
    }

    #[test]
    fn one_step_down_at_a_time_and_back() {
        let idle = Downgrade::default();
        assert_eq!(idle.cluster_version().to_string(), "3.7.0");
        for refused in ["3.5.0", "3.7.0", "3.8.0", "2.6.0", "nonsense"] {
            assert_eq!(idle.evaluate(&enable(refused), 1).unwrap_err(), Refusal::DowngradeTarget, "{refused}");
        }
        let (effects, answer) = idle.evaluate(&enable("3.6.2"), 1).expect("one step");
        let [Effect::DowngradeSet(down)] = effects[..] else { panic!("{effects:?}") };
        assert!(matches!(answer, Answer::Downgrade { cluster_version, .. } if cluster_version == NEWEST));
        assert_eq!(
            (down.cluster_version().to_string(), down.cluster_version().minor_text()),
            ("3.6.0".into(), "3.6".into())
        );
        assert_eq!(down.evaluate(&enable("3.5.0"), 1).unwrap_err(), Refusal::DowngradeUnderWay);
        assert_eq!(down.evaluate(&enable("3.6.0"), 1).unwrap_err(), Refusal::DowngradeTarget);
        let cancel = DowngradeInfoSetRequest::default();
        let (effects, _) = down.evaluate(&cancel, 1).expect("always");
        assert_eq!(effects, [Effect::DowngradeSet(idle)]);
        assert_eq!(idle.evaluate(&cancel, 1).expect("always").0, []);
    }

    #[test]
    fn a_record_is_read_back_and_one_of_a_later_release_is_told() {
        let down = Downgrade { target: Some(NEWEST.before()) };
        let (key, value) = down.record();
        assert!(Downgrade::is_key(key) && !Downgrade::is_key(b"other"));
        let text = String::from_utf8(value.expect("one").to_vec()).expect("text");
        assert_eq!(Downgrade::to(Some(&text)), Ok(down));
        assert_eq!(Downgrade::default().record(), (KEY, None));
        let error = Downgrade::to(Some("3.9.0")).expect_err("from 3.10");
        assert!(error.to_string().contains(r#"a downgrade to "3.9.0""#), "{error}");
    }
}
