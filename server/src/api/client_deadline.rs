//! How long a client says that it waits (`grpc-timeout`). A client ends its call by itself then, and hears its own error; here the
//! call is counted as one whose time was up, and ends a little later where its client does not.

use std::time::Duration;

use http::HeaderMap;

use super::status::{Code, Status};

/// Where it stands.
pub const HEADER: &str = "grpc-timeout";
/// How long a client that has not ended its call has for it: an answer of ours should not come before its own.
pub(super) const GRACE: Duration = Duration::from_millis(100);
/// How much earlier than here a client's time may be up: as long as its request took to come.
const EARLY: Duration = Duration::from_millis(10);
/// Digits and a unit.
const BYTES_MAX: usize = 9;

/// What a client says, if it says anything.
///
/// # Errors
/// In grpc-go's words: it is no time.
pub fn of(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    parse(&text).map(Some).map_err(|why| Status::new(Code::Internal, format!("malformed grpc-timeout: {why}")))
}

/// What is kept of it for the count of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Some weeks at most: no call takes that long.
    millis: u32,
    /// What a call is counted as whose time was up.
    code: Code,
}

impl Patience {
    pub(super) fn new(patience: Duration, code: Code) -> Self {
        Self { millis: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX), code }
    }

    /// As what a call counts that its client gave up after so long: as one whose time was up, if it was.
    pub(super) fn given_up_after(self, after: Duration) -> Code {
        let is_up = after + EARLY >= Duration::from_millis(self.millis.into());
        if is_up { self.code } else { Code::Canceled }
    }
}

fn parse(text: &str) -> Result<Duration, String> {
    if text.len() < 2 {
        return Err(format!("transport: timeout string is too short: {text:?}"));
    }
    if text.len() > BYTES_MAX {
        return Err(format!("transport: timeout string is too long: {text:?}"));
    }
    let unit = text.chars().next_back().expect("two bytes at least");
    let digits = &text[..text.len() - unit.len_utf8()];
    let unit = match unit {
        'H' => Duration::from_secs(60 * 60),
        'M' => Duration::from_secs(60),
        'S' => Duration::from_secs(1),
        'm' => Duration::from_millis(1),
        'u' => Duration::from_micros(1),
        'n' => Duration::from_nanos(1),
        _ => return Err(format!("transport: timeout unit is not recognized: {text:?}")),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(format!("strconv.ParseUint: parsing {digits:?}: invalid syntax"));
    }
    // Eight digits at most.
    let number = digits.parse::<u32>().map_err(|error| error.to_string())?;
    Ok(unit * number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_given_up_early_was_cancelled() {
        let ms = Duration::from_millis;
        let after = |patience, spent| Patience::new(ms(patience), Code::Unavailable).given_up_after(ms(spent));
        assert_eq!((after(500, 489), after(500, 490)), (Code::Canceled, Code::Unavailable));
        assert_eq!((after(u64::MAX, 1 << 20), after(5, 0)), (Code::Canceled, Code::Unavailable));
    }

    #[test]
    fn times_are_read_as_grpc_go_does() {
        for (text, time) in [
            ("5S", Duration::from_secs(5)),
            ("0n", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("1500m", Duration::from_millis(1500)),
            ("10u", Duration::from_micros(10)),
            ("2M", Duration::from_secs(120)),
        ] {
            assert_eq!(parse(text), Ok(time), "{text}");
        }
        for (text, why) in [
            ("S", "transport: timeout string is too short: \"S\""),
            ("999999999H", "transport: timeout string is too long: \"999999999H\""),
            ("5x", "transport: timeout unit is not recognized: \"5x\""),
            ("5é", "transport: timeout unit is not recognized: \"5é\""),
            ("soon", "strconv.ParseUint: parsing \"soo\": invalid syntax"),
            ("-5S", "strconv.ParseUint: parsing \"-5\": invalid syntax"),
            ("+5S", "strconv.ParseUint: parsing \"+5\": invalid syntax"),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()));
        }
    }
}
