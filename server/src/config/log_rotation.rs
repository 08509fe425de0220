//! The value of `--log-rotation-config-json`, read as Go reads JSON into lumberjack's fields.

use serde_json::{Map, Value};

const MEGABYTE: u64 = 1 << 20;
/// What etcd's rotation takes for 0.
const SIZE_MEGABYTES_DEFAULT: u64 = 100;

/// When a log file is put aside, and what becomes of those that were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRotation {
    /// Bytes that a file may have, at least one mebibyte. Default 100 MiB.
    pub size_bytes_max: u64,
    /// Days after which one that was put aside is removed; 0 never. Default 0.
    pub age_days_max: u64,
    /// Most of those that were put aside; 0 for no limit. Default 0.
    pub backups_max: usize,
    /// Whether their names tell local time. Default UTC.
    pub local_time: bool,
    /// Whether they are compressed, by gzip. Default false.
    pub compress: bool,
}

impl LogRotation {
    /// Names count in upper and lower case, unknown ones and null are passed over, as in Go.
    ///
    /// # Errors
    /// What is wrong, beginning with etcd's words.
    pub(super) fn parse(json: &str) -> Result<Self, String> {
        let value =
            serde_json::from_str(json).map_err(|error| format!("improperly formatted log rotation config: {error}"))?;
        let fields = match value {
            Value::Object(fields) => fields,
            Value::Null => Map::new(),
            _ => return Err("invalid log rotation config: it is no object".to_owned()),
        };
        let mut rotation = Self {
            size_bytes_max: SIZE_MEGABYTES_DEFAULT * MEGABYTE,
            age_days_max: 0,
            backups_max: 0,
            local_time: false,
            compress: false,
        };
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            rotation
                .set(&name.to_ascii_lowercase(), value)
                .map_err(|kind| format!("invalid log rotation config: {name} is no {kind}"))?;
        }
        Ok(rotation)
    }

    /// # Errors
    /// What it should have been.
    fn set(&mut self, name: &str, value: &Value) -> Result<(), &'static str> {
        let number = || value.as_i64().ok_or("whole number");
        let limit = || number().map(|number| u64::try_from(number).unwrap_or(0));
        let flag = || value.as_bool().ok_or("bool");
        match name {
            "maxsize" => match number()? {
                0 => {}
                megabytes => {
                    let megabytes = u64::try_from(megabytes).map_err(|_| "size above zero")?;
                    self.size_bytes_max = megabytes.saturating_mul(MEGABYTE);
                }
            },
            "maxage" => self.age_days_max = limit()?,
            "maxbackups" => self.backups_max = usize::try_from(limit()?).unwrap_or(usize::MAX),
            "localtime" => self.local_time = flag()?,
            "compress" => self.compress = flag()?,
            // The file is that of --log-outputs, whatever stands here.
            "filename" => return value.as_str().map(drop).ok_or("text"),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(json: &str) -> LogRotation {
        LogRotation::parse(json).expect(json)
    }

    #[test]
    fn fields_and_defaults() {
        let default = parse("{}");
        assert_eq!(default.size_bytes_max, 100 << 20);
        assert_eq!(
            (default.age_days_max, default.backups_max, default.local_time, default.compress),
            (0, 0, false, false)
        );
        let own = super::super::flag::Flag::find("log-rotation-config-json").expect("a flag").default;
        assert_eq!(parse(own), default);
        assert_eq!(parse("null"), default);
        let all = r#"{"MaxSize": 2, "maxage": 3, "maxBackups": 4, "localtime": true, "compress": true, "what": [], "filename": "x"}"#;
        let expected =
            LogRotation { size_bytes_max: 2 << 20, age_days_max: 3, backups_max: 4, local_time: true, compress: true };
        assert_eq!(parse(all), expected);
        assert_eq!(parse(r#"{"maxage": -1, "maxbackups": -1, "maxsize": null}"#), default);
        assert_eq!(parse(r#"{"maxsize": 9223372036854775807}"#).size_bytes_max, u64::MAX);
        assert_eq!(parse(r#"{"maxsize": 1, "maxsize": 3}"#).size_bytes_max, 3 << 20);
    }

    #[test]
    fn what_cannot_be_is_told_in_etcds_words() {
        for (json, begins) in [
            ("", "improperly formatted log rotation config: "),
            ("{\"maxsize\": true", "improperly formatted log rotation config: "),
            ("{} {}", "improperly formatted log rotation config: "),
            ("{\"maxsize\": 1e999}", "improperly formatted log rotation config: "),
            ("[]", "invalid log rotation config: "),
            ("{\"maxsize\": true}", "invalid log rotation config: maxsize is no whole number"),
            ("{\"maxsize\": 1.5}", "invalid log rotation config: maxsize is no whole number"),
            ("{\"maxsize\": 18446744073709551615}", "invalid log rotation config: maxsize is no whole number"),
            ("{\"maxsize\": -1}", "invalid log rotation config: maxsize is no size above zero"),
            ("{\"maxAge\": \"1\"}", "invalid log rotation config: maxAge is no whole number"),
            ("{\"compress\": 1}", "invalid log rotation config: compress is no bool"),
            ("{\"filename\": 1}", "invalid log rotation config: filename is no text"),
        ] {
            let error = LogRotation::parse(json).expect_err(json);
            assert!(error.starts_with(begins), "{json}: {error}");
        }
        let deep = "[".repeat(100_000);
        assert!(LogRotation::parse(&deep).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn whatever_comes_is_read_or_refused(text in r#"[{}\[\]":,a-z0-9 .eE-]{0,40}"#, value in any::<f64>()) {
            let _ = LogRotation::parse(&text);
            let _ = LogRotation::parse(&format!("{{\"maxsize\": {value}}}"));
        }
    }
}
