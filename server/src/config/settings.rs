//! What was set, by whom, checked by kind; what was not set has its default.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::error::ConfigError;
use super::feature_gates::FeatureGates;
use super::flag::{Flag, Kind, Status};
use super::url::Url;
use super::value::Value;

/// Where a value came from, as the operator would name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// `--name` on the command line.
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// A key of the config file, with its block.
    Key(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(formatter, "--{name}"),
            Self::Variable(name) => formatter.write_str(name),
            Self::Key(key) => write!(formatter, "config file key {key:?}"),
        }
    }
}

/// The values of all flags, from one of the sources.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    set: BTreeMap<&'static str, (Value, Origin)>,
    /// What the operator should know, in order of appearance.
    pub(super) warnings: Vec<String>,
}

impl Settings {
    /// Sets a flag; of two values the later one counts, feature gates add up.
    ///
    /// # Errors
    /// What is wrong with the value, in one clause.
    pub(super) fn set(&mut self, flag: &'static Flag, text: &str, origin: Origin) -> Result<(), String> {
        match flag.status {
            Status::AliasOf(target) => {
                self.warnings.push(format!("{origin} is an earlier name; use {target} instead"));
                let target = Flag::find(target).expect("the table's aliases name flags");
                self.set(target, text, origin)
            }
            Status::GateAlias(gate) => {
                self.warnings.push(format!("{origin} is an earlier name; use feature-gates {gate}= instead"));
                let Value::Bool(on) = Value::parse(Kind::Bool, text)? else { unreachable!("a bool was parsed") };
                let gates = Flag::find("feature-gates").expect("the table has feature-gates");
                self.set(gates, &format!("{gate}={on}"), origin)
            }
            Status::Works | Status::Refused(_) | Status::Ignored(_) => {
                let value = if flag.kind == Kind::Gates {
                    let mut gates = self.gates(flag.name);
                    gates.add(text)?;
                    Value::Gates(gates)
                } else {
                    Value::parse(flag.kind, text)?
                };
                self.set.insert(flag.name, (value, origin));
                Ok(())
            }
        }
    }

    /// Whether anybody set the flag.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.set.contains_key(name)
    }

    /// Names of all flags that were set.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.set.keys().copied()
    }

    /// How the operator set the flag, or would set it.
    pub(super) fn origin(&self, name: &str) -> String {
        self.set.get(name).map_or_else(|| format!("--{name}"), |(_, origin)| origin.to_string())
    }

    /// Refuses what is not available, and warns of what means nothing here. Defaults are always accepted.
    pub(super) fn check_status(&mut self) -> Result<(), ConfigError> {
        let mut warnings = Vec::new();
        for (name, (value, origin)) in &self.set {
            let flag = Flag::find(name).expect("only flags of the table are set");
            let default = Value::parse(flag.kind, flag.default).expect("defaults fit their kind");
            let advice = || format!("remove it or set it to its default ({:?})", flag.default);
            match flag.status {
                Status::Refused(why) if *value != default => {
                    return Err(ConfigError::invalid(format!("{origin} is refused: {why}"), advice()));
                }
                Status::Ignored(why) if *value != default => {
                    warnings.push(format!("{origin} is ignored: {why}"));
                }
                _ => {}
            }
        }
        self.warnings.append(&mut warnings);
        Ok(())
    }

    fn value(&self, name: &str) -> Value {
        if let Some((value, _)) = self.set.get(name) {
            return value.clone();
        }
        let flag = Flag::find(name).expect("only flags of the table are asked for");
        Value::parse(flag.kind, flag.default).expect("defaults fit their kind")
    }

    /// The value of a [`Kind::Text`] or [`Kind::OneOf`] flag.
    pub(super) fn text(&self, name: &str) -> String {
        let Value::Text(text) = self.value(name) else { panic!("{name} is not text") };
        text
    }

    /// The value of a [`Kind::Text`] flag; `None` if it is empty.
    pub(super) fn text_if_any(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// The value of a [`Kind::Bool`] flag.
    pub(super) fn bool(&self, name: &str) -> bool {
        let Value::Bool(on) = self.value(name) else { panic!("{name} is not a bool") };
        on
    }

    /// The value of a [`Kind::Unsigned`] or [`Kind::Unsigned32`] flag.
    pub(super) fn unsigned(&self, name: &str) -> u64 {
        let Value::Unsigned(number) = self.value(name) else { panic!("{name} has a sign") };
        number
    }

    /// The value of a [`Kind::Signed`] flag.
    pub(super) fn signed(&self, name: &str) -> i64 {
        let Value::Signed(number) = self.value(name) else { panic!("{name} has no sign") };
        number
    }

    /// The value of a [`Kind::Duration`] flag; `None` if it is zero or less, which etcd takes for "off" or "default".
    pub(super) fn duration(&self, name: &str) -> Option<Duration> {
        let Value::Nanoseconds(nanoseconds) = self.value(name) else { panic!("{name} is not a duration") };
        u64::try_from(nanoseconds).ok().filter(|nanoseconds| *nanoseconds > 0).map(Duration::from_nanos)
    }

    /// The value of a [`Kind::Urls`] flag. An empty text leaves the default, as in etcd.
    pub(super) fn urls(&self, name: &str) -> Vec<Url> {
        match self.value(name) {
            Value::Urls(urls) if !urls.is_empty() => urls,
            Value::Urls(_) => {
                let flag = Flag::find(name).expect("only flags of the table are asked for");
                if flag.default.is_empty() { Vec::new() } else { Url::parse_list(flag.default).expect("a default") }
            }
            _ => panic!("{name} is not a list of URLs"),
        }
    }

    /// The value of a [`Kind::List`] flag.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let Value::List(list) = self.value(name) else { panic!("{name} is not a list") };
        list
    }

    /// The value of a [`Kind::Origins`] flag; `None` allows all.
    pub(super) fn origins(&self, name: &str) -> Option<Vec<String>> {
        let Value::Origins(origins) = self.value(name) else { panic!("{name} is not a list of origins") };
        origins
    }

    /// The value of a [`Kind::Gates`] flag.
    pub(super) fn gates(&self, name: &str) -> FeatureGates {
        let Value::Gates(gates) = self.value(name) else { panic!("{name} does not hold feature gates") };
        gates
    }
}
